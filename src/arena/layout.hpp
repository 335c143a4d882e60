// SPDX-License-Identifier: Apache-2.0
//
// The structs of an arena, as they lie in shared memory. Whole file, from offset 0:
//
//   Header | MemberSlot[512] | used bitmap | warm bitmap | PageDescriptor[pages] | data pages
//
// A data page has 64 KiB.
//
// The file has its full size (the reserve) from the start; what is not reserved yet are holes.
// `frontier` pages are known to the tables; a page is *used* (part of a run), *warm* (has memory
// behind it), both or neither. Sizes and offsets are frozen by the static_asserts; kLayoutHash
// changes with them and joiners compare it.
// Design: docs/design/arena.md
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/owner.hpp"
#include "os/atomic.hpp"

namespace shoal::arena {

inline constexpr uint64_t kPageShift = 16;
inline constexpr uint64_t kPage = uint64_t{1} << kPageShift;
// pages: runs of 2 MiB and more start at multiples of this
inline constexpr uint64_t kHugeAlign = 32;
// pages by which the frontier moves (64 MiB of data, 32 KiB of tables)
inline constexpr uint64_t kMetadataStep = 1024;
inline constexpr uint64_t kMagic = 0x31306c616f687321;  // "!shoal01"
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kLanes = 16;
inline constexpr uint32_t kLaneHeld = 4;
inline constexpr uint32_t kRoots = 64;
inline constexpr uint32_t kRootNameWords = 6;

// One operation under way. Owned by the member; read by its reaper. Which operation: `intent`'s low
// 4 bits.
struct Lane {
  os::Atomic<uint64_t> intent;  // 0: none; low 4 bits: kind, as registered with register_reap_hook
  os::Atomic<uint64_t> intent_argument;  // written before `intent`
  os::Atomic<uint64_t> held[kLaneHeld];  // handles of locks that are held or being taken
  os::Atomic<uint64_t> wake;             // the object whose sleepers the operation is about to wake
  uint64_t reserved;
};
static_assert(sizeof(Lane) == 64);

// state word: {incarnation:30 | pid:22 | start:9 | state:3}. It names the process in one store, so
// that a joiner that dies at any instruction can be told from a live one. `start` are the low bits
// of start_time.
enum class SlotState : uint64_t {
  free = 0,  // incarnation is that of the last user
  // being filled by pid; or, `parent` != 0, prepared by pid (the parent) for a child of its fork
  born = 1,
  live = 2,
  leaving = 3,  // gives everything back itself
  dead = 4,     // waits to be reaped or is being reaped
};

// One member's record. A slot is used again and again, each time by a new incarnation, so who may
// write a field depends on the state:
//   claimer  the process that made `state` born, for itself or for the child of its fork
//   member   the process that became live
//   reaper   the one process that `reaper` names; in leaving, the member itself
//
//   state goes      by whom    each time by a compare-exchange with the whole word
//   free -> born    claimer
//   born -> live    member
//   live -> leaving member
//   any but free -> dead       any process that has found the one behind the slot dead
//   leaving, dead -> free      reaper
//
//   written in      born                  live, leaving         dead
//   start_time      claimer 0, member     nobody                nobody
//   image           claimer 0, member     nobody                nobody
//   parent          claimer               nobody                nobody
//   born_ns, kind   claimer               nobody                nobody
//   bond            claimer               member                nobody
//   birth           claimer 0, then 1     nobody                nobody
//   reaper          claimer 0             member, in leaving    whoever wins a compare-exchange
//   user            claimer 0             layers above          layers above
//   lanes           claimer 0             member                reaper
//   trace           claimer 0             member                nobody
//
// Nobody writes a free slot but for claiming it, so it keeps what its last user left, and so does
// each field of a born slot until the claimer has come to it. From live on all are the member's.
struct MemberSlot {
  os::Atomic<uint64_t> state;
  os::Atomic<uint64_t> start_time;  // of the process, 0 until known
  os::Atomic<uint64_t> image;  // of the process (os::process_image): an exec ends the membership
  // {dead:30 << 30 | reaper:30}: who reaps the dead one; a lock that owners may lose
  os::Atomic<uint64_t> reaper;
  os::Atomic<uint64_t> parent;   // born for a fork: incarnation of the forker
  os::Atomic<uint64_t> born_ns;  // when `state` left free
  os::Atomic<uint32_t> kind;
  os::Atomic<uint32_t> bond;     // incarnation whose death entails this one's; 0: none
  os::Atomic<uint32_t> user[4];  // for the layers above; zero when the member joins
  // born for a fork: 1 once the birth lock is held, which from then on says whether it may live
  os::Atomic<uint64_t> birth;
  uint64_t reserved[6];
  Lane lanes[kLanes];
  alignas(128) std::byte
      trace[1024];  // src/trace/record.hpp says what is in here; zero when the member joins
};
static_assert(sizeof(MemberSlot) == 128 + 1024 + 1024);

// A page's shape word. First page of a run: {pages:32 | class:8 | kind:8}. Other pages of a run:
// distance back to the first. Free page: when it was freed (ms), which decay looks at.
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

// Of a run only the first page's owner and holders mean anything. shape is written under the arena
// lock, owner as owner.hpp says.
struct PageDescriptor {
  // run: the block's owner word; span: the member that allocates in it, or orphan
  os::Atomic<uint64_t> owner;
  // counted: bit s = the member in slot s holds it; bit 63: pinned for ever
  os::Atomic<uint64_t> holders;
  os::Atomic<uint64_t> shape;
  uint64_t reserved;
};
static_assert(sizeof(PageDescriptor) == 32);

inline constexpr uint64_t kPinned = uint64_t{1} << 63;

// What the holder of the arena lock is doing, in absolute values: doing it again changes nothing.
enum class RunOp : uint64_t { none = 0, allocate = 1, release = 2, shrink = 3 };

struct RunIntent {
  os::Atomic<uint64_t> op;     // RunOp; written last (begin) and first (end)
  os::Atomic<uint64_t> first;  // page
  os::Atomic<uint64_t> pages;  // allocate, release: all of it; shrink: what stays
  os::Atomic<uint64_t> extra;  // shrink: pages that go
  os::Atomic<uint64_t> shape;  // allocate: shape word; release, shrink: the free pages' shape
  os::Atomic<uint64_t> owner;  // allocate: owner word
};

struct Root {
  // padded with 0xFF; each word is set once, by compare-exchange
  os::Atomic<uint64_t> name[kRootNameWords];
  os::Atomic<uint64_t> handle;
};

struct Header {
  uint64_t magic;
  uint32_t version;
  uint32_t header_size;
  uint64_t layout_hash;
  uint64_t reserve;      // bytes, the file's size
  uint64_t pages;        // data pages in the reserve
  uint64_t used_offset;  // where the tables lie
  uint64_t warm_offset;
  uint64_t descriptors_offset;
  uint64_t data_offset;
  uint64_t limit;  // bytes of warm memory the session may have; 0: what the machine gives
  os::Atomic<uint64_t> ready;     // kMagic once the creator is through
  os::Atomic<uint64_t> frontier;  // pages that the tables know; grows only, under the lock
  os::Atomic<uint64_t> last_incarnation;
  os::Atomic<uint64_t> last_number;        // for the layers above: a number is given out once
  os::Atomic<uint64_t> next_purge_ms;      // hint: who finds it passed purges old warm pages
  alignas(128) os::Atomic<uint32_t> lock;  // {incarnation:30 | unused:1 | waiters:1}
  RunIntent intent;
  alignas(128)
      os::Atomic<uint64_t> orphans[64];  // by size class, a hint: how many spans wait for adoption
  // by run length, a hint: first page + 1 of the run of that length released last
  os::Atomic<uint64_t> recent[16];
  os::Atomic<uint64_t> death_epoch;  // counts reaped members; changes wake nobody by themselves
  alignas(128) Root roots[kRoots];
};

inline constexpr uint64_t kSlotsOffset = 16384;
static_assert(sizeof(Header) <= kSlotsOffset);

inline constexpr uint64_t layout_hash() noexcept {
  uint64_t hash = 14695981039346656037ULL;
  for (uint64_t value :
       {sizeof(Header), sizeof(MemberSlot), sizeof(PageDescriptor), sizeof(Lane),
        offsetof(Header, lock), offsetof(Header, roots), offsetof(MemberSlot, lanes),
        offsetof(MemberSlot, trace), static_cast<size_t>(kPage), static_cast<size_t>(kMemberSlots),
        static_cast<size_t>(kVersion)})
    hash = (hash ^ value) * 1099511628211ULL;
  return hash;
}

}  // namespace shoal::arena
