// SPDX-License-Identifier: Apache-2.0
//
// What does a block cost? Allocating, freeing and moving, small and large, in a small arena and in
// one with 1 GiB in use, and reaping. Medians of several rounds of this thread's processor time, so
// that other work on the machine disturbs little; caches are still shared with it.
//
//   g++ -O2 -std=c++20 -Isrc bench/micro/arena.cpp build/<version>/libshoal_core.a
//       -pthread -o build/arena_bench   (one line)
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "arena/arena.hpp"

namespace {

using namespace shoal::arena;

constexpr int kRounds = 7;

int64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

double median(int operations, const std::function<void(int)>& run) {
  std::vector<double> rounds;
  run(operations / 10 + 1);
  for (int i = 0; i < kRounds; ++i) {
    const int64_t begin_ns = now_ns();
    run(operations);
    rounds.push_back(static_cast<double>(now_ns() - begin_ns) / operations);
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[kRounds / 2];
}

void row(const char* what, double ns) { std::printf("%-58s %9.1f ns\n", what, ns); }

struct Bench {
  std::shared_ptr<Arena> arena = Arena::create();
  std::unique_ptr<Member> me = Member::join(arena, MemberKind::root);

  double pair(size_t bytes, int operations) {
    return median(operations, [&](int n) {
      for (int i = 0; i < n; ++i) me->free(me->allocate(bytes));
    });
  }

  // Allocated here, freed by another member, as a message is.
  double message(size_t bytes, int operations) {
    const auto other = Member::join(arena, MemberKind::process);
    return median(operations, [&](int n) {
      for (int i = 0; i < n; ++i) {
        const Handle b = me->allocate(bytes);
        if (me->give_to_channel(b, 1, 1) && other->take_from_channel(b, 1, 1)) other->free(b);
      }
    });
  }

  double counted() {
    const Handle b = me->allocate(kPage);
    me->make_counted(b);
    const double ns = median(100'000, [&](int n) {
      for (int i = 0; i < n; ++i) {
        me->hold(b);
        me->drop(b);
      }
    });
    me->drop(b);
    return ns;
  }

  // By a member that does not hold the block yet, while another one does.
  double held_by_another() {
    const auto other = Member::join(arena, MemberKind::process);
    const Handle b = me->allocate_shareable(48);
    me->share(b);
    const double ns = median(100'000, [&](int n) {
      for (int i = 0; i < n; ++i) {
        if (other->hold_shared(b)) static_cast<void>(other->drop_shared(b));
      }
    });
    if (me->drop_shared(b)) me->free(b);
    return ns;
  }

  double shared() {
    return median(100'000, [&](int n) {
      for (int i = 0; i < n; ++i) {
        const Handle b = me->allocate_shareable(48);
        me->share(b);
        if (me->drop_shared(b)) me->free(b);
      }
    });
  }

  double reaping() {
    return median(50, [&](int n) {
      for (int i = 0; i < n; ++i) {
        const auto victim = Member::join(arena, MemberKind::process);
        for (int k = 0; k < 10; ++k) (void)victim->allocate(500);
        const Incarnation dead = victim->incarnation();
        victim->abandon_for_test();
        reap(*arena, *me, dead);
      }
    });
  }
};

void measure(Bench& bench) {
  row("allocate + free, 64 bytes", bench.pair(64, 1'000'000));
  row("allocate + free, 4 KiB", bench.pair(4096, 1'000'000));
  row("allocate, send, receive, free by another, 200 bytes", bench.message(200, 500'000));
  row("allocate + free, 64 KiB", bench.pair(64 << 10, 100'000));
  row("allocate + free, 1 MiB", bench.pair(1 << 20, 100'000));
  row("allocate + free, 100 MiB", bench.pair(100 << 20, 1'000));
  row("hold + drop of a block that this process holds already", bench.counted());
  row("hold + drop by a member while another holds the block", bench.held_by_another());
  row("allocate, share, drop as the only holder, free, 48 bytes", bench.shared());
  row("join, 10 blocks, death, reap", bench.reaping());
}

}  // namespace

int main() {
  Bench bench;
  std::printf("a small arena\n");
  measure(bench);
  std::vector<Handle> ballast;
  for (int i = 0; i < 1'000'000; ++i) ballast.push_back(bench.me->allocate(1000));
  std::printf("with a million blocks of 1000 bytes in use\n");
  measure(bench);
  return 0;
}
