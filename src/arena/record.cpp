// SPDX-License-Identifier: Apache-2.0
#include "arena/record.hpp"

#include <bit>

#include "arena/kin.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

constexpr uint64_t kIsExtension = uint64_t{1} << 34;
constexpr uint64_t kHandleMask = kIsExtension - 1;

constexpr uint64_t slot_bit(uint32_t slot) noexcept { return uint64_t{1} << (slot % kSlotsAWord); }
constexpr uint64_t bits_of(uint64_t word) noexcept { return word & UINT32_MAX; }
constexpr uint64_t no_bits(uint32_t tag) noexcept { return uint64_t{tag} << 32; }
constexpr uint64_t no_link(uint32_t tag) noexcept { return uint64_t{tag} << 35; }
constexpr uint64_t link_to(uint32_t tag, Handle handle) noexcept {
  return no_link(tag) | (handle >> 6 & kHandleMask);
}
constexpr Handle linked(uint64_t word) noexcept { return (word & kHandleMask) << 6; }
constexpr bool is_extension(uint64_t word) noexcept { return (word & kIsExtension) != 0; }

// Does this word of a record have a link?
constexpr bool is_link(uint64_t word) noexcept { return !is_extension(word) && linked(word) != 0; }

os::Atomic<uint64_t>* slot_words(Extension& extension) noexcept {
  return reinterpret_cast<os::Atomic<uint64_t>*>(&extension + 1);
}
os::Atomic<uint64_t>* link_words(Extension& extension, const Level& level) noexcept {
  return slot_words(extension) + level.slot_words;
}

// Words that no other member reads yet, or hints.
// order: relaxed; the store that makes the record, or links the extension, publishes them
void set(os::Atomic<uint64_t>& word, uint64_t value) noexcept { word.store(value, os::relaxed); }
uint64_t get(const os::Atomic<uint64_t>& word) noexcept {
  return word.load(os::relaxed);  // order: relaxed; as set()
}

}  // namespace

Record::Record(const Arena& arena, Handle block) noexcept : arena_(&arena), block_(block) {
  const Arena::Located at = arena.locate(block);
  owner_ = &arena.owner_at(at, block);
  is_run_ = shape_kind(at.shape) == PageKind::run;
  if (shape_kind(at.shape) == PageKind::span) {
    const Handle end = block + class_in(at.shape).size;
    holders_ = arena.at<os::Atomic<uint64_t>>(end - kRecordBytes);
    more_ = holders_ + 1;
  } else {
    PageDescriptor& page = arena.page(at.first);  // if there is no such block, nobody writes here
    holders_ = &page.holders;
    more_ = &page.more;
  }
}

// ---- Finding words

// The extension that the word names, if it is one of this level. All reads of it may come late: it
// is checked again, or only an exchange that expects the tag follows.
Extension* Record::follow(uint64_t more, uint32_t level) const noexcept {
  if (!is_extension(more) || level > kLevels) return nullptr;
  const Handle handle = linked(more);
  if (!arena_->contains(handle, kRecordLevels[level].bytes)) return nullptr;
  auto* const extension = arena_->at<Extension>(handle);
  const bool fits = get(extension->check) == (Extension::kCheck ^ handle);
  return fits && get(extension->record) == block_ ? extension : nullptr;
}

os::Atomic<uint64_t>* Record::word_of_slot(uint32_t slot) const noexcept {
  if (slot < kInlineSlots) return holders_;
  Extension* extension = follow(more_->load(), 1);
  for (uint32_t i = 1; extension != nullptr; ++i) {
    const Level& level = kRecordLevels[i];
    const uint32_t index = (slot - level.first_slot) / kSlotsAWord;
    if (index < level.slot_words) return &slot_words(*extension)[index];
    extension = follow(extension->more.load(), i + 1);
  }
  return nullptr;
}

os::Atomic<uint64_t>* Record::word_of_place(uint32_t place) const noexcept {
  const uint64_t more = more_->load();
  if (place == 0 && !is_extension(more)) return more_;
  Extension* extension = follow(more, 1);
  for (uint32_t i = 1; extension != nullptr; ++i) {
    const Level& level = kRecordLevels[i];
    const uint32_t index = place - level.first_place;
    if (index < level.places) return &link_words(*extension, level)[index];
    extension = follow(extension->more.load(), i + 1);
  }
  return nullptr;
}

