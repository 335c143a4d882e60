// SPDX-License-Identifier: Apache-2.0
//
// What does shared memory cost when a session is large?
//
//   reap   A member that holds ten blocks dies and is reaped, or leaves, while another member has n
//          small blocks: wall-clock time, the least of some rounds.
//   runs   n processes allocate and free blocks of 100 KB to 1 MB for some seconds, and touch each
//          block's first byte: pairs of allocate() and free() of all processes together, a second
//          and a second of processor time, and the time of one pair. If the pairs a second of
//          processor time are as many with n processes as with one, the throughput grows with the
//          processors. One pair is measured in 16, by the wall clock. So the time includes what the
//          process waits for a processor: with more processes than processors a process is
//          interrupted for milliseconds wherever it is, whatever the allocator does.
//
// Unfair on a machine that does anything else at the same time.
//
//   g++ -O2 -std=c++20 -Isrc bench/scale/memory.cpp build/<version>/libshoal_core.a
//       -pthread -o build/memory   (one line)
//   build/memory reap 0 1000000 10000000;   build/memory runs 1 2 8 64
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "os/clock.hpp"

namespace {

using namespace shoal;
using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;

double microseconds(int64_t ns) { return static_cast<double>(ns) / 1e3; }

// ---- reap

std::unique_ptr<Member> small_holder(const std::shared_ptr<Arena>& arena) {
  auto member = Member::join(arena, MemberKind::process);
  for (int i = 0; i < 8; ++i) (void)member->allocate(100);
  member->make_counted(member->allocate(200'000));
  member->share(member->allocate(300));
  return member;
}

void reap_beside(size_t others) {
  const auto arena = Arena::create({uint64_t{8} << 30, 0});
  const auto me = Member::join(arena, MemberKind::root);
  for (size_t i = 0; i < others; ++i) (void)me->allocate(64);
  int64_t reap_ns = INT64_MAX;
  int64_t leave_ns = INT64_MAX;
  for (int round = 0; round < 50; ++round) {
    auto member = small_holder(arena);
    const arena::Incarnation dead = member->incarnation();
    member->abandon_for_test();
    int64_t begin = os::monotonic_ns();
    if (!arena::reap(*arena, *me, dead)) std::abort();
    reap_ns = std::min(reap_ns, os::monotonic_ns() - begin);
    member = small_holder(arena);
    begin = os::monotonic_ns();
    member->leave();
    leave_ns = std::min(leave_ns, os::monotonic_ns() - begin);
  }
  std::printf("%9zu blocks of others: reap %9.1f us, exit %9.1f us\n", others,
              microseconds(reap_ns), microseconds(leave_ns));
}

// ---- runs

constexpr int kSeconds = 4;
constexpr unsigned kSampled = 16;  // one pair in so many is measured
constexpr size_t kBuckets = 64 * 16;

// Times, as a histogram: 16 buckets a doubling.
struct Times {
  os::Atomic<uint64_t> pairs;
  os::Atomic<uint64_t> most_ns;
  os::Atomic<uint64_t> counts[kBuckets];

  void add(uint64_t ns) {
    ns = std::max<uint64_t>(ns, 16);
    const auto log = 63U - static_cast<unsigned>(__builtin_clzll(ns));
    counts[log * 16 + (ns >> (log - 4) & 15)].fetch_add(1);
    uint64_t most = most_ns.load();
    while (ns > most && !most_ns.compare_exchange(most, ns)) continue;
  }
  double quantile_us(double share) const {
    uint64_t total = 0;
    for (const auto& count : counts) total += count.load();
    auto left = static_cast<uint64_t>(static_cast<double>(total) * share);
    for (size_t i = 0; i < kBuckets; ++i) {
      const uint64_t here = counts[i].load();
      if (here > left) return static_cast<double>((16 + i % 16) << (i / 16)) / 16 / 1e3;
      left -= here;
    }
    return static_cast<double>(most_ns.load()) / 1e3;
  }
};

struct Board {
  os::Atomic<uint32_t> ready;
  os::Atomic<uint32_t> go;
  os::Atomic<uint32_t> stop;
  Times times;
};

void allocate_and_free(const std::shared_ptr<Arena>& arena, Board& board, uint32_t seed) {
  const auto member = Member::join(arena, MemberKind::process);
  uint64_t pairs = 0;
  board.ready.fetch_add(1);
  while (board.go.load() == 0) usleep(1000);
  for (unsigned i = 0; board.stop.load() == 0; ++i) {
    seed = seed * 1664525 + 1013904223;
    const size_t bytes = 100'000 + seed % 900'000;
    const bool sampled = i % kSampled == 0;
    const int64_t begin = sampled ? os::monotonic_ns() : 0;
    const Handle b = member->allocate(bytes);
    *static_cast<volatile std::byte*>(arena->address(b)) = std::byte{1};
    member->free(b);
    if (sampled) board.times.add(static_cast<uint64_t>(os::monotonic_ns() - begin));
    ++pairs;
  }
  board.times.pairs.fetch_add(pairs);
}

double children_seconds() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void runs_with(uint32_t processes) {
  const auto arena = Arena::create({uint64_t{8} << 30, 0});
  const auto me = Member::join(arena, MemberKind::root);
  auto* const board = new (arena->address(me->allocate(sizeof(Board)))) Board{};
  for (uint32_t i = 0; i < processes; ++i) {
    if (fork() != 0) continue;
    allocate_and_free(arena, *board, i);
    _exit(0);
  }
  while (board->ready.load() < processes) usleep(1000);
  board->go.store(1);
  sleep(kSeconds);
  board->stop.store(1);
  const double before = children_seconds();
  while (wait(nullptr) > 0) continue;
  const double used = children_seconds() - before;
  const Times& times = board->times;
  std::printf(
      "%4u processes: %8.0f pairs a second, %8.0f a processor second, p50 %5.2f us, p99 %6.2f us, "
      "p99.9 %8.2f us, most %10.2f us\n",
      processes, static_cast<double>(times.pairs.load()) / kSeconds,
      static_cast<double>(times.pairs.load()) / used, times.quantile_us(0.5),
      times.quantile_us(0.99), times.quantile_us(0.999),
      static_cast<double>(times.most_ns.load()) / 1e3);
}

}  // namespace

int main(int count, char** arguments) {
  std::printf("%u processors\n", std::thread::hardware_concurrency());
  for (int i = 2; i < count; ++i) {
    const auto n = static_cast<size_t>(std::atoll(arguments[i]));
    std::fflush(stdout);
    if (std::strcmp(arguments[1], "reap") == 0) reap_beside(n);
    if (std::strcmp(arguments[1], "runs") == 0) runs_with(static_cast<uint32_t>(n));
  }
  return 0;
}
