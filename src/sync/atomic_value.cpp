// SPDX-License-Identifier: Apache-2.0
#include "sync/atomic_value.hpp"

#include <bit>
#include <new>

#include "testing/kill_point.hpp"

namespace shoal::sync {

namespace {

double as_double(uint64_t bits) noexcept { return std::bit_cast<double>(bits); }

}  // namespace

void AtomicValue::create(arena::Arena& arena, arena::Handle handle, ValueKind kind,
                         uint64_t bits) noexcept {
  auto* state = new (arena.address(handle)) AtomicState{};
  state->kind = static_cast<uint32_t>(kind);
  state->magic = kMagic;
  state->bits.store(bits);
}

AtomicValue::AtomicValue(arena::Arena& arena, arena::Handle handle) : state_(nullptr) {
  if (handle % alignof(AtomicState) != 0 || !arena.contains(handle, sizeof(AtomicState)) ||
      arena.at<AtomicState>(handle)->magic != kMagic) {
    throw arena::CorruptArena("no atomic value at offset " + std::to_string(handle));
  }
  state_ = arena.at<AtomicState>(handle);
}

bool AtomicValue::less(uint64_t a, uint64_t b) const noexcept {
  switch (kind()) {
    case ValueKind::int64:
      return static_cast<int64_t>(a) < static_cast<int64_t>(b);
    case ValueKind::float64:
      return as_double(a) < as_double(b);
    default:
      return a < b;
  }
}

uint64_t AtomicValue::exchange(uint64_t bits) noexcept {
  // COMMIT(atomic.exchange.bits): killed before: nothing; after: changed, waiters see it by a tick.
  const uint64_t before = state_->bits.exchange(bits);
  SHOAL_KILL_POINT("atomic.exchange.bits");
  state_->waiters.notify_all();
  return before;
}

uint64_t AtomicValue::add(uint64_t operand) noexcept {
  // COMMIT(atomic.add.bits): killed before: nothing; after: added, waiters see it by a tick.
  const uint64_t before = state_->bits.fetch_add(operand);
  SHOAL_KILL_POINT("atomic.add.bits");
  state_->waiters.notify_all();
  return before;
}

// Repeats until no other thread has changed the bits in between; `change` returns the new bits.
template <class Change>
uint64_t AtomicValue::change(Change&& change) noexcept {
  uint64_t before = state_->bits.load();
  for (;;) {
    const uint64_t after = change(before);
    if (after == before) return before;
    // COMMIT(atomic.change.bits): killed before: nothing; after: changed, waiters see it by a tick.
    if (!state_->bits.compare_exchange(before, after)) continue;
    SHOAL_KILL_POINT("atomic.change.bits");
    state_->waiters.notify_all();
    return before;
  }
}

uint64_t AtomicValue::add_double(uint64_t operand) noexcept {
  return change(
      [&](uint64_t now) { return std::bit_cast<uint64_t>(as_double(now) + as_double(operand)); });
}

uint64_t AtomicValue::raise_to(uint64_t operand) noexcept {
  return change([&](uint64_t now) { return less(now, operand) ? operand : now; });
}

uint64_t AtomicValue::lower_to(uint64_t operand) noexcept {
  return change([&](uint64_t now) { return less(operand, now) ? operand : now; });
}

bool AtomicValue::compare_exchange(uint64_t& expected, uint64_t desired) noexcept {
  // COMMIT(atomic.compare.bits): killed before: nothing; after: changed, waiters see it by a tick.
  if (!state_->bits.compare_exchange(expected, desired)) return false;
  SHOAL_KILL_POINT("atomic.compare.bits");
  state_->waiters.notify_all();
  return true;
}

WaitResult AtomicValue::wait(uint64_t seen, int64_t deadline_ns) const noexcept {
  if (load() != seen) return WaitResult::ok;
  if (deadline_ns == 0) return WaitResult::timed_out;
  return wait(seen, listen(), deadline_ns);
}

WaitResult AtomicValue::wait(uint64_t seen, uint32_t first, int64_t deadline_ns) const noexcept {
  const auto other = [&] { return load() != seen; };
  if (spin_until(other)) return WaitResult::ok;
  Ticker ticker(deadline_ns);
  for (;;) {
    const uint32_t now = state_->waiters.prepare();
    if (other() || now != first) return WaitResult::ok;
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&state_->waiters.word(), now, &ticked);
    if (other()) return WaitResult::ok;
    if (wake == os::Wake::timed_out) return WaitResult::timed_out;
    if (wake == os::Wake::interrupted) return WaitResult::interrupted;
  }
}

}  // namespace shoal::sync
