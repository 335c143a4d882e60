// SPDX-License-Identifier: Apache-2.0
//
// The life of a member slot under delays: an operation is stopped before each of its accesses to
// the slots in turn, and during the stop other members reap, join and leave. When the stopped
// process, which belongs to an earlier life of the slot, continues, it changes nothing for the
// slot's next member.
#include <gtest/gtest.h>

#include "arena/reap.hpp"
#include "arena/slots.hpp"
#include "arena/test_session.hpp"
#include "os/process.hpp"
#include "testing/stop_at.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 2 * kPage;
// no operation here makes more accesses to slots than this
constexpr uint64_t kMostAccesses = 2000;

constexpr uint32_t kCrowd = 49;

bool low_slot_is_free(const Arena& arena) {
  for (uint32_t i = 0; i < kCrowd; ++i)
    if (i >= slots_in_use(arena) || slot_state(arena.slot(i).state.load()) == SlotState::free)
      return true;
  return false;
}

// A session in which none of the first slots is free, once `take_the_rest()` has run: the next
// member to join gets the slot of the member that was reaped last.
struct Crowd {
  TestSession s;
  std::vector<std::unique_ptr<Member>> others;
  std::unique_ptr<Member> newcomer;
  Handle counted = 0, shared = 0;

  void take_the_rest() {
    while (low_slot_is_free(*s.arena)) others.push_back(s.join());
  }
  // Runs `meanwhile` before the kth access of `operation` to a slot.
  bool run_stopped_at(uint64_t k, const std::function<void()>& operation,
                      const std::function<void()>& meanwhile) const {
    const auto slots = testing::accesses_to(&s.arena->slot(0), kMemberSlots * sizeof(MemberSlot));
    return testing::stopped_at(k, slots, operation, {meanwhile});
  }
  // A new member that holds one block of each kind; none if none of the first slots is free.
  void let_somebody_join() {
    if (newcomer != nullptr || !low_slot_is_free(*s.arena)) return;
    newcomer = s.join();
    counted = newcomer->allocate(kLarge);
    newcomer->make_counted(counted);
    shared = newcomer->allocate_shareable(64);
    newcomer->share(shared);
  }
  void expect_the_newcomer_unharmed(uint64_t k) {
    if (newcomer == nullptr) return;
    const Incarnation who = newcomer->incarnation();
    EXPECT_TRUE(member_alive(*s.arena, who)) << "stopped at " << k;
    EXPECT_FALSE(reap(*s.arena, *s.me, who)) << "stopped at " << k;
    EXPECT_TRUE(is_record(s.arena->owner_word(counted).load())) << "stopped at " << k;
    EXPECT_TRUE(is_record(s.arena->owner_word(shared).load())) << "stopped at " << k;
    ASSERT_NO_THROW(s.arena->check()) << "stopped at " << k;
    newcomer->drop(counted);
    if (newcomer->drop_shared(shared)) newcomer->free(shared);
    newcomer.reset();
  }
};

// Lets the time pass after which a forked child without a birth lock counts as dead.
void let_time_pass(Crowd& c) {
  for (uint32_t i = 0; i < slots_in_use(*c.s.arena); ++i) {
    os::Atomic<uint64_t>& until = c.s.arena->slot(i).birth;
    if (until.load() > kBirthLocked) until.store(kBirthLocked + 1);
  }
}

// Runs a scene for each k until its operation has fewer than k accesses; returns how many runs had
// a newcomer.
template <class Scene>
uint64_t at_every_access(const Scene& scene) {
  uint64_t with_newcomer = 0;
  for (uint64_t k = 1; k <= kMostAccesses; ++k) {
    Crowd c;
    bool newcomer = false;
    if (!scene(c, k, newcomer) || ::testing::Test::HasFailure()) return with_newcomer;
    with_newcomer += newcomer ? 1 : 0;
  }
  ADD_FAILURE() << "the operation does not end";
  return with_newcomer;
}

