// SPDX-License-Identifier: Apache-2.0
//
// Kept runs: free page runs that a member keeps for its next allocation of the same length, so that
// a process that allocates and frees large blocks again and again does not take the RunsLock, which
// all members share.
//
// A kept run has the owner word KEPT {seconds:13 | pages:5 | incarnation:42}: when and by which
// member it was kept, and its length. It is free memory like any other, for everybody:
//
//   KEPT(m)  --m allocates, by compare-exchange--------------------> MEMBER(m)
//            --a member r that is short of memory, or that purges--> DYING(r), released
//            --the reaper r of m-----------------------------------> DYING(r), released
//
// 1. What a member remembers of its kept runs, in private memory, is a hint. The compare-exchange
// of
//    the owner word decides. Since the word has the length, a run that was released and became
//    another run is not mistaken for the remembered one, unless it is an equal run that this same
//    member keeps.
// 2. The run's page is marked by the member (arena/marks.hpp), which owned the run before. And its
//    bit in the kept bitmap is set before the owner becomes KEPT. It is cleared when the run is
//    released, under the RunsLock. So the kept runs of all members are found by this bitmap.
// 3. A member keeps at most two runs of a length, and not more of a length than it has itself
//    allocated without finding one kept. So a process that only frees what others allocate keeps
//    nothing. All runs that a member keeps have at most kMostKeptPages, and all members together at
//    most about an eighth of the session's limit.
// 4. Nothing fails for lack of memory that is kept: before an allocation fails, and before it asks
//    the system once more, it releases the kept runs of all members. Runs that are kept for longer
//    than the decay time are released by purges.
// Design: docs/design/arena.md
#pragma once

#include <array>
#include <cstdint>

#include "arena/owner.hpp"

namespace shoal::arena {

class Arena;

inline constexpr uint64_t kLongestKept = 16;     // pages: runs of up to 1 MiB are kept
inline constexpr uint64_t kMostKeptPages = 128;  // 8 MiB
inline constexpr uint64_t kAgeModulus = 8192;    // seconds; a run is kept for much less

constexpr uint64_t owner_kept(Incarnation m, uint64_t pages, uint64_t second) noexcept {
  return make_owner(OwnerKind::kept, second % kAgeModulus << 47 | pages << 42 | uint64_t{m});
}
constexpr bool is_kept(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::kept; }
constexpr Incarnation kept_by(uint64_t word) noexcept {
  return static_cast<Incarnation>(word >> 4 & ((uint64_t{1} << 42) - 1));
}
constexpr uint64_t kept_pages(uint64_t word) noexcept { return word >> 46 & 31; }
constexpr uint64_t kept_for(uint64_t word, uint64_t now_second) noexcept {
  return (now_second - (word >> 51)) % kAgeModulus;
}

// What one member remembers. Needs the member's local_.
class KeptRuns {
 public:
  struct Run {
    uint64_t page = 0;
    uint64_t word = 0;  // its owner word
  };

  // Takes the run of this length that was kept last off the list; page 0 and word 0: there is none,
  // and the caller's allocation counts as one that found none.
  Run pop(uint64_t pages) noexcept;
  bool has_room(uint64_t pages, uint64_t most_pages) const noexcept;
  void push(uint64_t pages, Run run) noexcept;
  // Forgets runs that this member does not keep any more.
  void forget_lost(const Arena& arena) noexcept;
  void clear() noexcept { *this = {}; }

 private:
  static constexpr uint32_t kMostOfALength = 2;
  struct Length {
    std::array<Run, kMostOfALength> runs;
    uint32_t count = 0;
    uint32_t wanted = 0;  // how many more may be kept
  };
  std::array<Length, kLongestKept + 1> lengths_;  // by pages
  uint64_t pages_ = 0;                            // of all
};

// How many pages each member may keep.
uint64_t most_kept_pages(const Arena& arena) noexcept;
// Sets the bit of a run that the caller is about to keep.
void list_kept(Arena& arena, uint64_t page) noexcept;
// Called when a run is released, under the RunsLock.
void unlist_kept(Arena& arena, uint64_t page) noexcept;
// Releases the runs that all members have kept for at least so long. Returns how many pages.
uint64_t release_kept(Arena& arena, Incarnation me, uint64_t older_than_ms) noexcept;

}  // namespace shoal::arena