Record::End Record::end() const noexcept {
  End end{more_, 1};
  while (Extension* const extension = follow(end.more->load(), end.level)) {
    end = {&extension->more, end.level + 1};
  }
  return end;
}

void Record::visit(const std::function<void(uint32_t)>& slot,
                   const std::function<void(Handle)>& referrer) const {
  const auto visit_bits = [&slot](uint64_t word, uint32_t first) {
    for (uint64_t bits = bits_of(word); bits != 0; bits &= bits - 1)
      slot(first + static_cast<uint32_t>(std::countr_zero(bits)));
  };
  visit_bits(holders_->load(), 0);
  uint64_t more = more_->load();
  if (is_link(more)) referrer(linked(more));
  for (uint32_t i = 1; Extension* const extension = follow(more, i); ++i) {
    const Level& level = kRecordLevels[i];
    for (uint32_t w = 0; w < level.slot_words; ++w)
      visit_bits(slot_words(*extension)[w].load(), level.first_slot + w * kSlotsAWord);
    for (uint32_t k = 0; k < level.places; ++k) {
      const uint64_t word = link_words(*extension, level)[k].load();
      if (is_link(word)) referrer(linked(word));
    }
    more = extension->more.load();
  }
}

bool Record::is_whole() const noexcept {
  const uint32_t mine = tag();
  bool whole = more_->load() >> 35 == no_link(mine) >> 35;
  uint64_t more = more_->load();
  for (uint32_t i = 1; is_extension(more); ++i) {
    Extension* const extension = follow(more, i);
    if (extension == nullptr) return false;
    const Level& level = kRecordLevels[i];
    whole &= arena_->owner_word(linked(more)).load() == owner_block(block_);
    for (uint32_t w = 0; w < level.slot_words; ++w)
      whole &= slot_words(*extension)[w].load() >> 32 == mine;
    for (uint32_t k = 0; k < level.places; ++k)
      whole &= link_words(*extension, level)[k].load() >> 35 == no_link(mine) >> 35;
    more = extension->more.load();
  }
  return whole;
}

// ---- Making a record

void Record::begin(uint64_t version) noexcept {
  const auto tag = static_cast<uint32_t>(version);
  set(*holders_, no_bits(tag));
  set(*more_, no_link(tag));
}

void Record::finish(uint32_t slot, uint64_t version) noexcept {
  os::Atomic<uint64_t>* const word = word_of_slot(slot);
  set(*word, get(*word) | slot_bit(slot));
  // COMMIT(arena.record.make): killed before: this member's, freed by the reaper; after: held by
  // this member only
  owner_->store(owner_record(version));
  SHOAL_KILL_POINT("arena.record.make");
}

// ---- Adding references

Record::Done Record::hold(uint32_t slot, uint64_t version) noexcept {
  while (true) {
    uint64_t seen = owner_->load();
    if (!is_record(seen)) return Done::no;
    os::Atomic<uint64_t>* const word = word_of_slot(slot);
    uint64_t bits = word == nullptr ? 0 : word->load();
    if (owner_->load() != seen) continue;
    if (word == nullptr) return Done::no_word;
    if ((bits & slot_bit(slot)) == 0) {
      // COMMIT(arena.record.bit): killed before: nothing; after: the reaper clears the bit, and
      // frees the block if no other reference is left
      const bool done = word->compare_exchange(bits, bits | slot_bit(slot));
      SHOAL_KILL_POINT("arena.record.bit");
      if (!done) continue;
    }
    // COMMIT(arena.record.hold): killed before: as above; after: held, until this member is reaped
    const bool done = owner_->compare_exchange(seen, owner_record(version));
    SHOAL_KILL_POINT("arena.record.hold");
    if (done) return Done::yes;
  }
}

