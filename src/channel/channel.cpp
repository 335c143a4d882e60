// SPDX-License-Identifier: Apache-2.0
#include "channel/channel.hpp"

#include <cstring>
#include <new>
#include <stdexcept>

#include "channel/ends.hpp"
#include "os/process.hpp"
#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::channel {

namespace {

// Reaping looks at every member, about 15 us each. What a dead member held is not urgent, since
// sleepers look for messages and space at each tick.

// The channel at `handle`, which comes from a dead member's lane, or nullptr.
ChannelState* state_at(arena::Arena& arena, arena::Handle handle) noexcept {
  if (handle == 0 || handle % 64 != 0 || !arena.contains(handle, sizeof(ChannelState))) {
    return nullptr;
  }
  auto* const state = arena.at<ChannelState>(handle);
  return state->magic == arena::magic_at(Channel::kMagic, handle) ? state : nullptr;
}

// Sets the bells in place of the dead member.
void settle_bells(arena::Member& reaper, arena::Handle handle, const ChannelState& state) {
  if (state.items_board.pipe.load() == 0 && state.space_board.pipe.load() == 0) return;
  try {
    Channel::at(reaper, handle)->settle_bells(reaper);
  } catch (const arena::CorruptArena&) {
    return;  // corrupt
  }
}

void reap_items(arena::Arena& arena, arena::Member& reaper, arena::Incarnation,
                arena::Handle handle) {
  if (ChannelState* const state = state_at(arena, handle)) {
    state->ring.items.wake_all();
    state->all_done.wake_all();
    settle_bells(reaper, handle, *state);
  }
}

void reap_space(arena::Arena& arena, arena::Member& reaper, arena::Incarnation,
                arena::Handle handle) {
  if (ChannelState* const state = state_at(arena, handle)) {
    state->ring.space.wake_all();
    settle_bells(reaper, handle, *state);
  }
}

void reap_push(arena::Arena& arena, arena::Member&, arena::Incarnation dead, arena::Lane& lane) {
  const arena::Handle handle = lane.wake.load() & ~sync::kHeldKindMask;
  const arena::Handle block = lane.intent.load() & ~sync::kHeldKindMask;
  ChannelState* const state = state_at(arena, handle);
  if (state == nullptr || block == 0) return;
  try {
    Ring(arena, &state->ring, handle).reap_push(dead, block, lane.intent_argument.load());
  } catch (const arena::CorruptArena&) {
    return;  // corrupt: it is unknown whether the block was pushed
  }
}

// Frees the messages of a channel without a name whose last holder is dead; the reaper frees the
// rest.
void end_channel(arena::Arena& arena, arena::Member& reaper, arena::Handle handle) {
  if (arena.block_size(handle) < Channel::state_size({})) return;
  ChannelState* const state = state_at(arena, handle);
  if (state == nullptr) return;
  try {
    Ring ring(arena, &state->ring, handle);
    while (const arena::Handle message = ring.try_pop(reaper)) free_message(reaper, message);
  } catch (const arena::CorruptArena&) {
    return;  // corrupt: its messages stay until the session ends
  }
}

// Adds messages that no member will mark as done. If they are more than the word can count, the
// hands of this channel are ignored from then on.
void lose(ChannelState& state, uint64_t count) noexcept {
  uint64_t word = state.ends.load();
  bool added = false;
  while (!added) {
    const Ends seen = Ends::in(word);
    if (count > Ends::kMostLost - seen.lost) {
      state.hands_ignored.store(1);
      return;
    }
    // COMMIT(channel.hand.lost): killed before: the count is gone, see end_hand(); after: counted,
    // and waiters see it at their next tick.
    added = state.ends.compare_exchange(word, seen.with_lost(count).word());
    SHOAL_KILL_POINT("channel.hand.lost");
  }
}

// A member that received messages has ended: no member will mark them as done. If this reaper is
// killed, the next reaper calls the hook again for the same block. So the count is removed from the
// hand before it is added to the channel's count: a death in between loses the count, and no death
// adds it twice.
void end_hand(arena::Arena& arena, arena::Member&, arena::Handle block) {
  Hand* const hand = hand_at(arena, block);
  if (hand == nullptr) return;
  // COMMIT(channel.hand.end): killed before: the next reaper does it; after: the count is gone, and
  // wait_all_done() keeps waiting.
  const uint64_t count = hand->count.exchange(0);
  SHOAL_KILL_POINT("channel.hand.end");
  ChannelState* const state = state_at(arena, hand->channel);
  const bool known = state != nullptr && state->id == hand->id;
  if (count != 0 && known) {
    lose(*state, count);
    state->all_done.wake_all();
  }
  hand->check = 0;
}

// A segment that the dead member was inserting into a ring's circle.
void reap_segment(arena::Arena& arena, arena::Member&, arena::Incarnation dead, arena::Lane& lane) {
  const arena::Handle handle = lane.intent_argument.load();
  ChannelState* const state = state_at(arena, handle);
  if (state == nullptr) return;
  try {
    const arena::Handle segment = lane.intent.load() & ~sync::kHeldKindMask;
    Ring(arena, &state->ring, handle).reap_segment(dead, segment);
  } catch (const arena::CorruptArena&) {
    return;  // corrupt: the segment is freed with the ring
  }
}

// Frees the state of a channel that the dead member was making or removing, if no root names it.
void reap_root(arena::Arena& arena, arena::Member&, arena::Incarnation dead, arena::Lane& lane) {
  const arena::Handle handle = lane.intent.load() & ~sync::kHeldKindMask;
  const ChannelState* const state = state_at(arena, handle);
  if (state == nullptr || lane.intent_argument.load() != state->id) return;
  const std::string root(state->name, strnlen(state->name, ChannelState::kNameSize));
  if (arena.root_get(root.c_str()) == handle) return;
  uint64_t expected = arena::owner_named(state->id);
  arena::give_to_dead(arena, dead, handle, expected);
}

}  // namespace

