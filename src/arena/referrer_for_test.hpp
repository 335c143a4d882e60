// SPDX-License-Identifier: Apache-2.0
//
// For tests of records: blocks that refer to records, as the items of containers do; members in
// chosen slots; and what a record's words say.
#pragma once

#include <algorithm>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "arena/record.hpp"
#include "arena/slots.hpp"
#include "arena/test_session.hpp"

namespace shoal::arena {

// A block that refers to one record.
struct Referrer {
  static constexpr uint64_t kCheck = 0x7265727265666572;
  uint64_t check;  // kCheck ^ its handle
  Handle to;
  os::Atomic<uint32_t> place;
};

// The end hook of referrers.
inline void end_referrer(Arena& arena, Member& member, Handle block) {
  if (arena.block_size(block) < sizeof(Referrer)) return;
  auto* const referrer = arena.at<Referrer>(block);
  if (referrer->check != (Referrer::kCheck ^ block)) return;
  if (member.unlink(referrer->to, block, referrer->place.load())) end_block(member, referrer->to);
  referrer->check = 0;
}

// Needs: the member holds the block.
inline Handle make_referrer(Member& member, Handle to) {
  register_end_hook(&end_referrer);
  const Handle made = member.allocate(sizeof(Referrer));
  auto* const referrer = new (member.arena().address(made)) Referrer{};
  referrer->to = to;
  referrer->place.store(kNoPlace);
  referrer->check = Referrer::kCheck ^ made;
  EXPECT_TRUE(member.link(to, made, referrer->place));
  return made;
}

inline std::vector<uint32_t> holders_of(const Arena& arena, Handle block) {
  std::vector<uint32_t> slots;
  Record(arena, block).visit([&](uint32_t slot) { slots.push_back(slot); }, [](Handle) {});
  return slots;
}

inline std::vector<Handle> referrers_of(const Arena& arena, Handle block) {
  std::vector<Handle> blocks;
  Record(arena, block).visit([](uint32_t) {}, [&](Handle b) { blocks.push_back(b); });
  return blocks;
}

// While it lives, all free slots below `end` seem to be taken: the next member to join gets the
// lowest free slot from `end` on.
class SlotsTaken {
 public:
  SlotsTaken(Arena& arena, uint32_t end) : arena_(arena) {
    os::Atomic<uint64_t>& used = arena.header().slots_used;
    used.store(std::max<uint64_t>(used.load(), std::min(end + 1, kMemberSlots)));
    const auto pid = static_cast<uint64_t>(getpid());
    for (uint32_t i = 0; i < end; ++i) {
      const uint64_t word = arena.slot(i).state.load();
      if (slot_state(word) != SlotState::free) continue;
      taken_.push_back({i, word});
      arena.slot(i).state.store(make_slot(SlotState::live, i + kMemberSlots * 4, pid, 0));
    }
  }
  ~SlotsTaken() {
    for (const auto& [index, word] : taken_) arena_.slot(index).state.store(word);
  }
  SlotsTaken(const SlotsTaken&) = delete;
  SlotsTaken& operator=(const SlotsTaken&) = delete;

 private:
  Arena& arena_;
  std::vector<std::pair<uint32_t, uint64_t>> taken_;
};

inline std::unique_ptr<Member> join_at(TestSession& s, uint32_t slot) {
  const SlotsTaken taken(*s.arena, slot);
  auto member = s.join();
  EXPECT_EQ(member->slot(), slot);
  return member;
}

}  // namespace shoal::arena
