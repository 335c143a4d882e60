// SPDX-License-Identifier: Apache-2.0
//
// Waiting: a short adaptive spin, then the kernel. Any thread of any member may wait; a wait
// allocates nothing, throws nothing, and never sleeps past an absolute deadline.
//
// Every wait in shoal follows the same four steps, and the argument that no wake-up is lost is the
// same for all of them:
//   waiter:  W1 set the waiters bit in the futex word (read-modify-write), keep the value seen
//            W2 look whether the condition holds
//            W3 futex_wait(word, value seen)
//   waker:   P1 publish
//            P2 read the word's waiters bit (or change the word)
//            P3 if the bit is set: change the word, then futex_wake
//
// All are seq_cst, so W1 W2 P1 P2 have one order. If P1 comes before W2, the waiter sees it. Else
// W1 < W2 < P1 < P2, so the waker sees the bit, changes the word and calls the kernel: either W3
// finds the word changed and returns, or the waiter is in the kernel's queue and is woken.
// Where P1 changes the futex word itself (mutex, semaphore, event), P2 is part of P1.
//
// A wake-up can still be held back by two members, if they are killed or stopped: by the waker
// between P1 and P3, and by the woken waiter before it has used the notification. So no waiter
// sleeps longer than one tick (kLastTickNs at most) before it checks the condition again, whatever
// the other members do, and even if no member reaps. If an agent reaps, held words (sync/holds.hpp)
// let it repair immediately what a dead member has left.
//
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "os/atomic.hpp"
#include "os/clock.hpp"
#include "os/futex.hpp"

namespace shoal::sync {

// interrupted: by a signal. Nothing was acquired or consumed; the caller runs its signal handlers
// and waits again with the same deadline.
enum class WaitResult : uint8_t { ok, timed_out, interrupted };

inline constexpr int64_t kForever = -1;

// Bounds of a tick: the time after which a sleeping waiter checks the condition again, and whether
// the members that it depends on are alive.
inline constexpr int64_t kFirstTickNs = 10'000'000;
inline constexpr int64_t kLastTickNs = 250'000'000;
constexpr int64_t tick_after(int64_t tick_ns) noexcept {
  return tick_ns * 2 < kLastTickNs ? tick_ns * 2 : kLastTickNs;
}

// Spinning pays only while another thread can run: at most usable_cpus() - 1 threads of this
// process spin at the same time, and none on one processor.
class SpinPermit {
 public:
  SpinPermit() noexcept;
  ~SpinPermit();
  SpinPermit(const SpinPermit&) = delete;
  SpinPermit& operator=(const SpinPermit&) = delete;
  explicit operator bool() const noexcept { return granted_; }

 private:
  bool granted_;
};

// How long this thread's next spin may take. A successful spin doubles it, a failed one halves it;
// every 16th spin in a row of failures gets the full budget, so that a changed rhythm is noticed.
int64_t spin_budget_ns() noexcept;
void spin_ended(bool success) noexcept;

// Gives the rest of the time slice to other threads of this processor. The kernel tends to put a
// waker and the thread that it wakes on one core, where a spin without yields delays the other.
void yield_processor() noexcept;

// Spins until ready() is true. False when the spin's budget is used up or spinning is not worth it.
template <class Ready>
bool spin_until(Ready&& ready) {
  const SpinPermit permit;
  if (!permit) return ready();
  const int64_t end_ns = os::monotonic_ns() + spin_budget_ns();
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) {
        spin_ended(true);
        return true;
      }
      os::cpu_relax();
    }
    yield_processor();
  } while (os::monotonic_ns() < end_ns);
  spin_ended(false);
  return ready();
}

// Sleeps in slices of one tick until the deadline, so that the caller can check its condition in
// between.
class Ticker {
 public:
  explicit Ticker(int64_t deadline_ns) noexcept : deadline_ns_(deadline_ns) {}

  // The result of os::futex_wait. timed_out: the deadline itself has passed. `*ticked`: a slice has
  // ended, and the result is `woken`, as for a spurious wake.
  os::Wake sleep(os::Atomic<uint32_t>* word, uint32_t expected, bool* ticked) noexcept;

 private:
  int64_t deadline_ns_;
  int64_t pause_ns_ = kFirstTickNs;
};

}  // namespace shoal::sync