void register_reap_hooks() noexcept {
  sync::register_reap_hooks();
  sync::register_held_hook(sync::HeldKind::ring_items, &reap_items);
  sync::register_held_hook(sync::HeldKind::ring_space, &reap_space);
  arena::register_reap_hook(kRingPushIntent, &reap_push);
  arena::register_reap_hook(kRingSegmentIntent, &reap_segment);
  arena::register_reap_hook(kChannelRootIntent, &reap_root);
  arena::register_end_hook(&end_channel);
  arena::register_end_hook(&end_hand);
}

Channel::Channel(arena::Arena& arena, arena::Handle handle, std::string name)
    : arena_(&arena),
      handle_(handle),
      state_(arena.at<ChannelState>(handle)),
      items_bell_(arena, state_->items_board, &has_messages, this),
      space_bell_(arena, state_->space_board, &has_room, this),
      ring_(arena, &state_->ring, handle, &items_bell_, &space_bell_),
      name_(std::move(name)) {}

bool Channel::has_messages(const void* channel) noexcept {
  const auto* const self = static_cast<const Channel*>(channel);
  return self->ring_.has_item() || self->is_closed();
}

bool Channel::has_room(const void* channel) noexcept {
  const auto* const self = static_cast<const Channel*>(channel);
  return self->ring_.seems_to_fit(1) || self->is_closed();
}

void Channel::settle_bells(arena::Member& reaper) noexcept {
  items_bell_.settle_reaping(reaper);
  space_bell_.settle_reaping(reaper);
}

int Channel::descriptor(arena::Member& member) {
  const int fd = items_bell_.descriptor(member);
  look_after(member);
  return fd;
}

int Channel::space_descriptor(arena::Member& member) {
  const int fd = space_bell_.descriptor(member);
  look_after(member);
  return fd;
}

int Channel::descriptor(arena::Member& member, int64_t deadline_ns) {
  const int fd = items_bell_.descriptor(member, deadline_ns);
  if (fd >= 0) look_after(member);
  return fd;
}

int Channel::space_descriptor(arena::Member& member, int64_t deadline_ns) {
  const int fd = space_bell_.descriptor(member, deadline_ns);
  if (fd >= 0) look_after(member);
  return fd;
}

void Channel::look_after(arena::Member& member) {
  arena::reap_if_due(*arena_, member);
  items_bell_.check(member);
  space_bell_.check(member);
}

size_t Channel::state_size(const Ring::Limits& limits) noexcept {
  return sizeof(ChannelState) - sizeof(RingState) + Ring::bytes_for(limits);
}

void Channel::create_state(arena::Arena& arena, arena::Handle handle, const Ring::Limits& limits,
                           const std::string& root) noexcept {
  auto* const state = new (arena.address(handle)) ChannelState{};
  state->magic = arena::magic_at(kMagic, handle);
  state->id = static_cast<uint32_t>(arena.header().last_number.fetch_add(1) + 1);
  state->items_board.create();
  state->space_board.create();
  std::memcpy(state->name, root.data(), root.size());
  Ring::create(&state->ring, state->id, limits, handle + offsetof(ChannelState, ring));
}