TEST(SlotUnderDelay, LateReaperFreesNothingOfTheNextMember) {
  const uint64_t reused = at_every_access([](Crowd& c, uint64_t k, bool& newcomer) {
    const auto late = c.s.join();
    const auto victim = c.s.join();
    c.take_the_rest();
    (void)victim->allocate(kLarge);
    const Incarnation dead = victim->incarnation();
    victim->abandon_for_test();
    const bool stopped = c.run_stopped_at(
        k, [&] { (void)reap(*c.s.arena, *late, dead); },
        [&] {
          reap_all_dead(*c.s.arena, *c.s.me);
          c.let_somebody_join();
        });
    newcomer = c.newcomer != nullptr;
    c.expect_the_newcomer_unharmed(k);
    return stopped;
  });
  EXPECT_GE(reused, 3U);
}

TEST(SlotUnderDelay, LateReaperFreesNothingOfAMemberThatHasLeft) {
  const uint64_t reused = at_every_access([](Crowd& c, uint64_t k, bool& newcomer) {
    const auto late = c.s.join();
    auto leaver = c.s.join();
    c.take_the_rest();
    const bool stopped = c.run_stopped_at(
        k, [&] { reap_all_dead(*c.s.arena, *late); },
        [&] {
          leaver.reset();
          c.let_somebody_join();
        });
    newcomer = c.newcomer != nullptr;
    c.expect_the_newcomer_unharmed(k);
    return stopped;
  });
  EXPECT_GE(reused, 3U);
}

TEST(SlotUnderDelay, LateReaperDoesNotKeepTheNextMemberFromLeaving) {
  at_every_access([](Crowd& c, uint64_t k, bool&) {
    const auto late = c.s.join();
    const auto victim = c.s.join();
    c.take_the_rest();
    const Incarnation dead = victim->incarnation();
    victim->abandon_for_test();
    Reaping reaping(*c.s.arena, *late, dead);  // it is stopped before it takes the job
    EXPECT_TRUE(reap(*c.s.arena, *c.others.back(), dead));
    c.let_somebody_join();
    c.others.pop_back();  // no living member has the job of `dead` any more
    EXPECT_EQ(c.newcomer->slot(), slot_of(dead));
    const bool stopped = c.run_stopped_at(
        k,
        [&] {
          c.newcomer->drop(c.counted);
          if (c.newcomer->drop_shared(c.shared)) c.newcomer->free(c.shared);
          c.newcomer.reset();
        },
        [&] { EXPECT_EQ(reaping.run(), Reaping::Job::over); });
    const SlotState state = slot_state(c.s.arena->slot(slot_of(dead)).state.load());
    EXPECT_EQ(state, SlotState::free) << "stopped at " << k;
    c.s.arena->check();
    return stopped;
  });
}

TEST(SlotUnderDelay, LateForkedChildChangesNothingForTheNextMember) {
  const uint64_t reused = at_every_access([](Crowd& c, uint64_t k, bool& newcomer) {
    const Incarnation child =
        try_claim_slot(*c.s.arena, MemberKind::process, c.s.me->incarnation());
    open_birth(*c.s.arena, child, false);
    c.take_the_rest();
    // The child's start time: different from the newcomer's, but with the same bits.
    const uint64_t start = os::start_time(getpid()) + 511;
    bool alive = false;
    const bool stopped = c.run_stopped_at(
        k, [&] { alive = enliven_slot(*c.s.arena, child, getpid(), start); },
        [&] {
          let_time_pass(c);
          reap_all_dead(*c.s.arena, *c.s.me);
          c.let_somebody_join();
        });
    newcomer = c.newcomer != nullptr;
    EXPECT_FALSE(newcomer && alive) << "stopped at " << k;
    c.expect_the_newcomer_unharmed(k);
    return stopped;
  });
  EXPECT_GE(reused, 2U);
}

// The parent of a fork is alive, so it keeps the slot that it is filling, however long it is
// stopped.
TEST(SlotUnderDelay, LateParentOfAForkKeepsTheSlotThatItPrepares) {
  at_every_access([](Crowd& c, uint64_t k, bool&) {
    c.take_the_rest();
    c.others.pop_back();
    Incarnation child = 0;
    const bool stopped = c.run_stopped_at(
        k,
        [&] {
          child = try_claim_slot(*c.s.arena, MemberKind::process, c.s.me->incarnation());
          open_birth(*c.s.arena, child, false);
        },
        [&] {
          let_time_pass(c);
          reap_all_dead(*c.s.arena, *c.others.back());
          c.let_somebody_join();
        });
    EXPECT_TRUE(enliven_slot(*c.s.arena, child, getpid(), 1)) << "stopped at " << k;
    c.expect_the_newcomer_unharmed(k);
    return stopped;
  });
}