// The caller's member holds the block, so the record does not end during the call.
Record::Done Record::link(Handle referrer, os::Atomic<uint32_t>& place, uint64_t version) noexcept {
  if (!is_alive()) return Done::no;
  const uint64_t none = no_link(tag());
  while (true) {
    uint64_t free = none;
    os::Atomic<uint64_t>* word = more_;
    uint32_t found = 0;
    if (const uint64_t more = more_->load(); is_extension(more)) {
      Extension* const first = follow(more, 1);
      found = first == nullptr ? kNoPlace : find_place(*first);
      if (found == kNoPlace) return Done::no_word;
      word = word_of_place(found);
      // order: relaxed; a hint
      first->next_place.store(found + 1, os::relaxed);
      first->used_place.store(found, os::relaxed);  // order: relaxed; a hint
    } else if (is_link(more)) {
      return Done::no_word;
    }
    place.store(found);
    // COMMIT(arena.record.word): killed before: nothing; after: the reaper of the member that owns
    // the referrer removes the link
    const bool done = word->compare_exchange(free, none | link_to(0, referrer));
    SHOAL_KILL_POINT("arena.record.word");
    if (done) return renew(version) ? Done::yes : Done::no;
  }
}

bool Record::renew(uint64_t version) noexcept {
  uint64_t seen = owner_->load();
  while (is_record(seen)) {
    // COMMIT(arena.record.link): killed before: as above; after: linked, for as long as the
    // referrer exists
    const bool done = owner_->compare_exchange(seen, owner_record(version));
    SHOAL_KILL_POINT("arena.record.link");
    if (done) return true;
  }
  return false;
}

// A place whose link word is not used, searched for from a hint on, in a circle. kNoPlace: all are
// used.
uint32_t Record::find_place(Extension& first) const noexcept {
  const uint32_t hint = first.next_place.load(os::relaxed);  // order: relaxed; a hint
  Extension* extension = &first;
  for (uint32_t i = 1; extension != nullptr; ++i) {
    const Level& level = kRecordLevels[i];
    os::Atomic<uint64_t>* const words = link_words(*extension, level);
    const uint32_t from = hint > level.first_place ? hint - level.first_place : 0;
    for (uint32_t k = from; k < level.places; ++k)
      if (!is_link(words[k].load())) return level.first_place + k;
    extension = follow(extension->more.load(), i + 1);
  }
  extension = &first;
  for (uint32_t i = 1; extension != nullptr; ++i) {
    const Level& level = kRecordLevels[i];
    os::Atomic<uint64_t>* const words = link_words(*extension, level);
    for (uint32_t k = 0; k < level.places && level.first_place + k < hint; ++k)
      if (!is_link(words[k].load())) return level.first_place + k;
    extension = follow(extension->more.load(), i + 1);
  }
  return kNoPlace;
}

// ---- Removing references

// The tag makes sure that it is this record that is settled: once the bit is clear, the block may
// be freed, and be another record.
bool Record::drop(uint32_t slot, uint64_t owner) noexcept {
  if (take(owner, slot)) return true;
  const uint32_t mine = tag();
  os::Atomic<uint64_t>* const word = word_of_slot(slot);
  if (word == nullptr) return false;
  // COMMIT(arena.record.drop): killed before: the reaper clears the bit; after: the reaper settles
  word->fetch_and(~slot_bit(slot));
  SHOAL_KILL_POINT("arena.record.drop");
  return settle(owner, mine, kNoSlot);
}

// If the bit is set in a word that was read while the record was alive, it stays set, and the
// record alive, until this reaper clears it.
void Record::drop_dead(uint32_t slot) noexcept {
  while (true) {
    const uint64_t seen = owner_->load();
    if (!is_record(seen)) return;
    os::Atomic<uint64_t>* const word = word_of_slot(slot);
    const uint64_t bits = word == nullptr ? 0 : word->load();
    if (owner_->load() != seen) continue;
    if ((bits & slot_bit(slot)) == 0) return;
    // COMMIT(arena.reap.unhold): killed before: done by the next reaper; after: the bit is clear
    word->fetch_and(~slot_bit(slot));
    SHOAL_KILL_POINT("arena.reap.unhold");
    return;
  }
}