// Makes a channel's state and sets the root. 0: another process has made the channel first. Throws
// if all names are in use.
arena::Handle Channel::make_state(arena::Member& member, const std::string& root,
                                  const Ring::Limits& limits) {
  arena::Arena& arena = member.arena();
  const arena::Handle handle = member.allocate(state_size(limits));
  create_state(arena, handle, limits, root);
  const auto* const state = arena.at<ChannelState>(handle);
  const arena::LaneGuard lane(member);
  lane->intent_argument.store(state->id);
  lane->intent.store(handle | kChannelRootIntent);
  // COMMIT(channel.create.owner): killed before: freed by the scan; after: freed by reap_root().
  arena.owner_word(handle).store(arena::owner_named(state->id));
  SHOAL_KILL_POINT("channel.create.owner");
  // COMMIT(channel.create.root): killed before: freed by reap_root(); after: it exists.
  const arena::RootSet set = member.set_root(root.c_str(), handle);
  SHOAL_KILL_POINT("channel.create.root");
  const bool made = set == arena::RootSet::done;
  if (!made) arena.owner_word(handle).store(arena::owner_member(member.incarnation()));
  lane->intent.store(0);
  if (made) return handle;
  member.free(handle);
  if (set == arena::RootSet::full)
    throw std::runtime_error("the channel was not made: all 64 names of the session are in use");
  return 0;
}

std::unique_ptr<Channel> Channel::open(arena::Member& member, const std::string& name, Open how,
                                       const Ring::Limits& limits) {
  register_reap_hooks();
  const std::string root = "ch:" + name;
  if (name.empty() || root.size() > ChannelState::kNameSize ||
      name.find('\0') != std::string::npos) {
    throw std::invalid_argument("a channel's name has 1 to 45 bytes and no zero byte: \"" + name +
                                "\"");
  }
  arena::Arena& arena = member.arena();
  arena::Handle handle = arena.root_get(root.c_str());
  while (handle == 0 && how != Open::existing) {
    handle = make_state(member, root, limits);
    if (handle != 0) return std::unique_ptr<Channel>(new Channel(arena, handle, name));
    handle = arena.root_get(root.c_str());
  }
  if (handle == 0 || how == Open::create) return nullptr;
  if (state_at(arena, handle) == nullptr) throw arena::CorruptArena("no channel under " + root);
  return std::unique_ptr<Channel>(new Channel(arena, handle, name));
}

std::unique_ptr<Channel> Channel::make(arena::Member& member, const Ring::Limits& limits) {
  register_reap_hooks();
  const arena::Handle handle = member.allocate_shareable(state_size(limits));
  create_state(member.arena(), handle, limits);
  member.share(handle);
  return at(member, handle);
}

std::unique_ptr<Channel> Channel::at(arena::Member& member, arena::Handle handle) {
  register_reap_hooks();
  if (state_at(member.arena(), handle) == nullptr) {
    throw arena::CorruptArena("no channel at offset " + std::to_string(handle));
  }
  return std::unique_ptr<Channel>(new Channel(member.arena(), handle, ""));
}

Sent Channel::send_once(arena::Member& member, arena::Handle message, uint64_t weight) {
  if (is_closed()) return Sent::closed;
  if (ring_.try_push(member, message, weight) == Ring::Push::full) return Sent::full;
  return Sent::ok;
}

Sent Channel::try_send(arena::Member& member, arena::Handle message) {
  return send_once(member, message, arena_->at<MessageHeader>(message)->weight);
}

Sent Channel::send(arena::Member& member, arena::Handle message, int64_t deadline_ns) {
  const uint64_t weight = arena_->at<MessageHeader>(message)->weight;
  Sent sent = send_once(member, message, weight);
  if (sent != Sent::full || deadline_ns == 0) return sent;
  // Spins before prepare(): after prepare() the next pop would make a system call.
  if (sync::spin_until([&] { return ring_.seems_to_fit(weight) || is_closed(); })) {
    sent = send_once(member, message, weight);
    if (sent != Sent::full) return sent;
  }
  sync::Holds& holds = sync::Holds::of(member);
  const int held = holds.publish(handle_, sync::HeldKind::ring_space);
  sync::Ticker ticker(deadline_ns);
  sync::EventCount& space = state_->ring.space;
  for (;;) {
    const uint32_t seen = space.prepare();
    sent = send_once(member, message, weight);
    if (sent != Sent::full) break;
    // order: relaxed; a counter for statistics
    state_->send_sleeps.fetch_add(1, os::relaxed);
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&space.word(), seen, &ticked);
    if (wake == os::Wake::timed_out) break;
    if (wake == os::Wake::interrupted) {
      sent = Sent::interrupted;
      break;
    }
    if (ticked) look_after(member);
  }
  holds.clear(held);
  return sent;
}