TEST(SlotUnderDelay, JoinerIsNotTakenForTheSlotsFormerForkedChild) {
  at_every_access([](Crowd& c, uint64_t k, bool&) {
    const Incarnation child =
        try_claim_slot(*c.s.arena, MemberKind::process, c.s.me->incarnation());
    open_birth(*c.s.arena, child, false);
    EXPECT_TRUE(enliven_slot(*c.s.arena, child, getpid(), 1));  // a start time that is not ours
    c.take_the_rest();
    let_time_pass(c);
    EXPECT_EQ(reap_all_dead(*c.s.arena, *c.s.me), 1);
    std::unique_ptr<Member> joiner;
    const bool stopped = c.run_stopped_at(
        k, [&] { EXPECT_NO_THROW(joiner = c.s.join()) << "stopped at " << k; },
        [&] { reap_all_dead(*c.s.arena, *c.s.me); });
    EXPECT_TRUE(joiner != nullptr && member_alive(*c.s.arena, joiner->incarnation()));
    return stopped;
  });
}

TEST(SlotUnderDelay, LateJudgeOfAForkedChildFreesNothingOfTheNextMember) {
  const uint64_t reused = at_every_access([](Crowd& c, uint64_t k, bool& newcomer) {
    const auto late = c.s.join();
    const Incarnation child =
        try_claim_slot(*c.s.arena, MemberKind::process, c.s.me->incarnation());
    open_birth(*c.s.arena, child, false);
    let_time_pass(c);
    c.take_the_rest();
    const bool stopped = c.run_stopped_at(
        k, [&] { (void)reap(*c.s.arena, *late, child); },
        [&] {
          reap_all_dead(*c.s.arena, *c.s.me);
          c.let_somebody_join();
        });
    newcomer = c.newcomer != nullptr && c.newcomer->slot() == slot_of(child);
    c.expect_the_newcomer_unharmed(k);
    return stopped;
  });
  EXPECT_GE(reused, 5U);
}

TEST(SlotUnderDelay, LateParentAfterAForkHarmsNeitherItsChildNorTheNextMember) {
  for (const bool in_time : {true, false}) {
    at_every_access([in_time](Crowd& c, uint64_t k, bool&) {
      const Incarnation child =
          try_claim_slot(*c.s.arena, MemberKind::process, c.s.me->incarnation());
      open_birth(*c.s.arena, child, false);
      c.take_the_rest();
      bool alive = false;
      bool ended = false;
      const bool stopped = c.run_stopped_at(
          k, [&] { ended = end_failed_birth(*c.s.arena, child); },
          [&] {
            if (in_time) {
              alive = enliven_slot(*c.s.arena, child, getpid(), os::start_time(getpid()));
            } else {
              let_time_pass(c);
              reap_all_dead(*c.s.arena, *c.s.me);
              c.let_somebody_join();
            }
          });
      EXPECT_TRUE(!alive || (!ended && member_alive(*c.s.arena, child))) << "stopped at " << k;
      c.expect_the_newcomer_unharmed(k);
      return stopped;
    });
  }
}

TEST(SlotUnderDelay, TwoJoinersNeverGetOneSlot) {
  at_every_access([](Crowd& c, uint64_t k, bool&) {
    std::unique_ptr<Member> late;
    const bool stopped =
        c.run_stopped_at(k, [&] { late = c.s.join(); }, [&] { c.let_somebody_join(); });
    EXPECT_TRUE(member_alive(*c.s.arena, late->incarnation())) << "stopped at " << k;
    EXPECT_TRUE(c.newcomer == nullptr || c.newcomer->slot() != late->slot()) << k;
    c.expect_the_newcomer_unharmed(k);
    return stopped;
  });
}

}  // namespace
}  // namespace shoal::arena
