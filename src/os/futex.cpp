// SPDX-License-Identifier: Apache-2.0
#include "os/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

namespace shoal::os {

Wake futex_wait(Atomic<uint32_t>* word, uint32_t expected, int64_t deadline_ns) noexcept {
  before_access(word);  // the kernel's access, which tests may delay like any other
#if defined(SHOAL_TESTING) && SHOAL_TESTING
  if (wait_hook != nullptr) wait_hook();
  if (futex_model != nullptr) return futex_model->wait(word, expected, deadline_ns >= 0);
#endif
  timespec deadline{};
  timespec* limit = nullptr;
  if (deadline_ns >= 0) {
    deadline.tv_sec = deadline_ns / 1'000'000'000;
    deadline.tv_nsec = deadline_ns % 1'000'000'000;
    limit = &deadline;
  }
  const int saved = errno;
  const long result = syscall(SYS_futex, word->raw(), FUTEX_WAIT_BITSET, expected, limit, nullptr,
                              FUTEX_BITSET_MATCH_ANY);
  const int error = result == 0 ? 0 : errno;
  errno = saved;
  switch (error) {
    case 0:
      return Wake::woken;
    case ETIMEDOUT:
      return Wake::timed_out;
    case EAGAIN:
      return Wake::changed;
    default:
      return Wake::interrupted;
  }
}

int futex_wake(Atomic<uint32_t>* word, int count) noexcept {
  before_access(word);
#if defined(SHOAL_TESTING) && SHOAL_TESTING
  if (futex_model != nullptr) return futex_model->wake(word, count, 0);
#endif
  const int saved = errno;
  const long woken = syscall(SYS_futex, word->raw(), FUTEX_WAKE, count, nullptr, nullptr, 0);
  errno = saved;
  return woken > 0 ? static_cast<int>(woken) : 0;
}

void futex_increment_and_wake_all(Atomic<uint32_t>* word) noexcept {
  before_access(word);
  constexpr int kAll = INT_MAX;
#if defined(SHOAL_TESTING) && SHOAL_TESTING
  if (futex_model != nullptr) {
    futex_model->wake(word, kAll, 1);
    return;
  }
#endif
  const int saved = errno;
  // The kernel changes the word while it holds the lock of the word's queue. The operation could
  // also wake sleepers of a second word; here that is the same word, and no sleeper is left.
  const long woken = syscall(SYS_futex, word->raw(), FUTEX_WAKE_OP, kAll, nullptr, word->raw(),
                             FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_LT, 0));
  errno = saved;
  if (woken >= 0) return;
  // An emulator without this operation: two steps. A thread that goes to sleep before the increment
  // stays asleep if this thread is stopped before the second step.
  word->fetch_add(1);
  futex_wake(word, kAll);
}

}  // namespace shoal::os
