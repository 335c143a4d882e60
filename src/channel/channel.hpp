// SPDX-License-Identifier: Apache-2.0
//
// Channel: a queue of messages between all members of a session, bounded by items or bytes or not
// at all. Any thread of any member sends and receives; each message is received once. send(),
// receive() and wait_all_done() may sleep; try_send(), try_receive(), close() and the getters never
// do. Sending may throw MemoryExhausted; then nothing was sent.
//
// Promises:
// 1. A member may be killed at any instruction: the other members continue. The only messages lost
//    are the message that the dead member was making and those that it had already received.
// 2. A message whose send() returned ok stays until it is received, whichever process dies.
// 3. Per sender, messages are received in the order in which they were sent.
// 4. After close() nothing more can be sent. What is in the channel can still be received, and
//    then receive() returns `closed`. A send() that runs concurrently with close() may succeed or
//    return `closed`.
//
// A sleeping waiter checks again every 10 to 250 ms, since the process that was to wake it may have
// died; and once a second one of the waiters reaps the dead members.
//
// The state lies in one block. A channel with a name has the owner NAMED(id), and the root
// "ch:" + name leads to it; a channel without a name is a shared block (arena/member.hpp), found by
// its handle. Who writes its fields: create (magic, id, name, ring limits), close() (closed),
// waiters (send_sleeps, receive_sleeps), mark_done() (ends, hands_ignored),
// wait_all_done() (ends), the end hook of a hand (ends, hands_ignored).
// Design: docs/design/channel.md
#pragma once

#include <memory>
#include <string>

#include "arena/arena.hpp"
#include "channel/bell.hpp"
#include "channel/hand.hpp"
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
  sync::EventCount all_done;         // "all messages that were pushed may be done"
  char name[kNameSize];              // of the root, "ch:" included, padded with zeros; empty: none
  os::Atomic<uint64_t> send_sleeps;  // hints for statistics
  os::Atomic<uint64_t> receive_sleeps;
  os::Atomic<uint64_t> ends;           // how many messages have ended, and how: channel/ends.hpp
  os::Atomic<uint64_t> hands_ignored;  // 1: lost messages are not counted: channel/hand.hpp
  uint64_t spare[3];
  BellBoard items_board;
  BellBoard space_board;
  RingState ring;  // the ring's first segment follows
};
static_assert(offsetof(ChannelState, items_board) == 128 && offsetof(ChannelState, ring) == 640);

enum class [[nodiscard]] Sent { ok, full, closed, interrupted };
enum class [[nodiscard]] Received { ok, empty, closed, interrupted };

struct ChannelStatistics {
  uint64_t length;  // messages in the channel
  uint64_t bytes;   // 0 when there is no byte limit
  uint64_t sent;    // since the channel was made
  uint64_t received;
  uint64_t send_sleeps;  // how often a send() had to sleep
  uint64_t receive_sleeps;
  uint64_t item_limit;  // 0: none
  uint64_t byte_limit;  // 0: none
  uint64_t unfinished;  // sent and not marked as done
  bool closed;
};

// Makes reapers of this process repair channels. Cheap; open() calls it.
void register_reap_hooks() noexcept;

class Channel {
 public:
  static constexpr uint32_t kMagic = 0x6e616863;  // "chan"
  enum class Open { create, existing, either };

  // nullptr: the channel exists already (create), or does not exist (existing). Names are up to 45
  // bytes. Throws std::invalid_argument for other names, MemoryExhausted, or runtime_error when all
  // roots of the session are taken.
  static std::unique_ptr<Channel> open(arena::Member& member, const std::string& name,
                                       Open how = Open::either, const Ring::Limits& limits = {});

  // Makes a channel without a name; the member holds it.
  static std::unique_ptr<Channel> make(arena::Member& member, const Ring::Limits& limits);
  // The steps of make(): a block of state_size() bytes, filled by create_state(), is a channel once
  // it is shared.
  static size_t state_size(const Ring::Limits& limits) noexcept;
  static void create_state(arena::Arena& arena, arena::Handle handle, const Ring::Limits& limits,
                           const std::string& root = {}) noexcept;
  // A channel that the member holds. Throws CorruptArena when there is no channel at `handle`.
  static std::unique_ptr<Channel> at(arena::Member& member, arena::Handle handle);

