// SPDX-License-Identifier: Apache-2.0
//
// Arena::statistics and Arena::check walk all pages and blocks. Other members may work during
// statistics(), but not during check().
#include <sstream>

#include "arena/arena.hpp"
#include "arena/kin.hpp"
#include "arena/marks.hpp"
#include "arena/orphans.hpp"
#include "arena/page_search.hpp"
#include "arena/record.hpp"
#include "arena/slots.hpp"

namespace shoal::arena {

namespace {

void count_block(Statistics& s, uint64_t word) noexcept {
  switch (owner_kind(word)) {
    case OwnerKind::member:
      ++s.blocks_member;
      break;
    case OwnerKind::channel:
      ++s.blocks_channel;
      break;
    case OwnerKind::block:
      ++s.blocks_block;
      break;
    case OwnerKind::record:
      ++s.blocks_record;
      break;
    case OwnerKind::named:
      ++s.blocks_named;
      break;
    case OwnerKind::dying:
      ++s.blocks_dying;
      break;
    default:
      break;
  }
}

class Checker {
 public:
  explicit Checker(Arena& arena) noexcept : arena_(arena) {}

  void run() {
    expect(arena_.header().intent.op.load() == 0, "no intent is left", 0);
    expect(arena_.header().lock.load() == 0, "the lock is free", 0);
    for (uint64_t page = 0; page < arena_.frontier();) page += check_page(page);
    for (uint64_t page = next_orphan_bit(arena_, 0); page != kNoPage;
         page = next_orphan_bit(arena_, page + 1))
      expect(arena_.page(page).owner.load() == owner_orphan(), "an orphan bit names an orphan span",
             page);
    for (uint32_t i = 0; i < slots_in_use(arena_); ++i)
      if (slot_state(arena_.slot(i).state.load()) == SlotState::free)
        expect(!Marks(arena_, i).any(), "a free slot has no marks", 0);
  }

 private:
  void expect(bool holds, const char* what, uint64_t page) const {
    if (holds) return;
    std::ostringstream text;
    const PageDescriptor& d = arena_.page(page);
    text << "arena is corrupt at page " << page << " (handle " << arena_.page_handle(page)
         << ", shape " << std::hex << d.shape.load() << ", owner " << d.owner.load()
         << "): expected that " << what;
    throw CorruptArena(text.str());
  }

  bool used(uint64_t page) const { return test_bit(arena_.used_bits(), page); }
  bool warm(uint64_t page) const { return test_bit(arena_.warm_bits(), page); }

  uint64_t check_page(uint64_t page) {
    const uint64_t shape = arena_.page(page).shape.load();
    switch (shape_kind(shape)) {
      case PageKind::free:
        expect(!used(page), "a free page is not marked as used", page);
        return 1;
      case PageKind::run:
      case PageKind::span:
        return check_run(page, shape);
      default:
        expect(false, "a tail page follows its run", page);
        return 1;
    }
  }

  uint64_t check_run(uint64_t page, uint64_t shape) {
    const uint64_t pages = shape_pages(shape);
    expect(pages > 0 && pages <= arena_.frontier() - page, "the run ends inside the tables", page);
    for (uint64_t i = 0; i < pages; ++i) {
      expect(used(page + i) && warm(page + i), "each page of a run is used and warm", page + i);
      if (i > 0)
        expect(arena_.page(page + i).shape.load() == make_tail(i), "a tail names its distance",
               page + i);
    }
    const uint64_t owner = arena_.page(page).owner.load();
    if (shape_kind(shape) == PageKind::span) {
      expect(shape_class(shape) < kClasses, "the size class exists", page);
      expect(owner == owner_orphan() || listed(owner), "a span's owner is a live member, or none",
             page);
      for (uint64_t i = 0; is_member(owner) && i < pages; ++i)
        expect_marked(slot_of(owner_incarnation(owner)), page + i);
      expect(test_bit(arena_.orphan_bits(), page) == (owner == owner_orphan()),
             "a span has an orphan bit if and only if it is an orphan", page);
      check_span(page, kSizeClasses[shape_class(shape)]);
    } else {
      expect(owner != owner_free(), "a run has an owner", page);
      check_owner(owner, arena_.page_handle(page));
    }
    return pages;
  }

  void check_span(uint64_t page, const SizeClass& c) {
    const os::Atomic<uint64_t>* owners = arena_.at_span(arena_.page_handle(page));
    for (uint32_t i = 0; i < c.count; ++i)
      check_owner(owners[i].load(), arena_.page_handle(page) + c.first + uint64_t{i} * c.size);
  }

