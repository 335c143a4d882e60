// SPDX-License-Identifier: Apache-2.0
//
// Member: shared blocks. The owner word itself has one bit for each member that holds the block,
// and counts the other blocks that refer to it. So to hold the block is one compare-exchange; so is
// to drop it and learn whether that was the last hold; and after a death one bit is cleared. How
// often this process holds a block is counted in private memory. A member whose slot has no bit is
// counted as one more block that refers to it: if such a member is killed, its shared blocks stay
// until the session ends.
#include "arena/member.hpp"
#include "arena/slots.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

void Member::share(Handle b) {
  const std::lock_guard<LocalLock> local(local_);
  require_membership();
  os::Atomic<uint64_t>& owner = arena_->owner_word(b);
  if (owner.load() != owner_member(incarnation_))
    throw std::logic_error("share: this member does not own the block");
  shared_.emplace(b, 1);  // first, since it may throw
  // COMMIT(arena.share.make): killed before: this member's, freed by the reaper; after: held
  // by this member only
  owner.store(owner_shared(has_bit() ? sharer_bit(slot()) : kStoredOnce));
  SHOAL_KILL_POINT("arena.share.make");
}

bool Member::hold_shared(Handle b) {
  const std::lock_guard<LocalLock> local(local_);
  require_membership();
  if (const auto entry = shared_.find(b); entry != shared_.end()) {
    ++entry->second;
    return true;
  }
  os::Atomic<uint64_t>& owner = arena_->owner_word(b);
  uint64_t word = owner.load();
  if (!is_shared(word)) return false;
  const auto entry = shared_.emplace(b, 1).first;  // first, since it may throw
  if (!has_bit()) {
    const bool counted = store_shared(b);
    if (!counted) shared_.erase(entry);
    return counted;
  }
  const uint64_t bit = sharer_bit(slot());
  mark(b);
  while (is_shared(word)) {
    // COMMIT(arena.share.hold): killed before: held by others; after: by this member too, until it
    // is reaped
    const bool done = owner.compare_exchange(word, word | bit);
    SHOAL_KILL_POINT("arena.share.hold");
    if (done) return true;
  }
  shared_.erase(entry);
  return false;
}

bool Member::drop_shared(Handle b) noexcept {
  const std::lock_guard<LocalLock> local(local_);
  const auto entry = shared_.find(b);
  if (incarnation_ == 0 || entry == shared_.end() || --entry->second > 0) return false;
  shared_.erase(entry);
  if (!has_bit()) return unstore_shared(b);
  os::Atomic<uint64_t>& owner = arena_->owner_word(b);
  const uint64_t bit = sharer_bit(slot());
  uint64_t word = owner.load();
  while (is_shared(word)) {
    const bool last = word == owner_shared(bit);
    // COMMIT(arena.share.drop): killed before: the reaper clears the bit; after: it is clear, or
    // the block is this member's
    const bool done = owner.compare_exchange(word, last ? owner_member(incarnation_) : word & ~bit);
    SHOAL_KILL_POINT("arena.share.drop");
    if (done) return last;
  }
  return false;
}

bool Member::store_shared(Handle b) noexcept {
  os::Atomic<uint64_t>& owner = arena_->owner_word(b);
  uint64_t word = owner.load();
  while (is_shared(word)) {
    if ((word & kSharedPin) != 0) return true;
    const bool full = (word & kStoredMask) == kStoredMask;
    // COMMIT(arena.share.store): killed before: not counted; after: one more, which is uncounted
    // with the block that was to refer to it
    const bool done = owner.compare_exchange(word, full ? word | kSharedPin : word + kStoredOnce);
    SHOAL_KILL_POINT("arena.share.store");
    if (done) return true;
  }
  return false;
}

bool Member::unstore_shared(Handle b) noexcept {
  mark(b);
  os::Atomic<uint64_t>& owner = arena_->owner_word(b);
  uint64_t word = owner.load();
  while (is_shared(word) && word < kSharedPin && word >= kStoredOnce) {
    const bool last = word == owner_shared(kStoredOnce);
    // COMMIT(arena.share.unstore): killed before: still counted; after: uncounted, or the block is
    // this member's
    const bool done =
        owner.compare_exchange(word, last ? owner_member(incarnation_) : word - kStoredOnce);
    SHOAL_KILL_POINT("arena.share.unstore");
    if (done) return last;
  }
  return false;
}

// Makes the child of a fork, whose slot is prepared, hold the shared blocks of this process. If
// `child` is 0, there is no slot, and the blocks are pinned.
void Member::share_with_child(Incarnation child) noexcept {
  const bool counts = child != 0 && slot_of(child) >= kSharerSlots;
  for (const auto& [block, count] : shared_) {
    if (counts) {
      store_shared(block);
      continue;
    }
    mark_for(*arena_, child, block);
    // COMMIT(arena.fork.share): killed before: held by this member; after: by the prepared child
    // as well
    arena_->owner_word(block).fetch_or(child == 0 ? kSharedPin : sharer_bit(slot_of(child)));
    SHOAL_KILL_POINT("arena.fork.share");
  }
}

// For a leaving member without a bit: uncounts its holds, which no reaper can do (see the top).
void Member::drop_counted_shares() noexcept {
  if (has_bit()) return;
  std::unordered_map<Handle, uint32_t> held;
  {
    const std::lock_guard<LocalLock> local(local_);
    held.swap(shared_);
  }
  for (const auto& [block, count] : held) {
    if (unstore_shared(block)) end_block(*this, block);
  }
}

size_t Member::shared_held() const noexcept {
  const std::lock_guard<LocalLock> local(local_);
  return shared_.size();
}

}  // namespace shoal::arena
