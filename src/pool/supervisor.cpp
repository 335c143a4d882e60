// SPDX-License-Identifier: Apache-2.0
#include "pool/supervisor.hpp"

#include <algorithm>
#include <csignal>

#include "os/clock.hpp"
#include "pool/open_batches.hpp"
#include "testing/kill_point.hpp"

namespace shoal::pool {

namespace {

constexpr int64_t kRepeatNs = 100'000'000;  // a swallowed interrupt is sent again
// how often a stop request of the client is checked while it is open
constexpr int64_t kLookNs = 20'000'000;

// A worker that was killed from outside while it started says little about the next start, unless
// it had run for long: then the cause may be the memory that its initializer allocates.
uint32_t weight_of_failed_start(uint32_t status, int64_t lasted_ns) noexcept {
  const uint32_t number = status & 0x7f;  // WTERMSIG
  if (number != SIGKILL && number != SIGTERM) return kFailedStart;
  const int64_t weight = kKilledStart + lasted_ns / kKilledStartNs;
  return weight < kFailedStart ? static_cast<uint32_t>(weight) : kFailedStart;
}

}  // namespace

Supervisor::Supervisor(arena::Member& member, Handle pool)
    : member_(member),
      state_(member.arena().at<PoolState>(pool)),
      seats_(PoolState::seats_of(member.arena(), pool)),
      ladders_(seats_),
      ranks_(seats_),
      seated_ns_(seats_) {}

bool Supervisor::wants_workers() const noexcept {
  return state_->magic == kPoolMagic && static_cast<Phase>(state_->phase.load()) == Phase::running;
}

uint32_t Supervisor::seated() const noexcept {
  uint32_t count = 0;
  for (uint32_t i = 0; i < seats_; ++i) {
    const Life life = life_of(state_->seat(i)->life.load());
    count += life == Life::starting || life == Life::ready ? 1 : 0;
  }
  return count;
}

int Supervisor::take_seat() noexcept {
  for (uint32_t i = 0; i < seats_; ++i) {
    Seat* seat = state_->seat(i);
    if (life_of(seat->life.load()) != Life::empty) continue;
    const auto rank = std::find(ranks_.begin(), ranks_.end(), 0);
    seat->rank.store(static_cast<uint32_t>(rank - ranks_.begin()));
    if (rank != ranks_.end()) *rank = 1;
    ladders_[i] = {};
    seated_ns_[i] = os::monotonic_ns();
    // COMMIT(pool.seat.taken): killed before: the seat is empty; after: the client finds no process
    // for the seat and marks it DEAD.
    seat->life.store(life_word(Life::starting, 0));
    SHOAL_KILL_POINT("pool.seat.taken");
    return static_cast<int>(i);
  }
  return -1;
}

void Supervisor::set_pid(uint32_t seat, uint32_t pid) noexcept {
  state_->seat(seat)->pid.store(pid);
}

void Supervisor::leave_rank(uint32_t seat) noexcept {
  const uint32_t rank = state_->seat(seat)->rank.load();
  if (rank < ranks_.size()) ranks_[rank] = 0;
}

void Supervisor::free_seat(uint32_t seat) noexcept {
  leave_rank(seat);
  state_->seat(seat)->life.store(life_word(Life::empty, 0));
}

bool Supervisor::left_nothing(uint32_t index, const Exit& exit) const noexcept {
  const Seat& seat = *state_->seat(index);
  return exit.status == 0 && life_of(seat.life.load()) == Life::ready &&
         static_cast<ExitKind>(seat.exit_kind.load()) == ExitKind::planned &&
         seat.entered.load() == 0 && seat.pending.load() == 0;
}

void Supervisor::record_exit(uint32_t index, const Exit& exit) {
  Seat& seat = *state_->seat(index);
  const Incarnation worker = life_worker(seat.life.load());
  if (worker != 0) {
    arena::reap(member_.arena(), member_, worker);
  } else {
    arena::reap_all_dead(member_.arena(), member_);  // the worker died before it took its seat
  }
  leave_rank(index);
  seat.exit_status.store(exit.status);
  seat.peak_memory.store(exit.peak_memory);
  seat.memory_limit.store(exit.memory_limit ? 1 : 0);
  if (life_of(seat.life.load()) == Life::starting) {
    state_->failed_starts.fetch_add(
        weight_of_failed_start(exit.status, os::monotonic_ns() - seated_ns_[index]));
  }
  if (left_nothing(index, exit)) {
    seat.forget_worker();
    // COMMIT(pool.seat.left): killed before: the client marks the worker dead, with the agent's
    // other workers; after: the seat is free.
    seat.life.store(life_word(Life::empty, 0));
    SHOAL_KILL_POINT("pool.seat.left");
    state_->work_bell.wake_all();
    state_->done_bell.wake_all();
    return;
  }
  // Workers find the units that the dead worker had not claimed: first in its seat, where it offers
  // them, then in the list. If the list is full, the client pushes the batch again.
  if (const Entry entry{seat.entered.load()}) (void)OpenBatches(state_).add(entry);
  state_->end_offering(index);
  // COMMIT(pool.seat.dead): killed before: the client marks the worker dead, with the agent's other
  // workers; after: the client resolves the claims.
  seat.life.store(life_word(Life::dead, worker));
  SHOAL_KILL_POINT("pool.seat.dead");
  // COMMIT(pool.death.epoch): killed before or after: the client notices the agent's death and
  // checks every seat.
  state_->death_epoch.fetch_add(1);
  SHOAL_KILL_POINT("pool.death.epoch");
  // The dead worker may have consumed a wake-up, or died before it sent one: wake everybody.
  state_->work_bell.wake_all();
  state_->done_bell.wake_all();
}

void Supervisor::take_wish(Seat& seat) noexcept {
  uint64_t wish = seat.stop_entry.load();
  if (wish == 0) return;
  if (seat.entered.load() == wish) {
    const uint64_t unit = seat.stop_unit.load();
    const uint64_t serial = seat.serial.load();
    // The worker stores `running` before an odd serial, and `entered` before both: values read
    // between two equal odd serials belong to one unit.
    const bool runs = (serial & 1) != 0 && seat.running.load() == (unit & UINT32_MAX) &&
                      seat.entered.load() == wish && seat.serial.load() == serial;
    if (!runs) return;  // the unit is about to begin, or has just ended: check again later
    seat.stop_reason.store(static_cast<uint32_t>(unit >> 32));
    seat.stop_serial.store(serial);
  }
  seat.stop_entry.compare_exchange(wish, 0);  // unless a newer request has replaced it
}

std::vector<Supervisor::Order> Supervisor::orders(int64_t now_ns) {
  std::vector<Order> result;
  state_->wake_for_waiting_units(seats_);
  for (uint32_t i = 0; i < seats_; ++i) {
    Seat& seat = *state_->seat(i);
    if (life_of(seat.life.load()) != Life::ready) continue;
    take_wish(seat);
    // order: acquire; pairs with the release in WorkerSeat::begin_unit; the deadline read below
    // belongs to this serial or a later one
    const uint64_t serial = seat.serial.load(os::acquire);
    if ((serial & 1) == 0) continue;
    const int64_t deadline = seat.deadline_ns.load();
    if (seat.stop_serial.load() != serial) {
      if (deadline == 0 || now_ns < deadline || seat.serial.load() != serial) continue;
      seat.stop_reason.store(static_cast<uint32_t>(StopReason::timeout));
      seat.stop_serial.store(serial);
    }
    Ladder& ladder = ladders_[i];
    if (ladder.serial != serial) ladder = {serial, now_ns, 0, false};
    const bool kill = now_ns - ladder.since_ns >= state_->grace_ns.load();
    if (ladder.killed || (!kill && now_ns - ladder.sent_ns < kRepeatNs)) continue;
    ladder.sent_ns = now_ns;
    ladder.killed = kill;
    result.push_back({i, seat.pid.load(), kill});
  }
  return result;
}

int64_t Supervisor::next_wake_ns(int64_t now_ns) noexcept {
  int64_t wake = -1;
  const auto consider = [&wake](int64_t at) { wake = wake < 0 || at < wake ? at : wake; };
  for (uint32_t i = 0; i < seats_; ++i) {
    Seat& seat = *state_->seat(i);
    const uint64_t serial = seat.serial.load();
    if (life_of(seat.life.load()) != Life::ready) continue;
    if (seat.stop_entry.load() != 0) consider(now_ns + kLookNs);
    if ((serial & 1) == 0) continue;
    if (seat.stop_serial.load() == serial) {
      consider(now_ns + kLookNs);
    } else if (const int64_t deadline = seat.deadline_ns.load()) {
      consider(deadline);
    }
  }
  state_->agent_wakes_ns.store(wake < 0 ? INT64_MAX : wake);
  return wake;
}

}  // namespace shoal::pool
