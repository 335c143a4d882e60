// SPDX-License-Identifier: Apache-2.0
#include "sync/event.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "sync/event_count.hpp"
#include "sync/holds.hpp"
#include "testing/deadline.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Member;
using arena::MemberKind;
using testing::in_ms;

class EventTest : public ::testing::Test {
 protected:
  EventTest() { register_reap_hooks(); }
  Event make() {
    const arena::Handle block = me_->allocate(sizeof(EventState));
    Event::create(*arena_, block);
    return {*arena_, block};
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_F(EventTest, WaitsUntilItIsSet) {
  Event event = make();
  EXPECT_FALSE(event.is_set());
  EXPECT_EQ(event.wait(in_ms(20)), WaitResult::timed_out);
  event.set(*me_);
  event.set(*me_);
  EXPECT_TRUE(event.is_set());
  EXPECT_EQ(event.wait(), WaitResult::ok);
  event.clear();
  EXPECT_FALSE(event.is_set());
}

TEST_F(EventTest, WakesAllWaitersEvenIfItIsClearedAtOnce) {
  for (int round = 0; round < 200; ++round) {
    Event event = make();
    os::Atomic<uint32_t> waiting;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        waiting.fetch_add(1);
        EXPECT_EQ(event.wait(in_ms(60'000)), WaitResult::ok);
        waiting.fetch_sub(1);
      });
    }
    // A thread that was not yet waiting at set() may miss it, so set again until all have returned.
    while (waiting.load() != 4) std::this_thread::yield();
    while (waiting.load() != 0) {
      event.set(*me_);
      event.clear();
    }
    for (auto& thread : threads) thread.join();
  }
}

TEST(EventCountTest, NoNotificationIsLost) {
  EventCount count;
  os::Atomic<uint64_t> produced;
  os::Atomic<uint64_t> consumed;
  constexpr uint64_t kItems = 100'000;
  const auto consume = [&] {
    for (;;) {
      const uint32_t seen = count.prepare();
      uint64_t have = consumed.load();
      if (have == kItems) {
        count.notify_all();
        return;
      }
      if (have < produced.load()) {
        consumed.compare_exchange(have, have + 1);
        continue;
      }
      ASSERT_NE(os::futex_wait(&count.word(), seen, in_ms(60'000)), os::Wake::timed_out);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(consume);
  for (uint64_t i = 0; i < kItems; ++i) {
    produced.fetch_add(1);
    count.notify_one();
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(consumed.load(), kItems);
}

}  // namespace
}  // namespace shoal::sync
