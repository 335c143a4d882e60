// SPDX-License-Identifier: Apache-2.0
//
// Kin: hints on blocks that belong to other blocks (owner BLOCK(parent)). When a parent is freed
// because its owner is dead, its children are freed too. They may lie anywhere, and the member that
// made them may be long gone. The hints let a reaper find them without a look at other blocks.
//
// The child bitmap has a bit for the first page of each run or span that may contain a child. The
// kin word in the descriptor of that page says of which parents:
//
//   {first parent / 64 : 34 | filter of the other parents : 29 | contains a parent : 1}
//
// So a span in which all children have one parent, the usual case, names exactly that parent. The
// lowest bit says that some block of the run or span has, or had, a child.
//
// 1. These three are set before the store that makes a block the child of another. So a child is
//    found from its parent: the parent's page has the lowest bit, and the child's page has a bit
//    and a kin word that includes the parent.
// 2. They are cleared, under the RunsLock, when the run or span is released, and before a member
//    keeps a run (arena/kept_runs.hpp). No other member owns a block in it then, and only the owner
//    of a block in it makes that block a child. A late store by a member that has lost its block
//    makes a hint that is not needed.
// 3. The hints never say too little. They may say too much: of parents that were freed, and because
//    of the filter.
//
// Any thread. Nothing here allocates, blocks or throws.
// Design: docs/design/arena.md
#pragma once

#include <vector>

#include "arena/arena.hpp"

namespace shoal::arena {

// To be called before the store that makes the owner of `child`, a block of the caller,
// BLOCK(parent).
void make_kin(const Arena& arena, Handle child, Handle parent) noexcept;
// Called when a run or span is released, under the RunsLock, and by a member that is about to keep
// a run that is DYING(me).
void clear_kin(Arena& arena, uint64_t first_page) noexcept;

// May the block have children?
bool may_be_parent(const Arena& arena, Handle block) noexcept;
// The first page at or after `from` that has a bit in the child bitmap; kNoPage: none.
uint64_t next_child_bit(const Arena& arena, uint64_t from) noexcept;

// A set of parents.
class Parents {
 public:
  void add(Handle parent);  // may throw std::bad_alloc
  bool empty() const noexcept { return first_.empty(); }
  void seal() noexcept;  // after the last add()
  // May a run or span with this kin word contain a child of one of them? Needs: seal().
  bool may_include(uint64_t kin) const noexcept;

 private:
  std::vector<uint64_t> first_;  // in the form of a kin word's first parent, sorted
  uint64_t filter_ = 0;
};

// Do the hints lead from the parent to the child? For checks.
bool is_kin(const Arena& arena, Handle child, Handle parent) noexcept;

}  // namespace shoal::arena
