// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <thread>

#include "arena/test_session.hpp"

namespace shoal::arena {
namespace {

TEST(SizeClasses, WasteAtMostAFifthAboveTheSmallest) {
  for (uint64_t bytes = 65; bytes <= kMaxSmall; ++bytes) {
    const SizeClass& c = kSizeClasses[class_for(bytes)];
    ASSERT_GE(c.size, bytes);
    if (bytes > 512) {
      ASSERT_LE(c.size - bytes, c.size / 5) << bytes;
    }
  }
}

TEST(Blocks, AreAlignedWritableAndFoundByAnyAddressInside) {
  TestSession s;
  for (const size_t bytes :
       {0UL, 1UL, 64UL, 65UL, 4096UL, 4097UL, 32768UL, 32769UL, 65536UL, 3'000'000UL}) {
    const Handle b = s.me->allocate(bytes);
    ASSERT_EQ(b % 64, 0U);
    ASSERT_GE(s.arena->block_size(b), bytes);
    auto* at = s.arena->at<std::byte>(b);
    std::memset(at, 1, s.arena->block_size(b));
    EXPECT_EQ(s.arena->block_of(at), b);
    EXPECT_EQ(s.arena->block_of(at + s.arena->block_size(b) - 1), b);
    EXPECT_EQ(s.arena->handle_of(at), b);
    EXPECT_TRUE(s.arena->contains(b, bytes));
    EXPECT_EQ(s.arena->owner_word(b).load(), owner_member(s.me->incarnation()));
  }
  s.arena->check();
}

TEST(Blocks, InvalidHandlesGiveADummyOwnerAndNoBlock) {
  TestSession s;
  const Handle small = s.me->allocate(64);
  const Handle large = s.me->allocate(kPage * 3);
  for (const Handle h :
       {Handle{0}, Handle{64}, small + 8, large + 64, large + kPage, Handle{1} << 40, ~Handle{0}}) {
    EXPECT_EQ(s.arena->block_size(h), 0U) << h;
    EXPECT_EQ(s.arena->owner_word(h).load(), 15U) << h;
    s.me->free(h);
  }
  EXPECT_EQ(s.arena->block_of(&s), 0U);
  EXPECT_FALSE(s.arena->contains(s.arena->reserve(), 1));
  EXPECT_FALSE(s.arena->contains(small, SIZE_MAX));
  EXPECT_EQ(s.blocks(), 2U);
}

TEST(Blocks, OfOthersAreNotFreed) {
  TestSession s;
  const auto other = s.join();
  const Handle small = other->allocate(64);
  const Handle large = other->allocate(kPage);
  s.me->free(small);
  s.me->free(large);
  EXPECT_EQ(s.blocks(), 2U);
}

TEST(Blocks, FreedTwiceAreFreedOnce) {
  TestSession s;
  const Handle b = s.me->allocate(64);
  s.me->free(b);
  s.me->free(b);
  EXPECT_NE(s.me->allocate(64), s.me->allocate(64));
}

TEST(Blocks, FreedByAnotherMemberComeBackToTheirSpan) {
  TestSession s;
  const auto other = s.join();
  const uint64_t before = s.arena->statistics().spans;
  for (int i = 0; i < 20'000; ++i) {
    const Handle b = s.me->allocate(64);
    ASSERT_TRUE(s.me->give_to_channel(b, 1, 1));
    ASSERT_FALSE(s.me->take_from_channel(b, 1, 2));
    ASSERT_TRUE(other->take_from_channel(b, 1, 1));
    other->free(b);
  }
  EXPECT_LE(s.arena->statistics().spans, before + 3);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Blocks, ChildrenGoWithTheirParentAndBack) {
  TestSession s;
  const Handle parent = s.me->allocate(100);
  const Handle child = s.me->allocate(100'000);
  s.me->give_to_block(child, parent);
  EXPECT_FALSE(s.me->take_from_block(child, child));
  EXPECT_TRUE(s.me->take_from_block(child, parent));
  EXPECT_FALSE(s.me->take_from_block(child, parent));
  s.me->give_to_block(child, parent);
  EXPECT_FALSE(s.me->free_child(child, child));
  EXPECT_TRUE(s.me->free_child(child, parent));
  EXPECT_FALSE(s.me->free_child(child, parent));
  s.me->free(parent);
  EXPECT_EQ(s.blocks(), 0U);
}

// Compares with a model, with a printed seed: blocks never overlap, keep their contents, and are
// all free in the end.
TEST(Blocks, AgreeWithAModelUnderRandomUse) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  TestSession s;
  std::multimap<uint32_t, std::pair<Handle, size_t>> live;
  for (int step = 0; step < 30'000; ++step) {
    if (live.size() < 2000 && random() % 5 < 3) {
      const size_t bytes = random() % 50 == 0 ? random() % 1'000'000 + 1 : random() % 5000 + 1;
      const Handle b = s.me->allocate(bytes);
      std::memset(s.arena->address(b), static_cast<int>(b >> 6 & 0xFF), bytes);
      live.emplace(random(), std::pair(b, bytes));
    } else if (!live.empty()) {
      const auto [b, bytes] = live.begin()->second;
      const auto* at = s.arena->at<unsigned char>(b);
      ASSERT_EQ(at[0], b >> 6 & 0xFF);
      ASSERT_EQ(at[bytes - 1], b >> 6 & 0xFF);
      s.me->free(b);
      live.erase(live.begin());
    }
    if (step % 5000 == 0) s.arena->check();
  }
  for (const auto& [key, block] : live) s.me->free(block.first);
  EXPECT_EQ(s.blocks(), 0U);
  s.me->purge(0);
  EXPECT_LE(s.arena->statistics().spans, uint64_t{kClasses});
  s.arena->check();
}

TEST(Blocks, ManyThreadsShareAMember) {
  TestSession s;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&s, t] {
      std::mt19937 random(t);
      std::vector<Handle> mine;
      for (int i = 0; i < 3000; ++i) {
        mine.push_back(s.me->allocate(random() % 100 == 0 ? 100'000 : random() % 3000));
        std::memset(s.arena->address(mine.back()), static_cast<int>(t), 1);
        if (random() % 2 == 0) continue;
        std::swap(mine[random() % mine.size()], mine.back());
        EXPECT_EQ(*s.arena->at<unsigned char>(mine.back()), t);
        s.me->free(mine.back());
        mine.pop_back();
      }
      for (const Handle b : mine) s.me->free(b);
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

TEST(Blocks, ManyMembersInOneProcessPassBlocksOn) {
  TestSession s;
  os::Atomic<uint64_t> mailbox[8] = {};
  const auto work = [&](unsigned seed) {
    const auto me = s.join();
    std::mt19937 random(seed);
    for (int i = 0; i < 5000; ++i) {
      const Handle b = me->allocate(random() % 20 == 0 ? 70'000 : 200);
      EXPECT_TRUE(me->give_to_channel(b, 1, 5));
      const Handle other = mailbox[random() % 8].exchange(b);
      if (other == 0) continue;
      EXPECT_TRUE(me->take_from_channel(other, 1, 5));
      me->free(other);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) threads.emplace_back(work, t);
  for (std::thread& t : threads) t.join();
  for (os::Atomic<uint64_t>& box : mailbox)
    if (const Handle b = box.load(); b != 0 && s.me->take_from_channel(b, 1, 5)) s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
  s.me->purge(0);
  EXPECT_EQ(s.arena->statistics().orphan_spans, 0U);
}

}  // namespace
}  // namespace shoal::arena
