// SPDX-License-Identifier: Apache-2.0
//
// Reaping: one attempt of one member to free all that a dead member held. Internal; callers use
// reap() in member.hpp. Needs: the slot is dead (or leaving, when a member reaps itself), the
// caller holds Member::reaping_. Waits for the RunsLock. May throw std::bad_alloc, also from hooks
// of upper layers. Then nothing stays claimed, no member has the job, and the next attempt starts
// over.
// Design: docs/design/arena.md
#pragma once

#include <vector>

#include "arena/arena.hpp"
#include "arena/kin.hpp"
#include "arena/marks.hpp"

namespace shoal::arena {

class Reaping {
 public:
  Reaping(Arena& arena, Member& member, Incarnation dead) noexcept
      : arena_(arena),
        member_(member),
        me_(member.incarnation()),
        dead_(dead),
        marks_(arena, slot_of(dead)) {}

  enum class Job {
    mine,      // this member has the job; all is done except finish()
    anothers,  // another live member is doing it
    over,      // nothing of the dead member is left
  };
  Job run();
  void finish() noexcept;  // the slot becomes free. Needs: run() returned Job::mine

 private:
  static constexpr uint32_t kNotInSpan = UINT32_MAX;
  struct Place {     // one block
    uint64_t page;   // first page of its run or span
    uint32_t index;  // in the span
    Handle handle;
    os::Atomic<uint64_t>& owner;
  };
  struct Claim {
    Handle handle;
    uint64_t page;
    uint32_t index;
  };

  enum class Pass {
    owned,     // blocks that the dead member owned; records that nobody holds any more; blocks
               // whose parent is gone
    children,  // blocks whose parent is free, gone or being freed by this reap
    spans,     // spans in which the dead member allocated, and those that it had claimed
  };

  Job take_job() noexcept;
  void put_back() noexcept;
  void reap_children();
  void repair_lanes();
  void scan_marked(Pass pass);
  void scan_children(size_t first_claim);
  Parents parents_from(size_t first_claim) const;
  uint64_t visit_page(uint64_t page, Pass pass);
  void visit_span_page(Arena::Located span, uint64_t page, Pass pass);
  void visit_block(const Place& place, Pass pass);
  void release_record(const Place& place);
  void claim(const Place& place, uint64_t word);
  void claim_child(const Place& place);
  void end_states() const;
  void give_back(const Claim& claim);
  void let_go_of_span(uint64_t page, const SizeClass& c);

  Arena& arena_;
  Member& member_;
  const Incarnation me_;
  const Incarnation dead_;
  Marks marks_;  // the dead member's
  std::vector<Claim> claimed_;
};

// Runs and finishes a Reaping; false: another live member is reaping `dead`. Needs: the caller
// holds reaper.reaping_.
bool reap_dead(Arena& arena, Member& reaper, Incarnation dead);

// For an allocation that has found no memory: reaps all dead members, unless this thread is reaping
// already. Returns how many.
int reap_for_memory(Arena& arena, Member& reaper);

}  // namespace shoal::arena