  // On ok the message belongs to the channel; otherwise it stays the caller's. deadline_ns:
  // CLOCK_MONOTONIC, < 0 none, 0 do not wait.
  Sent send(arena::Member& member, arena::Handle message, int64_t deadline_ns = sync::kForever);
  Sent try_send(arena::Member& member, arena::Handle message);
  // On ok `*message` is the caller's, who frees it with free_message().
  Received receive(arena::Member& member, arena::Handle* message,
                   int64_t deadline_ns = sync::kForever);
  Received try_receive(arena::Member& member, arena::Handle* message);

  // Notes that this member will mark the message that it received last as done. If the member dies
  // before that, wait_all_done() reports the message as lost. That needs a block: if there is no
  // memory for it, hands are ignored in this channel from now on.
  void take_in_hand(arena::Member& member) noexcept;
  // The same. False: there is no memory for the block, and nothing is noted.
  [[nodiscard]] bool try_take_in_hand(arena::Member& member) noexcept;
  // Marks one more received message as done. False: all messages that were sent are marked already,
  // and nothing changes.
  [[nodiscard]] bool mark_done(arena::Member& member) noexcept;
  [[nodiscard]] bool is_all_done() const noexcept;
  // Waits until every message that was sent is marked as done, or was in the hand of a member that
  // has ended. `*lost` is the number of the latter; from then on they count as done.
  sync::WaitResult wait_all_done(arena::Member& member, uint64_t* lost,
                                 int64_t deadline_ns = sync::kForever);

  void close(arena::Member& member) noexcept;
  [[nodiscard]] bool is_closed() const noexcept { return state_->closed.load() != 0; }
  [[nodiscard]] uint64_t length() const noexcept { return ring_.length(); }
  [[nodiscard]] ChannelStatistics statistics() const noexcept;

  // A descriptor that is readable while there are messages, or the channel is closed. The channel
  // owns it: channel/bell.hpp. A fork's child may use the same number. Throws OsError.
  int descriptor(arena::Member& member);
  int descriptor(arena::Member& member, int64_t deadline_ns);  // -1: see Bell::descriptor()
  // A descriptor that is readable while there may be room.
  int space_descriptor(arena::Member& member);
  int space_descriptor(arena::Member& member, int64_t deadline_ns);
  // To be called every 250 ms or so by a thread that waits for a descriptor. Makes a descriptor
  // readable if another member failed to do so, or died before it did. Reaps dead members, but at
  // most once a second for all waiters of the channel together. descriptor() does the same.
  void look_after(arena::Member& member);
  [[nodiscard]] bool is_ready_to_receive() const noexcept { return has_messages(this); }
  [[nodiscard]] bool is_ready_to_send() const noexcept { return has_room(this); }

  // Called by reapers. Makes both descriptors agree with whether the channel is ready, since the
  // dead member may have died before doing so.
  void settle_bells(arena::Member& reaper) noexcept;

  // Closes the channel, frees the messages in it, takes its name away, and frees the state. No
  // process may use the channel after that. False: it had been removed already.
  bool remove(arena::Member& member);
  // Drops this member's hold on a channel without a name. True: the member was the last holder, and
  // the messages and the state are freed. No thread may use this object during the call or
  // afterwards.
  bool let_go(arena::Member& member) noexcept;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }
  [[nodiscard]] Ring& ring() noexcept { return ring_; }

 private:
  Channel(arena::Arena& arena, arena::Handle handle, std::string name);
  static arena::Handle make_state(arena::Member& member, const std::string& root,
                                  const Ring::Limits& limits);
  static bool has_messages(const void* channel) noexcept;
  static bool has_room(const void* channel) noexcept;
  void empty_all(arena::Member& member) noexcept;
  Sent send_once(arena::Member& member, arena::Handle message, uint64_t weight);
  Received receive_once(arena::Member& member, arena::Handle* message);
  Hand* my_hand(arena::Member& member) noexcept;
  uint64_t tell_lost() noexcept;
  void drop_hand(arena::Member& member) noexcept;

  arena::Arena* arena_;
  arena::Handle handle_;
  ChannelState* state_;
  Bell items_bell_;
  Bell space_bell_;
  Ring ring_;
  std::string name_;
  os::Atomic<uint64_t> hand_;  // this process's hand, 0: none yet; in a fork's child the parent's
};

}  // namespace shoal::channel
