// SPDX-License-Identifier: Apache-2.0
//
// The structs of an arena, as they lie in shared memory. Whole file, from offset 0:
//
//   Header | MemberSlot[4096] | used bitmap | warm bitmap | orphan bitmap | child bitmap |
//   kept bitmap | PageDescriptor[pages] | marks of each slot | data pages
//
// A data page has 64 KiB.
//
// The file has its full size (the reserve) from the start; ranges without memory are holes. The
// tables describe the first `frontier` data pages. A page is *used* (part of a run), *warm* (has
// memory behind it), both or neither. The orphan bitmap has a bit for the first page of each span
// in which no member allocates (arena/orphans.hpp), the child bitmap one for the first page of each
// run or span with blocks that belong to another block (arena/kin.hpp), the kept bitmap one for
// the first page of each free run that a member keeps (arena/kept_runs.hpp). The marks are one
// bitmap of the pages for each member slot (arena/marks.hpp), which are holes except for the parts
// in use. The static_asserts freeze sizes and offsets; layout_hash() changes with them, and a
// process that attaches compares the hash. Design: docs/design/arena.md
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/owner.hpp"
#include "os/atomic.hpp"

namespace shoal::arena {

inline constexpr uint64_t kPageShift = 16;
inline constexpr uint64_t kPage = uint64_t{1} << kPageShift;
// in pages: runs of 2 MiB and more start at a multiple of this
inline constexpr uint64_t kHugeAlign = 32;
// the frontier moves by this many pages (64 MiB of data, 40 KiB of tables)
inline constexpr uint64_t kMetadataStep = 1024;
inline constexpr uint64_t kMagic = 0x31306c616f687321;  // "!shoal01"
inline constexpr uint32_t kVersion = 4;
inline constexpr uint32_t kLanes = 16;
inline constexpr uint32_t kLaneHeld = 4;
inline constexpr uint32_t kRoots = 64;
inline constexpr uint32_t kRootNameWords = 6;
inline constexpr uint32_t kMarkChunks = 512;  // at most this many chunks of marks a slot

// The record of one running operation. The member writes it; after its death the reaper reads it.
struct Lane {
  os::Atomic<uint64_t> intent;  // 0: none; low 4 bits: kind, as registered with register_reap_hook
  os::Atomic<uint64_t> intent_argument;  // written before `intent`
  os::Atomic<uint64_t> held[kLaneHeld];  // handles of locks that are held or being acquired
  os::Atomic<uint64_t> wake;             // the object whose sleepers the operation is about to wake
  uint64_t reserved;
};
static_assert(sizeof(Lane) == 64);

// state word: {life:30 | pid:22 | start:9 | state:3}. One store names the process, so a
// process that dies at any instruction of a join can be told from a live one. `start` is derived
// from the process start time (start_bits() in slots.hpp); 0: not known.
enum class SlotState : uint64_t {
  free = 0,  // `life` is that of the last user
  // process `pid` is filling it; or, if `birth` != 0, `pid` (the parent) has prepared it for a
  // forked child
  born = 1,
  live = 2,
  leaving = 3,  // the member reaps itself
  dead = 4,     // waits to be reaped or is being reaped
};

inline constexpr uint64_t kBirthLocked = 1;  // in MemberSlot::birth

// One member's record. Each use of a slot is one life of the slot; lives are numbered in rising
// order, and {life, slot} is the member's incarnation. Each state transition is one
// compare-exchange of the whole word, which contains the life, so it fails if the slot has moved on
// to another state or life. The first table lists for each state which process writes which field,
// and which process makes the next transition. The second table says why a process that was stopped
// in a state, and resumes in a later life of the slot, does no harm.
//
//   state    written by                          next state
//   free     no process                          born: a claimer, which joins or forks
//   born     claimer: kind, lanes, trace,        live: the claimer itself, or the fork's child
//            parent, marks; `birth` last
//   live     member: image, start_time first;    leaving: the member
//            lanes, marks; layers above: trace
//   leaving  member, which reaps itself: lanes,  free: the member
//            marks, then the four below
//   dead     reaper: lanes, marks, then the four free: the reaper
//            below
//
//   born, live, leaving -> dead: any member that finds that no process that owns this life of the
//   slot can run again; the member itself, if it ends its membership and does not reap itself
//
//   state    why a late process does no harm
//   free     A claimer's exchange expects the number of the last user.
//   born     A claimer keeps the slot while its process lives, so it is never late. The child of a
//            fork stores nothing before its exchange to live; if that fails, it is no member.
//   live,    A member keeps the slot while its process lives.
//   leaving
//   dead     The reaper keeps the job while it is a member. A member that wins the job for
//            a life that is over finds that out when it reads `state` afterwards, and stops.
//   any      The exchange that declares a slot dead expects the word whose process was found dead.
//
// In a free slot start_time, image, parent and birth are 0, and no page is marked. Whether a member
// is alive is judged by these four fields and `state` only. A reader that has read `state` finds in
// the four fields the values of that life, or 0, or the values of a later life. In the last two
// cases what it concludes has no effect, because a compare-exchange that expects the `state` that
// it read fails. `reaper` may be written in any state, by the member that wins the reaping job. It
// is never cleared, and the life of the dead member in it never decreases. So a late member that
// wants to reap an earlier life cannot take the job from a reaper of a later life.
struct MemberSlot {
  os::Atomic<uint64_t> state;
  os::Atomic<uint64_t> start_time;  // of the process; 0: not known, `state` has some bits of it
  os::Atomic<uint64_t> image;  // of the process (os::process_image): an exec ends the membership
  // {life of the dead:30 | low 34 bits of the reaper's incarnation}: that member is reaping that
  // life of this slot. If the reaper dies, another member takes over. Reaper 0: no member is
  // reaping. Valid if the life is the one in `state`. A slot repeats the low 34 bits after 2^22
  // lives: if that many members use the dead reaper's slot while this slot waits to be reaped, the
  // last of them is taken for the reaper for as long as it lives.
  os::Atomic<uint64_t> reaper;
  os::Atomic<uint64_t> parent;  // slot of a fork's child: incarnation of the forking member
  // In state born: what decides whether the slot is still in use. 0: the process in `state` is
  // alive. kBirthLocked: the birth lock, which the fork's parent and child hold, is held. A larger
  // value: there is no birth lock, and this is the monotonic time (ns) until which the child may
  // become live.
  os::Atomic<uint64_t> birth;
  os::Atomic<uint64_t> kind;
  uint64_t reserved[9];
  Lane lanes[kLanes];
  alignas(128) std::byte
      trace[1024];  // src/trace/record.hpp says what is in here; zero when the member joins
  // The slot's marks: see arena/marks.hpp. Written by the member, or for a child that is not live
  // yet by the forking member; after the member's death by its reaper.
  alignas(128) os::Atomic<uint64_t> mark_chunks[kMarkChunks / 64];  // bit: the chunk has memory
  os::Atomic<uint64_t>
      marks_everything;  // 1: some page could not be marked, so all count as marked
};
static_assert(sizeof(MemberSlot) == 128 + 1024 + 1024 + 128);

// Where the marks lie (arena/marks.hpp): each slot has a bit for each page of the reserve. The bits
// come in chunks, at most kMarkChunks a slot; chunk 0 of all slots is followed by chunk 1 of all
// slots, so that the chunks in use lie close together. A chunk has at least 64 bytes, and 4 KiB
// (the bits of 2 GiB) in all but small arenas.
class MarksLayout {
 public:
  constexpr explicit MarksLayout(uint64_t pages) noexcept : pages_(pages) {
    while (shift_ < 15 && pages > uint64_t{1} << shift_) ++shift_;
    while (pages > uint64_t{kMarkChunks} << shift_) ++shift_;
  }
  constexpr uint64_t pages() const noexcept { return pages_; }
  constexpr uint64_t chunks() const noexcept { return chunk_of(pages_ + (1 << shift_) - 1); }
  constexpr uint64_t chunk_of(uint64_t page) const noexcept { return page >> shift_; }
  constexpr uint64_t first_page(uint64_t chunk) const noexcept { return chunk << shift_; }
  constexpr uint64_t words_a_chunk() const noexcept { return uint64_t{1} << (shift_ - 6); }
  // Index of a chunk's first word.
  constexpr uint64_t first_word(uint32_t slot, uint64_t chunk) const noexcept {
    return (chunk * kMemberSlots + slot) << (shift_ - 6);
  }
  // Index of the word with the page's bit.
  constexpr uint64_t word_of(uint32_t slot, uint64_t page) const noexcept {
    const uint64_t in_chunk = page & ((uint64_t{1} << shift_) - 1);
    return first_word(slot, chunk_of(page)) + in_chunk / 64;
  }
  constexpr uint64_t bytes() const noexcept { return first_word(0, chunks()) * sizeof(uint64_t); }

