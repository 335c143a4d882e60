// SPDX-License-Identifier: Apache-2.0
#include "os/copy.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace shoal::os {

namespace {

constexpr std::size_t kThreads = 4;
constexpr std::size_t kStack = std::size_t{1}
                               << 20;  // has room for the thread-local storage of all libraries
constexpr std::size_t kHugePage = std::size_t{2} << 20;

struct Part {
  std::byte* to;
  const std::byte* from;
  std::size_t size;
};

void* copy_part(void* argument) noexcept {
  const auto* const part = static_cast<const Part*>(argument);
  std::memcpy(part->to, part->from, part->size);
  return nullptr;
}

// Does not read the cgroup's CPU quota from its files: with a lower quota the helpers are useless
// but not wrong.
std::size_t threads_granted() noexcept {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::clamp<std::size_t>(static_cast<std::size_t>(CPU_COUNT(&set)), 1, kThreads);
}

void copy_by_threads(std::byte* to, const std::byte* from, std::size_t size, std::size_t threads) {
  // Parts end at huge page boundaries, so that no two threads touch the same huge page first.
  // Rounding the part size up this far gives at most `threads` parts.
  const std::size_t each = (size / threads + 2 * kHugePage) / kHugePage * kHugePage;
  const std::size_t shift = reinterpret_cast<std::uintptr_t>(to) % kHugePage;
  Part parts[kThreads];
  pthread_t helpers[kThreads];
  std::size_t begin = std::min(size, each - shift);
  const Part own{to, from, begin};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStack);
  // The helpers inherit the mask: only the program's own threads shall receive signals.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::size_t started = 0;
  while (begin < size) {
    parts[started] = {to + begin, from + begin, std::min(each, size - begin)};
    if (pthread_create(&helpers[started], &attributes, copy_part, &parts[started]) != 0) break;
    begin += parts[started++].size;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  std::memcpy(own.to, own.from, own.size);
  if (begin < size) std::memcpy(to + begin, from + begin, size - begin);
  for (std::size_t i = 0; i < started; ++i) pthread_join(helpers[i], nullptr);
  pthread_attr_destroy(&attributes);
}

}  // namespace

void copy(void* to, const void* from, std::size_t size) noexcept {
  const std::size_t threads = size < kShareCopyFrom ? 1 : threads_granted();
  if (threads > 1) {
    copy_by_threads(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), size,
                    threads);
  } else if (size != 0) {
    std::memcpy(to, from, size);
  }
}

}  // namespace shoal::os
