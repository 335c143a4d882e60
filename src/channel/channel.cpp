// SPDX-License-Identifier: Apache-2.0
#include "channel/channel.hpp"

#include <cstring>
#include <new>
#include <stdexcept>

#include "os/datagram.hpp"
#include "os/process.hpp"
#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::channel {

namespace {

// Looking at every member costs about 15 us each; what the dead had is not urgent, since sleepers
// look for messages and space at each tick.
constexpr uint64_t kSweepNs = 1'000'000'000;

// The channel whose handle a dead member's lane names, or nullptr.
ChannelState* state_at(arena::Arena& arena, arena::Handle handle) noexcept {
  if (handle == 0 || handle % 64 != 0 || !arena.contains(handle, sizeof(ChannelState))) {
    return nullptr;
  }
  auto* const state = arena.at<ChannelState>(handle);
  return state->magic == Channel::kMagic ? state : nullptr;
}

void reap_items(arena::Arena& arena, arena::Member&, arena::Incarnation, arena::Handle handle) {
  if (ChannelState* const state = state_at(arena, handle)) {
    state->ring.items.wake_all();
    state->board.ring_all(true);
  }
}

void reap_space(arena::Arena& arena, arena::Member&, arena::Incarnation, arena::Handle handle) {
  if (ChannelState* const state = state_at(arena, handle)) state->ring.space.wake_all();
}

void reap_push(arena::Arena& arena, arena::Member&, arena::Incarnation dead, arena::Lane& lane) {
  const arena::Handle handle = lane.wake.load() & ~sync::kHeldKindMask;
  const arena::Handle block = lane.intent.load() & ~sync::kHeldKindMask;
  ChannelState* const state = state_at(arena, handle);
  if (state == nullptr || block == 0) return;
  try {
    Ring(arena, &state->ring, handle).reap_push(dead, block, lane.intent_argument.load());
  } catch (const arena::CorruptArena&) {
    return;  // scribbled over: the block cannot be told from one that was pushed
  }
}

// A channel's state that no root names, made or being removed by the dead: it goes.
void reap_root(arena::Arena& arena, arena::Member&, arena::Incarnation dead, arena::Lane& lane) {
  const arena::Handle handle = lane.intent.load() & ~sync::kHeldKindMask;
  const ChannelState* const state = state_at(arena, handle);
  if (state == nullptr || lane.intent_argument.load() != state->id) return;
  const std::string root(state->name, strnlen(state->name, ChannelState::kNameSize));
  if (arena.root_get(root.c_str()) == handle) return;
  uint64_t expected = arena::owner_named(state->id);
  arena.owner_word(handle).compare_exchange(expected, arena::owner_member(dead));
}

}  // namespace

void register_reap_hooks() noexcept {
  sync::register_reap_hooks();
  sync::register_held_hook(sync::HeldKind::ring_items, &reap_items);
  sync::register_held_hook(sync::HeldKind::ring_space, &reap_space);
  arena::register_reap_hook(kRingPushIntent, &reap_push);
  arena::register_reap_hook(kChannelRootIntent, &reap_root);
}

Channel::Channel(arena::Arena& arena, arena::Handle handle, std::string name)
    : arena_(&arena),
      handle_(handle),
      state_(arena.at<ChannelState>(handle)),
      ring_(arena, &state_->ring, handle, &state_->board),
      name_(std::move(name)),
      process_(os::own_pid()) {}

// Makes a channel's state and sets the root; 0 with `exists` when somebody else was first.
arena::Handle Channel::make_state(arena::Member& member, const std::string& root,
                                  const Ring::Limits& limits, bool* exists) {
  arena::Arena& arena = member.arena();
  const size_t size = sizeof(ChannelState) - sizeof(RingState) + Ring::bytes_for(limits);
  const arena::Handle handle = member.allocate(size);
  auto* const state = new (arena.address(handle)) ChannelState{};
  state->magic = kMagic;
  state->id = static_cast<uint32_t>(os::random_bits() & 0xFFFFF);
  std::memcpy(state->name, root.data(), root.size());
  Ring::create(&state->ring, state->id, limits);
  const arena::LaneGuard lane(member);
  lane->intent_argument.store(state->id);
  lane->intent.store(handle | kChannelRootIntent);
  // COMMIT(channel.create.owner): killed before: freed as the dead's; after: freed by reap_root().
  arena.owner_word(handle).store(arena::owner_named(state->id));
  SHOAL_KILL_POINT("channel.create.owner");
  // COMMIT(channel.create.root): killed before: freed by reap_root(); after: it exists.
  const bool made = arena.root_set(root.c_str(), handle, 0);
  SHOAL_KILL_POINT("channel.create.root");
  if (!made) arena.owner_word(handle).store(arena::owner_member(member.incarnation()));
  lane->intent.store(0);
  if (made) return handle;
  member.free(handle);
  *exists = arena.root_get(root.c_str()) != 0;
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
    bool exists = false;
    handle = make_state(member, root, limits, &exists);
    if (handle != 0) return std::unique_ptr<Channel>(new Channel(arena, handle, name));
    if (!exists) throw std::runtime_error("no channel made: all 64 names of the session are taken");
    handle = arena.root_get(root.c_str());
  }
  if (handle == 0 || how == Open::create) return nullptr;
  if (state_at(arena, handle) == nullptr) throw arena::CorruptArena("no channel under " + root);
  return std::unique_ptr<Channel>(new Channel(arena, handle, name));
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
  // Tried before prepare(), which would make the next pop call the kernel.
  if (sync::spin_until([&] { return ring_.seems_to_fit(weight) || is_closed(); })) {
    sent = send_once(member, message, weight);
    if (sent != Sent::full) return sent;
  }
  sync::Holds& holds = sync::Holds::of(member);
  const int held = holds.publish(handle_, sync::HeldKind::ring_space);
  sync::Ticker ticker(deadline_ns, true);
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
    if (ticked) sweep(member);
  }
  holds.clear(held);
  return sent;
}