  bool listed(uint64_t owner) const {
    return is_member(owner) && member_listed(arena_, owner_incarnation(owner));
  }

  // The member in this slot has marked the page, so that its reaper will visit it.
  void expect_marked(uint32_t slot, uint64_t page) const {
    expect(Marks(arena_, slot).everything() || arena_.is_marked(slot, page),
           "the owner or holder has marked the page", page);
  }

  void check_owner(uint64_t owner, Handle block) const {
    const uint64_t page = arena_.page_of(block);
    switch (owner_kind(owner)) {
      case OwnerKind::member:
        expect(listed(owner), "the owner is a live member", page);
        return expect_marked(slot_of(owner_incarnation(owner)), page);
      case OwnerKind::dying:
        expect(member_listed(arena_, owner_incarnation(owner)), "a live member frees it", page);
        return expect_marked(slot_of(owner_incarnation(owner)), page);
      case OwnerKind::block: {
        const uint64_t parent = arena_.owner_word(owner_parent(owner)).load();
        expect(parent != owner_free() && owner_kind(parent) < OwnerKind::orphan,
               "its parent exists", page);
        return expect(is_kin(arena_, block, owner_parent(owner)), "its parent leads to it", page);
      }
      case OwnerKind::record:
        return check_record(block, page);
      case OwnerKind::kept:
        return check_kept(owner, page);
      case OwnerKind::orphan:
        return expect(false, "only spans are orphans", page);
      default:
        return expect(owner_kind(owner) < OwnerKind::orphan, "the owner word has a known kind",
                      page);
    }
  }

  void check_kept(uint64_t owner, uint64_t page) const {
    expect(member_listed(arena_, kept_by(owner)), "a live member keeps the run", page);
    expect_marked(slot_of(kept_by(owner)), page);
    const uint64_t shape = arena_.page(page).shape.load();
    expect(shape_kind(shape) == PageKind::run && shape_pages(shape) == kept_pages(owner),
           "a kept run has the length that its owner word says", page);
    expect(test_bit(arena_.kept_bits(), page), "a kept run is listed", page);
  }

  // A record has a holder or a reference; its holders are members, the blocks that refer to it
  // exist, and its extensions are its own.
  void check_record(Handle block, uint64_t page) const {
    const Record record(arena_, block);
    uint64_t references = 0;
    record.visit(
        [&](uint32_t slot) {
          ++references;
          expect(is_listed(slot_state(arena_.slot(slot).state.load())),
                 "each holder of a record is a live member", page);
          expect_marked(slot, page);
        },
        [&](Handle referrer) {
          ++references;
          expect(owner_kind(arena_.owner_word(referrer).load()) != OwnerKind::free &&
                     arena_.block_size(referrer) != 0,
                 "each block that refers to a record exists", page);
        });
    expect(references != 0, "somebody holds a record, or refers to it", page);
    expect(record.is_whole(), "the extensions of a record belong to it", page);
  }

  Arena& arena_;
};

}  // namespace

Statistics Arena::statistics() const {
  Statistics s;
  const uint64_t pages = frontier();
  s.reserve = reserve_;
  s.limit = header().limit;
  s.committed = count_bits(warm_, pages) * kPage;
  uint64_t kept = 0;
  for (uint64_t i = 0; i < pages; ++i) {
    const uint64_t shape = page(i).shape.load();
    const uint64_t owner = page(i).owner.load();
    if (shape_kind(shape) == PageKind::run && is_kept(owner)) {
      kept += shape_pages(shape) * kPage;
    } else if (shape_kind(shape) == PageKind::run) {
      ++s.runs;
      count_block(s, owner);
    } else if (shape_kind(shape) == PageKind::span && shape_class(shape) < kClasses) {
      ++s.spans;
      if (owner == owner_orphan()) ++s.orphan_spans;
      const os::Atomic<uint64_t>* owners = at_span(page_handle(i));
      for (uint32_t b = 0; b < kSizeClasses[shape_class(shape)].count; ++b)
        count_block(s, owners[b].load());
    }
  }
  const uint64_t used = count_bits(used_, pages) * kPage;
  s.in_use = used > kept ? used - kept : 0;
  s.warm_free = s.committed > s.in_use ? s.committed - s.in_use : 0;
  for (uint32_t i = 0; i < slots_in_use(*this); ++i)
    if (slot_state(slot(i).state.load()) != SlotState::free) ++s.members;
  s.deaths = header().death_epoch.load();
  return s;
}

void Arena::check() const { Checker(const_cast<Arena&>(*this)).run(); }

}  // namespace shoal::arena
