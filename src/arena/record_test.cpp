// SPDX-License-Identifier: Apache-2.0
//
// Records: held by members in any slots, referred to by any number of blocks, exact after any
// death. counted_test.cpp and shared_test.cpp test the two kinds of blocks that are records.
#include "arena/record.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "arena/referrer_for_test.hpp"
#include "testing/delay.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 200'000;
constexpr uint32_t kSlots[] = {31, 32, 62, 63, 64, 511, 512, 1023, 1024, 1025, 2048, 4094, 4095};

Handle shared_block(Member& me, size_t size = 64) {
  const Handle b = me.allocate_shareable(size);
  me.share(b);
  return b;
}

TEST(Record, MembersInAllSlotsHoldItAndTheirDeathsFreeIt) {
  TestSession s;
  for (const size_t size : {size_t{64}, kLarge}) {
    const Handle b = shared_block(*s.me, size);
    const Handle c = s.me->allocate(kLarge);
    s.me->make_counted(c);
    std::vector<std::unique_ptr<Member>> members;
    std::vector<uint32_t> expected = {s.me->slot()};
    for (const uint32_t slot : kSlots) {
      members.push_back(join_at(s, slot));
      ASSERT_TRUE(members.back()->hold_shared(b));
      ASSERT_TRUE(members.back()->hold(c));
      expected.push_back(slot);
      EXPECT_EQ(holders_of(*s.arena, b), expected);
      EXPECT_EQ(holders_of(*s.arena, c), expected);
    }
    s.arena->check();
    EXPECT_FALSE(s.me->drop_shared(b));
    s.me->drop(c);
    expected.erase(expected.begin());
    for (auto& member : members) {
      EXPECT_EQ(holders_of(*s.arena, b), expected);
      EXPECT_EQ(holders_of(*s.arena, c), expected);
      member->abandon_for_test();
      reap_all_dead(*s.arena, *s.me);
      expected.erase(expected.begin());
      s.arena->check();
    }
    EXPECT_EQ(s.blocks(), 0U);
  }
}

TEST(Record, AMemberInAHighSlotMakesIt) {
  for (const uint32_t slot : {uint32_t{40}, kMemberSlots - 1}) {
    TestSession s;
    const auto maker = join_at(s, slot);
    const Handle small = shared_block(*maker);
    const Handle counted = maker->allocate(kLarge);
    maker->make_counted(counted);
    ASSERT_TRUE(s.me->hold_shared(small));
    s.arena->check();
    EXPECT_TRUE(maker->take_counted(counted));
    maker->free(counted);
    EXPECT_FALSE(maker->drop_shared(small));
    ASSERT_TRUE(s.me->drop_shared(small));
    s.me->free(small);
    EXPECT_EQ(s.blocks(), 0U);
  }
}

TEST(Record, ProcessesInHighSlotsThatAreKilledLeaveNothing) {
  TestSession s;
  const Handle b = shared_block(*s.me);
  for (const uint32_t slot : {63U, 64U, 700U, 1500U, kMemberSlots - 1}) {
    const SlotsTaken taken(*s.arena, slot);
    const int status = in_child([&] {  // a fork's child holds what its parent holds
      if (s.me->slot() != slot || s.me->shared_held() != 1) return 1;
      shared_block(*s.me);
      return kill(getpid(), SIGKILL);
    });
    EXPECT_TRUE(killed(status)) << slot;
    EXPECT_EQ(holders_of(*s.arena, b), (std::vector<uint32_t>{s.me->slot(), slot}));
    reap_all_dead(*s.arena, *s.me);
    EXPECT_EQ(holders_of(*s.arena, b), (std::vector<uint32_t>{s.me->slot()}));
  }
  s.arena->check();
  ASSERT_TRUE(s.me->drop_shared(b));
  s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Record, CostsNoMemoryOfItsOwnForFewSlotsAndOneReference) {
  TestSession s;
  const Handle b = shared_block(*s.me, 48);
  EXPECT_EQ(s.arena->block_size(b), 64U);
  std::vector<std::unique_ptr<Member>> members;
  for (uint32_t slot = 1; slot < 32; ++slot) {
    members.push_back(s.join());
    ASSERT_TRUE(members.back()->hold_shared(b));
  }
  const Handle referrer = make_referrer(*s.me, b);
  EXPECT_EQ(s.blocks(), 2U);
  members.push_back(s.join());
  ASSERT_TRUE(members.back()->hold_shared(b));
  EXPECT_EQ(s.blocks(), 3U);  // the first extension
  EXPECT_EQ(referrers_of(*s.arena, b), std::vector<Handle>{referrer});
  end_block(*s.me, referrer);
  EXPECT_TRUE(referrers_of(*s.arena, b).empty());
}

