// SPDX-License-Identifier: Apache-2.0
//
// Each operation of the arena is stopped at each of its accesses to shared memory, while other
// members run whole operations: they allocate, share, purge, die and are reaped, and the slot or
// span that the stopped operation accesses gets a new user. See testing/delay.hpp.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "arena/delayed_members_for_test.hpp"
#include "arena/slots.hpp"
#include "os/process.hpp"

namespace shoal::arena {
namespace {

using testing::delay_at_every_access;
using testing::DelayCounts;

constexpr size_t kSmall = 500;
constexpr size_t kLarge = 3 * kPage;

class Delays : public DelayedMembers {
 protected:
  void begin() {
    newcomer.reset();
    members.clear();
    DelayedMembers::begin();
  }

  Member& join() { return *members.emplace_back(s->join()); }

  // The next member to join gets this slot, if it is free: a join takes the free slot with the
  // lowest next number, and all other slots seem to have had many users.
  void give_next(uint32_t slot) {
    s->arena->header().slots_used.store(kSharerSlots);
    for (uint32_t i = 0; i < kSharerSlots; ++i) {
      os::Atomic<uint64_t>& state = s->arena->slot(i).state;
      if (i != slot && slot_state(state.load()) == SlotState::free)
        state.store(make_slot(SlotState::free, i + 1000 * kMemberSlots, 0, 0));
    }
  }

  // A new member with blocks of all kinds, in this slot if it is free.
  void settle_in(uint32_t slot) {
    give_next(slot);
    newcomer = s->join();
    own = newcomer->allocate(kSmall);
    counted = newcomer->allocate(kLarge);
    newcomer->make_counted(counted);
    shared = newcomer->allocate(kSmall);
    newcomer->share(shared);
    same_slot += newcomer->slot() == slot ? 1 : 0;
  }

  void check_newcomer(uint64_t k) {
    SCOPED_TRACE("stopped at access " + std::to_string(k));
    Arena& arena = *s->arena;
    ASSERT_TRUE(member_alive(arena, newcomer->incarnation()));
    EXPECT_EQ(arena.owner_word(own).load(), owner_member(newcomer->incarnation()));
    EXPECT_TRUE(is_counted(arena.owner_word(counted).load()));
    EXPECT_TRUE(is_shared(arena.owner_word(shared).load()));
    reap_all_dead(arena, *s->me);
    ASSERT_TRUE(member_alive(arena, newcomer->incarnation()));
    ASSERT_NO_THROW(arena.check());
    newcomer->drop(counted);
    if (newcomer->drop_shared(shared)) newcomer->free(shared);
    newcomer->free(own);
    EXPECT_EQ(s->blocks(), 0U);
  }

  std::vector<std::unique_ptr<Member>> members;
  std::unique_ptr<Member> newcomer;
  Handle own = 0, counted = 0, shared = 0;
  uint64_t same_slot = 0;  // how often the newcomer got the slot in question
};

TEST_F(Delays, OfAReaperWhileAnotherReapsAndTheSlotIsUsedAgain) {
  Incarnation dead = 0;
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        Member& victim = join();
        (void)victim.allocate(kSmall);
        (void)victim.allocate(kLarge);
        const Handle block = victim.allocate(kLarge);
        victim.make_counted(block);
        victim.share(victim.allocate(kSmall));
        dead = victim.incarnation();
        victim.abandon_for_test();
      },
      [&] { (void)reap(*s->arena, *first, dead); },
      [&] {
        (void)reap(*s->arena, *second, dead);
        settle_in(slot_of(dead));
      },
      [&](uint64_t k) { check_newcomer(k); });
  expect_stops("reap", counts);
  EXPECT_GT(same_slot, 0U);
}

