// SPDX-License-Identifier: Apache-2.0
//
// Pipe: one end of a pair of connections. The descriptor carries frames in the format of the
// standard library's connections. A message that is too large for a frame lies in a block of the
// arena, and the frame names the block. Any thread of any member that has the descriptor may call
// it. send() and receive() sleep, unless their deadline is 0. Nothing allocates, except receive()
// for a large frame of a stranger.
//
// A *stranger* is a program that reads or writes the descriptor by other means than this class.
//
// Why both a descriptor and an arena: the kernel knows when the last copy of an end is closed, by
// whichever process or its death, and makes the descriptor readable exactly while there is a frame.
// The arena has no size limit and copies nothing.
//
// Frame:  size:32 big endian, then so many bytes  |  -1:32, size:64, then so many bytes
// Invariants:
// 1. A frame that this class writes has at most os::kFrameBytes and is written by one call, as a
//    whole or not at all. So a reader that holds the `reading` lock and has read such a frame's
//    header finds the rest of the frame in the descriptor.
// 2. No lock is held while waiting for the descriptor, except by a reader that is inside a frame
//    which a stranger has written in parts.
// 3. ends[n % kRemembered] is where frame n ended, counted in bytes since the beginning; `frames`
//    of them were written; `taken` is where the last frame that was read ended.
// 4. Until it is taken, a block named by a frame has the owner BLOCK(state), and a `parked` word
//    has its handle. The reader of the frame names the block in a lane's intent while it takes it.
//    The process that takes a block frees it. A block that no process takes is freed with the
//    state, by the last process that holds the state.
//
// Deaths. A writer that gets the writing lock from a dead one counts the frame that the dead writer
// was writing as written, and notes its size as doubtful. A reader that gets the reading lock from
// a dead one takes the writing lock too, so that nothing moves. Then it finds out what the dead
// reader had read (nothing, the header, all) by asking the kernel how many bytes are queued:
// queued = written - taken. Only readers can ask that. What strangers read or write falsifies this
// equation; then the stream is assumed to be at the beginning of a frame.
// Design: docs/design/pipe.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "os/stream.hpp"
#include "sync/mutex.hpp"

namespace shoal::channel {

// One direction.
struct PipeWay {
  static constexpr uint64_t kRemembered = 256;
  static constexpr uint64_t kParked = 256;
  static constexpr uint64_t kDoubts = 8;
  static constexpr uint32_t kNoHeader = 0xFEFFFFFF;  // big endian: no size of a frame
  sync::MutexState reading;
  sync::MutexState writing;
  uint32_t padding;
  os::Atomic<uint32_t> unsettled;   // a reader died holding `reading`; cleared under both locks
  os::Atomic<uint64_t> frames;      // written by the holder of `writing`
  os::Atomic<uint64_t> taken;       // written by the holder of `reading`, as is header_end
  os::Atomic<uint64_t> header_end;  // beyond `taken`: where the frame being read will end
  // Sizes of frames that were counted and perhaps not written, since a reader last settled.
  os::Atomic<uint64_t> doubts;
  os::Atomic<uint64_t> doubtful[kDoubts];
  // The header of the frame being read. The kernel stores it here, so that it is known at whatever
  // instruction the reader dies. kNoHeader: not read yet.
  os::Atomic<uint32_t> header;
  uint32_t header_padding;
  uint64_t spare[10 - kDoubts];
  os::Atomic<uint64_t> ends[kRemembered];
  // Parked blocks, 0: unused. The handle, and above it the size in 64 KiB, rounded down.
  os::Atomic<uint64_t> parked[kParked];
};
static_assert(sizeof(PipeWay) == 256 + 8 * (PipeWay::kRemembered + PipeWay::kParked));

struct alignas(64) PipeState {
  uint32_t magic;
  uint32_t ways;
  uint64_t token;  // random: only processes that have the state can name its blocks
  uint64_t spare[6];
  // `ways` PipeWays follow
};
static_assert(sizeof(PipeState) == 64 && alignof(PipeWay) == 64);

enum class [[nodiscard]] Piped {
  ok,
  again,        // no frame, or no room, until the deadline
  interrupted,  // a signal came; nothing was read or written
  ended,        // the other end is closed everywhere
  cut,          // the other end was closed inside a frame
};

inline constexpr uint64_t kPipeTakeIntent = 12;  // lane intent: a parked block is being taken

// The block that a frame names and its slot. block = 0: the frame names none.
struct Named {
  arena::Handle block = 0;
  uint32_t slot = 0;
};

// A frame being received. While a frame is incomplete, its reader holds the reading lock.
struct Frame {
  uint64_t size = 0;
  std::byte small[os::kFrameBytes];
  std::unique_ptr<std::byte[]> large;  // for a large frame of a stranger
  [[nodiscard]] const std::byte* data() const noexcept { return large ? large.get() : small; }
  bool took = false;  // the block that the frame names belongs to this member now

