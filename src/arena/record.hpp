// SPDX-License-Identifier: Apache-2.0
//
// Record: what says who holds a block that several members may hold, and which other blocks refer
// to it. There is no count anywhere: a holder is a bit, a reference is a word, and both name whom
// they belong to. So a death clears exactly what the dead member had, and clearing twice is
// harmless. The record of a block is named by the block's handle.
//
// The words of a record:
//
//   owner    {version:60 | record:4}: the block's owner word, the truth. A version is a number that
//            is never given out twice in a session.
//   holders  {tag:32 | one bit for each of the slots 0 to 31}
//   more     {tag:29 | 0 | handle / 64 : 34}  the block that refers to this one at place 0, or
//                                             handle 0: none does
//            {tag:29 | 1 | handle / 64 : 34}  an extension
//
// `holders` and `more` of a page run lie in its first page descriptor, those of a small block in
// the last 16 bytes of the block (allocate it by Member::allocate_shareable). So a record costs no
// memory of its own until a member in a slot from 32 on holds the block, or a second block refers
// to it. Then it gets an extension: a small block, BLOCK(record), with the words of more slots
// ({tag:32 | bits:32}, as `holders`), more link words ({tag:29 | 0 | handle / 64 : 34}) and a word
// `more` of its own for the next extension. An extension is linked once, by compare-exchange, and
// stays until the record ends. Level 1 has slots 32 to 511, level 2 slots 512 to 4095, all further
// levels have links only, each twice as many as the level before. Link place 0 lies in `more` of
// the record, and in the first link word of level 1 once that extension is there.
//
//   hold    set the bit;       then owner: record(v) -> record(new version)
//   link    set a link word;   then owner: record(v) -> record(new version)
//   drop    clear the bit;     settle    (or, if nobody else holds it: as settle, at once)
//   unlink  clear the word;    settle
//   settle  read owner: record(v); read all words; if no bit and no link is set, owner:
//           record(v) -> MEMBER(me), by compare-exchange: the block is this member's
//   reap    as drop, for the bit of the dead member's slot; for each block of the dead member that
//           refers to records, as unlink
//
// Why no record ends that somebody holds. A reference is a bit or a link whose new version has been
// stored. Suppose that settle reads version v, then all words as not set, and that its exchange
// succeeds at time T, although there is a reference R at T. The version of R was stored before T,
// so before settle read v, since v was not replaced in between and never returns. The word of R was
// set even earlier, and is still set at T: so settle has read it as set, which is a contradiction.
// A member that has set its bit and then finds that the record has ended knows that it holds
// nothing. (tests/python/project/record_model.py tries all interleavings.)
//
// Why all of this may come late. settle, hold and unlink may be stopped at any instruction while
// the record ends and its memory is used for something else. Every write of theirs is a
// compare-exchange whose expected word was read while `owner` had one version, before and after;
// that word contains the tag (the low bits of the record's first version), so it fails in any other
// use of the memory. Plain fetch_and and fetch_or are used only by who holds the block.
//
// All functions: any thread of any member; nothing allocates, blocks or throws. A handle that names
// no block is no record.
// Design: docs/design/arena.md
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "arena/arena.hpp"
#include "os/atomic.hpp"

namespace shoal::arena {

inline constexpr uint64_t kRecordBytes = 16;  // at the end of a small block that is a record
inline constexpr uint32_t kNoPlace = UINT32_MAX;

// What to ask of allocate_shareable() for a state that ends with a field `record`, which it leaves
// to the record.
template <class State>
constexpr size_t size_before_record() noexcept {
  static_assert(offsetof(State, record) == sizeof(State) - kRecordBytes);
  return sizeof(State) - kRecordBytes;
}

// A block with further words of a record. Only its maker writes it before it is linked.
struct Extension {
  os::Atomic<uint64_t> check;      // kCheck ^ the handle of this block; 0 before it is freed
  os::Atomic<uint64_t> record;     // handle of the block
  os::Atomic<uint64_t> linked_at;  // offset of the word `more` that names this block
  os::Atomic<uint64_t> maker;      // incarnation
  os::Atomic<uint64_t> more;
  // Hints, in level 1 only, written by those whom the record cannot end under:
  os::Atomic<uint32_t> next_place;  // where to look for a link word that is not used
  os::Atomic<uint32_t> used_place;  // a link word that was used a moment ago
  uint64_t reserved[2];
  static constexpr uint64_t kCheck = 0x6e6574786564726f;
  // the words of slots, then the link words
};
static_assert(sizeof(Extension) == 64);

// What an extension of a level has.
struct Level {
  uint32_t first_slot;
  uint32_t slot_words;
  uint32_t first_place;
  uint32_t places;
  uint64_t bytes;
};
inline constexpr uint32_t kInlineSlots = 32;
inline constexpr uint32_t kSlotsAWord = 32;
inline constexpr uint32_t kLevels = 21;

constexpr std::array<Level, kLevels + 1> make_levels() noexcept {
  std::array<Level, kLevels + 1> levels{};
  levels[0] = {0, 1, 0, 1, 0};  // the words of the record itself
  levels[1] = {kInlineSlots, 15, 0, 9, 256};
  levels[2] = {512, (kMemberSlots - 512) / kSlotsAWord, 9, 40, 1280};
  for (uint32_t i = 3; i <= kLevels; ++i) {
    const uint64_t bytes = uint64_t{4096} << (i - 3);
    levels[i] = {kMemberSlots, 0, levels[i - 1].first_place + levels[i - 1].places,
                 static_cast<uint32_t>((bytes - sizeof(Extension)) / 8), bytes};
  }
  return levels;
}
inline constexpr std::array<Level, kLevels + 1> kRecordLevels = make_levels();
static_assert(kRecordLevels[1].first_slot + 32 * kRecordLevels[1].slot_words == 512);
static_assert(kRecordLevels[2].bytes ==
              sizeof(Extension) + 8UL * (kRecordLevels[2].slot_words + kRecordLevels[2].places));

// Can a block of this size be an extension?
constexpr bool is_extension_size(uint64_t bytes) noexcept {
  for (uint32_t i = 1; i <= kLevels; ++i)
    if (bytes == kRecordLevels[i].bytes) return true;
  return false;
}

class Record {
 public:
  enum class Done : uint8_t {
    yes,
    no,       // this is no record (any more)
    no_word,  // extend() it first
  };

