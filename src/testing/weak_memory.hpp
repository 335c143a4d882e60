// SPDX-License-Identifier: Apache-2.0
//
// Simulated memory for tests: runs two or more operations, one thread each, one access at a time,
// in a memory that keeps only the promises of the C++ memory model. x86 keeps many more: there a
// store that should be a release works as well when it is relaxed. Here it does not:
//
// 1. A word has a history of values. A load may return an older value than the latest one, down to
//    the newest that its thread must know: one that it has read or written itself, or that it has
//    learned of by an acquire that read a release.
// 2. A store that is not ordered after another thread's store may come before it in the history,
//    as if it had left its processor's buffer late.
// 3. seq_cst accesses have one order, which is the order in which they run; a seq_cst load returns
//    no older value than the last seq_cst access of that word. An exchange, an addition and so on
//    change the latest value. A compare-exchange that fails is a load.
// 4. os::futex_wait() sleeps in the simulation, until os::futex_wake(); the system call sees the
//    latest value. If all threads sleep, a wait that has a time limit ends: counted as `timeouts`,
//    since a wake-up that was lost shows like this. If none has, the wake-up is `lost`.
//
// What is not simulated: a store that is visible before an earlier load of its own thread has run
// (load buffering); plain accesses, which PlainWord stands for. A store that is not simulated
// (memset, a constructor, a thread that ends) begins a new history of the word, and who acquires it
// knows all. So does an access to a word in another size than the last one.
//
// Only words in the ranges that the scene names are simulated. Other words are accessed in order.
// Needs a build with SHOAL_TESTING.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "os/atomic.hpp"

namespace shoal::testing {

// A word that stands for plain data: nothing but the accesses around it orders its own.
class PlainWord {
 public:
  // order: relaxed, both; as above
  void set(uint64_t value) noexcept { word_.store(value, os::relaxed); }
  [[nodiscard]] uint64_t get() const noexcept { return word_.load(os::relaxed); }

 private:
  os::Atomic<uint64_t> word_;
};

struct SimulatedRange {
  const void* begin;
  size_t bytes;
};

struct WeakScene {
  // Makes a fresh state; says which memory the operations share.
  std::function<std::vector<SimulatedRange>()> prepare;
  // Each runs in a thread of its own.
  std::vector<std::function<void()>> operations;
  // Runs when all operations have ended, on memory as it is then. `run` names the run, so that it
  // can be tried again. False: no further runs.
  std::function<bool(const std::string& run)> check;
};

struct WeakCounts {
  uint64_t runs = 0;
  uint64_t accesses = 0;
  uint64_t switches = 0;  // to another thread
  uint64_t stale = 0;     // loads of a value that was not the latest
  uint64_t late = 0;      // stores that came before an earlier one in the history
  uint64_t timeouts = 0;  // waits that ended because nothing else could run
  uint64_t lost = 0;      // waits without a time limit that nothing could end
  bool failed = false;    // check() returned false, or a wake-up was lost
  bool complete = false;  // weak_every(): no run within the limits is left
};

// Runs the scene with random choices, for `seeds` seeds. SHOAL_WEAK_SEED=n runs only seed n, as a
// failure says; SHOAL_WEAK_SEEDS=n runs n times as many. SHOAL_WEAK_TRACE=1 prints each access.
WeakCounts weak_random(const WeakScene& scene, unsigned seeds);

// Every run with at most this many choices that differ from a run one operation after the other
// with each load seeing the latest value.
struct WeakLimits {
  unsigned switches = 1;  // a thread is stopped, and another goes on
  unsigned stale = 1;
  unsigned late = 1;
  uint64_t runs = 20'000;  // gives up after so many
};
WeakCounts weak_every(const WeakScene& scene, const WeakLimits& limits);

}  // namespace shoal::testing
