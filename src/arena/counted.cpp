// SPDX-License-Identifier: Apache-2.0
//
// Member: counted blocks. Shared memory has one bit per member beside the owner word. A bit is set
// and cleared by fetch_or and fetch_and, so after a death one bit is cleared and no counter needs
// repair. How often this process holds a block is counted in private memory. The owner word of each
// sharing is unique: the process that cleared the last bit can free that sharing only, not a later
// one of the same pages.
#include <algorithm>

#include "arena/member.hpp"
#include "arena/runs.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {
constexpr uint64_t bit_of(uint32_t slot) noexcept { return uint64_t{1} << slot; }
}  // namespace

bool Member::can_count(Handle b) const noexcept {
  if (!can_hold() || !arena_->is_run(b)) return false;
  const std::lock_guard<LocalLock> local(local_);
  return held_.size() < most_held_;
}

void Member::make_counted(Handle b) {
  require_membership();
  if (!can_hold() || !arena_->is_run(b))
    throw std::logic_error("make_counted: this member cannot hold, or the block is no page run");
  PageDescriptor& head = arena_->page(arena_->page_of(b));
  const std::lock_guard<LocalLock> local(local_);
  uint64_t mine = owner_member(incarnation_);
  if (head.owner.load() != mine)
    throw std::logic_error("make_counted: this member does not own the block");
  held_.emplace(b, Held{1, false});  // first, since this may throw
  head.holders.store(bit_of(slot()));
  const uint64_t number = uint64_t{incarnation_} << 30 | (sharing_number_++ & 0x3FFFFFFF);
  // COMMIT(arena.counted.make): killed before: this member's, freed by the reaper; after: counted,
  // and the reaper clears this member's bit.
  head.owner.store(owner_counted(number));
  SHOAL_KILL_POINT("arena.counted.make");
}

bool Member::hold(Handle b) {
  if (!can_hold() || !arena_->is_run(b)) return false;
  PageDescriptor& head = arena_->page(arena_->page_of(b));
  std::unique_lock<LocalLock> local(local_);
  if (!is_counted(head.owner.load())) return false;
  Held* held = &held_.try_emplace(b, Held{0, false}).first->second;
  if (held->references == 0 && held->is_private) {
    // This process is dropping the block and still has the private view: no new reference may see
    // it.
    local.unlock();
    restore_and_let_go(b);
    local.lock();
    if (!is_counted(head.owner.load())) return false;
    held = &held_.try_emplace(b, Held{0, false}).first->second;
    if (held->references == 0 && held->is_private) return false;
  }
  if (held->references++ > 0) return true;
  mark(b);
  // COMMIT(arena.counted.hold): killed before: held by others; after: by this member too, until it
  // is reaped.
  head.holders.fetch_or(bit_of(slot()));
  SHOAL_KILL_POINT("arena.counted.hold");
  return true;
}

void Member::drop(Handle b) noexcept {
  uint64_t word = 0;
  bool is_private = false;
  bool others = false;
  {
    const std::lock_guard<LocalLock> local(local_);
    const auto entry = held_.find(b);
    if (incarnation_ == 0 || entry == held_.end() || entry->second.references == 0) return;
    if (--entry->second.references > 0) return;
    others = undropped_ > 0;
    is_private = entry->second.is_private;
    if (is_private)
      ++undropped_;
    else
      word = let_go(entry);
  }
  if (word != 0) release_last(b, word);
  if (is_private) restore_and_let_go(b);
  if (others) drop_again();
}

// Ends this process's hold on a block to which it has no reference left, and of which it has a
// shared view. Needs local_. Returns the owner word if no other member holds the block, else 0.
uint64_t Member::let_go(HeldEntry entry) noexcept {
  const Handle b = entry->first;
  held_.erase(entry);
  PageDescriptor& head = arena_->page(arena_->page_of(b));
  const uint64_t word = head.owner.load();
  // COMMIT(arena.counted.drop): killed before: the reaper clears the bit; after: if it was the last
  // bit, the next reap frees the block.
  const uint64_t before = head.holders.fetch_and(~bit_of(slot()));
  SHOAL_KILL_POINT("arena.counted.drop");
  return (before & ~bit_of(slot())) == 0 ? word : 0;
}

// Ends this process's hold on a block to which it has no reference left, and of which it has a
// private view. Restores the shared view first, with views_ but without local_, since that is a
// system call; during this the entry stays in held_, with 0 references. False: the view cannot be
// restored. The block stays held then, because its pages must not be reused.
bool Member::restore_and_let_go(Handle b) noexcept {
  uint64_t word = 0;
  {
    const std::lock_guard<std::mutex> views(views_);
    const auto find = [&]() noexcept {
      const auto entry = held_.find(b);
      const bool waits = entry != held_.end() && entry->second.references == 0;
      return waits && entry->second.is_private ? entry : held_.end();
    };
    {
      const std::lock_guard<LocalLock> local(local_);
      if (find() == held_.end()) return true;  // another thread has done it
    }
    if (!restore_view(b)) return false;
    const std::lock_guard<LocalLock> local(local_);
    const auto entry = find();
    if (entry == held_.end()) return true;
    --undropped_;
    word = let_go(entry);
  }
  if (word != 0) release_last(b, word);
  return true;
}

// Tries again to end the holds for which restoring the shared view failed.
void Member::drop_again() noexcept {
  while (true) {
    Handle b = 0;
    {
      const std::lock_guard<LocalLock> local(local_);
      if (undropped_ == 0) return;
      const auto entry = std::find_if(held_.begin(), held_.end(),
                                      [](const auto& held) { return held.second.references == 0; });
      if (entry == held_.end()) {
        undropped_ = 0;
        return;
      }
      b = entry->first;
    }
    if (!restore_and_let_go(b)) return;
  }
}

// Only a holder can let another member hold the block, so a member whose bit is the only one set
// stays the only holder.
bool Member::take_counted(Handle b) noexcept {
  const std::lock_guard<LocalLock> local(local_);
  const auto entry = held_.find(b);
  if (incarnation_ == 0 || entry == held_.end() || entry->second.references != 1 ||
      entry->second.is_private)
    return false;
  PageDescriptor& head = arena_->page(arena_->page_of(b));
  uint64_t word = head.owner.load();
  if (!is_counted(word) || head.holders.load() != bit_of(slot())) return false;
  // COMMIT(arena.counted.take): killed before: held, and the reaper clears this member's bit and
  // frees the block; after: this member's, and the reaper frees it.
  if (!head.owner.compare_exchange(word, owner_member(incarnation_))) return false;
  SHOAL_KILL_POINT("arena.counted.take");
  held_.erase(entry);
  return true;
}

// No member holds the block, so none can begin to hold it: the member whose compare-exchange
// changes this very owner word frees it.
void Member::release_last(Handle b, uint64_t word) noexcept {
  const uint64_t page = arena_->page_of(b);
  // COMMIT(arena.counted.last): killed before: a reaper finds the block without holders; after:
  // dying, freed by the reaper
  if (!arena_->page(page).owner.compare_exchange(word, owner_dying(incarnation_))) return;
  SHOAL_KILL_POINT("arena.counted.last");
  RunAllocator(*arena_, incarnation_).release(page, arena_->block_size(b) >> kPageShift);
}

}  // namespace shoal::arena
