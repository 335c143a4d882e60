// SPDX-License-Identifier: Apache-2.0
#include "channel/ring.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "channel/message.hpp"
#include "testing/stop_at.hpp"

namespace shoal::channel {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;

class RingTest : public ::testing::Test {
 protected:
  Ring make(const Ring::Limits& limits, uint32_t id = 77) {
    const Handle block = me_->allocate(Ring::bytes_for(limits));
    Ring::create(arena_->address(block), id, limits, block);
    return {*arena_, arena_->at<RingState>(block), block};
  }
  Handle message(uint64_t value, size_t size = 8) {
    std::vector<std::byte> payload(size);
    std::memcpy(payload.data(), &value, sizeof value);
    return make_message(*me_, payload, {});
  }
  uint64_t value_of(Handle handle) {
    uint64_t value = 0;
    std::memcpy(&value, open_message(*arena_, handle).bytes, sizeof value);
    return value;
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_F(RingTest, GivesBackInOrderAndHoldsNoMoreThanItsLimit) {
  Ring ring = make({3, 0});
  EXPECT_EQ(ring.try_pop(*me_), 0U);
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(ring.try_push(*me_, message(i), 64), Ring::Push::ok);
  }
  const Handle extra = message(9);
  EXPECT_EQ(ring.try_push(*me_, extra, 64), Ring::Push::full);
  EXPECT_EQ(arena_->owner_word(extra).load(), arena::owner_member(me_->incarnation()));
  EXPECT_EQ(ring.length(), 3U);
  ring.check();
  for (uint64_t i = 0; i < 3; ++i) {
    const Handle got = ring.try_pop(*me_);
    EXPECT_EQ(value_of(got), i);
    free_message(*me_, got);
  }
  EXPECT_EQ(ring.try_pop(*me_), 0U);
  EXPECT_EQ(ring.length(), 0U);
}

TEST_F(RingTest, GoesRoundManyTimes) {
  Ring ring = make({5000, 0});
  uint64_t next = 0;
  uint64_t seen = 0;
  const Handle block = message(0);
  free_message(*me_, block);
  while (seen < 50'000) {
    for (int i = 0; i < 777; ++i)
      ASSERT_EQ(ring.try_push(*me_, message(next++), 0), Ring::Push::ok);
    for (int i = 0; i < 777; ++i) {
      const Handle got = ring.try_pop(*me_);
      ASSERT_EQ(value_of(got), seen++);
      free_message(*me_, got);
    }
  }
  ring.check();
  EXPECT_EQ(ring.pushed(), next);
  EXPECT_EQ(ring.popped(), next);
  EXPECT_EQ(ring.segments(), 2U);
}

TEST_F(RingTest, GrowsWithoutALimitAndUsesItsSegmentsAgain) {
  for (const uint64_t byte_limit : {uint64_t{0}, uint64_t{1} << 40}) {
    Ring ring = make({0, byte_limit});
    uint64_t next = 0;
    uint64_t seen = 0;
    const auto push = [&](uint64_t count) {
      for (uint64_t i = 0; i < count; ++i) {
        ASSERT_EQ(ring.try_push(*me_, message(next++), 64), Ring::Push::ok);
      }
    };
    const auto pop = [&](uint64_t count) {
      for (uint64_t i = 0; i < count; ++i) {
        const Handle got = ring.try_pop(*me_);
        ASSERT_EQ(value_of(got), seen++);
        free_message(*me_, got);
      }
    };
    push(20'000);
    ring.check();
    EXPECT_EQ(ring.length(), 20'000U);
    EXPECT_EQ(ring.bytes(), byte_limit == 0 ? 0U : 64U * 20'000U);
    EXPECT_EQ(ring.segments(), 10U);
    for (int round = 0; round < 50; ++round) {
      pop(1'777);
      push(1'777);
      EXPECT_EQ(ring.length(), 20'000U);
      EXPECT_EQ(ring.bytes(), byte_limit == 0 ? 0U : 64U * 20'000U);
    }
    EXPECT_LE(ring.segments(), 12U);
    ring.check();
    pop(20'000);
    EXPECT_EQ(ring.try_pop(*me_), 0U);
    EXPECT_EQ(ring.bytes(), 0U);
    ring.check();
    ring.free_segments(*me_);
  }
}

TEST_F(RingTest, BytesAreExactAtEachEndOfALap) {
  Ring ring = make({0, uint64_t{1} << 30});
  uint64_t in_ring = 0;
  for (uint64_t i = 0; i < 3 * 2048 + 5; ++i) {
    ASSERT_EQ(ring.try_push(*me_, message(i), 128), Ring::Push::ok);
    in_ring += 128;
    ASSERT_EQ(ring.bytes(), in_ring) << i;
    ASSERT_TRUE(ring.seems_to_fit((uint64_t{1} << 30) - in_ring)) << i;
    ASSERT_FALSE(ring.seems_to_fit((uint64_t{1} << 30) - in_ring + 1)) << i;
    if (i % 2048 >= 2040) {
      free_message(*me_, ring.try_pop(*me_));
      in_ring -= 128;
      ASSERT_EQ(ring.bytes(), in_ring) << i;
    }
  }
  while (in_ring > 0) {
    free_message(*me_, ring.try_pop(*me_));
    in_ring -= 128;
    ASSERT_EQ(ring.bytes(), in_ring);
  }
}

// A member is stopped before it takes a block out of one ring. In the meantime another member takes
// the block and pushes it into a second ring that has had the same number of pushes. Owner words
// have no room for the bit in which the rings' numbers differ.
TEST_F(RingTest, AStoppedPopTakesNothingFromAnotherRing) {
  for (const uint64_t byte_limit : {uint64_t{0}, uint64_t{100'000}}) {
    Ring first = make({0, byte_limit}, 77);
    Ring second = make({0, byte_limit}, 77 + (1U << 20));
    const auto other = Member::join(arena_, MemberKind::process);
    const Handle block = message(1);
    ASSERT_EQ(first.try_push(*me_, block, 64), Ring::Push::ok);
    os::Atomic<uint64_t>& owner = arena_->owner_word(block);
    Handle got = 0;
    for (uint64_t nth = 1; got == 0; ++nth) {
      const bool stopped =
          testing::stopped_at(nth, testing::accesses_to(&owner, sizeof owner),
                              [&] { got = first.try_pop(*me_); }, {[&] {
                                ASSERT_EQ(first.try_pop(*other), block);
                                ASSERT_EQ(second.try_push(*other, block, 64), Ring::Push::ok);
                              }});
      if (!stopped) break;
      ASSERT_EQ(got, 0U);
      EXPECT_EQ(first.length(), 0U);
      EXPECT_EQ(second.length(), 1U);
      first.check();
      second.check();
      ASSERT_EQ(second.try_pop(*me_), block);
      ASSERT_EQ(first.try_push(*me_, block, 64), Ring::Push::ok);
    }
    EXPECT_EQ(got, block);
    free_message(*me_, block);
  }
}

// The number decides where positions begin.
TEST_F(RingTest, WorksWhateverItsNumberAndFirstPosition) {
  for (const uint32_t id : {1U << 20, 0x7FFU << 20, 0xFFFF'FFFFU}) {
    Ring ring = make({5000, uint64_t{1} << 30}, id);
    EXPECT_EQ(ring.pushed(), 0U);
    for (int lap = 0; lap < 4; ++lap) {
      for (int i = 0; i < 2500; ++i) {
        ASSERT_EQ(ring.try_push(*me_, message(1), 64), Ring::Push::ok);
      }
      EXPECT_EQ(ring.length(), 2500U);
      EXPECT_EQ(ring.bytes(), 2500U * 64);
      ring.check();
      for (int i = 0; i < 2500; ++i) free_message(*me_, ring.try_pop(*me_));
    }
    EXPECT_EQ(ring.pushed(), 10'000U);
    EXPECT_EQ(ring.popped(), 10'000U);
  }
}

TEST_F(RingTest, APushThatFindsNoMemoryChangesNothing) {
  const auto arena = Arena::create({uint64_t{1} << 28, uint64_t{24} << 20});
  const auto me = Member::join(arena, MemberKind::root);
  const Handle block = me->allocate(Ring::bytes_for({0, 0}));
  Ring::create(arena->address(block), 77, {0, 0}, block);
  Ring ring(*arena, arena->at<RingState>(block), block);
  uint64_t pushed = 0;
  EXPECT_THROW(
      for (;; ++pushed) {
        ASSERT_EQ(ring.try_push(*me, make_message(*me, {}, {}), 0), Ring::Push::ok);
      },
      arena::MemoryExhausted);
  EXPECT_EQ(ring.length(), pushed);
  ring.check();
  while (const Handle got = ring.try_pop(*me)) free_message(*me, got);
  ASSERT_EQ(ring.try_push(*me, make_message(*me, {}, {}), 0), Ring::Push::ok);
}

TEST_F(RingTest, KeepsToItsByteLimitButLetsOneLargeBlockIn) {
  Ring ring = make({1000, 1000});  // counts in steps of 64
  EXPECT_EQ(ring.try_push(*me_, message(0), 5000), Ring::Push::ok);
  const Handle small = message(1);
  EXPECT_EQ(ring.try_push(*me_, small, 1), Ring::Push::full);
  EXPECT_EQ(ring.bytes(), 5056U);
  free_message(*me_, ring.try_pop(*me_));
  EXPECT_EQ(ring.bytes(), 0U);
  EXPECT_EQ(ring.try_push(*me_, small, 512), Ring::Push::ok);
  EXPECT_EQ(ring.try_push(*me_, message(2), 512), Ring::Push::ok);
  EXPECT_FALSE(ring.seems_to_fit(1));
  EXPECT_EQ(ring.bytes(), 1024U);
}

TEST_F(RingTest, SumsSurviveManyLaps) {
  Ring ring = make({2048, uint64_t{1} << 20});
  for (uint64_t i = 0; i < 20'000; ++i) {
    ASSERT_EQ(ring.try_push(*me_, message(i), i % 1000), Ring::Push::ok);
    if (i >= 100) free_message(*me_, ring.try_pop(*me_));
  }
  EXPECT_EQ(ring.length(), 100U);
  uint64_t expected = 0;
  for (uint64_t i = 19'900; i < 20'000; ++i) expected += (i % 1000 + 63) / 64 * 64;
  EXPECT_EQ(ring.bytes(), expected);
  ring.check();
}

TEST_F(RingTest, ManyThreadsOfManyMembersLoseAndDoubleNothing) {
  constexpr uint64_t kThreads = 3;
  constexpr uint64_t kEach = 20'000;
  for (const uint64_t byte_limit : {uint64_t{0}, uint64_t{1} << 14}) {
    Ring ring = make({64, byte_limit});
    std::vector<os::Atomic<uint32_t>> seen(kThreads * kEach);
    os::Atomic<uint64_t> received;
    std::vector<std::thread> threads;
    for (uint64_t id = 0; id < kThreads; ++id) {
      threads.emplace_back([&, id] {
        const auto member = Member::join(arena_, MemberKind::process);
        for (uint64_t i = 0; i < kEach; ++i) {
          const uint64_t value = id * kEach + i;
          const Handle made = make_message(*member, std::as_bytes(std::span(&value, 1)), {});
          while (ring.try_push(*member, made, 64) == Ring::Push::full) std::this_thread::yield();
        }
      });
      threads.emplace_back([&] {
        const auto member = Member::join(arena_, MemberKind::process);
        while (received.load() < kThreads * kEach) {
          const Handle got = ring.try_pop(*member);
          if (got == 0) {
            std::this_thread::yield();
            continue;
          }
          seen[value_of(got)].fetch_add(1);
          received.fetch_add(1);
          free_message(*member, got);
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (auto& count : seen) ASSERT_EQ(count.load(), 1U);
    EXPECT_EQ(ring.length(), 0U);
    EXPECT_EQ(ring.bytes(), 0U);
    ring.check();
  }
}

TEST_F(RingTest, AScribbledSlotLosesBlocksButNeverLeavesTheArena) {
  Ring ring = make({100, 0});
  auto* const slots = reinterpret_cast<os::Atomic<uint64_t>*>(
      reinterpret_cast<RingSegment*>(&ring.state() + 1) + 1);
  const uint64_t garbage[] = {~uint64_t{0}, uint64_t{1} << 34 | 12345, uint64_t{1} << 34,
                              uint64_t{7} << 35, uint64_t{1} << 34 | ((uint64_t{1} << 34) - 1)};
  for (const uint64_t word : garbage) {
    slots[ring.state().head.load() % 2048].store(word);  // in the first lap
    for (int i = 0; i < 5; ++i) {
      const Handle made = message(1);
      if (ring.try_push(*me_, made, 0) == Ring::Push::full) free_message(*me_, made);
    }
    for (int i = 0; i < 5; ++i) {
      const Handle got = ring.try_pop(*me_);
      if (got != 0) free_message(*me_, got);
    }
    Ring::create(&ring.state(), 77, {100, 0}, ring.handle());
  }
}

TEST_F(RingTest, FieldsThatDoNotFitTheBlockThrow) {
  Ring ring = make({100, 0});
  ring.state().magic = 63;
  EXPECT_THROW(Ring(*arena_, &ring.state(), ring.handle()), arena::CorruptArena);
  ring.state().magic = Ring::kMagic;
  auto* const outside = arena_->at<RingState>(arena_->reserve() - sizeof(RingState));
  EXPECT_THROW(Ring(*arena_, outside, ring.handle()), std::exception);
}

}  // namespace
}  // namespace shoal::channel
