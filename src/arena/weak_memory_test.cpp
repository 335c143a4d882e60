// SPDX-License-Identifier: Apache-2.0
//
// The arena in a memory that keeps only what the C++ memory model promises
// (testing/weak_memory.hpp): pairs of operations, blocks that change hands, and two or three
// members that meet in the life of a slot. Each run follows from a seed, which a failure prints.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "arena/delayed_members_for_test.hpp"
#include "arena/operations_for_test.hpp"
#include "arena/slots.hpp"
#include "os/process.hpp"

namespace shoal::arena {
namespace {

using testing::PlainWord;
using testing::SimulatedRange;

constexpr unsigned kSeeds = 300;
constexpr uint32_t kChannel = 7;

class ArenaInWeakMemory : public DelayedMembers {
 protected:
  PlainWord& data(Handle block, uint64_t offset = 0) {
    return *s->arena->at<PlainWord>(block + offset);
  }

  // Writes to a new block, and reads back what it has written: no earlier user's store comes later.
  void use(Member& member, size_t bytes, uint64_t value) {
    const Handle block = member.allocate(bytes);
    for (const uint64_t offset : {uint64_t{0}, bytes / 16 * 8, bytes / 8 * 8 - 8}) {
      data(block, offset).set(value);
      ASSERT_EQ(data(block, offset).get(), value);
    }
    member.free(block);
  }
  void expect_nothing_left() {
    reap_all_dead(*s->arena, *s->me);
    ASSERT_NO_THROW(s->arena->check());
    EXPECT_EQ(s->blocks(), 0U);
  }
};

class WeakPairs : public ArenaInWeakMemory, public ::testing::WithParamInterface<Operation> {};

TEST_P(WeakPairs, AreConsistent) {
  Handle block = 0, held = 0;
  for (const Operation& other : kOperations) {
    try_in_weak_memory(
        other.name,
        [&] {
          begin();
          block = s->me->allocate(kLarge);
          s->me->make_counted(block);
          held = s->me->allocate_shareable(kSmall);
          s->me->share(held);
        },
        {[&] { GetParam().run({*first, *s->me, block, held}); },
         [&] { other.run({*second, *s->me, block, held}); }},
        [&] {
          reap_all_dead(*s->arena, *s->me);
          ASSERT_NO_THROW(s->arena->check());
          EXPECT_LE(s->blocks(), 4U);  // the two, and perhaps an extension of each record
          EXPECT_EQ(s->arena->statistics().members, 3U);
          s->me->drop(block);
          ASSERT_TRUE(s->me->drop_shared(held));
          s->me->free(held);
          EXPECT_EQ(s->blocks(), 0U);
        },
        25);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Operations, WeakPairs, ::testing::ValuesIn(kOperations),
                         [](const auto& tried) { return std::string(tried.param.name); });

// A block is written, sent, read, freed by the receiver, and allocated again by the sender. Nothing
// but the block's owner word orders what they do: its handle comes by a relaxed store.
TEST_F(ArenaInWeakMemory, ABlockIsSeenAsItWasSentAndReusedWhenItsLastUserIsDone) {
  for (const size_t size : {size_t{64}, size_t{3000}, size_t{20'000}, kLarge}) {
    Handle mailbox = 0;
    uint64_t received = 0;
    const auto box = [&](uint64_t i) -> PlainWord& { return data(mailbox, 64 * i); };
    try_in_weak_memory(
        "size " + std::to_string(size),
        [&] {
          begin();
          received = 0;
          mailbox = s->me->allocate(1024);
          // What is left of earlier data looks like owner words.
          const Handle before = s->me->allocate(31 * kPage);
          auto* const words = s->arena->at<uint64_t>(before);
          std::fill_n(words, 31 * kPage / 8, owner_member(s->me->incarnation()));
          s->me->free(before);
          for (uint64_t i = 0; i < 3; ++i) box(i).set(0);
        },
        {[&] {
           for (uint64_t i = 0; i < 3; ++i) {
             const Handle block = first->allocate(size);
             data(block).set(100 + i);
             data(block, size / 8 * 8 - 8).set(200 + i);
             ASSERT_TRUE(first->give_to_channel(block, kChannel, i + 1));
             box(i).set(block);
           }
           for (uint64_t i = 0; i < 3; ++i) use(*first, size, 300 + i);
         },
         [&] {
           for (uint64_t look = 0; look < 30; ++look) {
             const Handle block = box(received).get();
             if (block == 0 || !s->arena->contains(block, size)) continue;
             // Whoever finds the block's span finds its owner words.
             ASSERT_NE(s->arena->owner_word(block).load(), owner_member(s->me->incarnation()));
             if (!second->take_from_channel(block, kChannel, received + 1)) continue;
             ASSERT_EQ(data(block).get(), 100 + received);
             ASSERT_EQ(data(block, size / 8 * 8 - 8).get(), 200 + received);
             data(block).set(0);
             second->free(block);
             if (++received == 3) break;
           }
         }},
        [&] {
          for (uint64_t i = received; i < 3; ++i) {
            ASSERT_TRUE(s->me->take_from_channel(box(i).get(), kChannel, i + 1));
            s->me->free(box(i).get());
          }
          s->me->free(mailbox);
          expect_nothing_left();
        },
        kSeeds);
  }
}

// Two members, and two threads of one of them, allocate and free. What lies in a block is its
// user's.
TEST_F(ArenaInWeakMemory, NoTwoUsersHaveOneBlock) {
  std::array<uint64_t, 3> size{};
  const auto work = [&](Member& member, uint64_t who) {
    for (uint64_t i = 0; i < 3; ++i) use(member, size[i], 10 * who + i);
  };
  for (const auto sizes :
       {std::array<uint64_t, 3>{64, 64, 64}, {64, 20'000, kPage}, {2 * kPage, kPage, 3 * kPage}}) {
    size = sizes;
    try_in_weak_memory(
        "sizes from " + std::to_string(size[0]), [&] { begin(); },
        {[&] { work(*first, 1); }, [&] { work(*first, 2); }, [&] { work(*second, 3); }},
        [&] { expect_nothing_left(); }, kSeeds,
        [&] { return std::vector<SimulatedRange>{{first.get(), sizeof(Member)}}; });
  }
}

// A member has died, and its span has no owner. One member frees the last block in it, while
// another one adopts or sweeps the span, and reuses its memory.
TEST_F(ArenaInWeakMemory, AnOrphanSpansMemoryIsReusedWhenItsLastBlockIsFree) {
  for (const bool sweeps : {false, true}) {
    Handle block = 0;
    try_in_weak_memory(
        sweeps ? "sweep" : "adopt",
        [&] {
          begin();
          in_a_member_that_dies([&](Member& victim) {
            block = victim.allocate(kSmall);
            ASSERT_TRUE(victim.give_to_channel(block, kChannel, 1));
          });
          ASSERT_TRUE(first->take_from_channel(block, kChannel, 1));
        },
        {[&] {
           data(block).set(1);
           first->free(block);
         },
         [&] {
           if (sweeps) second->purge(0);
           use(*second, kSmall, 2);
           use(*second, kPage, 3);
         }},
        [&] { expect_nothing_left(); }, kSeeds);
  }
}

// ---- The life of a slot: three members meet

class SlotLife : public ArenaInWeakMemory {
 protected:
  void begin() {
    for (auto& member : joined) member.reset();
    leaver.reset();
    fillers.clear();
    DelayedMembers::begin();
  }

  // A member with blocks of all kinds, which dies.
  Incarnation dead_member() {
    const auto victim = s->join();
    (void)victim->allocate(kSmall);
    const Handle block = victim->allocate(kLarge);
    victim->make_counted(block);
    victim->share(victim->allocate_shareable(kSmall));
    const Incarnation dead = victim->incarnation();
    victim->abandon_for_test();
    return dead;
  }
  // A slot prepared for the child of a fork. Its time limit has passed, so that its child is late.
  Incarnation late_child(Incarnation parent) {
    const Incarnation child = try_claim_slot(*s->arena, MemberKind::process, parent);
    open_birth(*s->arena, child, false);
    s->arena->slot(slot_of(child)).birth.store(kBirthLocked + 1);
    return child;
  }
  // The next member to join gets this slot, if it is free: a join takes the lowest free slot.
  void give_next(uint32_t slot) {
    for (uint32_t i = 0; i < slot; ++i)
      if (slot_state(s->arena->slot(i).state.load()) == SlotState::free)
        fillers.push_back(s->join());
  }
  // Joins, and takes blocks of all kinds.
  void join(size_t i) {
    joined[i] = s->join();
    Member& member = *joined[i];
    own[i] = member.allocate(kSmall);
    counted[i] = member.allocate(kLarge);
    member.make_counted(counted[i]);
    shared[i] = member.allocate_shareable(kSmall);
    member.share(shared[i]);
    data(own[i]).set(i);
  }
  void expect_unharmed(size_t i) {
    if (joined[i] == nullptr) return;
    Member& member = *joined[i];
    for (size_t other = 0; other < i; ++other) {
      EXPECT_TRUE(joined[other] == nullptr || joined[other]->slot() != member.slot());
    }
    ASSERT_TRUE(member_alive(*s->arena, member.incarnation()));
    EXPECT_EQ(s->arena->owner_word(own[i]).load(), owner_member(member.incarnation()));
    EXPECT_TRUE(is_record(s->arena->owner_word(counted[i]).load()));
    EXPECT_TRUE(is_record(s->arena->owner_word(shared[i]).load()));
    EXPECT_EQ(data(own[i]).get(), i);
  }
  void expect_all_unharmed() {
    for (size_t i = 0; i < joined.size(); ++i) expect_unharmed(i);
    reap_all_dead(*s->arena, *s->me);
    ASSERT_NO_THROW(s->arena->check());
    for (size_t i = 0; i < joined.size(); ++i) {
      expect_unharmed(i);
      if (joined[i] == nullptr) continue;
      joined[i]->drop(counted[i]);
      if (joined[i]->drop_shared(shared[i])) joined[i]->free(shared[i]);
      joined[i]->free(own[i]);
    }
    EXPECT_EQ(s->blocks(), 0U);
  }
  void try_three(const std::string& what, const std::function<void()>& prepare,
                 std::vector<std::function<void()>> operations,
                 const std::function<void()>& check) {
    try_in_weak_memory(what, prepare, std::move(operations), check, kSeeds);
  }

  std::array<std::unique_ptr<Member>, 3> joined;
  std::array<Handle, 3> own{}, counted{}, shared{};
  std::unique_ptr<Member> leaver;
  std::vector<std::unique_ptr<Member>> fillers;  // of the slots below the one to be given
  uint64_t reused = 0;  // in how many runs a member joined in the slot in question
};

TEST_F(SlotLife, TwoReapersAndAJoinerFreeNothingOfTheNewMember) {
  Incarnation dead = 0;
  try_three(
      "reap, reap, join",
      [&] {
        begin();
        dead = dead_member();
        give_next(slot_of(dead));
      },
      {[&] { (void)reap(*s->arena, *first, dead); }, [&] { (void)reap(*s->arena, *second, dead); },
       [&] { join(0); }},
      [&] {
        reused += joined[0]->slot() == slot_of(dead) ? 1 : 0;
        expect_all_unharmed();
      });
  EXPECT_GT(reused, 0U);
}

TEST_F(SlotLife, ALateChildAReaperAndAJoinerLeaveTheSlotToOne) {
  Incarnation child = 0;
  bool alive = false;
  try_three(
      "enliven, reap, join",
      [&] {
        begin();
        const auto parent = s->join();
        child = late_child(parent->incarnation());
        parent->abandon_for_test();
        give_next(slot_of(child));
      },
      {[&] { alive = enliven_slot(*s->arena, child, 1, os::start_time(1)); },
       [&] { reap_all_dead(*s->arena, *second); }, [&] { join(0); }},
      [&] {
        const bool same = joined[0]->slot() == slot_of(child);
        EXPECT_FALSE(alive && same);
        EXPECT_EQ(alive, member_listed(*s->arena, child));
        reused += same ? 1 : 0;
        expect_all_unharmed();
      });
  EXPECT_GT(reused, 0U);
}

TEST_F(SlotLife, ALateParentItsChildAndAReaperAgreeWhetherTheChildLives) {
  Incarnation child = 0;
  bool alive = false;
  bool ended = false;
  try_three(
      "end birth, enliven, reap",
      [&] {
        begin();
        child = late_child(first->incarnation());
      },
      {[&] { ended = end_failed_birth(*s->arena, child); },
       [&] { alive = enliven_slot(*s->arena, child, 1, os::start_time(1)); },
       [&] { reap_all_dead(*s->arena, *second); }},
      [&] {
        EXPECT_FALSE(alive && ended);
        EXPECT_EQ(alive, member_listed(*s->arena, child));
        ASSERT_NO_THROW(s->arena->check());
      });
}

TEST_F(SlotLife, ALeaverAReaperAndAJoinerLeaveNothing) {
  uint32_t slot = 0;
  try_three(
      "leave, reap, join",
      [&] {
        begin();
        leaver = s->join();
        (void)leaver->allocate(kSmall);
        leaver->make_counted(leaver->allocate(kLarge));
        slot = leaver->slot();
        give_next(slot);
      },
      {[&] { leaver.reset(); }, [&] { reap_all_dead(*s->arena, *second); }, [&] { join(0); }},
      [&] {
        reused += joined[0]->slot() == slot ? 1 : 0;
        expect_all_unharmed();
      });
  EXPECT_GT(reused, 0U);
}

TEST_F(SlotLife, ADeathTwoJoinersAndAReaperShareTheSlots) {
  Incarnation dead = 0;
  try_three(
      "reap and join, join, join",
      [&] {
        begin();
        dead = dead_member();
        give_next(slot_of(dead));
      },
      {[&] {
         (void)reap(*s->arena, *first, dead);
         join(0);
       },
       [&] { join(1); }, [&] { join(2); }},
      [&] {
        for (const auto& member : joined) reused += member->slot() == slot_of(dead) ? 1 : 0;
        expect_all_unharmed();
      });
  EXPECT_GT(reused, 0U);
}

TEST_F(SlotLife, AReaperThatDiesIsReplacedByOneOfTwo) {
  Incarnation dead = 0;
  try_three(
      "die reaping, reap, reap",
      [&] {
        begin();
        dead = dead_member();
        leaver = s->join();
        give_next(slot_of(dead));
      },
      {[&] {
         (void)reap(*s->arena, *leaver, dead);
         leaver->abandon_for_test();
       },
       [&] { reap_all_dead(*s->arena, *first); },
       [&] {
         reap_all_dead(*s->arena, *second);
         join(0);
       }},
      [&] {
        reused += joined[0]->slot() == slot_of(dead) ? 1 : 0;
        expect_all_unharmed();
      });
  EXPECT_GT(reused, 0U);
}

}  // namespace
}  // namespace shoal::arena