 private:
  uint64_t pages_;
  uint32_t shift_ = 9;  // a chunk has 2^shift_ pages
};

// A page's shape word. First page of a run: {pages:32 | class:8 | kind:8}. Other pages of a run:
// distance back to the first. Free page: when it was freed (ms), for the decay.
enum class PageKind : uint64_t { free = 0, run = 1, span = 2, tail = 3 };

constexpr uint64_t make_shape(PageKind kind, uint64_t size_class, uint64_t pages) noexcept {
  return pages << 16 | size_class << 8 | static_cast<uint64_t>(kind);
}
constexpr PageKind shape_kind(uint64_t shape) noexcept {
  return static_cast<PageKind>(shape & 0xFF);
}
constexpr uint64_t shape_class(uint64_t shape) noexcept { return shape >> 8 & 0xFF; }
constexpr uint64_t shape_pages(uint64_t shape) noexcept { return shape >> 16 & 0xFFFFFFFF; }
constexpr uint64_t make_tail(uint64_t distance) noexcept {
  return distance << 16 | static_cast<uint64_t>(PageKind::tail);
}
constexpr uint64_t tail_distance(uint64_t shape) noexcept { return shape >> 16; }
constexpr uint64_t make_free_page(uint64_t freed_ms) noexcept { return freed_ms << 16; }
constexpr uint64_t freed_ms(uint64_t shape) noexcept { return shape >> 16; }

// `owner`, `holders` and `more` are valid in the first page of a run only. `shape` is written under
// the arena lock, `owner` as owner.hpp says.
struct PageDescriptor {
  // run: the block's owner word; span: the member that allocates in it, if any (arena/orphans.hpp)
  os::Atomic<uint64_t> owner;
  os::Atomic<uint64_t> holders;  // of a record (arena/record.hpp), as is `more`
  os::Atomic<uint64_t> shape;
  os::Atomic<uint64_t> more;
  os::Atomic<uint64_t> kin;  // which blocks the run's or span's blocks belong to: arena/kin.hpp
};
static_assert(sizeof(PageDescriptor) == 40);

// What the holder of the arena lock is doing, in absolute values, so that repeating it changes
// nothing.
enum class RunOp : uint64_t { none = 0, allocate = 1, release = 2, shrink = 3 };

struct RunIntent {
  os::Atomic<uint64_t> op;     // RunOp; written last (begin) and first (end)
  os::Atomic<uint64_t> first;  // page
  os::Atomic<uint64_t> pages;  // allocate, release: the whole run; shrink: pages that stay
  os::Atomic<uint64_t> extra;  // shrink: pages that become free
  os::Atomic<uint64_t> shape;  // allocate: shape word; release, shrink: the free pages' shape
  os::Atomic<uint64_t> owner;  // allocate: owner word
};

// A named root. Members write it under the RunsLock; readers take no lock.
//
// 1. An entry whose handle is 0 is free, whatever its other words hold.
// 2. The name changes only while the handle is 0, and `version` is incremented before each such
//    change. So a reader that loads the handle between two loads of `version` that are equal has
//    compared the whole name that belongs to that handle, however long it was stopped.
// 3. No two entries that are not free have the same name.
struct Root {
  os::Atomic<uint64_t> version;
  os::Atomic<uint64_t> name[kRootNameWords];  // padded with 0xFF
  os::Atomic<uint64_t> handle;
};
static_assert(sizeof(Root) == 64);

struct Header {
  uint64_t magic;
  uint32_t version;
  uint32_t header_size;
  uint64_t layout_hash;
  uint64_t reserve;      // bytes, the file's size
  uint64_t pages;        // data pages in the reserve
  uint64_t used_offset;  // offsets of the tables
  uint64_t warm_offset;
  uint64_t orphan_offset;
  uint64_t child_offset;
  uint64_t kept_offset;
  uint64_t descriptors_offset;
  uint64_t marks_offset;
  uint64_t data_offset;
  uint64_t limit;  // bytes of warm memory the session may have; 0: as much as the machine gives
  uint64_t pid_namespace;      // of the creator (os::pid_namespace) and all members; 0: not known
  os::Atomic<uint64_t> ready;  // kMagic once the creator has finished
  os::Atomic<uint64_t> frontier;       // pages that the tables describe; only grows, under the lock
  os::Atomic<uint64_t> slots_used;     // slots from this index on were never claimed; only grows
  os::Atomic<uint64_t> last_number;    // for the layers above: each number is given out once
  os::Atomic<uint64_t> last_version;   // of records: no number is given out twice
  os::Atomic<uint64_t> next_sweep_ns;  // reap_if_due() in member.hpp
  os::Atomic<uint64_t> next_purge_ms;  // a member that finds this time past purges warm pages
  alignas(128) os::Atomic<uint64_t> lock;  // arena/lock.hpp
  RunIntent intent;
  // by run length, a hint: first page + 1 of the run of that length released last
  alignas(128) os::Atomic<uint64_t> recent[16];
  // counts reaped members. A reaper increments it after it has released the dead member's spans or
  // made them orphans, and before the slot becomes free. A change wakes no thread.
  os::Atomic<uint64_t> death_epoch;
  alignas(128) Root roots[kRoots];
};

inline constexpr uint64_t kSlotsOffset = 16384;
static_assert(sizeof(Header) <= kSlotsOffset);

inline constexpr uint64_t layout_hash() noexcept {
  uint64_t hash = 14695981039346656037ULL;
  for (uint64_t value :
       {sizeof(Header), sizeof(MemberSlot), sizeof(PageDescriptor), sizeof(Lane),
        offsetof(Header, lock), offsetof(Header, roots), offsetof(MemberSlot, lanes),
        offsetof(MemberSlot, trace), offsetof(MemberSlot, mark_chunks), static_cast<size_t>(kPage),
        static_cast<size_t>(kMemberSlots), static_cast<size_t>(kVersion)})
    hash = (hash ^ value) * 1099511628211ULL;
  return hash;
}

}  // namespace shoal::arena
