// SPDX-License-Identifier: Apache-2.0
//
// The delay tester: stops a thread right before its k-th access to shared memory, runs whole
// operations in another thread, then lets the first thread continue. It does this for every k. The
// kill tests (kill_point.hpp, single_step.hpp) build the states that a death leaves. The delay
// tester builds the states that a slow process finds when it resumes: other members have continued,
// died, been reaped, and its slot or its block has a new owner.
//
// The stopped operation and the other operations run in one process, each with its own Member (or
// with a common Member, in tests of the threads of one process). An operation may wait for the
// stopped one: the tester notices the wait and lets the stopped operation continue. Only accesses
// through os::Atomic count, and only in builds with SHOAL_TESTING.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace shoal::testing {

// Does this thread of this process sleep in the kernel?
bool thread_sleeps(pid_t thread);

// One operation that is stopped once.
class Delayed {
 public:
  // Starts `operation` in its own thread. Returns when that thread is stopped before its access
  // number `stop_at` (counted from 1), or sleeps on a futex, or has ended. With `only`, accesses to
  // other addresses do not count.
  Delayed(uint64_t stop_at, std::function<void()> operation, const void* only = nullptr);
  // Lets the operation end.
  ~Delayed();
  Delayed(const Delayed&) = delete;
  Delayed& operator=(const Delayed&) = delete;

  // Is the operation stopped before that access? False: it sleeps, or has ended.
  [[nodiscard]] bool was_stopped() const noexcept { return was_stopped_; }
  // Runs `others` in the calling thread. When they wait (they sleep in the kernel, or they spin,
  // which shows as very many accesses), the stopped operation continues.
  void meanwhile(const std::function<void()>& others);
  // Did `others` have to wait for the stopped operation?
  [[nodiscard]] bool was_waited_for() const noexcept { return was_waited_for_; }
  // Lets the operation end. Rethrows its exception. Aborts the program if the operation sleeps and
  // no thread wakes it.
  void go_on();
  // How many accesses the operation made until its end.
  [[nodiscard]] uint64_t accesses() const noexcept { return accesses_; }

 private:
  static void count_access(const void* address);
  static void count_others(const void* address);
  static void before_sleep();
  void set_others(pid_t thread);
  void stop();
  void release();

  static thread_local Delayed* mine_;  // of the thread that is stopped, or that runs `others`
  const uint64_t stop_at_;
  const void* const only_;
  uint64_t accesses_ = 0;         // of the operation's thread
  uint64_t others_accesses_ = 0;  // of meanwhile()'s thread
  bool was_waited_for_ = false;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool was_stopped_ = false;
  bool sleeps_ = false;
  bool may_go_on_ = false;
  pid_t others_ = 0;  // the thread that is in meanwhile()
  bool ended_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

enum class OtherThread {
  not_run,  // the operation was not stopped
  ended,    // before the operation went on
  waited,   // until the operation went on
};

// Stops `operation` before its access number `stop_at`, runs `others`, and lets the operation end.
// If it makes fewer accesses, `others` run after it.
OtherThread delay_once(uint64_t stop_at, const std::function<void()>& operation,
                       const std::function<void()>& others, const void* only = nullptr);

struct DelayCounts {
  uint64_t accesses = 0;  // of the operation when it is not stopped
  uint64_t stops = 0;     // at how many accesses it was stopped
  uint64_t waits = 0;     // how often `others` had to wait for it
};

// Stops `operation` at each of its accesses. If there are more than `most_stops`, stops it at that
// many, spread evenly from a random first access (SHOAL_EVERY_ACCESS=1: at each access). For each
// stop: `prepare()` makes a fresh state, the operation runs up to the stop, `others()` run to their
// end, the operation runs to its end, and `check(k)` checks the state. The first round has k = 0:
// there `others()` run when the operation has ended, or sleeps. SHOAL_DELAY_AT=k tries only that
// stop.
DelayCounts delay_at_every_access(const std::function<void()>& prepare,
                                  const std::function<void()>& operation,
                                  const std::function<void()>& others,
                                  const std::function<void(uint64_t k)>& check,
                                  uint64_t most_stops = 300);

}  // namespace shoal::testing
