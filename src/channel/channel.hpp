// SPDX-License-Identifier: Apache-2.0
//
// Channel: a named queue of messages between all members of a session, bounded by items and,
// if wanted, by bytes. Any thread of any member sends and receives; each message is received once.
// send() and receive() sleep; try_send(), try_receive(), close() and the questions never do.
//
// Promises:
// 1. A member may be killed at any instruction: the others go on; what is lost is only the message
//    that it was making, or had already received.
// 2. A message whose send() returned ok stays until it is received, whoever dies.
// 3. Per sender, messages are received in the order in which they were sent.
// 4. After close() nothing more can be sent, what is in the channel can still be received, and
//    then receive() says closed. A send() that runs at the same time may be either.
// While it sleeps, a waiter looks again every 10 to 250 ms, since a wake-up may have died with its
// giver; and once a second one of the waiters reaps whoever is dead.
//
// The state lies in one block, owner NAMED(id), found by the root "ch:" + name; its fields are
// written by: create (magic, name, ring limits), close() (closed), waiters (sweep_ns, waits).
// Design: docs/design/channel.md
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "arena/arena.hpp"
#include "channel/bell.hpp"
#include "channel/message.hpp"
#include "channel/ring.hpp"
#include "sync/wait.hpp"

namespace shoal::channel {

inline constexpr uint64_t kChannelRootIntent = 10;  // lane intent: a channel being made or removed

struct ChannelState {
  static constexpr size_t kNameSize = 48;
  uint32_t magic;
  uint32_t id;
  os::Atomic<uint32_t> closed;
  uint32_t padding;
  char name[kNameSize];              // of the root, "ch:" included, padded with zeros
  os::Atomic<uint64_t> sweep_ns;     // when somebody last looked for the dead
  os::Atomic<uint64_t> send_sleeps;  // hints for statistics
  os::Atomic<uint64_t> receive_sleeps;
  uint64_t spare[5];
  BellBoard board;
  RingState ring;  // the slots follow
};
static_assert(offsetof(ChannelState, board) == 128 && offsetof(ChannelState, ring) == 256);

enum class [[nodiscard]] Sent { ok, full, closed, interrupted };
enum class [[nodiscard]] Received { ok, empty, closed, interrupted };

struct ChannelStatistics {
  uint64_t length;  // messages in the channel
  uint64_t bytes;   // 0 when there is no byte limit
  uint64_t sent;    // since it was made
  uint64_t received;
  uint64_t send_sleeps;  // how often a send, a receive had to sleep
  uint64_t receive_sleeps;
  uint64_t item_limit;
  uint64_t byte_limit;  // 0: none
  bool closed;
};

// Makes reapers of this process repair channels. Cheap; open() calls it.
void register_reap_hooks() noexcept;

class Channel {
 public:
  static constexpr uint32_t kMagic = 0x6e616863;  // "chan"
  enum class Open { create, existing, either };

  // nullptr: it exists (create), or does not (existing). Names are up to 45 bytes. Throws
  // std::invalid_argument for other names, MemoryExhausted, or runtime_error when no root is left.
  static std::unique_ptr<Channel> open(arena::Member& member, const std::string& name,
                                       Open how = Open::either, const Ring::Limits& limits = {});

  // On ok the message belongs to the channel; else it stays the caller's. deadline_ns:
  // CLOCK_MONOTONIC, < 0 none, 0 do not wait.
  Sent send(arena::Member& member, arena::Handle message, int64_t deadline_ns = sync::kForever);
  Sent try_send(arena::Member& member, arena::Handle message);
  // On ok `*message` is the caller's, to be freed with free_message().
  Received receive(arena::Member& member, arena::Handle* message,
                   int64_t deadline_ns = sync::kForever);
  Received try_receive(arena::Member& member, arena::Handle* message);

  void close(arena::Member& member) noexcept;
  [[nodiscard]] bool is_closed() const noexcept { return state_->closed.load() != 0; }
  [[nodiscard]] uint64_t length() const noexcept { return ring_.length(); }
  [[nodiscard]] ChannelStatistics statistics() const noexcept;

  // A descriptor that is readable while there may be messages; the channel keeps it. After a fork
  // the child gets its own by asking again. Throws OsError.
  int descriptor(arena::Member& member);

  // Closes the channel, frees what is in it, and takes its name away; then frees the state: nobody
  // may use the channel any more, in any process. False: somebody else has removed it.
  bool remove(arena::Member& member);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }
  [[nodiscard]] Ring& ring() noexcept { return ring_; }

 private:
  Channel(arena::Arena& arena, arena::Handle handle, std::string name);
  static arena::Handle make_state(arena::Member& member, const std::string& root,
                                  const Ring::Limits& limits, bool* exists);
  Sent send_once(arena::Member& member, arena::Handle message, uint64_t weight);
  Received receive_once(arena::Member& member, arena::Handle* message);
  void sweep(arena::Member& member);

  arena::Arena* arena_;
  arena::Handle handle_;
  ChannelState* state_;
  Ring ring_;
  std::string name_;
  std::mutex bell_lock_;  // guards bell_; never held across a wait
  std::unique_ptr<Bell> bell_;
  os::Atomic<uint32_t> bell_owner_;  // the member for which it hangs; 0: none was asked for
  int process_;
};

}  // namespace shoal::channel
