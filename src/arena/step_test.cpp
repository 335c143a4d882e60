// SPDX-License-Identifier: Apache-2.0
//
// Members are killed after each instruction of each operation of the arena, by the single-step
// killer; in longer operations after a sample of the instructions. After each death a survivor
// reaps; then everything is consistent and nothing is left.
#include <gtest/gtest.h>

#include "arena/referrer_for_test.hpp"
#include "testing/single_step.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 2 * kPage;

class EveryInstruction : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers' own instructions would be stepped";
#endif
    s.me->free(s.me->allocate(kLarge * 20));  // warm pages: no growth in the operations under test
    // No purge either, which runs once a second: an operation with a purge has more instructions
    // than all others, and the sample would be computed from that number.
    s.arena->header().next_purge_ms.store(UINT64_MAX);
  }

  void survive(uint64_t k) {
    reap_all_dead(*s.arena, *s.me);
    ASSERT_NO_THROW(s.arena->check()) << "killed after " << k;
    ASSERT_EQ(s.blocks(), expected) << "killed after " << k;
    ASSERT_EQ(s.arena->statistics().members, 1U) << "killed after " << k;
  }

  // Runs prepare(member), then kills the member after instructions of operation(member).
  void kill_everywhere(const std::function<void(Member&)>& prepare,
                       const std::function<void(Member&)>& operation, uint64_t least_deaths) {
    std::unique_ptr<Member> member;
    testing::StepResult last;
    const uint64_t deaths = testing::kill_at_every_instruction(
        [&] {
          member = s.join();
          prepare(*member);
        },
        [&] { operation(*member); }, [&](uint64_t k) { survive(k); }, &last);
    if (last.outcome == testing::StepOutcome::unavailable)
      GTEST_SKIP() << "ptrace is not permitted here";
    EXPECT_EQ(last.outcome, testing::StepOutcome::completed) << "status " << last.status;
    EXPECT_GE(deaths, least_deaths);
    RecordProperty("instructions", static_cast<int>(last.steps));
  }

  TestSession s;
  Handle b = 0, parent = 0;
  uint64_t expected = 0;  // blocks that survive a death
};

TEST_F(EveryInstruction, OfASmallAllocation) {
  kill_everywhere([](Member& m) { m.free(m.allocate(100)); },
                  [](Member& m) { (void)m.allocate(100); }, 10);
}

TEST_F(EveryInstruction, OfASmallFree) {
  kill_everywhere([&](Member& m) { b = m.allocate(100); }, [&](Member& m) { m.free(b); }, 10);
}

TEST_F(EveryInstruction, OfARemoteFree) {
  expected = 0;
  kill_everywhere(
      [&](Member& m) {
        const auto other = s.join();  // leaves: its span becomes an orphan
        b = other->allocate(100);
        EXPECT_TRUE(other->give_to_channel(b, 1, 1));
        EXPECT_TRUE(m.take_from_channel(b, 1, 1));
      },
      [&](Member& m) { m.free(b); }, 10);
}

TEST_F(EveryInstruction, OfALargeAllocation) {
  kill_everywhere([](Member&) {}, [](Member& m) { (void)m.allocate(kLarge); }, 10);
}

TEST_F(EveryInstruction, OfALargeFree) {
  kill_everywhere([&](Member& m) { b = m.allocate(kLarge); }, [&](Member& m) { m.free(b); }, 10);
}

TEST_F(EveryInstruction, OfMakingASpan) {
  kill_everywhere([](Member&) {}, [](Member& m) { (void)m.allocate(32'000); }, 10);
}

TEST_F(EveryInstruction, OfGivingToAParentAndTakingBack) {
  const auto prepare = [&](Member& m) {
    parent = m.allocate(100);
    b = m.allocate(kLarge);
  };
  kill_everywhere(prepare, [&](Member& m) { m.give_to_block(b, parent); }, 10);
  kill_everywhere(
      [&](Member& m) {
        prepare(m);
        m.give_to_block(b, parent);
      },
      [&](Member& m) { (void)m.take_from_block(b, parent); }, 10);
}

TEST_F(EveryInstruction, OfFreeingAChildThenItsParent) {
  kill_everywhere(
      [&](Member& m) {
        parent = m.allocate(100);
        b = m.allocate(200);
        m.give_to_block(b, parent);
      },
      [&](Member& m) {
        m.free_child(b, parent);
        m.free(parent);
      },
      10);
}

TEST_F(EveryInstruction, OfCountingHoldingAndDropping) {
  kill_everywhere([&](Member& m) { b = m.allocate(kLarge); },
                  [&](Member& m) {
                    m.make_counted(b);
                    m.hold(b);
                    m.drop(b);
                    if (m.take_counted(b)) m.free(b);
                  },
                  10);
}

TEST_F(EveryInstruction, OfHoldingWhatAnotherHolds) {
  b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  expected = 1;
  kill_everywhere([](Member&) {},
                  [&](Member& m) {
                    m.hold(b);
                    m.drop(b);
                  },
                  10);
  if (IsSkipped()) return;
  EXPECT_EQ(holders_of(*s.arena, b), std::vector<uint32_t>{s.me->slot()});
}

TEST_F(EveryInstruction, OfJoining) {
  std::unique_ptr<Member> member;
  testing::StepResult last;
  testing::kill_at_every_instruction([] {}, [&] { member = s.join(); },
                                     [&](uint64_t k) { survive(k); }, &last);
  if (last.outcome == testing::StepOutcome::unavailable)
    GTEST_SKIP() << "ptrace is not permitted here";
  EXPECT_EQ(last.outcome, testing::StepOutcome::completed);
}

TEST_F(EveryInstruction, OfReaping) {
  Incarnation dead = 0;
  kill_everywhere(
      [&](Member&) {
        const auto victim = s.join();
        parent = victim->allocate(100);
        victim->give_to_block(victim->allocate(kLarge), parent);
        victim->make_counted(b = victim->allocate(kLarge));
        dead = victim->incarnation();
        victim->abandon_for_test();
      },
      [&](Member& m) { EXPECT_TRUE(reap(*s.arena, m, dead)); }, 10);
}

TEST_F(EveryInstruction, OfLeaving) {
  kill_everywhere(
      [&](Member& m) {
        parent = m.allocate(100);
        m.give_to_block(m.allocate(kLarge), parent);
        m.make_counted(b = m.allocate(kLarge));
      },
      [&](Member& m) { m.leave(); }, 10);
}

}  // namespace
}  // namespace shoal::arena