Received Channel::receive_once(arena::Member& member, arena::Handle* message) {
  const bool closed = is_closed();  // loaded first: a message sent before close() is found below
  *message = ring_.try_pop(member);
  if (*message != 0) return Received::ok;
  return closed ? Received::closed : Received::empty;
}

Received Channel::try_receive(arena::Member& member, arena::Handle* message) {
  return receive_once(member, message);
}

Received Channel::receive(arena::Member& member, arena::Handle* message, int64_t deadline_ns) {
  Received received = try_receive(member, message);
  if (received != Received::empty || deadline_ns == 0) return received;
  if (sync::spin_until([&] { return !ring_.seems_empty() || is_closed(); })) {
    received = receive_once(member, message);
    if (received != Received::empty) return received;
  }
  sync::Holds& holds = sync::Holds::of(member);
  const int held = holds.publish(handle_, sync::HeldKind::ring_items);
  sync::Ticker ticker(deadline_ns);
  sync::EventCount& items = state_->ring.items;
  for (;;) {
    const uint32_t seen = items.prepare();
    received = receive_once(member, message);
    if (received != Received::empty) break;
    // order: relaxed; a counter for statistics
    state_->receive_sleeps.fetch_add(1, os::relaxed);
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&items.word(), seen, &ticked);
    if (wake == os::Wake::timed_out) break;
    if (wake == os::Wake::interrupted) {
      received = Received::interrupted;
      break;
    }
    if (ticked) look_after(member);
  }
  holds.clear(held);
  return received;
}

// The message is removed from the hand before it is marked: a death in between leaves it unfinished
// and in no hand, so that wait_all_done() keeps waiting. (If it were marked first, it would count
// as done, and also as lost if the member dies.) For the same reason hands_ignored is set before
// the mark.
bool Channel::mark_done(arena::Member& member) noexcept {
  const arena::LaneGuard lane(member);
  uint64_t word = state_->ends.load();
  if (Ends::in(word).unfinished(ring_.pushed()) == 0) return false;
  Hand* const hand = my_hand(member);
  // COMMIT(channel.done.hand): killed before: not done, in hand; after: not done, in no hand.
  const bool from_hand = hand != nullptr && take_from_hand(*hand);
  SHOAL_KILL_POINT("channel.done.hand");
  if (!from_hand && state_->hands_ignored.load() == 0) state_->hands_ignored.store(1);
  lane->wake.store(handle_ | static_cast<uint64_t>(sync::HeldKind::ring_items));
  bool marked = false;
  while (!marked && Ends::in(word).unfinished(ring_.pushed()) != 0) {
    // COMMIT(channel.done.count): killed before: not done; after: done, a reaper wakes the waiters.
    marked = state_->ends.compare_exchange(word, Ends::in(word).marked().word());
    SHOAL_KILL_POINT("channel.done.count");
  }
  if (marked) {
    const Ends now = Ends::in(word).marked();
    if (now.unfinished(ring_.pushed()) <= now.lost) state_->all_done.notify_all();
  } else if (from_hand) {
    hand->count.fetch_add(1);  // other threads have marked all unfinished messages
  }
  lane->wake.store(0);
  return marked;
}

// This member's hand, if this object has made it. (In a forked child `hand_` is the parent's block,
// which may contain another hand by now.)
Hand* Channel::my_hand(arena::Member& member) noexcept {
  const arena::Handle block = hand_.load();
  Hand* const hand = block == 0 ? nullptr : hand_at(*arena_, block);
  const bool mine = hand != nullptr && hand->owner == member.incarnation() &&
                    hand->channel == handle_ && hand->id == state_->id;
  return mine ? hand : nullptr;
}

void Channel::take_in_hand(arena::Member& member) noexcept {
  if (!try_take_in_hand(member)) state_->hands_ignored.store(1);
}

bool Channel::try_take_in_hand(arena::Member& member) noexcept {
  Hand* hand = my_hand(member);
  try {
    while (hand == nullptr) {
      arena::Handle before = hand_.load();
      const arena::Handle made = make_hand(member, handle_, state_->id);
      if (!hand_.compare_exchange(before, made)) member.free(made);  // another thread was faster
      hand = my_hand(member);
    }
  } catch (const std::exception&) {
    return false;
  }
  // COMMIT(channel.hand.count): killed before: not counted; after: lost, and reported as lost.
  hand->count.fetch_add(1);
  SHOAL_KILL_POINT("channel.hand.count");
  return true;
}

