// SPDX-License-Identifier: Apache-2.0
#include "channel/pipe.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>

#include "channel/channel.hpp"
#include "channel/message.hpp"
#include "os/error.hpp"
#include "os/random.hpp"
#include "sync/wait.hpp"
#include "testing/kill_point.hpp"

namespace shoal::channel {

namespace {

uint64_t big_endian(const std::byte* bytes, int count) noexcept {
  uint64_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | static_cast<uint64_t>(bytes[i]);
  return value;
}

// The `parked` word of a message that this process owns: see PipeWay::parked.
constexpr int kSizeShift = 48;
constexpr int kSizeUnitShift = 16;
constexpr uint64_t kHandleMask = (uint64_t{1} << kSizeShift) - 1;
uint64_t parked_word(const arena::Arena& arena, arena::Handle message) noexcept {
  const uint64_t units = arena.at<MessageHeader>(message)->weight >> kSizeUnitShift;
  return std::min(units, ~kHandleMask >> kSizeShift) << kSizeShift | message;
}

PipeWay* way_of(PipeState* state, uint32_t index) noexcept {
  return reinterpret_cast<PipeWay*>(state + 1) + index;
}

// The dead member had read the frame that names the block, so no other member will take it: frees
// the block and its slot.
void reap_take(arena::Arena& arena, arena::Member&, arena::Incarnation dead, arena::Lane& lane) {
  const arena::Handle handle = lane.intent_argument.load();
  const arena::Handle block = lane.intent.load() & ~sync::kHeldKindMask;
  if (handle % alignof(PipeState) != 0 || !arena.contains(handle, Pipe::state_size(false))) return;
  auto* const state = arena.at<PipeState>(handle);
  if (state->magic != Pipe::kMagic || state->ways - 1 > 1 ||
      !arena.contains(handle, Pipe::state_size(state->ways == 2)) ||
      arena.block_of(arena.address(block)) != block) {
    return;
  }
  uint64_t parked = arena::owner_block(handle);
  arena::give_to_dead(arena, dead, block, parked);
  if (parked != arena::owner_block(handle) && parked != arena::owner_member(dead)) return;
  for (uint32_t i = 0; i < state->ways; ++i) {
    for (os::Atomic<uint64_t>& slot : way_of(state, i)->parked) {
      uint64_t word = slot.load();
      if ((word & kHandleMask) == block) slot.compare_exchange(word, 0);
    }
  }
}

}  // namespace

size_t Pipe::state_size(bool both_ways) noexcept {
  return sizeof(PipeState) + (both_ways ? 2 : 1) * sizeof(PipeWay);
}

void Pipe::create_state(arena::Arena& arena, arena::Handle handle, bool both_ways) noexcept {
  auto* const state = new (arena.address(handle)) PipeState{};
  state->ways = both_ways ? 2 : 1;
  state->token = os::random_bits();
  for (uint32_t i = 0; i < state->ways; ++i) {
    PipeWay* const way = new (way_of(state, i)) PipeWay{};
    for (sync::MutexState* lock : {&way->reading, &way->writing}) {
      lock->magic = sync::Mutex::kMagic;
    }
  }
  state->magic = kMagic;
}

Pipe::Pipe(arena::Arena& arena, arena::Handle handle, uint32_t end, int fd)
    : arena_(&arena), handle_(handle), state_(nullptr), in_(nullptr), out_(nullptr), fd_(fd) {
  register_reap_hooks();
  arena::register_reap_hook(kPipeTakeIntent, &reap_take);
  auto* const state =
      arena.contains(handle, state_size(false)) ? arena.at<PipeState>(handle) : nullptr;
  if (handle % alignof(PipeState) != 0 || state == nullptr || state->magic != kMagic || end > 1 ||
      state->ways - 1 > 1 || !arena.contains(handle, state_size(state->ways == 2))) {
    throw arena::CorruptArena("no pipe at offset " + std::to_string(handle));
  }
  state_ = state;
  if (state->ways == 2) {
    out_ = way_of(state, end);
    in_ = way_of(state, 1 - end);
  } else {
    (end == 0 ? in_ : out_) = way_of(state, 0);
  }
}

// ---- locks

namespace {

uint64_t end_of(const PipeWay& way, uint64_t frame) noexcept {
  return way.ends[frame % PipeWay::kRemembered].load();
}

// Where the last of the first `frames` frames ended.
uint64_t written_by(const PipeWay& way, uint64_t frames) noexcept {
  return frames == 0 ? 0 : end_of(way, frames - 1);
}

}  // namespace

Pipe::Entered Pipe::lock(arena::Member& member, sync::MutexState& state, int64_t deadline_ns,
                         bool* owner_died) {
  sync::Mutex mutex(*arena_, state);
  const sync::Locked locked =
      deadline_ns == 0 ? mutex.try_lock(member) : mutex.lock(member, deadline_ns);
  *owner_died = locked == sync::Locked::owner_died;
  if (locked == sync::Locked::interrupted) return Entered::interrupted;
  return sync::is_locked(locked) ? Entered::ok : Entered::busy;
}

Pipe::Entered Pipe::enter_writing(arena::Member& member, PipeWay& way, int64_t deadline_ns) {
  bool owner_died = false;
  const Entered entered = lock(member, way.writing, deadline_ns, &owner_died);
  if (entered == Entered::ok && owner_died) [[unlikely]]
    count_doubtful(way);
  return entered;
}

// A writer died: the frame that it was writing is counted as written, and its size is noted as
// doubtful. Of several doubtful frames each may have been written or not. The next reader finds out
// which: see count_again().
void Pipe::count_doubtful(PipeWay& way) noexcept {
  const uint64_t frames = way.frames.load();
  const uint64_t size = end_of(way, frames) - written_by(way, frames);
  if (size == 0 || size > os::kFrameBytes) return;
  const uint64_t doubts = way.doubts.load();
  // COMMIT(pipe.doubt.size): killed before: done again; after: done again. Then the size may be
  // twice in the list, which only makes settle() try one sum more.
  way.doubtful[doubts % PipeWay::kDoubts].store(size);
  way.doubts.store(std::min(doubts + 1, uint64_t{PipeWay::kDoubts}));
  SHOAL_KILL_POINT("pipe.doubt.size");
  // COMMIT(pipe.doubt.frames): killed before: done again; after: counted.
  way.frames.store(frames + 1);
  SHOAL_KILL_POINT("pipe.doubt.frames");
}

Pipe::Entered Pipe::enter_reading(arena::Member& member, PipeWay& way, int64_t deadline_ns) {
  bool owner_died = false;
  const Entered entered = lock(member, way.reading, deadline_ns, &owner_died);
  if (entered != Entered::ok) return entered;
  // COMMIT(pipe.enter.unsettled): killed before: the lock tells the next reader of a death; after:
  // the next reader settles.
  if (owner_died) way.unsettled.store(1);
  SHOAL_KILL_POINT("pipe.enter.unsettled");
  if (way.unsettled.load() == 0 && way.doubts.load() == 0) [[likely]]
    return Entered::ok;
  // Writers never wait while they hold their lock, so 1 ms is enough even when deadline_ns is 0.
  const int64_t until_ns = deadline_ns == 0 ? os::monotonic_ns() + 1'000'000 : deadline_ns;
  const Entered quiet = enter_writing(member, way, until_ns);
  if (quiet == Entered::ok) {
    if (way.unsettled.load() == 0) {
      count_again(way);
    } else {
      settle(way);
    }
    // COMMIT(pipe.settle.done): killed before: the next reader settles again; after: settled.
    way.unsettled.store(0);
    SHOAL_KILL_POINT("pipe.settle.done");
    leave(member, way.writing);
  } else {
    leave(member, way.reading);
  }
  return quiet;
}

// No reader or writer is inside, and the last reader stopped at a frame's end. So the position read
// up to is the bytes written less the bytes queued, whichever of the doubtful frames were written.
// Done as soon as there is a doubt: once a reader has died inside a frame as well, the sums may not
// be able to tell.
void Pipe::count_again(PipeWay& way) const noexcept {
  // COMMIT(pipe.doubt.taken): killed before: done again; after: settled with no doubt in the sums.
  way.taken.store(written_by(way, way.frames.load()) - os::stream_queued(descriptor()));
  SHOAL_KILL_POINT("pipe.doubt.taken");
  way.doubts.store(0);
}

void Pipe::leave(arena::Member& member, sync::MutexState& state) {
  sync::Mutex(*arena_, state).unlock(member);
}

// A reader died, and no reader or writer is inside. Tries each combination of written and unwritten
// doubtful frames until one explains what the kernel has queued. Positions wrap at 2^64.
void Pipe::settle(PipeWay& way) noexcept {
  const uint64_t frames = way.frames.load();
  const uint64_t read = written_by(way, frames) - os::stream_queued(descriptor());
  const uint64_t doubts = std::min(way.doubts.load(), uint64_t{PipeWay::kDoubts});
  for (uint64_t chosen = 0; chosen < uint64_t{1} << doubts; ++chosen) {
    // If the chosen doubtful frames were not written, all positions since are too small by them.
    uint64_t unwritten = 0;
    for (uint64_t i = 0; i < doubts; ++i) {
      if ((chosen >> i & 1) != 0) unwritten += way.doubtful[i].load();
    }
    const uint64_t taken = way.taken.load() + unwritten;
    uint64_t end = way.header_end.load() + unwritten;
    const uint32_t header_read = way.header.load();
    if (end <= taken && header_read != PipeWay::kNoHeader) {
      end = taken + 4 + big_endian(reinterpret_cast<const std::byte*>(&header_read), 4);
    } else if (end <= taken) {  // the header was not noted: the first frame that ends after `taken`
      for (uint64_t i = 1; i <= std::min(frames, uint64_t{PipeWay::kRemembered}); ++i) {
        if (end_of(way, frames - i) <= taken) break;
        end = end_of(way, frames - i);
      }
    }
    const bool nothing = read == taken;
    const bool whole = end > taken && read == end;
    const bool header = end > taken && read == taken + 4 && end - read <= os::kFrameBytes;
    if (!nothing && !whole && !header) continue;
    if (header && !whole) skip(end - read);
    // COMMIT(pipe.settle.taken): killed before: done again, after skip(); after: at a frame.
    way.taken.store(nothing ? taken : end);
    way.doubts.store(0);
    SHOAL_KILL_POINT("pipe.settle.taken");
    return;
  }
  way.taken.store(read);  // no combination fits: strangers have read or written too
  way.doubts.store(0);
}

// Reads and drops the rest of the frame that the dead reader was inside of.
void Pipe::skip(uint64_t bytes) noexcept {
  std::byte rest[os::kFrameBytes];
  try {
    while (bytes > 0) {
      size_t got = 0;
      if (os::stream_read(descriptor(), both_ways(), rest, bytes, &got) != os::Moved::done) return;
      bytes -= got;
    }
  } catch (const os::OsError&) {
    return;  // the caller's own read will fail in the same way
  }
}

// ---- frames

Piped Pipe::send(arena::Member& member, std::span<const std::byte> payload, int64_t deadline_ns) {
  for (;;) {
    const Entered entered = enter_writing(member, *out_, deadline_ns);
    if (entered != Entered::ok) {
      return entered == Entered::interrupted ? Piped::interrupted : Piped::again;
    }
    Piped result = Piped::again;
    try {
      result = write_frame(*out_, payload);
    } catch (const os::OsError&) {
      leave(member, out_->writing);
      throw;
    }
    leave(member, out_->writing);
    if (result == Piped::ended) free_parked(member, handle_, *out_);
    if (result != Piped::again || deadline_ns == 0) return result;
    const Piped ready = wait(true, deadline_ns);
    if (ready != Piped::ok) return ready;
  }
}

Piped Pipe::write_frame(PipeWay& way, std::span<const std::byte> payload) {
  const uint64_t frames = way.frames.load();
  const uint64_t before = written_by(way, frames);
  const auto size = static_cast<uint32_t>(payload.size());
  const uint8_t head[4] = {static_cast<uint8_t>(size >> 24), static_cast<uint8_t>(size >> 16),
                           static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size)};
  // COMMIT(pipe.send.end): killed before: nothing; after: not written, counted as doubtful.
  way.ends[frames % PipeWay::kRemembered].store(before + sizeof head + size);
  SHOAL_KILL_POINT("pipe.send.end");
  const os::Moved moved = os::stream_write(descriptor(), both_ways(), head, sizeof head,
                                           payload.data(), payload.size());
  // COMMIT(pipe.send.frame): killed before: perhaps written, counted as doubtful; after: counted.
  if (moved == os::Moved::done) way.frames.store(frames + 1);
  SHOAL_KILL_POINT("pipe.send.frame");
  if (moved == os::Moved::would_block) {
    way.ends[frames % PipeWay::kRemembered].store(before);  // not doubtful, if the next writer dies
    return Piped::again;
  }
  return moved == os::Moved::done ? Piped::ok : Piped::ended;
}

