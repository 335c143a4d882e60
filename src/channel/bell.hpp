// SPDX-License-Identifier: Apache-2.0
//
// Bell: a file descriptor of this process that is readable while a channel may have messages, for
// select, poll and asyncio. One per Channel object that was asked for a descriptor.
//
// BellBoard, in the channel's state:   armed  bit i: ring bell i when a message comes
//                                      bells  63..34 incarnation  33..0 random; 0 = unused
// The descriptor is a datagram socket whose name follows from the bell's word. It is a level hint:
//   receiver, finding the channel empty:  drain the socket; B1 set its armed bit; B2 look again
//   sender:                               P1 publish; P2 read armed; if its bit: clear it, ring
// By the argument of sync/wait.hpp the receiver sees the message at B2 or the sender sees the bit.
// While the receiver is busy, senders only read one word. The hint may be wrong in one direction:
// readable although another process has taken the message. A sender that dies before it rings is
// in the channel's held words, and its reaper rings all bells. A bell whose socket is gone is
// removed by the next one who rings it.
// Abstract names belong to a network name space: members in different ones cannot ring each other.
// Design: docs/design/channel.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"

namespace shoal::channel {

struct BellBoard {
  static constexpr int kBells = 15;
  os::Atomic<uint64_t> armed;
  os::Atomic<uint64_t> bells[kBells];

  // P2. One load when nobody listens.
  void ring_armed() noexcept {
    if (armed.load() != 0) ring_all(false);
  }
  // Rings those that are armed, or, for reapers, every bell.
  void ring_all(bool unarmed_too) noexcept;
};
static_assert(sizeof(BellBoard) == 128);

class Bell {
 public:
  // Hangs a bell on the board. Throws OsError when no socket can be had, runtime_error when the
  // board is full.
  Bell(BellBoard& board, arena::Incarnation incarnation);
  ~Bell();
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] arena::Incarnation incarnation() const noexcept { return incarnation_; }
  // The channel was found empty: not readable any more until a message comes. Look again after it.
  void quiet() noexcept;
  // There may be more: readable.
  void ring() noexcept;

 private:
  BellBoard* board_;
  arena::Incarnation incarnation_;
  int process_;
  uint64_t word_ = 0;
  int index_ = -1;
  int descriptor_ = -1;
};

}  // namespace shoal::channel