  // While it is being read:
  bool inside = false;
  uint64_t got = 0;  // bytes read of header and payload
  uint32_t header_size = 4;
  std::byte header[12];
};

class Pipe {
 public:
  static constexpr uint32_t kMagic = 0x65706970;  // "pipe"
  static constexpr size_t kMostInFrame = os::kFrameBytes - 4;

  static size_t state_size(bool both_ways) noexcept;
  static void create_state(arena::Arena& arena, arena::Handle handle, bool both_ways) noexcept;

  // One end of a state that the member holds. Of a one-way pipe, end 0 reads and end 1 writes.
  // Throws CorruptArena.
  Pipe(arena::Arena& arena, arena::Handle handle, uint32_t end, int fd);

  // Writes one frame of at most kMostInFrame bytes. Throws OsError.
  Piped send(arena::Member& member, std::span<const std::byte> payload, int64_t deadline_ns);
  // Reads one frame. Throws OsError, bad_alloc. After `again` or `interrupted` inside a frame, call
  // it again with the same frame, or call abandon().
  // `naming` says which parked block a complete frame names. The block is taken together with the
  // frame, so that a reader that dies in between does not leave the block and its slot behind.
  using Naming = Named (*)(const Pipe& pipe, const Frame& frame) noexcept;
  Piped receive(arena::Member& member, Frame& frame, int64_t deadline_ns, Naming naming = nullptr);
  void abandon(arena::Member& member, Frame& frame) noexcept;
  // Waits until receive() would find something. Returns ok, again or interrupted.
  Piped poll(int64_t deadline_ns);

  // Gives the member's message to the pipe, until the other end takes it. Returns its slot, which
  // the other end must be told; or -1 when too many messages, or too many bytes, are parked.
  int park(arena::Member& member, arena::Handle message) noexcept;
  // Takes back a message that was parked here and not announced; it is the member's again.
  bool unpark(arena::Member& member, arena::Handle message, uint32_t slot) noexcept;
  // Takes a message that the other end parked; it becomes the member's. False: it is not parked.
  [[nodiscard]] bool take(arena::Member& member, arena::Handle message, uint32_t slot) noexcept;
  // Whether the other end is closed everywhere, so that no process can read what is sent. If so,
  // this frees all parked messages. Throws OsError.
  bool is_broken(arena::Member& member);
  // As take(), for a member that does not hold the state.
  [[nodiscard]] static bool take_from(arena::Member& member, arena::Handle state,
                                      arena::Handle message) noexcept;

  // Lets go of the state. If the member was the last holder, frees it with all parked messages.
  static void let_go(arena::Member& member, arena::Handle handle) noexcept;

  [[nodiscard]] uint64_t token() const noexcept { return state_->token; }
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }
  [[nodiscard]] bool both_ways() const noexcept { return state_->ways == 2; }
  // -1: forget_descriptor() was called.
  [[nodiscard]] int descriptor() const noexcept { return fd_.load(); }
  // Call it before the descriptor is closed, while other threads may be waiting for it: its number
  // may soon belong to another file, from which they must not read. They get OsError.
  void forget_descriptor() noexcept { fd_.store(-1); }

 private:
  static constexpr uint64_t kMostParkedBytes = uint64_t{64} << 20;
  enum class Entered { ok, busy, interrupted };
  Entered lock(arena::Member& member, sync::MutexState& state, int64_t deadline_ns,
               bool* owner_died);
  Entered enter_writing(arena::Member& member, PipeWay& way, int64_t deadline_ns);
  Entered enter_reading(arena::Member& member, PipeWay& way, int64_t deadline_ns);
  void leave(arena::Member& member, sync::MutexState& state);
  static void count_doubtful(PipeWay& way) noexcept;
  void count_again(PipeWay& way) const noexcept;
  void settle(PipeWay& way) noexcept;
  void skip(uint64_t bytes) noexcept;
  bool spin() noexcept;
  Piped wait(bool to_write, int64_t deadline_ns);
  Piped write_frame(PipeWay& way, std::span<const std::byte> payload);
  Piped read_frame(PipeWay& way, Frame& frame);
  void finish_frame(arena::Member& member, PipeWay& way, Frame& frame, Naming naming);
  Piped read_up_to(Frame& frame, std::byte* to, uint64_t offset, uint64_t end);
  [[nodiscard]] bool is_enough_parked() const noexcept;
  static void free_parked(arena::Member& member, arena::Handle state, PipeWay& way) noexcept;

  arena::Arena* arena_;
  arena::Handle handle_;
  PipeState* state_;
  PipeWay* in_;         // nullptr: this end does not read
  PipeWay* out_;        // nullptr: this end does not write
  os::Atomic<int> fd_;  // of this process
};

}  // namespace shoal::channel
