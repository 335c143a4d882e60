// SPDX-License-Identifier: Apache-2.0
//
// Member: counted blocks. Shared truth is one bit per member beside the owner word, changed by or /
// and-not, so a death clears a bit and no counter needs repair. How often this process holds a
// block is its own business. The owner word of each sharing is unique: who saw the last bit vanish
// can free that sharing only, not a later one of the same pages.
#include "arena/member.hpp"
#include "arena/runs.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {
constexpr uint64_t bit_of(uint32_t slot) noexcept { return uint64_t{1} << slot; }
}  // namespace

void Member::make_counted(Handle b) {
  require_membership();
  if (!can_count(b))
    throw std::logic_error("make_counted: this member cannot hold, or not a page run");
  PageDescriptor& head = arena_->page(arena_->page_of(b));
  const std::lock_guard<LocalLock> local(local_);
  uint64_t mine = owner_member(incarnation_);
  if (head.owner.load() != mine) throw std::logic_error("make_counted: this block is not mine");
  held_.emplace(b, 1);  // may throw: first
  head.holders.store(bit_of(slot()));
  const uint64_t number = uint64_t{incarnation_} << 30 | (sharing_number_++ & 0x3FFFFFFF);
  // COMMIT(arena.counted.make): killed before: mine, freed by the reaper; after: counted, my bit is
  // cleared by the reaper
  head.owner.store(owner_counted(number));
  SHOAL_KILL_POINT("arena.counted.make");
}

bool Member::hold(Handle b) {
  if (!can_count(b)) return false;
  PageDescriptor& head = arena_->page(arena_->page_of(b));
  const std::lock_guard<LocalLock> local(local_);
  if (!is_counted(head.owner.load())) return false;
  uint32_t& count = held_[b];
  if (count++ > 0) return true;
  // COMMIT(arena.counted.hold): killed before: held by others; after: by me too, cleared by the
  // reaper
  head.holders.fetch_or(bit_of(slot()));
  SHOAL_KILL_POINT("arena.counted.hold");
  return true;
}

void Member::drop(Handle b) noexcept {
  uint64_t word = 0;
  {
    const std::lock_guard<LocalLock> local(local_);
    const auto entry = held_.find(b);
    if (incarnation_ == 0 || entry == held_.end()) return;
    if (--entry->second > 0) return;
    if (!share_again(b)) {  // this process can never see others' use of these pages: keep them
      entry->second = 1;
      return;
    }
    held_.erase(entry);
    PageDescriptor& head = arena_->page(arena_->page_of(b));
    word = head.owner.load();
    // COMMIT(arena.counted.drop): killed before: the reaper clears it; after: if the last, the next
    // reap frees it
    const uint64_t before = head.holders.fetch_and(~bit_of(slot()));
    SHOAL_KILL_POINT("arena.counted.drop");
    if ((before & ~bit_of(slot())) != 0) return;
  }
  release_last(b, word);
}

// Only who holds a block can let another hold it: when my bit is the only one it stays so.
bool Member::take_counted(Handle b) noexcept {
  const std::lock_guard<LocalLock> local(local_);
  const auto entry = held_.find(b);
  if (incarnation_ == 0 || entry == held_.end() || entry->second != 1 || private_.count(b) != 0)
    return false;
  PageDescriptor& head = arena_->page(arena_->page_of(b));
  uint64_t word = head.owner.load();
  if (!is_counted(word) || head.holders.load() != bit_of(slot())) return false;
  // COMMIT(arena.counted.take): killed before: held, the reaper clears my bit and frees; after:
  // mine, the reaper frees it
  if (!head.owner.compare_exchange(word, owner_member(incarnation_))) return false;
  SHOAL_KILL_POINT("arena.counted.take");
  held_.erase(entry);
  return true;
}

// Nobody holds it, so nobody can begin to hold it: whoever changes this very owner word frees it.
void Member::release_last(Handle b, uint64_t word) noexcept {
  const uint64_t page = arena_->page_of(b);
  // COMMIT(arena.counted.last): killed before: a reaper finds it without holders; after: dying,
  // freed by the reaper
  if (!arena_->page(page).owner.compare_exchange(word, owner_dying(incarnation_))) return;
  SHOAL_KILL_POINT("arena.counted.last");
  RunAllocator(*arena_, incarnation_).release(page, arena_->block_size(b) >> kPageShift);
}

// Ends this process's private view of a block that was inherited through a fork.
bool Member::share_again(Handle b) noexcept {
  const auto entry = private_.find(b);
  if (entry == private_.end()) return true;
  if (!arena_->map_shared(b, entry->second)) return false;
  private_.erase(entry);
  return true;
}

}  // namespace shoal::arena