Piped Pipe::receive(arena::Member& member, Frame& frame, int64_t deadline_ns, Naming naming) {
  for (;;) {
    if (!frame.inside) {
      if (descriptor() < 0) throw os::OsError("read", EBADF, "a pipe");
      if (deadline_ns != 0) spin();
      const Entered entered = enter_reading(member, *in_, deadline_ns);
      if (entered != Entered::ok) {
        return entered == Entered::interrupted ? Piped::interrupted : Piped::again;
      }
    }
    Piped result = Piped::again;
    try {
      result = read_frame(*in_, frame);
      if (result == Piped::ok) finish_frame(member, *in_, frame, naming);
    } catch (const std::exception&) {
      frame.inside = false;
      leave(member, in_->reading);
      throw;
    }
    if (result != Piped::again) frame.inside = false;
    if (!frame.inside) leave(member, in_->reading);
    if (result != Piped::again || deadline_ns == 0) return result;
    const Piped ready = wait(false, deadline_ns);
    if (ready != Piped::ok) return ready;
  }
}

void Pipe::abandon(arena::Member& member, Frame& frame) noexcept {
  if (!frame.inside) return;
  frame.inside = false;
  try {
    leave(member, in_->reading);
  } catch (const std::exception&) {
    return;  // this process is no longer a member, so it does not hold the lock
  }
}

