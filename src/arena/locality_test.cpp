// SPDX-License-Identifier: Apache-2.0
//
// A reap finds what the dead member owned and held by its marks, and the children of its blocks by
// their kin. So its cost does not depend on the blocks of others. Measured in accesses to shared
// words, which do not depend on the machine's load.
#include <gtest/gtest.h>

#include <vector>

#include "arena/kin.hpp"
#include "arena/marks.hpp"
#include "arena/page_search.hpp"
#include "arena/slots.hpp"
#include "arena/test_session.hpp"
#include "os/memory.hpp"

namespace shoal::arena {
namespace {

constexpr uint64_t kReserve = uint64_t{1} << 30;
constexpr size_t kLarge = 200'000;
constexpr size_t kFew = 1'000;
constexpr size_t kMany = 1'000'000;
// What the place of a run in the bitmaps can change: it may lie in one word more.
constexpr uint64_t kSlack = 64;

uint64_t accesses = 0;
void count_access(const void*) { ++accesses; }

uint64_t accesses_of(const std::function<void()>& operation) {
  accesses = 0;
  os::access_hook = &count_access;
  operation();
  os::access_hook = nullptr;
  return accesses;
}

struct Costs {
  uint64_t reap = 0;   // of a dead member
  uint64_t leave = 0;  // an orderly exit
};

// A session in which another member has `others` small blocks, with a member that has ten blocks.
struct Crowd {
  explicit Crowd(size_t others) : s(kReserve) {
    for (size_t i = 0; i < others; ++i) s.me->allocate(64);
    member = s.join();
    for (int i = 0; i < 8; ++i) member->allocate(100);
    member->make_counted(member->allocate(kLarge));
    member->share(member->allocate(300));
  }
  TestSession s;
  std::unique_ptr<Member> member;
};

Costs costs_beside(size_t others) {
  Costs costs;
  {
    Crowd crowd(others);
    const Incarnation dead = crowd.member->incarnation();
    crowd.member->abandon_for_test();
    costs.reap = accesses_of([&] { EXPECT_TRUE(reap(*crowd.s.arena, *crowd.s.me, dead)); });
    EXPECT_EQ(crowd.s.blocks(), others);
  }
  Crowd crowd(others);
  costs.leave = accesses_of([&] { crowd.member->leave(); });
  EXPECT_EQ(crowd.s.blocks(), others);
  crowd.s.arena->check();
  return costs;
}

TEST(Locality, TheCostOfAReapDoesNotDependOnTheBlocksOfOthers) {
  const Costs few = costs_beside(kFew);
  const Costs many = costs_beside(kMany);
  EXPECT_LT(many.reap, few.reap + kSlack);
  EXPECT_LT(many.leave, few.leave + kSlack);
}

// The dead member held a message with an attachment; the blocks of others are children too, of one
// parent. The reap reads the kin of their spans, but none of the blocks.
TEST(Locality, ChildrenOfOthersCostAReapOneLookASpan) {
  TestSession s(kReserve);
  const Handle others_parent = s.me->allocate(500);
  const uint64_t pages_before = s.arena->statistics().in_use / kPage;
  for (size_t i = 0; i < kMany / 4; ++i) s.me->give_to_block(s.me->allocate(64), others_parent);
  const uint64_t pages = s.arena->statistics().in_use / kPage - pages_before;
  const uint64_t blocks = s.blocks();
  const auto victim = s.join();
  const Handle parent = victim->allocate(100);
  victim->give_to_block(victim->allocate(kLarge), parent);
  victim->give_to_block(victim->allocate(64), parent);
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  const uint64_t cost = accesses_of([&] { EXPECT_TRUE(reap(*s.arena, *s.me, dead)); });
  EXPECT_EQ(s.blocks(), blocks);
  EXPECT_LT(cost, 6 * pages + 20'000);
  s.arena->check();
}

// ---- children

// The maker of the children is gone when their parent dies.
TEST(Kin, ChildrenWhoseMakerLeftAreFreedWithTheirParent) {
  TestSession s;
  const auto parents_owner = s.join();
  const Handle parent = parents_owner->allocate(100);
  auto maker = s.join();
  const Handle child = maker->allocate(64);
  const Handle grandchild = maker->allocate(kLarge);
  maker->give_to_block(grandchild, child);
  maker->give_to_block(child, parent);
  maker.reset();
  EXPECT_EQ(s.blocks(), 3U);
  const Incarnation dead = parents_owner->incarnation();
  parents_owner->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Kin, AParentThatWasFreedBeforeItsChildCameTakesItAlongWhenTheMakerDies) {
  TestSession s;
  const Handle parent = s.me->allocate(100);
  const auto maker = s.join();
  const Handle child = maker->allocate(64);
  s.me->free(parent);
  maker->give_to_block(child, parent);
  const Incarnation dead = maker->incarnation();
  maker->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Kin, HintsAreClearedWithTheRun) {
  TestSession s;
  const Handle parent = s.me->allocate(kLarge);
  const Handle child = s.me->allocate(kLarge);
  s.me->give_to_block(child, parent);
  EXPECT_TRUE(is_kin(*s.arena, child, parent));
  EXPECT_NE(next_child_bit(*s.arena, 0), kNoPage);
  EXPECT_TRUE(s.me->free_child(child, parent));
  EXPECT_EQ(next_child_bit(*s.arena, 0), kNoPage);
  EXPECT_FALSE(is_kin(*s.arena, child, parent));
  EXPECT_TRUE(may_be_parent(*s.arena, parent));
  s.me->free(parent);
  EXPECT_FALSE(may_be_parent(*s.arena, parent));
}

TEST(Kin, ASpanNamesAllParentsOfItsBlocks) {
  TestSession s;
  std::vector<Handle> parents;
  std::vector<Handle> children;
  for (int i = 0; i < 100; ++i) {
    parents.push_back(s.me->allocate(200));
    children.push_back(s.me->allocate(64));
    s.me->give_to_block(children[i], parents[i]);
  }
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(is_kin(*s.arena, children[i], parents[i]));
  const uint64_t kin = s.arena->page(s.arena->locate(children[0]).first).kin.load();
  for (int i = 0; i < 100; i += 10) {
    Parents one;
    one.add(parents[i]);
    one.seal();
    EXPECT_TRUE(one.may_include(kin));
  }
  s.arena->check();
}

TEST(Kin, AnotherParentIsNotMistakenForTheOnlyOneOfASpan) {
  TestSession s;
  const Handle parent = s.me->allocate(200);
  const Handle other = s.me->allocate(200);
  const Handle child = s.me->allocate(64);
  s.me->give_to_block(child, parent);
  Parents parents;
  parents.add(other);
  parents.seal();
  const uint64_t kin = s.arena->page(s.arena->locate(child).first).kin.load();
  EXPECT_FALSE(parents.may_include(kin));
  parents.add(parent);
  parents.seal();
  EXPECT_TRUE(parents.may_include(kin));
}

// ---- marks

TEST(Marks, AMemberMarksThePagesOfItsBlocksOnly) {
  TestSession s;
  const auto member = s.join();
  const Handle small = member->allocate(100);
  const Handle large = member->allocate(kLarge);
  const Handle others = s.me->allocate(kLarge);
  const Arena& arena = *s.arena;
  EXPECT_TRUE(arena.is_marked(member->slot(), arena.page_of(small)));
  EXPECT_TRUE(arena.is_marked(member->slot(), arena.page_of(large)));
  EXPECT_FALSE(arena.is_marked(member->slot(), arena.page_of(others)));
  EXPECT_TRUE(s.me->give_to_channel(others, 1, 1));
  EXPECT_TRUE(member->take_from_channel(others, 1, 1));
  EXPECT_TRUE(arena.is_marked(member->slot(), arena.page_of(others)));
}

TEST(Marks, OfABlockInALaterPageOfASpanNameThatPage) {
  TestSession s;
  std::vector<Handle> blocks;
  for (int i = 0; i < 12; ++i) blocks.push_back(s.me->allocate(20'000));
  const auto member = s.join();
  for (const Handle b : blocks) {
    EXPECT_TRUE(s.me->give_to_channel(b, 1, b));
    EXPECT_TRUE(member->take_from_channel(b, 1, b));
    EXPECT_TRUE(s.arena->is_marked(member->slot(), s.arena->page_of(b)));
  }
  const Incarnation dead = member->incarnation();
  member->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

TEST(Marks, AreGoneWhenTheSlotIsFree) {
  TestSession s;
  auto member = s.join();
  const uint32_t slot = member->slot();
  (void)member->allocate(kLarge);
  EXPECT_TRUE(Marks(*s.arena, slot).any());
  member.reset();
  EXPECT_FALSE(Marks(*s.arena, slot).any());
}

TEST(Marks, AMemberWithoutMemoryForMarksIsReapedCompletely) {
  TestSession s;
  const Handle kept = s.me->allocate(kLarge);
  s.arena->marks_refused_for_test = true;
  const auto member = s.join();
  (void)member->allocate(100);
  (void)member->allocate(kLarge);
  s.arena->marks_refused_for_test = false;
  EXPECT_TRUE(Marks(*s.arena, member->slot()).everything());
  const Incarnation dead = member->incarnation();
  member->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_FALSE(Marks(*s.arena, slot_of(dead)).everything());
  EXPECT_EQ(s.blocks(), 1U);
  s.me->free(kept);
}

TEST(Marks, OfTheReaperLeadToWhatItHadClaimed) {
  TestSession s;
  const auto victim = s.join();
  const auto reaper = s.join();
  const Handle b = victim->allocate(kLarge);
  const Incarnation dead = victim->incarnation();
  const Incarnation second = reaper->incarnation();
  victim->abandon_for_test();
  // The reaper died right after its first claim.
  reaper->mark(b);
  s.arena->owner_word(b).store(owner_dying(second));
  reaper->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_EQ(s.blocks(), 1U);
  EXPECT_TRUE(reap(*s.arena, *s.me, second));
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Marks, OfWrongHandlesAreIgnored) {
  TestSession s;
  for (const Handle h : {Handle{0}, Handle{64}, s.arena->page_handle(s.arena->frontier()),
                         Handle{kReserve} * 4096, ~Handle{63}})
    s.me->mark(h);
  EXPECT_FALSE(Marks(*s.arena, s.me->slot()).any());
}

TEST(MarksLayout, GivesEachSlotAndPageABitOfItsOwn) {
  for (const uint64_t pages : {uint64_t{256}, uint64_t{16384}, uint64_t{1} << 24}) {
    const MarksLayout layout(pages);
    EXPECT_LE(layout.chunks(), kMarkChunks);
    EXPECT_EQ(layout.word_of(0, 63), layout.word_of(0, 0));
    EXPECT_EQ(layout.word_of(0, 64), layout.word_of(0, 0) + 1);
    EXPECT_LT(layout.word_of(kMemberSlots - 1, pages - 1), layout.bytes() / 8) << pages;
    const uint64_t last_of_first = layout.first_page(1) - 1;
    EXPECT_EQ(layout.word_of(0, last_of_first) + 1, layout.first_word(1, 0));
    // a bitmap of the reserve for each slot, where chunks are not rounded up
    EXPECT_LE(layout.bytes(), std::max<uint64_t>(pages, 512) / 8 * kMemberSlots);
  }
}

}  // namespace
}  // namespace shoal::arena
