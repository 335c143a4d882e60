// SPDX-License-Identifier: Apache-2.0
//
// The agent's side of a pool: giving seats to workers, recording deaths, stopping units that must
// stop.
//
// One Supervisor per pool, in the agent process, used by its only thread. Never blocks. It starts
// no process: the agent forks, and tells the Supervisor whether the fork succeeded.
//
// If the agent is killed, its workers die with it (PDEATHSIG); the client marks them dead and
// starts another agent. In the same way the client finds a worker that the agent has waited for but
// not recorded.
// Design: docs/design/pool.md
#pragma once

#include <vector>

#include "pool/layout.hpp"

namespace shoal::pool {

class Supervisor {
 public:
  Supervisor(arena::Member& member, Handle pool);

  [[nodiscard]] PoolState& state() const noexcept { return *state_; }
  // The pool exists and has not been told to stop.
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
  // Called when the worker's process has ended: reaps its memory, marks the seat DEAD, tells the
  // client. Other workers can take the units that the dead worker had not claimed without waiting
  // for the client. A worker that left by plan, between two units, leaves nothing to resolve: its
  // seat becomes EMPTY immediately.
  void record_exit(uint32_t index, const Exit& exit);

  struct Order {
    uint32_t seat;
    uint32_t pid;
    bool kill;  // else interrupt
  };
  // What to do now about units that are over their time limit or cancelled: interrupt the worker,
  // again every 100 ms, and kill it after the grace period. Also wakes a worker if there are units
  // that no worker has begun: the worker woken for them may be stopped, and perhaps no client
  // thread is waiting.
  std::vector<Order> orders(int64_t now_ns);
  // When to call orders() next; < 0: never. A worker that sets an earlier deadline rings the agent.
  [[nodiscard]] int64_t next_wake_ns(int64_t now_ns) noexcept;

 private:
  struct Ladder {  // what has been done so far about the unit with this serial
    uint64_t serial = 0;
    int64_t since_ns = 0;
    int64_t sent_ns = 0;
    bool killed = false;
  };

  // Turns a stop request of the client (Seat.stop_entry) into a stop of the running unit, once the
  // unit runs.
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
