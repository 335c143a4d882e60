// SPDX-License-Identifier: Apache-2.0
//
// Member: this process's views of the counted blocks that it holds. If only one process holds a
// block, its view is the arena's memory itself, so that the block can be sent on without a copy. A
// fork makes a second process hold the block. From then on each process must have memory of its
// own, as with any array. So:
//
// 1. Before a fork the parent turns each view that is not private yet into a private one
//    (MAP_PRIVATE), in place. The fork itself then gives the child a snapshot, exact to the byte:
//    the kernel copies a written page when either process writes to it next, and a page that was
//    not written is that of the file.
// 2. A page of a private view that was not written shows the file's page. So no process may write
//    to the block's pages in the file while a private view exists. None does: the pages belong to
//    the block as long as a process holds it, each holder has a private view, and each holds the
//    block as long as it has that view. Sending the block on would let its next owner write:
//    take_counted() refuses, and the caller copies.
// 3. When the last reference of this process is dropped, the shared view is restored before the
//    holder's bit is cleared; so this process sees the next use of the pages as all others do. If
//    restoring fails, the block stays held, and later drops try again.
// 4. A block that cannot be made private is copied for the child, and each block if the child gets
//    no member slot, since it cannot hold them then. A block that cannot be copied is hidden from
//    the child: a fault is better than numbers that others change.
//
// 5. views_ is held while views change, so that a fork does not copy a view that is changing.
// Before
//    a fork both views_ and local_ are taken.
//
// The functions that run before a fork, and in its child, need views_ and local_. Those that run in
// the child never allocate.
// Design: docs/design/arena.md
#include <algorithm>
#include <cerrno>
#include <new>

#include "arena/member.hpp"
#include "os/memory.hpp"

namespace shoal::arena {

// Sorted by address, so that one call can make neighbours private.
std::vector<Member::View> Member::views_of_held(bool with_private) {
  std::vector<View> views;
  for (auto& [block, held] : held_)
    if (with_private || !held.is_private)
      views.push_back({block, arena_->block_size(block), &held});
  std::sort(views.begin(), views.end(),
            [](const View& a, const View& b) { return a.block < b.block; });
  return views;
}

// Makes `count` neighbours private, `bytes` in all.
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
    const std::vector<View> views = views_of_held(false);
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

// Runs in the parent before the fork, so that the copies contain no later write of the parent.
// Copies the shared views, or all views: for a child that will not hold the blocks.
void Member::copy_views(bool with_private) noexcept {
  try {
    const std::vector<View> views = views_of_held(with_private);
    fork_copies_.reserve(views.size());
    for (const View& view : views) {
      void* const copy = os::copy_of(arena_->address(view.block), view.bytes);
      if (copy != nullptr) fork_copies_.push_back({view.block, view.bytes, copy});
    }
  } catch (const std::bad_alloc&) {
    return;  // blocks without a copy are hidden from the child
  }
}

void Member::forget_copies() noexcept {
  for (const Copy& copy : fork_copies_)
    if (copy.contents != nullptr) os::unmap(copy.contents, copy.bytes);
  fork_copies_.clear();
}

// Runs in the child: puts the copies in place of the views, and hides shared views without a copy.
// A child that does not hold the blocks hides private views without a copy as well.
void Member::leave_views(bool holds) noexcept {
  if (!holds)
    for (auto& [block, held] : held_) held.is_private = false;
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

// Puts the shared view of a held block in place of the private one. Needs views_ or local_.
bool Member::restore_view(Handle b) const noexcept {
  return arena_->map_shared(b, arena_->block_size(b));
}

// Needs: the member is about to drop all its holds, and no other thread uses it.
void Member::restore_views() noexcept {
  for (auto& [block, held] : held_)
    if (held.is_private && restore_view(block)) held.is_private = false;
}

size_t Member::private_views_for_test() const noexcept {
  const std::lock_guard<LocalLock> local(local_);
  return static_cast<size_t>(std::count_if(
      held_.begin(), held_.end(), [](const auto& entry) { return entry.second.is_private; }));
}

}  // namespace shoal::arena