  Record(const Arena& arena, Handle block) noexcept;

  [[nodiscard]] bool is_alive() const noexcept { return is_record(owner_->load()); }
  [[nodiscard]] bool is_owned_by(Incarnation m) const noexcept {
    return owner_->load() == owner_member(m);
  }
  [[nodiscard]] bool is_run() const noexcept { return is_run_; }

  // Makes a record of a block that only this member uses: begin() with a new version; extend() it
  // until has_word() of the member's slot; then finish() with the same version, after which the
  // member holds the block.
  void begin(uint64_t version) noexcept;
  void finish(uint32_t slot, uint64_t version) noexcept;
  [[nodiscard]] bool has_word(uint32_t slot) const noexcept {
    return slot < kInlineSlots || word_of_slot(slot) != nullptr;
  }

  // `version` of these two: a new one. It is used up if the answer is yes.
  [[nodiscard]] Done hold(uint32_t slot, uint64_t version) noexcept;
  // Makes `referrer` refer to the block. Needs: the caller's member holds the block, and
  // `referrer`, a block of that member, has the word `place`, which unlink() needs. `place` is
  // stored before the link is made.
  [[nodiscard]] Done link(Handle referrer, os::Atomic<uint32_t>& place, uint64_t version) noexcept;

  // Ends the hold of a slot's member. True: nobody holds the block any more, nothing refers to it,
  // and the owner word is `owner`.
  [[nodiscard]] bool drop(uint32_t slot, uint64_t owner) noexcept;
  // The same for a dead member's slot; does nothing if the bit is not set. Only for its reaper.
  void drop_dead(uint32_t slot) noexcept;
  // Removes the link of `referrer` at `place`, if it is there. Only for the owner of `referrer`,
  // which then calls settle() in any case: the link may have been removed by a member that died
  // before it could.
  void unlink(Handle referrer, uint32_t place) noexcept;
  // If nobody holds the block and nothing refers to it, changes the owner word to `owner`. True:
  // this call has done it.
  [[nodiscard]] bool settle(uint64_t owner) noexcept { return settle(owner, 0, kNoSlot); }
  // The same for the member in `slot`, which holds the block and is to be the only holder.
  [[nodiscard]] bool take(uint64_t owner, uint32_t slot) noexcept { return settle(owner, 0, slot); }

  // Bytes of the extension that is missing; 0: there can be no more.
  [[nodiscard]] uint64_t extension_bytes() const noexcept;
  // Makes an extension of a block of at least extension_bytes(), MEMBER(me), and links it. False:
  // it is MEMBER(me) again, since another member was faster or the record has ended.
  [[nodiscard]] bool extend(Handle handle, Incarnation me) noexcept;
  // Handles of the extensions; returns how many. Only for the owner of a block that is no record
  // any more (or never was one, then there are none).
  size_t extensions(std::array<Handle, kLevels>* handles) const noexcept;

  // For check() and reports: calls the functions with each slot whose bit is set, and with each
  // block that refers to this one.
  void visit(const std::function<void(uint32_t)>& slot,
             const std::function<void(Handle)>& referrer) const;
  // For check(): all words have the record's tag, and all extensions are BLOCK(record).
  [[nodiscard]] bool is_whole() const noexcept;

 private:
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  struct End {  // of the chain of extensions
    os::Atomic<uint64_t>* more;
    uint32_t level;  // of the extension that is missing
  };

  // With a tag: only if it is the record with this tag. `except`: a slot whose bit does not count.
  bool settle(uint64_t owner, uint32_t tag, uint32_t except) noexcept;
  bool is_referred(uint32_t except) const noexcept;
  uint32_t tag() const noexcept { return static_cast<uint32_t>(holders_->load() >> 32); }
  Extension* follow(uint64_t more, uint32_t level) const noexcept;
  os::Atomic<uint64_t>* word_of_slot(uint32_t slot) const noexcept;
  os::Atomic<uint64_t>* word_of_place(uint32_t place) const noexcept;
  End end() const noexcept;
  void fill(Handle handle, const End& end, uint32_t tag, Incarnation me) const noexcept;
  bool is_still(uint32_t tag) const noexcept;
  uint32_t find_place(Extension& first) const noexcept;
  void prepare_unlink(uint32_t place) const noexcept;
  bool renew(uint64_t version) noexcept;

  const Arena* arena_;
  Handle block_;
  os::Atomic<uint64_t>* owner_;
  os::Atomic<uint64_t>* holders_;
  os::Atomic<uint64_t>* more_;
  bool is_run_;
};

// Frees the extensions that the block has left. For its owner, when it is no record any more. Safe
// for any block, and to repeat.
void free_extensions(Member& member, Handle block) noexcept;

// An extension that `dead` has made and that is not linked: `dead` died before it could link it.
bool is_stray_extension(const Arena& arena, Handle block, Incarnation dead) noexcept;

}  // namespace shoal::arena
