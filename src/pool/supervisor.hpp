// SPDX-License-Identifier: Apache-2.0
//
// The agent's side of a pool: seating workers, recording their deaths, stopping units that must
// stop.
//
// One Supervisor per pool, in the agent process, used by its only thread. Never blocks. It starts
// no process itself: the agent forks, and tells the Supervisor whether that worked.
//
// If the agent is killed its workers die with it (PDEATHSIG); the client buries them and starts
// another agent. A death that the agent has reaped but not recorded is found by the client in the
// same way.
// Design: docs/design/pool.md
#pragma once

#include <vector>

#include "pool/doorbell.hpp"
#include "pool/layout.hpp"

namespace shoal::pool {

class Supervisor {
 public:
  Supervisor(arena::Member& member, Handle pool);

  [[nodiscard]] PoolState& state() const noexcept { return *state_; }
  // The pool is still there and has not been told to stop.
  [[nodiscard]] bool wants_workers() const noexcept;
  // Workers that are starting or at work.
  [[nodiscard]] uint32_t seated() const noexcept;

  // An empty seat, now STARTING, for the worker about to be forked; -1 when none is free (deaths
  // not yet resolved).
  int take_seat() noexcept;
  void set_pid(uint32_t seat, uint32_t pid) noexcept;
  // The fork failed.
  void free_seat(uint32_t seat) noexcept;

  struct Exit {
    uint32_t status = 0;  // as wait4 gives it
    uint64_t peak_memory = 0;
    bool memory_limit = false;
  };
  // The worker's process is gone: reaps its memory, marks the seat DEAD, tells the client. Units
  // that it had not begun are open to other workers at once. A worker that left by plan, between
  // two units, leaves nothing to resolve: its seat becomes free without waiting for the client.
  void record_exit(uint32_t index, const Exit& exit);

  struct Order {
    uint32_t seat;
    uint32_t pid;
    bool kill;  // else interrupt
  };
  // What has to be done now to units that are over their limit or cancelled. Interrupts first,
  // again every 100 ms, then kills after the grace period.
  std::vector<Order> orders(int64_t now_ns);
  // When orders() will have something to say next; < 0 never. Workers that set an earlier limit
  // ring the agent.
  [[nodiscard]] int64_t next_wake_ns(int64_t now_ns) noexcept;

 private:
  struct Ladder {  // what was done so far to the unit with this serial
    uint64_t serial = 0;
    int64_t since_ns = 0;
    int64_t sent_ns = 0;
    bool killed = false;
  };

  // Passes a stop that the client wants (Seat.stop_entry) on to the unit, once that runs.
  void take_wish(Seat& seat) noexcept;
  void leave_rank(uint32_t seat) noexcept;
  [[nodiscard]] bool left_nothing(uint32_t index, const Exit& exit) const noexcept;

  arena::Member& member_;
  PoolState* state_;
  uint32_t seats_;
  std::vector<Ladder> ladders_;
  std::vector<uint8_t> ranks_;      // ranks in use
  std::vector<int64_t> seated_ns_;  // when the seat's worker was about to be forked
};

}  // namespace shoal::pool