// Reads the frame's bytes from `offset` to `end` into `to`, as far as the descriptor has them.
Piped Pipe::read_up_to(Frame& frame, std::byte* to, uint64_t offset, uint64_t end) {
  while (frame.got < end) {
    size_t now = 0;
    switch (os::stream_read(descriptor(), both_ways(), to + (frame.got - offset),
                            static_cast<size_t>(end - frame.got), &now)) {
      case os::Moved::done:
        frame.got += now;
        frame.inside = true;
        break;
      case os::Moved::would_block:
        return Piped::again;
      case os::Moved::ended:
        return frame.got == 0 ? Piped::ended : Piped::cut;
    }
  }
  return Piped::ok;
}

Piped Pipe::read_frame(PipeWay& way, Frame& frame) {
  if (!frame.inside) {
    frame.got = 0;
    frame.header_size = 4;
    frame.large.reset();
    way.header.store(PipeWay::kNoHeader);
  }
  if (frame.got < frame.header_size) {
    Piped header = Piped::ok;
    if (frame.header_size == 4) {
      header = read_up_to(frame, reinterpret_cast<std::byte*>(way.header.raw()), 0, 4);
      if (header != Piped::ok) return header;
      // COMMIT(pipe.receive.read): killed before: nothing was read; after: settle() knows the frame
      // by its header, which the kernel stored while reading it.
      SHOAL_KILL_POINT("pipe.receive.read");
      const uint32_t whole = way.header.load();
      std::memcpy(frame.header, &whole, sizeof whole);
    } else {
      header = read_up_to(frame, frame.header, 0, frame.header_size);
    }
    if (header != Piped::ok) return header;
    frame.size = big_endian(frame.header, 4);
    if (frame.size == 0xFFFFFFFF && frame.header_size == 4) {
      frame.header_size = sizeof frame.header;
      header = read_up_to(frame, frame.header, 0, frame.header_size);
      if (header != Piped::ok) return header;
    }
    if (frame.header_size != 4) frame.size = big_endian(frame.header + 4, 8);
    if (frame.size > uint64_t{1} << 46 || (frame.header_size == 4 && frame.size >> 31 != 0)) {
      throw os::OsError("read", EBADMSG, "a pipe: the bytes are not a message");
    }
    // COMMIT(pipe.receive.header): killed before: settle() finds the end; after: the end is noted.
    way.header_end.store(way.taken.load() + frame.header_size + frame.size);
    SHOAL_KILL_POINT("pipe.receive.header");
    if (frame.size > sizeof frame.small) {
      frame.large.reset(new std::byte[static_cast<size_t>(frame.size)]);
    }
  }
  std::byte* const to = frame.large ? frame.large.get() : frame.small;
  const Piped body = read_up_to(frame, to, frame.header_size, frame.header_size + frame.size);
  return body;
}