// If the link is there in a word that was read while the record was alive, it stays there, and the
// record alive, until the owner of the referrer, the caller, removes it.
void Record::unlink(Handle referrer, uint32_t place) noexcept {
  while (place != kNoPlace) {
    const uint64_t seen = owner_->load();
    if (!is_record(seen)) return;
    const uint32_t mine = tag();
    os::Atomic<uint64_t>* const word = word_of_place(place);
    uint64_t link = word == nullptr ? 0 : word->load();
    if (owner_->load() != seen) continue;
    if (link != link_to(mine, referrer)) return;
    prepare_unlink(place);
    // COMMIT(arena.record.unlink): killed before: the reaper of the referrer's owner removes the
    // link; after: it settles
    const bool done = word->compare_exchange(link, no_link(mine));
    SHOAL_KILL_POINT("arena.record.unlink");
    if (done) return;  // else place 0 has moved to an extension
  }
}

// Before the link at `place` is removed: the next link is made there; and if it is the one that
// is_referred() looks at first, that becomes another one.
void Record::prepare_unlink(uint32_t place) const noexcept {
  Extension* const first = follow(more_->load(), 1);
  if (first == nullptr) return;
  first->next_place.store(place, os::relaxed);               // order: relaxed; a hint
  if (first->used_place.load(os::relaxed) != place) return;  // order: relaxed; a hint
  for (uint32_t pass = 0; pass < 2; ++pass) {                // from `place` on, in a circle
    Extension* extension = first;
    for (uint32_t i = 1; extension != nullptr; ++i) {
      const Level& level = kRecordLevels[i];
      os::Atomic<uint64_t>* const words = link_words(*extension, level);
      for (uint32_t k = 0; k < level.places; ++k) {
        const uint32_t at = level.first_place + k;
        if ((pass == 0) != (at > place) || at == place || !is_link(words[k].load())) continue;
        first->used_place.store(at, os::relaxed);  // order: relaxed; a hint
        return;
      }
      extension = follow(extension->more.load(), i + 1);
    }
  }
}

bool Record::is_referred(uint32_t except) const noexcept {
  const auto others = [except](uint64_t word, uint32_t first) {
    const uint32_t index = except - first;
    return (bits_of(word) & ~(index < kSlotsAWord ? slot_bit(except) : 0)) != 0;
  };
  if (others(holders_->load(), 0)) return true;
  uint64_t more = more_->load();
  if (is_link(more)) return true;
  Extension* extension = follow(more, 1);
  if (extension == nullptr) return false;
  // order: relaxed; a hint
  os::Atomic<uint64_t>* const used = word_of_place(extension->used_place.load(os::relaxed));
  if (used != nullptr && is_link(used->load())) return true;
  for (uint32_t i = 1; extension != nullptr; ++i) {
    const Level& level = kRecordLevels[i];
    for (uint32_t w = 0; w < level.slot_words; ++w)
      if (others(slot_words(*extension)[w].load(), level.first_slot + w * kSlotsAWord)) return true;
    for (uint32_t k = 0; k < level.places; ++k)
      if (is_link(link_words(*extension, level)[k].load())) return true;
    extension = follow(extension->more.load(), i + 1);
  }
  return false;
}

// What is_referred() reads may be other data, if the record has ended. Then the exchange fails, or
// it is another member's to end whatever is there now.
bool Record::settle(uint64_t owner, uint32_t tag, uint32_t except) noexcept {
  uint64_t seen = owner_->load();
  while (is_record(seen)) {
    if (is_referred(except)) return false;
    if (tag != 0 && this->tag() != tag) return false;
    // COMMIT(arena.record.end): killed before: the reaper settles; after: no record, but a block of
    // this member
    const bool done = owner_->compare_exchange(seen, owner);
    SHOAL_KILL_POINT("arena.record.end");
    if (done) return true;
  }
  return false;
}

// ---- Extensions

uint64_t Record::extension_bytes() const noexcept {
  const uint32_t level = end().level;
  return level > kLevels ? 0 : kRecordLevels[level].bytes;
}

