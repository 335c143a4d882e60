// SPDX-License-Identifier: Apache-2.0
#include "sync/atomic_value.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <thread>
#include <vector>

#include "sync/child_member_for_test.hpp"
#include "testing/deadline.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Member;
using arena::MemberKind;
using testing::Ending;
using testing::in_ms;

uint64_t bits(double value) { return std::bit_cast<uint64_t>(value); }

class AtomicValueTest : public ::testing::Test {
 protected:
  AtomicValue make(ValueKind kind, uint64_t value) {
    const arena::Handle block = me_->allocate(sizeof(AtomicState));
    AtomicValue::create(*arena_, block, kind, value);
    return {*arena_, block};
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_F(AtomicValueTest, ComparesAsItsKindSays) {
  AtomicValue number = make(ValueKind::int64, 0);
  EXPECT_EQ(number.lower_to(static_cast<uint64_t>(-5)), 0U);
  EXPECT_EQ(static_cast<int64_t>(number.raise_to(3)), -5);
  EXPECT_EQ(number.raise_to(2), 3U);
  AtomicValue natural = make(ValueKind::uint64, 1);
  EXPECT_EQ(natural.raise_to(UINT64_MAX), 1U);
  EXPECT_EQ(natural.load(), UINT64_MAX);
  AtomicValue real = make(ValueKind::float64, bits(-1.5));
  EXPECT_EQ(real.raise_to(bits(-2.0)), bits(-1.5));
  EXPECT_EQ(real.add_double(bits(0.25)), bits(-1.5));
  EXPECT_EQ(real.load(), bits(-1.25));
}

TEST_F(AtomicValueTest, LosesNoAddition) {
  AtomicValue number = make(ValueKind::int64, 0);
  AtomicValue real = make(ValueKind::float64, bits(0));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        number.add(2);
        real.add_double(bits(0.5));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(number.load(), 40'000U);
  EXPECT_EQ(real.load(), bits(10'000));
}

TEST_F(AtomicValueTest, EveryKindOfChangeWakes) {
  const std::vector<void (*)(AtomicValue&)> changes = {
      [](AtomicValue& v) { v.exchange(9); }, [](AtomicValue& v) { v.add(1); },
      [](AtomicValue& v) { v.raise_to(7); },
      [](AtomicValue& v) {
        uint64_t expected = 5;
        EXPECT_TRUE(v.compare_exchange(expected, 6));
      }};
  for (const auto change : changes) {
    AtomicValue value = make(ValueKind::int64, 5);
    std::thread waiter([&] { EXPECT_EQ(value.wait(5, kForever), WaitResult::ok); });
    std::this_thread::yield();
    change(value);
    waiter.join();
  }
}

TEST_F(AtomicValueTest, WaitsTimeOutAndEndByNotify) {
  AtomicValue value = make(ValueKind::int64, 5);
  EXPECT_EQ(value.wait(5, in_ms(20)), WaitResult::timed_out);
  EXPECT_EQ(value.wait(5, 0), WaitResult::timed_out);
  EXPECT_EQ(value.wait(4, 0), WaitResult::ok);
  AtomicValue fresh = make(ValueKind::int64, 5);  // nobody has waited for it yet
  std::thread waiter([&] { EXPECT_EQ(fresh.wait(5, kForever), WaitResult::ok); });
  while (fresh.waiting_for_test() == 0) std::this_thread::yield();
  fresh.notify();
  waiter.join();
}

TEST_F(AtomicValueTest, AWaitSeesWhatHappenedSinceItListened) {
  AtomicValue value = make(ValueKind::int64, 5);
  const uint32_t first = value.listen();
  EXPECT_EQ(value.wait(5, first, in_ms(20)), WaitResult::timed_out);
  value.add(1);
  value.exchange(5);
  EXPECT_EQ(value.wait(5, first, in_ms(60'000)), WaitResult::ok);
  EXPECT_EQ(value.wait(5, in_ms(20)), WaitResult::timed_out);
}

TEST_F(AtomicValueTest, ADeathAtEachKillPointLosesNoWakeUp) {
  for (const std::string& point : testing::kill_point_names()) {
    if (!point.starts_with("atomic.")) continue;
    SCOPED_TRACE(point);
    AtomicValue value = make(ValueKind::int64, 5);
    ChildMember victim(arena_, [&](Member&) {
      testing::arm_kill_point(point.c_str(), 1);
      if (point == "atomic.exchange.bits") value.exchange(6);
      if (point == "atomic.add.bits") value.add(1);
      if (point == "atomic.change.bits") value.raise_to(6);
      uint64_t expected = 5;
      if (point == "atomic.compare.bits") value.compare_exchange(expected, 6);
    });
    EXPECT_EQ(value.wait(5, in_ms(20'000)), WaitResult::ok);
    EXPECT_EQ(victim.wait(), Ending::killed);
    EXPECT_EQ(value.load(), 6U);
  }
}

}  // namespace
}  // namespace shoal::sync