Received Channel::receive_once(arena::Member& member, arena::Handle* message) {
  const bool closed = is_closed();  // before the look: what was sent before close() is found
  *message = ring_.try_pop(member);
  if (*message != 0) return Received::ok;
  return closed ? Received::closed : Received::empty;
}

Received Channel::try_receive(arena::Member& member, arena::Handle* message) {
  const Received first = receive_once(member, message);
  // Another number than mine: the parent's, from before a fork, or of another member of this
  // process.
  // order: acquire; pairs with the release in descriptor(); publishes bell_
  if (first == Received::ok || bell_owner_.load(os::acquire) != member.incarnation()) return first;
  const std::lock_guard lock(bell_lock_);
  bell_->quiet();
  const Received again = receive_once(member, message);
  if (again != Received::empty) bell_->ring();  // others may have come before the bell was armed
  return again;
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
  sync::Ticker ticker(deadline_ns, true);
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
    if (ticked) sweep(member);
  }
  holds.clear(held);
  return received;
}

// Reaps the dead, at most once in kSweepNs for all waiters of this channel.
void Channel::sweep(arena::Member& member) {
  const auto now = static_cast<uint64_t>(os::monotonic_ns());
  uint64_t last = state_->sweep_ns.load();
  if (now - last < kSweepNs && now > last) return;
  if (state_->sweep_ns.compare_exchange(last, now)) arena::reap_all_dead(*arena_, member);
}

void Channel::close(arena::Member& member) noexcept {
  const arena::LaneGuard lane(member);
  lane->wake.store(handle_ | static_cast<uint64_t>(sync::HeldKind::ring_items));
  // COMMIT(channel.close.closed): killed before: open; after: closed, a reaper wakes receivers.
  state_->closed.store(1);
  SHOAL_KILL_POINT("channel.close.closed");
  state_->ring.space.wake_all();
  state_->ring.items.wake_all();
  state_->board.ring_all(true);
  lane->wake.store(0);
}

ChannelStatistics Channel::statistics() const noexcept {
  return {ring_.length(),
          ring_.bytes(),
          ring_.pushed(),
          ring_.popped(),
          state_->send_sleeps.load(),
          state_->receive_sleeps.load(),
          state_->ring.item_limit,
          state_->ring.unit_limit * 64,
          is_closed()};
}

int Channel::descriptor(arena::Member& member) {
  if (const int process = os::own_pid(); process != process_) {
    new (&bell_lock_) std::mutex;  // forked while a thread of the parent had it: nobody unlocks it
    process_ = process;
  }
  const std::lock_guard lock(bell_lock_);
  if (bell_ == nullptr || bell_->incarnation() != member.incarnation()) {
    bell_ = std::make_unique<Bell>(state_->board, member.incarnation());
    bell_->ring();  // there may be messages: the first empty receive makes it quiet
    // order: release; pairs with the acquire in try_receive; publishes bell_
    bell_owner_.store(member.incarnation(), os::release);
  }
  return bell_->descriptor();
}

bool Channel::remove(arena::Member& member) {
  close(member);
  arena::Handle message = 0;
  while ((message = ring_.try_pop(member)) != 0) free_message(member, message);
  const arena::LaneGuard lane(member);
  lane->intent_argument.store(state_->id);
  lane->intent.store(handle_ | kChannelRootIntent);
  const std::string root = "ch:" + name_;
  // COMMIT(channel.remove.root): killed before: closed and empty; after: freed by reap_root().
  const bool mine = arena_->root_set(root.c_str(), 0, handle_);
  SHOAL_KILL_POINT("channel.remove.root");
  if (mine) {
    // COMMIT(channel.remove.owner): killed before: freed by reap_root(); after: freed as the
    // dead's.
    arena_->owner_word(handle_).store(arena::owner_member(member.incarnation()));
    SHOAL_KILL_POINT("channel.remove.owner");
  }
  lane->intent.store(0);
  if (mine) member.free(handle_);
  return mine;
}

}  // namespace shoal::channel
