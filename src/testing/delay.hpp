// SPDX-License-Identifier: Apache-2.0
//
// The delay tester: stops a thread right before its k-th access to shared memory, lets another
// thread run whole operations meanwhile, lets the first one go on, and does so for every k. The
// killers (kill_point.hpp, single_step.hpp) build the states that deaths leave; this builds the
// states that a slow process comes back to: the others have gone on, died, been reaped, and given
// its slot or its block to somebody new.
//
// The stopped operation and the others run as members of one process, each with a Member of its
// own (or with one Member, where threads of one process are the question). An operation that must
// wait for the stopped one is allowed to: the tester sees the wait and lets the stopped one go on.
// Only accesses through os::Atomic count, and only in builds with SHOAL_TESTING.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace shoal::testing {

// One operation that is stopped once.
class Delayed {
 public:
  // Starts `operation` in a thread of its own. Returns when that thread stands before its access
  // number `stop_at` (from 1 on), or sleeps on a futex, or has ended.
  Delayed(uint64_t stop_at, std::function<void()> operation);
  // Lets the operation end.
  ~Delayed();
  Delayed(const Delayed&) = delete;
  Delayed& operator=(const Delayed&) = delete;

  // Does it stand before that access? False: it sleeps, or has ended.
  [[nodiscard]] bool was_stopped() const noexcept { return was_stopped_; }
  // Runs `others` in the calling thread. Where they wait (they sleep on a futex, or make very many
  // accesses: a spin), the stopped operation goes on.
  void meanwhile(const std::function<void()>& others);
  // Did the others have to wait for it?
  [[nodiscard]] bool was_waited_for() const noexcept { return was_waited_for_; }
  // Lets the operation end. Throws what it threw. Aborts the program if the operation sleeps and
  // nobody wakes it.
  void go_on();
  // How many accesses it had until its end.
  [[nodiscard]] uint64_t accesses() const noexcept { return accesses_; }

 private:
  static void count_access(const void* address);
  static void count_others(const void* address);
  static void before_wait();
  static void before_sleep();
  void stop();
  void release();

  static thread_local Delayed* mine_;  // of the thread that is stopped, or that runs the others
  const uint64_t stop_at_;
  uint64_t accesses_ = 0;         // of the operation's thread
  uint64_t others_accesses_ = 0;  // of meanwhile()'s thread
  bool was_waited_for_ = false;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool was_stopped_ = false;
  bool sleeps_ = false;
  bool may_go_on_ = false;
  bool ended_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

struct DelayCounts {
  uint64_t accesses = 0;  // of the operation when nobody disturbs it
  uint64_t stops = 0;     // at how many of them it was stopped
  uint64_t waits = 0;     // how often the others had to wait for it
};

// Stops `operation` at each of its accesses, or, when it has more than `most_stops`, at that many,
// spread evenly from a random first one (SHOAL_EVERY_ACCESS=1: at each). For each stop: `prepare()`
// makes a fresh state, the operation runs up to the stop, `others()` run whole, the operation goes
// on to its end, `check(k)` looks at the state. The first round has k = 0: there `others()` run
// when the operation has ended, or sleeps. SHOAL_DELAY_AT=k tries only that stop.
DelayCounts delay_at_every_access(const std::function<void()>& prepare,
                                  const std::function<void()>& operation,
                                  const std::function<void()>& others,
                                  const std::function<void(uint64_t k)>& check,
                                  uint64_t most_stops = 300);

}  // namespace shoal::testing