TEST_F(Delays, OfAForksChildWhileItsParentDiesAndItsSlotIsUsedAgain) {
  Incarnation child = 0;
  Member* parent = nullptr;
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        parent = &join();
        child = try_claim_slot(*s->arena, MemberKind::process, 0, parent->incarnation());
        ASSERT_NE(child, 0U);
        open_birth(*s->arena, child, false);
        s->arena->slot(slot_of(child)).birth.store(2);  // its time limit passed long ago
      },
      [&] {
        // A live process other than the newcomer's, so that only the words decide.
        (void)enliven_slot(*s->arena, child, 1, os::start_time(1));
      },
      [&] {
        const Incarnation dead = parent->incarnation();
        parent->abandon_for_test();
        (void)reap(*s->arena, *s->me, dead);
        settle_in(slot_of(child));
      },
      [&](uint64_t k) {
        if (member_listed(*s->arena, child)) return;  // it came before the parent's death was seen
        check_newcomer(k);
      });
  expect_stops("enliven", counts);
  EXPECT_GT(same_slot, 0U);
}

TEST_F(Delays, OfAJoinInASlotThatWasPreparedForAForksChildBefore) {
  Incarnation child = 0;
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        Member& parent = join();
        child = try_claim_slot(*s->arena, MemberKind::process, 0, parent.incarnation());
        s->arena->slot(slot_of(child)).birth.store(2);  // its time limit passed long ago
        const Incarnation dead = parent.incarnation();
        parent.abandon_for_test();
        ASSERT_TRUE(reap(*s->arena, *s->me, dead));
        give_next(slot_of(child));
      },
      [&] { newcomer = s->join(); }, [&] { reap_all_dead(*s->arena, *s->me); },
      [&](uint64_t k) {
        SCOPED_TRACE("stopped at access " + std::to_string(k));
        ASSERT_EQ(newcomer->slot(), slot_of(child));
        ASSERT_TRUE(member_alive(*s->arena, newcomer->incarnation()));
        ASSERT_NO_THROW(newcomer->free(newcomer->allocate(kSmall)));
        ASSERT_NO_THROW(s->arena->check());
      });
  expect_stops("join", counts);
}

TEST_F(Delays, OfAPurgeWhileAnotherThreadOfTheMemberFreesIntoAnOrphanSpan) {
  Handle block = 0, large = 0, small = 0;
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        s->me->free(s->me->allocate(kSmall));
        Member& victim = join();
        block = victim.allocate(kSmall);
        ASSERT_TRUE(victim.give_to_channel(block, 1, 1));
        const Incarnation dead = victim.incarnation();
        victim.abandon_for_test();
        ASSERT_TRUE(reap(*s->arena, *s->me, dead));
        ASSERT_TRUE(s->me->take_from_channel(block, 1, 1));
      },
      [&] { s->me->purge(0); }, [&] { s->me->free(block); },
      [&](uint64_t k) {
        SCOPED_TRACE("stopped at access " + std::to_string(k));
        large = s->me->allocate(kPage);
        std::memset(s->arena->address(large), 0, kPage);
        small = s->me->allocate(kSmall);
        const bool inside = small >= large && small < large + kPage;
        ASSERT_FALSE(inside) << "a block inside another one";
        ASSERT_EQ(s->arena->owner_word(small).load(), owner_member(s->me->incarnation()));
        ASSERT_NO_THROW(s->arena->check());
        s->me->free(small);
        s->me->free(large);
        EXPECT_EQ(s->blocks(), 0U);
      });
  expect_stops("sweep", counts);
}

// ---- Pairs: each operation stopped while another member runs each operation to its end
// -----------

struct Scene {
  Member& me;            // the member that runs the operation
  Member& peer;          // stays alive during the whole test
  Handle counted, held;  // a counted and a shared block, which `peer` holds
};

struct Operation {
  const char* name;
  void (*run)(const Scene&);
};

