// SPDX-License-Identifier: Apache-2.0
//
// Member: what this process sees of the counted blocks that it holds. A block that one process
// holds alone is seen in the arena's memory itself, so that it can be handed on without a copy. A
// fork makes a second process hold it, and each must then have memory of its own, as both would
// have of any array. So:
//
// 1. Before a fork the parent turns each view that is not private yet into a private one
//    (MAP_PRIVATE), in place. The fork itself then gives the child a snapshot, exact to the byte:
//    pages that were written are copied by the kernel when either writes next, and pages that
//    were not are those of the file.
// 2. A private view follows the file where it was not written, so nobody may write to the block's
//    pages while one exists. Nobody does: the pages belong to the block as long as a process
//    holds it, each that holds it has a private view, and each holds it for as long as it has
//    that view. Handing it on would be such a write by the next owner: take_counted() refuses,
//    and the caller copies.
// 3. The last reference of this process restores the shared view before its holder's bit is
//    cleared; whoever uses the pages next is seen here as everywhere. Where that fails, the block
//    stays held, and it is tried again.
// 4. What cannot be made private is copied for the child; what cannot be copied is hidden from
//    it: a fault is better than numbers that others change.
//
// All functions need local_ to be held. None of those that run in a fork's child allocates.
// Design: docs/design/arena.md
#include <algorithm>
#include <cerrno>
#include <new>

#include "arena/member.hpp"
#include "os/memory.hpp"

namespace shoal::arena {

// By address, so that neighbours can be turned by one call.
std::vector<Member::View> Member::shared_views() {
  std::vector<View> views;
  for (auto& [block, held] : held_)
    if (!held.is_private) views.push_back({block, arena_->block_size(block), &held});
  std::sort(views.begin(), views.end(),
            [](const View& a, const View& b) { return a.block < b.block; });
  return views;
}

// `count` neighbours that have `bytes` in all.
bool Member::make_private(const View* views, size_t count, uint64_t bytes) noexcept {
  if (!arena_->map_private(views->block, bytes)) {
    unseen_.error = errno;
    return false;
  }
  for (size_t i = 0; i < count; ++i) views[i].held->is_private = true;
  return true;
}

// False: some view is still shared.
bool Member::make_views_private() noexcept {
  bool all = true;
  try {
    const std::vector<View> views = shared_views();
    for (size_t first = 0, end = 0; first < views.size(); first = end) {
      uint64_t bytes = 0;
      while (end < views.size() && views[end].block == views[first].block + bytes)
        bytes += views[end++].bytes;
      all &= make_private(&views[first], end - first, bytes);
    }
  } catch (const std::bad_alloc&) {
    all = false;
    unseen_.error = ENOMEM;
  }
  return all;
}

// In the parent, before the fork, so that no write of the parent after it gets into the copies.
void Member::copy_shared_views() noexcept {
  try {
    const std::vector<View> views = shared_views();
    fork_copies_.reserve(views.size());
    for (const View& view : views) {
      void* const copy = os::copy_of(arena_->address(view.block), view.bytes);
      if (copy != nullptr) fork_copies_.push_back({view.block, view.bytes, copy});
    }
  } catch (const std::bad_alloc&) {
    return;  // what has no copy is hidden from the child
  }
}

void Member::forget_copies() noexcept {
  for (const Copy& copy : fork_copies_)
    if (copy.contents != nullptr) os::unmap(copy.contents, copy.bytes);
  fork_copies_.clear();
}

// In the child.
void Member::leave_shared_views() noexcept {
  for (Copy& copy : fork_copies_) {
    const auto entry = held_.find(copy.block);
    if (entry == held_.end() ||
        !os::put_in_place(copy.contents, copy.bytes, arena_->address(copy.block)))
      continue;
    entry->second.is_private = true;
    copy.contents = nullptr;
  }
  for (auto& [block, held] : held_)
    if (!held.is_private) hide(block, held);
}

void Member::hide(Handle b, Held& held) noexcept {
  held.is_private = true;
  ++unseen_.blocks;
  if (!os::forbid(arena_->address(b), arena_->block_size(b))) unseen_.exposed = true;
}

bool Member::see_shared(Handle b, Held& held) noexcept {
  if (!held.is_private) return true;
  if (!arena_->map_shared(b, arena_->block_size(b))) return false;
  held.is_private = false;
  return true;
}

// For who is about to hold nothing any more.
void Member::restore_views() noexcept {
  for (auto& [block, held] : held_) static_cast<void>(see_shared(block, held));
}

size_t Member::private_views_for_test() const noexcept {
  const std::lock_guard<LocalLock> local(local_);
  return static_cast<size_t>(std::count_if(
      held_.begin(), held_.end(), [](const auto& entry) { return entry.second.is_private; }));
}

}  // namespace shoal::arena