void Record::fill(Handle handle, const End& end, uint32_t tag, Incarnation me) const noexcept {
  const Level& level = kRecordLevels[end.level];
  auto& extension = *arena_->at<Extension>(handle);
  set(extension.record, block_);
  set(extension.linked_at,
      static_cast<uint64_t>(reinterpret_cast<std::byte*>(end.more) - arena_->base()));
  set(extension.maker, me);
  set(extension.more, no_link(tag));
  extension.next_place.store(1, os::relaxed);  // order: relaxed; as set()
  extension.used_place.store(0, os::relaxed);  // order: relaxed; as set()
  for (uint32_t w = 0; w < level.slot_words; ++w) set(slot_words(extension)[w], no_bits(tag));
  for (uint32_t k = 0; k < level.places; ++k) set(link_words(extension, level)[k], no_link(tag));
  extension.check.store(Extension::kCheck ^ handle);
}

// Is this still the record with this tag?
bool Record::is_still(uint32_t tag) const noexcept {
  while (true) {
    const uint64_t seen = owner_->load();
    const bool same = is_record(seen) && this->tag() == tag;
    if (owner_->load() == seen) return same;
  }
}

bool Record::extend(Handle handle, Incarnation me) noexcept {
  const uint64_t seen = owner_->load();
  const End end = this->end();
  const uint32_t mine = tag();
  if (end.level > kLevels || arena_->block_size(handle) < kRecordLevels[end.level].bytes ||
      owner_->load() != seen)
    return false;
  fill(handle, end, mine, me);
  os::Atomic<uint64_t>& first_link =
      link_words(*arena_->at<Extension>(handle), kRecordLevels[end.level])[0];
  os::Atomic<uint64_t>& owner = arena_->owner_word(handle);
  make_kin(*arena_, handle, block_);
  // COMMIT(arena.record.extension): killed before: the reaper frees it; after: it is not linked,
  // and the reaper frees it for that reason
  owner.store(owner_block(block_));
  SHOAL_KILL_POINT("arena.record.extension");
  uint64_t more = end.more->load();
  bool done = false;
  while (!done && (more & ~kHandleMask) == no_link(mine)) {
    if (end.level == 1) first_link.store(more);
    // COMMIT(arena.record.extend): killed before: as above; after: a part of the record
    done = end.more->compare_exchange(more, link_to(mine, handle) | kIsExtension);
    SHOAL_KILL_POINT("arena.record.extend");
  }
  // Linked to memory that is no part of a record any more: as if it had not been linked.
  if (done && is_record(seen) && !is_still(mine)) done = false;
  if (done) return true;
  uint64_t word = owner_block(block_);
  if (owner.compare_exchange(word, owner_member(me))) arena_->at<Extension>(handle)->check.store(0);
  return false;
}

size_t Record::extensions(std::array<Handle, kLevels>* handles) const noexcept {
  size_t count = 0;
  uint64_t more = more_->load();
  for (uint32_t i = 1; Extension* const extension = follow(more, i); ++i) {
    if (arena_->owner_word(linked(more)).load() != owner_block(block_)) break;
    (*handles)[count++] = linked(more);
    more = extension->more.load();
  }
  return count;
}

void free_extensions(Member& member, Handle block) noexcept {
  std::array<Handle, kLevels> handles;
  size_t count = Record(member.arena(), block).extensions(&handles);
  while (count > 0) {  // the last first, so that after a death the rest is still found
    const Handle handle = handles[--count];
    if (!member.take_from_block(handle, block)) continue;
    member.arena().at<Extension>(handle)->check.store(0);
    member.free(handle);
  }
}

bool is_stray_extension(const Arena& arena, Handle block, Incarnation dead) noexcept {
  if (!is_extension_size(arena.block_size(block))) return false;
  const auto& extension = *arena.at<Extension>(block);
  const uint64_t owner = arena.owner_word(block).load();
  if (get(extension.check) != (Extension::kCheck ^ block) || get(extension.maker) != dead ||
      owner != owner_block(get(extension.record)))
    return false;
  const uint64_t at = get(extension.linked_at);
  if (at % 8 != 0 || at > arena.reserve() - 8) return false;
  const uint64_t more = arena.at<os::Atomic<uint64_t>>(at)->load();
  return !is_extension(more) || linked(more) != block;
}

}  // namespace shoal::arena
