// SPDX-License-Identifier: Apache-2.0
//
// Channels, locks and semaphores while each thread yields the processor at random accesses to
// shared memory, from printed seeds: interleavings that a free run on few processors never has.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "channel/channel.hpp"
#include "sync/mutex.hpp"
#include "sync/semaphore.hpp"
#include "testing/deadline.hpp"

namespace shoal::channel {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using testing::in_ms;

thread_local std::minstd_rand schedule;

// One access in eight yields; one in 512 yields for so long that others run by several times.
void give_way(const void*) {
  const auto draw = schedule();
  if (draw % 512 == 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  } else if (draw % 8 == 0) {
    std::this_thread::yield();
  }
}

struct Scheduled {
  explicit Scheduled(unsigned seed) {
    schedule.seed(seed);
    os::access_hook = &give_way;
  }
  ~Scheduled() { os::access_hook = nullptr; }
};

class ScheduleTest : public ::testing::TestWithParam<unsigned> {
 protected:
  ScheduleTest() { register_reap_hooks(); }

  // Runs `body(member, place)` in `count` threads with members and schedules of their own.
  template <class Body>
  void in_threads(unsigned count, Body body) {
    std::vector<std::thread> threads;
    for (unsigned place = 0; place < count; ++place) {
      threads.emplace_back([&, place] {
        const auto member = Member::join(arena_, MemberKind::process);
        const Scheduled scheduled(GetParam() * 100 + place);
        body(*member, place);
      });
    }
    for (auto& thread : threads) thread.join();
  }

  // Where in the lap the messages begin, so that each run crosses a segment's end at some point.
  static uint64_t place_in_lap(unsigned seed) { return seed * 97 % 1'200; }

  void go_near_the_end_of_a_lap(Channel& channel, uint64_t left) {
    while ((channel.ring().pushed() + left) % RingSegment::kSlots != 0) {
      ASSERT_EQ(channel.send(*me_, make_message(*me_, {}, {})), Sent::ok);
      Handle got = 0;
      ASSERT_EQ(channel.receive(*me_, &got), Received::ok);
      free_message(*me_, got);
    }
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_P(ScheduleTest, EachMessageArrivesOnce) {
  constexpr uint64_t kEach = 400;
  for (const Ring::Limits limits : {Ring::Limits{1, 0}, {3, 300}, {0, 0}, {0, uint64_t{1} << 20}}) {
    const auto channel = Channel::open(*me_, "c", Channel::Open::create, limits);
    go_near_the_end_of_a_lap(*channel, place_in_lap(GetParam()));
    SCOPED_TRACE(std::to_string(limits.items) + " items, " + std::to_string(limits.bytes));
    std::vector<os::Atomic<uint32_t>> seen(3 * kEach);
    in_threads(6, [&](Member& member, unsigned place) {
      for (uint64_t i = 0; i < kEach; ++i) {
        if (place < 3) {
          const uint64_t value = place * kEach + i;
          const Handle made = make_message(member, std::as_bytes(std::span(&value, 1)), {});
          ASSERT_EQ(channel->send(member, made, in_ms(60'000)), Sent::ok);
          continue;
        }
        Handle got = 0;
        ASSERT_EQ(channel->receive(member, &got, in_ms(60'000)), Received::ok);
        uint64_t value = 0;
        std::memcpy(&value, open_message(*arena_, got).bytes, sizeof value);
        seen[value].fetch_add(1);
        free_message(member, got);
      }
    });
    for (auto& count : seen) ASSERT_EQ(count.load(), 1U);
    channel->ring().check();
    ASSERT_TRUE(channel->remove(*me_));
  }
}

TEST_P(ScheduleTest, LocksExcludeAndPermitsAreKept) {
  const Handle lock = me_->allocate(64);
  sync::Mutex::create(*arena_, lock);
  const Handle permits = me_->allocate(64);
  sync::Semaphore::create(*arena_, permits, 0);
  uint64_t counter = 0;
  in_threads(4, [&](Member& member, unsigned place) {
    sync::Mutex mutex(*arena_, lock);
    sync::Semaphore semaphore(*arena_, permits);
    for (int i = 0; i < 500; ++i) {
      ASSERT_EQ(mutex.lock(member, in_ms(60'000)), sync::Locked::ok);
      ++counter;
      mutex.unlock(member);
      if (place % 2 == 0) {
        ASSERT_TRUE(semaphore.release(member));
      } else {
        ASSERT_EQ(semaphore.acquire(member, in_ms(60'000)), sync::WaitResult::ok);
      }
    }
  });
  EXPECT_EQ(counter, 2000U);
  EXPECT_EQ(sync::Semaphore(*arena_, permits).permits(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ScheduleTest, ::testing::Range(1U, 13U));

}  // namespace
}  // namespace shoal::channel