// The whole frame is read: counts it, and takes the block that it names.
void Pipe::finish_frame(arena::Member& member, PipeWay& way, Frame& frame, Naming naming) {
  const Named named = naming == nullptr ? Named{} : naming(*this, frame);
  const arena::LaneGuard lane(member);
  if (named.block != 0) {
    lane->intent_argument.store(handle_);
    // COMMIT(pipe.take.intent): killed before: the slot is lost; after: reap_take() frees both.
    lane->intent.store(named.block | kPipeTakeIntent);
    SHOAL_KILL_POINT("pipe.take.intent");
  }
  // COMMIT(pipe.receive.frame): killed before: settle() counts it as read; after: counted.
  way.taken.store(way.taken.load() + frame.header_size + frame.size);
  SHOAL_KILL_POINT("pipe.receive.frame");
  frame.took = named.block != 0 && take(member, named.block, named.slot);
  lane->intent.store(0);
}

// Asks the kernel how much is queued. That costs less than passing a changed word in shared memory
// between processors as well. Asks only at every eighth look, since it is a system call, and the
// partner may need this processor. (spin() does not notice the pipe's end; wait() does.)
bool Pipe::spin() noexcept {
  constexpr uint32_t kEvery = 8;
  uint32_t looks = 0;
  return sync::spin_until(
      [&] { return looks++ % kEvery == 0 && os::stream_queued(descriptor()) != 0; });
}