// A hand whose count is not 0 stays until this member ends: its messages may still be marked
// through another Channel object.
void Channel::drop_hand(arena::Member& member) noexcept {
  Hand* const hand = my_hand(member);
  if (hand == nullptr || hand->count.load() != 0) return;
  hand->check = 0;
  member.free(hand_.exchange(0));
}

// If all messages that are not done are lost, counts them as done and returns their number.
// Messages that are pushed after the number of pushes was loaded stay unfinished.
uint64_t Channel::tell_lost() noexcept {
  uint64_t word = state_->ends.load();
  for (;;) {
    const Ends seen = Ends::in(word);
    if (seen.lost == 0 || state_->hands_ignored.load() != 0) return 0;
    if (seen.unfinished(ring_.settled_pushed()) != seen.lost) return 0;
    // COMMIT(channel.lost.tell): killed before: not reported; after: done, and reported to no other
    // join.
    const bool told = state_->ends.compare_exchange(word, seen.told().word());
    SHOAL_KILL_POINT("channel.lost.tell");
    if (told) return seen.lost;
  }
}

// Loads the word first: messages that are pushed later need not be waited for.
bool Channel::is_all_done() const noexcept {
  const Ends seen = Ends::in(state_->ends.load());
  return seen.unfinished(ring_.settled_pushed()) == 0;
}

sync::WaitResult Channel::wait_all_done(arena::Member& member, uint64_t* lost,
                                        int64_t deadline_ns) {
  *lost = 0;
  sync::Ticker ticker(deadline_ns);
  for (;;) {
    const uint32_t seen = state_->all_done.prepare();
    if (is_all_done() || (*lost = tell_lost()) != 0) return sync::WaitResult::ok;
    if (deadline_ns == 0) return sync::WaitResult::timed_out;
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&state_->all_done.word(), seen, &ticked);
    if (wake == os::Wake::timed_out) return sync::WaitResult::timed_out;
    if (wake == os::Wake::interrupted) return sync::WaitResult::interrupted;
    if (ticked) look_after(member);
  }
}

void Channel::close(arena::Member& member) noexcept {
  const arena::LaneGuard lane(member);
  lane->wake.store(handle_ | static_cast<uint64_t>(sync::HeldKind::ring_items));
  // COMMIT(channel.close.closed): killed before: open; after: closed, a reaper wakes receivers.
  state_->closed.store(1);
  SHOAL_KILL_POINT("channel.close.closed");
  state_->ring.space.wake_all();
  state_->ring.items.wake_all();
  items_bell_.more(member);
  space_bell_.more(member);
  lane->wake.store(0);
}

ChannelStatistics Channel::statistics() const noexcept {
  const Ends ends = Ends::in(state_->ends.load());
  return {ring_.length(),
          ring_.bytes(),
          ring_.pushed(),
          ring_.popped(),
          state_->send_sleeps.load(),
          state_->receive_sleeps.load(),
          state_->ring.item_limit,
          state_->ring.unit_limit * 64,
          ends.unfinished(ring_.pushed()),
          is_closed()};
}

void Channel::empty_all(arena::Member& member) noexcept {
  arena::Handle message = 0;
  while ((message = ring_.try_pop(member)) != 0) free_message(member, message);
}

bool Channel::let_go(arena::Member& member) noexcept {
  drop_hand(member);
  items_bell_.leave();
  space_bell_.leave();
  if (!member.drop_shared(handle_)) return false;
  empty_all(member);
  ring_.free_segments(member);
  member.free(handle_);
  return true;
}

bool Channel::remove(arena::Member& member) {
  close(member);
  empty_all(member);
  const arena::LaneGuard lane(member);
  lane->intent_argument.store(state_->id);
  lane->intent.store(handle_ | kChannelRootIntent);
  const std::string root = "ch:" + name_;
  // COMMIT(channel.remove.root): killed before: closed and empty; after: freed by reap_root().
  const bool mine = member.set_root(root.c_str(), 0, handle_) == arena::RootSet::done;
  SHOAL_KILL_POINT("channel.remove.root");
  if (mine) {
    member.mark(handle_);
    // COMMIT(channel.remove.owner): killed before: freed by reap_root(); after: freed by the scan.
    arena_->owner_word(handle_).store(arena::owner_member(member.incarnation()));
    SHOAL_KILL_POINT("channel.remove.owner");
  }
  lane->intent.store(0);
  if (!mine) return false;
  ring_.free_segments(member);
  member.free(handle_);
  return true;
}

}  // namespace shoal::channel
