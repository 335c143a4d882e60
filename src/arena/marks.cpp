// SPDX-License-Identifier: Apache-2.0
#include "arena/marks.hpp"

#include <algorithm>
#include <bit>

#include "arena/page_search.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

// Reserves memory behind a chunk. False: there is none.
bool open_chunk(Arena& arena, uint32_t slot, uint64_t chunk) noexcept {
  if (arena.marks_refused_for_test) return false;
  os::Atomic<uint64_t>& chunks = arena.slot(slot).mark_chunks[chunk / 64];
  if ((chunks.load() & bit_of(chunk)) != 0) return true;
  const MarksLayout& layout = arena.marks_layout();
  const uint64_t from = layout.first_word(slot, chunk) * sizeof(uint64_t);
  const uint64_t bytes = layout.words_a_chunk() * sizeof(uint64_t);
  if (!arena.commit(arena.header().marks_offset + from, bytes)) return false;
  // COMMIT(arena.mark.chunk): killed before: reserved again before use; after: all bits are clear
  chunks.fetch_or(bit_of(chunk));
  SHOAL_KILL_POINT("arena.mark.chunk");
  return true;
}

}  // namespace

void mark_for(Arena& arena, Incarnation member, Handle block) noexcept {
  if (member == 0 || !arena.contains(block, 1)) return;
  const uint32_t slot = slot_of(member);
  const uint64_t page = arena.page_of(block);
  if (arena.is_marked(slot, page)) return;
  const MarksLayout& layout = arena.marks_layout();
  if (open_chunk(arena, slot, layout.chunk_of(page))) {
    // COMMIT(arena.mark.set): killed before: the member owns nothing more; after: the same, and its
    // reaper looks at the page
    arena.mark_words()[layout.word_of(slot, page)].fetch_or(bit_of(page));
    SHOAL_KILL_POINT("arena.mark.set");
  } else {
    // COMMIT(arena.mark.everything): killed before: the member owns nothing more; after: the same,
    // and its reaper looks at all pages
    arena.slot(slot).marks_everything.store(1);
    SHOAL_KILL_POINT("arena.mark.everything");
  }
}

bool give_to_dead(Arena& arena, Incarnation dead, Handle block, uint64_t& expected) noexcept {
  mark_for(arena, dead, block);
  return arena.owner_word(block).compare_exchange(expected, owner_member(dead));
}

bool Marks::everything() const noexcept { return arena_.slot(slot_).marks_everything.load() != 0; }

uint64_t Marks::next(uint64_t from) const noexcept {
  return everything() ? next_used(from) : next_marked(from);
}

// The first chunk at or after `from` that has memory behind it; one past the last: none.
uint64_t Marks::next_chunk(uint64_t from) const noexcept {
  const uint64_t end = arena_.marks_layout().chunks();
  return std::min(next_set_bit(arena_.slot(slot_).mark_chunks, from, end), end);
}

uint64_t Marks::next_marked(uint64_t from) const noexcept {
  const MarksLayout& layout = arena_.marks_layout();
  for (;;) {
    const uint64_t chunk = next_chunk(layout.chunk_of(from));
    if (chunk >= layout.chunks()) return kNoPage;
    from = std::max(from, layout.first_page(chunk));
    const os::Atomic<uint64_t>* words = arena_.mark_words() + layout.first_word(slot_, chunk);
    uint64_t mask = ~uint64_t{0} << (from % 64);
    for (uint64_t i = (from - layout.first_page(chunk)) / 64; i < layout.words_a_chunk(); ++i) {
      // order: relaxed; no process marks any more
      const uint64_t left = words[i].load(os::relaxed) & mask;
      if (left != 0)
        return layout.first_page(chunk) + i * 64 + static_cast<uint64_t>(std::countr_zero(left));
      mask = ~uint64_t{0};
    }
    from = layout.first_page(chunk + 1);
  }
}

uint64_t Marks::next_used(uint64_t from) const noexcept {
  return next_set_bit(arena_.used_bits(), from, arena_.frontier());
}

void Marks::clear() noexcept {
  const MarksLayout& layout = arena_.marks_layout();
  for (uint64_t chunk = next_chunk(0); chunk < layout.chunks(); chunk = next_chunk(chunk + 1)) {
    os::Atomic<uint64_t>* words = arena_.mark_words() + layout.first_word(slot_, chunk);
    for (uint64_t i = 0; i < layout.words_a_chunk(); ++i)
      // order: relaxed; the state word, stored later, publishes that the slot is free
      if (words[i].load(os::relaxed) != 0) words[i].store(0, os::relaxed);
  }
  // COMMIT(arena.mark.clear): killed before or after: the next reaper finds nothing of the dead
  // member, and clears all marks
  arena_.slot(slot_).marks_everything.store(0);
  SHOAL_KILL_POINT("arena.mark.clear");
}

}  // namespace shoal::arena
