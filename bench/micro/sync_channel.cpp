// SPDX-License-Identifier: Apache-2.0
//
// What do locks and channels cost? One thread, two threads of two members, two processes. A table
// of medians of several rounds, in ns. Unfair on a machine that does anything else at the same
// time, and the two-process rows mean nothing on one processor.
//
//   g++ -O2 -std=c++20 -Isrc bench/micro/sync_channel.cpp build/<version>/libshoal_core.a
//       -pthread -o build/sync_channel   (one line)
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "channel/channel.hpp"
#include "sync/mutex.hpp"
#include "sync/semaphore.hpp"

namespace {

using namespace shoal;

constexpr int kRounds = 7;

int64_t now_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

// Median of nanoseconds per operation: of this thread's processor time, or of the wall clock.
double median(int operations, const std::function<void(int)>& run,
              clockid_t clock = CLOCK_THREAD_CPUTIME_ID) {
  std::vector<double> rounds;
  run(operations / 10 + 1);
  for (int i = 0; i < kRounds; ++i) {
    const int64_t begin_ns = now_ns(clock);
    run(operations);
    rounds.push_back(static_cast<double>(now_ns(clock) - begin_ns) / operations);
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[kRounds / 2];
}

void row(const char* what, double ns) { std::printf("%-58s %9.1f ns\n", what, ns); }

struct Bench {
  std::shared_ptr<arena::Arena> arena = arena::Arena::create();
  std::unique_ptr<arena::Member> me = arena::Member::join(arena, arena::MemberKind::root);

  // Runs `partner` in a second process while `run` is measured.
  double with_partner(int operations, const std::function<void(arena::Member&)>& partner,
                      const std::function<void(int)>& run, const std::function<void()>& stop) {
    const pid_t child = fork();
    if (child == 0) {
      auto member = arena::Member::join(arena, arena::MemberKind::process);
      partner(*member);
      member->leave();
      _exit(0);
    }
    const double ns = median(operations, run, CLOCK_MONOTONIC);
    stop();
    waitpid(child, nullptr, 0);
    return ns;
  }
};

arena::Handle small_message(arena::Member& member) {
  const uint64_t value = 1;
  return channel::make_message(member, std::as_bytes(std::span(&value, 1)), {});
}

void in_one_thread(Bench& bench) {
  arena::Member& me = *bench.me;
  const arena::Handle lock = me.allocate(64);
  sync::Mutex::create(*bench.arena, lock);
  sync::Mutex mutex(*bench.arena, lock);
  row("mutex: lock + unlock, nobody else", median(2'000'000, [&](int n) {
        for (int i = 0; i < n; ++i) {
          static_cast<void>(mutex.lock(me));
          mutex.unlock(me);
        }
      }));
  const arena::Handle permits = me.allocate(64);
  sync::Semaphore::create(*bench.arena, permits, 1);
  sync::Semaphore semaphore(*bench.arena, permits);
  row("semaphore: acquire + release, nobody else", median(2'000'000, [&](int n) {
        for (int i = 0; i < n; ++i) {
          static_cast<void>(semaphore.acquire(me));
          static_cast<void>(semaphore.release(me));
        }
      }));
  row("allocate + free, 64 bytes", median(2'000'000, [&](int n) {
        for (int i = 0; i < n; ++i) me.free(me.allocate(64));
      }));
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1} << 30}) {
    const auto channel = channel::Channel::open(me, bytes != 0 ? "one b" : "one",
                                                channel::Channel::Open::create, {1024, bytes});
    const arena::Handle message = small_message(me);
    row(bytes != 0 ? "ring: push + pop, with a byte limit" : "ring: push + pop",
        median(1'000'000, [&](int n) {
          for (int i = 0; i < n; ++i) {
            static_cast<void>(channel->ring().try_push(me, message, 64));
            static_cast<void>(channel->ring().try_pop(me));
          }
        }));
    row("channel: make message + send + receive + free", median(1'000'000, [&](int n) {
          for (int i = 0; i < n; ++i) {
            static_cast<void>(channel->send(me, small_message(me)));
            arena::Handle got = 0;
            static_cast<void>(channel->receive(me, &got));
            channel::free_message(me, got);
          }
        }));
  }
}

void between_processes(Bench& bench) {
  arena::Member& me = *bench.me;
  const auto there = channel::Channel::open(me, "there");
  const auto back = channel::Channel::open(me, "back");
  row("channel: a message to another process (stream)",
      bench.with_partner(
          1'000'000,
          [&](arena::Member& member) {
            arena::Handle got = 0;
            while (there->receive(member, &got) == channel::Received::ok) {
              channel::free_message(member, got);
            }
          },
          [&](int n) {
            for (int i = 0; i < n; ++i) static_cast<void>(there->send(me, small_message(me)));
          },
          [&] { there->close(me); }));
  const auto ping = channel::Channel::open(me, "ping");
  row("channel: round trip to another process",
      bench.with_partner(
          100'000,
          [&](arena::Member& member) {
            arena::Handle got = 0;
            while (ping->receive(member, &got) == channel::Received::ok) {
              static_cast<void>(back->send(member, got));
            }
          },
          [&](int n) {
            for (int i = 0; i < n; ++i) {
              static_cast<void>(ping->send(me, small_message(me)));
              arena::Handle got = 0;
              static_cast<void>(back->receive(me, &got));
              channel::free_message(me, got);
            }
          },
          [&] { ping->close(me); }));
  const arena::Handle a = me.allocate(64);
  const arena::Handle b = me.allocate(64);
  sync::Semaphore::create(*bench.arena, a, 0);
  sync::Semaphore::create(*bench.arena, b, 0);
  sync::Semaphore to(*bench.arena, a);
  sync::Semaphore from(*bench.arena, b);
  row("semaphores: round trip to another process",
      bench.with_partner(
          100'000,
          [&](arena::Member& member) {
            while (to.acquire(member, os::monotonic_ns() + 1'000'000'000) == sync::WaitResult::ok) {
              static_cast<void>(from.release(member));
            }
          },
          [&](int n) {
            for (int i = 0; i < n; ++i) {
              static_cast<void>(to.release(me));
              static_cast<void>(from.acquire(me));
            }
          },
          [] {}));
  const arena::Handle c = me.allocate(64);
  sync::Mutex::create(*bench.arena, c);
  sync::Mutex mutex(*bench.arena, c);
  auto* const stop = bench.arena->at<os::Atomic<uint32_t>>(me.allocate(64));
  stop->store(0);
  row("mutex: lock + unlock, another process doing the same",
      bench.with_partner(
          500'000,
          [&](arena::Member& member) {
            while (stop->load() == 0) {
              static_cast<void>(mutex.lock(member));
              mutex.unlock(member);
            }
          },
          [&](int n) {
            for (int i = 0; i < n; ++i) {
              static_cast<void>(mutex.lock(me));
              mutex.unlock(me);
            }
          },
          [&] { stop->store(1); }));
}

}  // namespace

int main() {
  channel::register_reap_hooks();
  Bench bench;
  in_one_thread(bench);
  between_processes(bench);
  return 0;
}
