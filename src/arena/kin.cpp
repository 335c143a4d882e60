// SPDX-License-Identifier: Apache-2.0
#include "arena/kin.hpp"

#include <algorithm>

#include "arena/page_search.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

constexpr uint64_t kHasParent = 1;
constexpr uint32_t kFilterBits = 29;
constexpr uint32_t kFirstShift = 1 + kFilterBits;

// The parent's form as a first parent, in place. 0 for one in 2^34 handles, which the filter holds.
constexpr uint64_t first_form(Handle parent) noexcept { return parent >> 6 << kFirstShift; }
constexpr uint64_t first_in(uint64_t kin) noexcept { return kin >> kFirstShift << kFirstShift; }
constexpr uint64_t filter_bit(Handle parent) noexcept {
  const uint64_t hash = (parent >> 6) * 0x9E3779B97F4A7C15;
  return uint64_t{2} << (hash >> 32) % kFilterBits;
}
constexpr bool includes(uint64_t kin, Handle parent) noexcept {
  return (first_in(kin) == first_form(parent) && first_in(kin) != 0) ||
         (kin & filter_bit(parent)) != 0;
}

PageDescriptor* head_of(const Arena& arena, Handle block, uint64_t* page) noexcept {
  const Arena::Located at = arena.locate(block);
  *page = at.first;
  return shape_kind(at.shape) == PageKind::free ? nullptr : &arena.page(at.first);
}

}  // namespace

void make_kin(const Arena& arena, Handle child, Handle parent) noexcept {
  uint64_t parent_page = 0;
  uint64_t page = 0;
  PageDescriptor* const parent_head = head_of(arena, parent, &parent_page);
  PageDescriptor* const head = head_of(arena, child, &page);
  if (parent_head == nullptr || head == nullptr) return;
  if ((parent_head->kin.load() & kHasParent) == 0) {
    // COMMIT(arena.kin.parent): killed before or after: nothing has happened but a hint
    parent_head->kin.fetch_or(kHasParent);
    SHOAL_KILL_POINT("arena.kin.parent");
  }
  uint64_t kin = head->kin.load();
  if (includes(kin, parent)) return;
  os::Atomic<uint64_t>& bits = arena.child_bits()[page / 64];
  if ((bits.load() & bit_of(page)) == 0) {
    // COMMIT(arena.kin.list): killed before or after: nothing has happened but a hint
    bits.fetch_or(bit_of(page));
    SHOAL_KILL_POINT("arena.kin.list");
  }
  while (!includes(kin, parent)) {
    const bool is_first = first_in(kin) == 0 && first_form(parent) != 0;
    const uint64_t more = kin | (is_first ? first_form(parent) : filter_bit(parent));
    // COMMIT(arena.kin.add): killed before or after: nothing has happened but a hint
    const bool done = head->kin.compare_exchange(kin, more);
    SHOAL_KILL_POINT("arena.kin.add");
    if (done) return;
  }
}

void clear_kin(Arena& arena, uint64_t first_page) noexcept {
  os::Atomic<uint64_t>& bits = arena.child_bits()[first_page / 64];
  PageDescriptor& head = arena.page(first_page);
  // order: relaxed, all; no block of the run has an owner, and the lock's word publishes them
  if (head.kin.load(os::relaxed) != 0) head.kin.store(0, os::relaxed);
  if ((bits.load(os::relaxed) & bit_of(first_page)) != 0) bits.fetch_and(~bit_of(first_page));
}

bool may_be_parent(const Arena& arena, Handle block) noexcept {
  uint64_t page = 0;
  const PageDescriptor* const head = head_of(arena, block, &page);
  return head != nullptr && (head->kin.load() & kHasParent) != 0;
}

uint64_t next_child_bit(const Arena& arena, uint64_t from) noexcept {
  return next_set_bit(arena.child_bits(), from, arena.frontier());
}

void Parents::add(Handle parent) {
  first_.push_back(first_form(parent));
  filter_ |= filter_bit(parent);
}

void Parents::seal() noexcept { std::sort(first_.begin(), first_.end()); }

bool Parents::may_include(uint64_t kin) const noexcept {
  return (kin & filter_) != 0 || std::binary_search(first_.begin(), first_.end(), first_in(kin));
}

bool is_kin(const Arena& arena, Handle child, Handle parent) noexcept {
  uint64_t page = 0;
  const PageDescriptor* const head = head_of(arena, child, &page);
  return head != nullptr && includes(head->kin.load(), parent) && may_be_parent(arena, parent) &&
         (arena.child_bits()[page / 64].load() & bit_of(page)) != 0;
}

}  // namespace shoal::arena