void allocate_small(const Scene& scene) { scene.me.free(scene.me.allocate(kSmall)); }
void allocate_large(const Scene& scene) { scene.me.free(scene.me.allocate(kLarge)); }
void shrink_and_grow(const Scene& scene) {
  const Handle first = scene.me.allocate(kLarge);
  const Handle second = scene.me.allocate(2 * kLarge);
  scene.me.free(first);
  scene.me.free(second);
}
void hold_counted(const Scene& scene) {
  if (scene.me.hold(scene.counted)) scene.me.drop(scene.counted);
}
void hold_shared(const Scene& scene) {
  ASSERT_TRUE(scene.me.hold_shared(scene.held));
  ASSERT_FALSE(scene.me.drop_shared(scene.held));
}
void store_shared(const Scene& scene) {
  ASSERT_TRUE(scene.me.hold_shared(scene.held));
  ASSERT_TRUE(scene.me.store_shared(scene.held));
  ASSERT_FALSE(scene.me.unstore_shared(scene.held));
  ASSERT_FALSE(scene.me.drop_shared(scene.held));
}
void send_a_block(const Scene& scene) {
  const Handle block = scene.me.allocate(kSmall);
  ASSERT_TRUE(scene.me.give_to_channel(block, 7, 1));
  ASSERT_TRUE(scene.peer.take_from_channel(block, 7, 1));
  scene.peer.free(block);
}
void allocate_again(const Scene& scene) {
  for (int i = 0; i < 2; ++i) scene.me.free(scene.me.allocate(kLarge));
}
void give_a_child(const Scene& scene) {
  const Handle parent = scene.me.allocate(kSmall);
  const Handle child = scene.me.allocate(kLarge);
  scene.me.give_to_block(child, parent);
  (void)scene.me.free_child(child, parent);
  scene.me.free(parent);
}
// The maker of the child is gone when the parent's owner dies.
void inherit_a_child_and_die(const Scene& scene) {
  auto maker = Member::join(scene.me.arena_pointer(), MemberKind::process);
  const auto victim = Member::join(scene.me.arena_pointer(), MemberKind::process);
  const Handle parent = victim->allocate(kSmall);
  maker->give_to_block(maker->allocate(kSmall), parent);
  maker.reset();
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  (void)reap(scene.me.arena(), scene.me, dead);
}
void purge_all(const Scene& scene) { scene.me.purge(0); }
void join_and_leave(const Scene& scene) {
  const auto guest = Member::join(scene.me.arena_pointer(), MemberKind::guest);
  guest->free(guest->allocate(kSmall));
}
void die_and_be_reaped(const Scene& scene) {
  const auto victim = Member::join(scene.me.arena_pointer(), MemberKind::process);
  (void)victim->allocate(kSmall);
  (void)victim->allocate(kLarge);
  (void)victim->hold(scene.counted);
  (void)victim->hold_shared(scene.held);
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  (void)reap(scene.me.arena(), scene.me, dead);
}

constexpr Operation kOperations[] = {
    {"allocate_small", allocate_small},
    {"allocate_large", allocate_large},
    {"shrink_and_grow", shrink_and_grow},
    {"hold_counted", hold_counted},
    {"hold_shared", hold_shared},
    {"store_shared", store_shared},
    {"send_a_block", send_a_block},
    {"purge_all", purge_all},
    {"allocate_again", allocate_again},
    {"give_a_child", give_a_child},
    {"inherit_a_child_and_die", inherit_a_child_and_die},
    {"join_and_leave", join_and_leave},
    {"die_and_be_reaped", die_and_be_reaped},
};

class DelayedPairs : public Delays, public ::testing::WithParamInterface<Operation> {};

TEST_P(DelayedPairs, AreConsistent) {
  Handle block = 0, held = 0;
  const auto check = [&](const Operation& other, uint64_t k) {
    SCOPED_TRACE(std::string("others: ") + other.name + ", stopped at access " + std::to_string(k));
    reap_all_dead(*s->arena, *s->me);
    ASSERT_NO_THROW(s->arena->check());
    EXPECT_EQ(s->blocks(), 2U);
    EXPECT_EQ(s->arena->statistics().members, 3U);
    s->me->drop(block);
    ASSERT_TRUE(s->me->drop_shared(held)) << "a member still seems to hold the block";
    s->me->free(held);
    EXPECT_EQ(s->blocks(), 0U);
  };
  for (const Operation& other : kOperations) {
    const DelayCounts counts = delay_at_every_access(
        [&] {
          begin();
          block = s->me->allocate(kLarge);
          s->me->make_counted(block);
          held = s->me->allocate(kSmall);
          s->me->share(held);
        },
        [&] { GetParam().run({*first, *s->me, block, held}); },
        [&] { other.run({*second, *s->me, block, held}); }, [&](uint64_t k) { check(other, k); },
        40);
    expect_stops(other.name, counts);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Operations, DelayedPairs, ::testing::ValuesIn(kOperations),
                         [](const auto& tried) { return std::string(tried.param.name); });

}  // namespace
}  // namespace shoal::arena