TEST(Record, ReferencesOutliveTheirMakers) {
  TestSession s;
  const Handle b = shared_block(*s.me);
  const auto other = s.join();
  ASSERT_TRUE(other->hold_shared(b));
  const Handle first = make_referrer(*other, b);
  const Handle second = make_referrer(*other, b);
  ASSERT_TRUE(other->give_to_channel(first, 1, 1));
  other->abandon_for_test();
  EXPECT_FALSE(s.me->drop_shared(b));
  reap_all_dead(*s.arena, *s.me);  // ends the second
  EXPECT_EQ(referrers_of(*s.arena, b), std::vector<Handle>{first});
  s.arena->check();
  ASSERT_TRUE(s.me->hold_shared(b));  // as a member that has read the reference
  ASSERT_TRUE(s.me->take_from_channel(first, 1, 1));
  end_block(*s.me, first);
  EXPECT_FALSE(s.me->unlink(b, second, 1));  // one too many: nothing
  ASSERT_TRUE(s.me->drop_shared(b));
  end_block(*s.me, b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Record, AnyNumberOfBlocksRefersToIt) {
  std::mt19937 random(7);  // NOLINT(cert-msc51-cpp): the same order each time
  for (const int order : {0, 1, 2}) {
    TestSession s;
    const Handle b = shared_block(*s.me);
    std::vector<Handle> referrers;
    for (int i = 0; i < 5'000; ++i) referrers.push_back(make_referrer(*s.me, b));
    EXPECT_EQ(referrers_of(*s.arena, b).size(), referrers.size());
    s.arena->check();
    EXPECT_FALSE(s.me->drop_shared(b));
    if (order == 1) std::reverse(referrers.begin(), referrers.end());
    if (order == 2) std::shuffle(referrers.begin(), referrers.end(), random);
    const Handle last = referrers.back();
    referrers.pop_back();
    for (const Handle referrer : referrers) end_block(*s.me, referrer);
    EXPECT_EQ(referrers_of(*s.arena, b), std::vector<Handle>{last});
    end_block(*s.me, last);
    EXPECT_EQ(s.blocks(), 0U);
  }
}

TEST(Record, PlacesOfReferencesAreUsedAgain) {
  TestSession s;
  const Handle b = shared_block(*s.me);
  std::vector<Handle> referrers;
  for (int i = 0; i < 40; ++i) referrers.push_back(make_referrer(*s.me, b));
  const uint64_t blocks = s.blocks();
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same order each time
  for (int i = 0; i < 2'000; ++i) {
    Handle& one = referrers[random() % referrers.size()];
    end_block(*s.me, one);
    one = make_referrer(*s.me, b);
  }
  EXPECT_EQ(s.blocks(), blocks);
}

TEST(Record, OneBlockMayEndManyOthers) {
  TestSession s;
  const Handle first = shared_block(*s.me);
  Handle to = first;
  std::vector<Handle> chain;
  for (int i = 0; i < 100; ++i) {  // a record is a referrer, too
    const Handle next = s.me->allocate_shareable(sizeof(Referrer));
    auto* const referrer = new (s.arena->address(next)) Referrer{};
    referrer->to = to;
    referrer->place.store(kNoPlace);
    referrer->check = Referrer::kCheck ^ next;
    ASSERT_TRUE(s.me->link(to, next, referrer->place));
    s.me->share(next);
    EXPECT_FALSE(s.me->drop_shared(to));
    to = next;
  }
  register_end_hook(&end_referrer);
  EXPECT_EQ(s.blocks(), 101U);
  ASSERT_TRUE(s.me->drop_shared(to));
  end_block(*s.me, to);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Record, HeldAndReferredToByManyThreadsAndMembers) {
  TestSession s;
  const Handle b = shared_block(*s.me);
  std::vector<std::unique_ptr<Member>> members;
  for (const uint32_t slot : {1U, 45U, 600U}) members.push_back(join_at(s, slot));
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Member& me = t == 0 ? *s.me : *members[t - 1];
      for (int i = 0; i < 1'000; ++i) {
        EXPECT_TRUE(me.hold_shared(b));
        const Handle one = make_referrer(me, b);
        const Handle two = make_referrer(me, b);
        EXPECT_FALSE(me.drop_shared(b));
        end_block(me, one);
        end_block(me, two);
      }
    });
  for (std::thread& t : threads) t.join();
  s.arena->check();
  EXPECT_EQ(holders_of(*s.arena, b), std::vector<uint32_t>{s.me->slot()});
  ASSERT_TRUE(s.me->drop_shared(b));
  s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

// The last two holders drop at once, again and again: exactly one of them ends the record.
TEST(Record, IsEndedOnceByTheLastTwoHolders) {
  TestSession s;
  const auto other = s.join();
  for (int i = 0; i < 300; ++i) {
    const Handle b = shared_block(*s.me);
    ASSERT_TRUE(other->hold_shared(b));
    bool mine = false, theirs = false;
    std::thread thread([&] { theirs = other->drop_shared(b); });
    mine = s.me->drop_shared(b);
    thread.join();
    ASSERT_NE(mine, theirs);
    (mine ? *s.me : *other).free(b);
  }
  EXPECT_EQ(s.blocks(), 0U);
}

// ---- What comes late

class LateRecord : public ::testing::TestWithParam<uint32_t> {};  // the slot of the late member

// A member that holds a block by a handle that nobody has kept is stopped, while the record ends
// and its memory is used for other data, or for another record.
TEST_P(LateRecord, HoldNeverWritesToMemoryThatIsUsedForSomethingElse) {
  for (const bool is_record_again : {false, true}) {
    std::unique_ptr<TestSession> s;
    std::unique_ptr<Member> late;
    Handle b = 0, again = 0;
    bool held = false;
    const testing::DelayCounts counts = testing::delay_at_every_access(
        [&] {
          late.reset();
          s = std::make_unique<TestSession>(uint64_t{64} << 20);
          s->arena->header().next_purge_ms.store(UINT64_MAX);
          late = join_at(*s, GetParam());
          b = shared_block(*s->me, 48);
        },
        [&] { held = late->hold_shared(b); },
        [&] {
          again = 0;
          if (!s->me->drop_shared(b)) return;  // the late member holds it already
          s->me->free(b);
          again = is_record_again ? shared_block(*s->me, 48) : s->me->allocate(64);
          ASSERT_EQ(again, b);
          std::memset(s->arena->address(again), 0x55, 48);
          if (!is_record_again) std::memset(s->arena->address(again), 0x55, 64);
        },
        [&](uint64_t k) {
          SCOPED_TRACE("stopped at access " + std::to_string(k));
          const bool bytes_are_right = std::all_of(
              s->arena->at<uint8_t>(b), s->arena->at<uint8_t>(b) + (is_record_again ? 48 : 64),
              [](uint8_t byte) { return byte == 0x55; });
          EXPECT_TRUE(again == 0 || bytes_are_right);
          EXPECT_FALSE(held && again != 0 && !is_record_again);
          s->arena->check();
          if (held && late->drop_shared(b)) late->free(b);
          if (again != 0 && !is_record_again) s->me->free(again);
          if (again != 0 && is_record_again && s->me->drop_shared(again)) s->me->free(again);
          EXPECT_EQ(s->blocks(), 0U);
        });
    EXPECT_GT(counts.stops, 0U);
  }
}

// A member has dropped a block and is stopped before it sees whether that was the last reference,
// while others end the record and share the same memory again.
TEST_P(LateRecord, DropNeverEndsAnotherRecord) {
  std::unique_ptr<TestSession> s;
  std::unique_ptr<Member> late, other;
  Handle b = 0, again = 0;
  bool last = false;
  const testing::DelayCounts counts = testing::delay_at_every_access(
      [&] {
        late.reset(), other.reset();
        s = std::make_unique<TestSession>(uint64_t{64} << 20);
        s->arena->header().next_purge_ms.store(UINT64_MAX);
        late = join_at(*s, GetParam());
        other = s->join();
        b = shared_block(*s->me, 48);
        ASSERT_TRUE(late->hold_shared(b));
        last = false;
      },
      [&] { last = late->drop_shared(b); },
      [&] {
        again = 0;
        if (!s->me->drop_shared(b)) return;
        s->me->free(b);
        again = shared_block(*s->me, 48);
        ASSERT_EQ(again, b);
        ASSERT_TRUE(other->hold_shared(again));
        ASSERT_FALSE(s->me->drop_shared(again));
      },
      [&](uint64_t k) {
        SCOPED_TRACE("stopped at access " + std::to_string(k));
        s->arena->check();
        if (last) {
          ASSERT_EQ(again, 0U);
          late->free(b);
        } else {
          ASSERT_EQ(holders_of(*s->arena, again), std::vector<uint32_t>{other->slot()});
          ASSERT_TRUE(other->drop_shared(again));
          other->free(again);
        }
        EXPECT_EQ(s->blocks(), 0U);
      });
  EXPECT_GT(counts.stops, 0U);
}

INSTANTIATE_TEST_SUITE_P(Slots, LateRecord, ::testing::Values(5, 40, 600));

// ---- Forks

TEST(Record, AForksChildInAHighSlotHoldsWhatItsParentHolds) {
  TestSession s;
  std::vector<Handle> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(shared_block(*s.me));
  const Handle counted = s.me->allocate(kLarge);
  s.me->make_counted(counted);
  {
    const SlotsTaken taken(*s.arena, 600);
    EXPECT_TRUE(succeeded(in_child([&] {
      const std::vector<uint32_t> both = {0, 600};
      if (s.me->slot() != 600 || holders_of(*s.arena, counted) != both) return 1;
      for (const Handle b : blocks)
        if (holders_of(*s.arena, b) != both) return 2;
      s.me->leave();
      return 0;
    })));
  }
  for (const Handle b : blocks) EXPECT_EQ(holders_of(*s.arena, b), std::vector<uint32_t>{0});
  s.arena->check();
  s.me->drop(counted);
  for (const Handle b : blocks)
    if (s.me->drop_shared(b)) s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Record, AForksChildWithoutASlotHasCopiesAndCannotJoin) {
  TestSession s;
  const Handle shared = shared_block(*s.me);
  const Handle counted = s.me->allocate(kLarge);
  s.me->make_counted(counted);
  auto* const words = s.arena->at<os::Atomic<uint32_t>>(counted);
  words[0].store(1);
  {
    const SlotsTaken taken(*s.arena, kMemberSlots);
    EXPECT_TRUE(succeeded(in_child([&] {
      if (s.me->incarnation() != 0 || words[0].load() != 1) return 1;
      words[0].store(2);
      try {
        s.me->rejoin();
      } catch (const NotAMember&) {
        return s.me->drop_shared(shared) ? 3 : 0;
      }
      return 2;
    })));
  }
  EXPECT_EQ(words[0].load(), 1U);
  EXPECT_TRUE(s.me->take_counted(counted));  // nobody else has ever held it
  s.me->free(counted);
  ASSERT_TRUE(s.me->drop_shared(shared));
  s.me->free(shared);
  EXPECT_EQ(s.blocks(), 0U);
}

}  // namespace
}  // namespace shoal::arena
