// SPDX-License-Identifier: Apache-2.0
#include "arena/lock.hpp"

#include <thread>

#include "arena/run_intent.hpp"
#include "os/clock.hpp"
#include "os/futex.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {
constexpr uint64_t kLockWaiters = uint64_t{1} << 31;
constexpr int kSpins = 200;  // about 20 us with the yields: longer than any holder needs
constexpr int64_t kTickNs = 10'000'000;  // how often a waiter checks whether the holder lives
}  // namespace

RunsLock::RunsLock(Arena& arena, Incarnation me) noexcept : arena_(arena), me_(lock_word(me)) {
  uint64_t expected = 0;
  // COMMIT(arena.lock.take): killed before: nothing; after: the next waiter takes the lock over
  if (!arena_.header().lock.compare_exchange(expected, me_)) acquire_slowly();
  SHOAL_KILL_POINT("arena.lock.take");
}

RunsLock::~RunsLock() {
  // COMMIT(arena.lock.release): killed before: the next waiter takes the lock over; after: free (a
  // sleeper looks again after a tick)
  const uint64_t before = arena_.header().lock.exchange(0);
  SHOAL_KILL_POINT("arena.lock.release");
  if ((before & kLockWaiters) != 0) os::futex_wake(os::low_half(arena_.header().lock), 1);
}

bool RunsLock::take_over(uint64_t seen) noexcept {
  uint64_t expected = seen;
  // COMMIT(arena.lock.take_over): killed before: still the dead holder's; after: this member's, and
  // the intent is still to be completed
  if (!arena_.header().lock.compare_exchange(expected, me_ | kLockWaiters)) return false;
  SHOAL_KILL_POINT("arena.lock.take_over");
  finish_intent(arena_);
  return true;
}

void RunsLock::acquire_slowly() noexcept {
  os::Atomic<uint64_t>& lock = arena_.header().lock;
  uint64_t waiters = 0;  // kLockWaiters after a sleep: other threads may be asleep too
  for (int spin = 0;; ++spin) {
    uint64_t seen = lock.load();
    if (seen == 0) {
      if (lock.compare_exchange(seen, me_ | waiters)) return;
      continue;
    }
    if (spin < kSpins) {
      if (spin % 8 == 7) std::this_thread::yield();
      os::cpu_relax();
      continue;
    }
    const Incarnation holder = lock_owner(seen);
    if (!member_listed(arena_, holder) && take_over(seen)) return;
    if ((seen & kLockWaiters) == 0 && !lock.compare_exchange(seen, seen | kLockWaiters)) continue;
    waiters = kLockWaiters;
    const os::Wake wake =
        os::futex_wait(os::low_half(lock), static_cast<uint32_t>(seen | kLockWaiters),
                       os::monotonic_ns() + kTickNs);
    if (wake == os::Wake::timed_out && !member_alive(arena_, holder) &&
        take_over(seen | kLockWaiters))
      return;
  }
}

}  // namespace shoal::arena