Piped Pipe::poll(int64_t deadline_ns) {
  if (deadline_ns != 0 && spin()) return Piped::ok;
  return wait(false, deadline_ns);
}

Piped Pipe::wait(bool to_write, int64_t deadline_ns) {
  switch (os::stream_wait(descriptor(), to_write, deadline_ns)) {
    case os::Readiness::ready:
      return Piped::ok;
    case os::Readiness::timed_out:
      return Piped::again;
    case os::Readiness::interrupted:
      break;
  }
  return Piped::interrupted;
}

// ---- blocks

// False while all frames are read: then the parked blocks are being taken by readers, or were lost
// with a reader that died.
bool Pipe::is_enough_parked() const noexcept {
  uint64_t units = 0;
  for (const os::Atomic<uint64_t>& word : out_->parked) units += word.load() >> kSizeShift;
  return units >= kMostParkedBytes >> kSizeUnitShift &&
         os::stream_unread(descriptor(), both_ways()) != 0;
}

bool Pipe::is_broken(arena::Member& member) {
  if (!os::stream_broken(descriptor())) return false;
  free_parked(member, handle_, *out_);
  return true;
}

int Pipe::park(arena::Member& member, arena::Handle message) noexcept {
  if (is_enough_parked()) return -1;
  const uint64_t owner = arena::owner_block(handle_);
  const uint64_t word = parked_word(*arena_, message);
  for (int round = 0; round < 2; ++round) {
    for (uint64_t i = 0; i < PipeWay::kParked; ++i) {
      uint64_t found = out_->parked[i].load();
      // The second round also uses words that dead senders left: their block does not have the
      // owner BLOCK(state). A block that is just being parked looks the same; without its word the
      // block is still freed, but later, by a reaper.
      if (found != 0 && (round == 0 || arena_->owner_word(found & kHandleMask).load() == owner)) {
        continue;
      }
      // COMMIT(pipe.park.slot): killed before: the scan frees it; after: so, and the word is stale.
      if (!out_->parked[i].compare_exchange(found, word)) continue;
      SHOAL_KILL_POINT("pipe.park.slot");
      // COMMIT(pipe.park.owner): killed before: the scan frees it; after: freed with the pipe.
      member.give_to_block(message, handle_);
      SHOAL_KILL_POINT("pipe.park.owner");
      return static_cast<int>(i);
    }
  }
  return -1;
}

bool Pipe::unpark(arena::Member& member, arena::Handle message, uint32_t slot) noexcept {
  // COMMIT(pipe.unpark.owner): killed before: freed with the pipe; after: the scan frees it.
  if (!member.take_from_block(message, handle_)) return false;
  SHOAL_KILL_POINT("pipe.unpark.owner");
  uint64_t expected = parked_word(*arena_, message);
  out_->parked[slot].compare_exchange(expected, 0);
  return true;
}

bool Pipe::take(arena::Member& member, arena::Handle message, uint32_t slot) noexcept {
  // COMMIT(pipe.take.owner): killed before: freed by reap_take(); after: by the scan.
  if (!member.take_from_block(message, handle_)) return false;
  SHOAL_KILL_POINT("pipe.take.owner");
  uint64_t expected = parked_word(*arena_, message);
  // COMMIT(pipe.take.slot): killed before: freed by reap_take(); after: free.
  in_->parked[slot % PipeWay::kParked].compare_exchange(expected, 0);
  SHOAL_KILL_POINT("pipe.take.slot");
  return true;
}

bool Pipe::take_from(arena::Member& member, arena::Handle state, arena::Handle message) noexcept {
  return member.take_from_block(message, state);
}

void Pipe::free_parked(arena::Member& member, arena::Handle state, PipeWay& way) noexcept {
  for (os::Atomic<uint64_t>& word : way.parked) {
    const arena::Handle message = word.exchange(0) & kHandleMask;
    if (message != 0 && member.take_from_block(message, state)) free_message(member, message);
  }
}

void Pipe::let_go(arena::Member& member, arena::Handle handle) noexcept {
  if (!member.drop_shared(handle)) return;
  auto* const state = member.arena().at<PipeState>(handle);
  const uint32_t ways = std::min(state->ways, uint32_t{2});
  for (uint32_t i = 0; i < ways; ++i) free_parked(member, handle, *way_of(state, i));
  member.free(handle);
}

}  // namespace shoal::channel
