// SPDX-License-Identifier: Apache-2.0
//
// Members killed at each kill point of this layer, and after each instruction of each operation:
// a container has its content from before or after, keeps working, and no block is left behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "collections/map.hpp"
#include "collections/sequence.hpp"
#include "collections/test_container.hpp"
#include "sync/child_member_for_test.hpp"
#include "testing/deadline.hpp"
#include "testing/kill_point.hpp"
#include "testing/single_step.hpp"

namespace shoal::collections {
namespace {

using arena::Member;
using sync::ChildMember;
using testing::Ending;
using Values = std::vector<uint64_t>;

Bytes bytes_of(const uint64_t& key) { return std::as_bytes(std::span(&key, 1)); }

// A change of a container that holds the numbers 0 to 9 (as keys and values), and the result.
template <class Kind>
struct Operation {
  const char* name;
  std::function<void(Member&, Kind&)> run;
  Values after;
};

Handle numbered(Member& member, uint64_t value) {
  return number_item(member, value, bytes_of(value), KeyKind::canonical);
}

const std::vector<Operation<Sequence>> kSequenceOperations = {
    {"append",
     [](Member& m, Sequence& x) {
       // Twice, because the second needs a larger table.
       for (uint64_t value = 10; value < 16; ++value) x.append(m, numbered(m, value));
     },
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
    {"replace",
     [](Member& m, Sequence& x) { free_item(m, x.replace(m, 3, numbered(m, 33))); },
     {0, 1, 2, 33, 4, 5, 6, 7, 8, 9}},
    {"pop_back",
     [](Member& m, Sequence& x) { free_item(m, x.pop_back(m)); },
     {0, 1, 2, 3, 4, 5, 6, 7, 8}},
    {"pop_front",
     [](Member& m, Sequence& x) { free_item(m, x.pop_front(m)); },
     {1, 2, 3, 4, 5, 6, 7, 8, 9}},
    {"splice",
     [](Member& m, Sequence& x) {
       const Handle fresh[] = {numbered(m, 50), numbered(m, 51), numbered(m, 52)};
       free_bag(m, x.splice(m, 2, 8, fresh));
     },
     {0, 1, 50, 51, 52, 8, 9}},
    {"rearrange",
     [](Member& m, Sequence& x) {
       const uint64_t places[] = {9, 7, 5, 3};
       free_bag(m, x.rearrange(m, places));
     },
     {9, 7, 5, 3}},
    {"clear", [](Member& m, Sequence& x) { free_bag(m, x.clear(m)); }, {}},
};

uint64_t hash_of(uint64_t key) { return key * 0x9E3779B97F4A7C15; }

const std::vector<Operation<Map>> kMapOperations = {
    {"insert",
     [](Member& m, Map& x) {
       for (uint64_t value = 10; value < 22; ++value) {
         x.insert(m, hash_of(value), numbered(m, value));
       }
     },
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}},
    {"replace",
     [](Member& m, Map& x) {
       const uint64_t key = 3;
       const auto entry = x.find(hash_of(key), bytes_of(key));
       free_item(m, x.replace(m, entry, number_item(m, 33, bytes_of(key), KeyKind::canonical)));
     },
     {0, 1, 2, 33, 4, 5, 6, 7, 8, 9}},
    {"erase",
     [](Member& m, Map& x) {
       const uint64_t key = 4;
       free_item(m, x.erase(m, x.find(hash_of(key), bytes_of(key))));
     },
     {0, 1, 2, 3, 5, 6, 7, 8, 9}},
    {"clear", [](Member& m, Map& x) { free_bag(m, x.clear(m)); }, {}},
};

class CollectionDeathTest : public ContainerTest {
 protected:
  Sequence ten_in_a_sequence() {
    const Handle block = s.me->allocate_shareable(sizeof(ContainerState));
    Sequence::create(*s.me, block);
    s.me->share(block);
    Sequence made(*s.arena, block);
    EXPECT_TRUE(sync::is_locked(made.lock(*s.me)));
    for (uint64_t i = 0; i < 10; ++i) made.append(*s.me, numbered(*s.me, i));
    made.unlock(*s.me);
    return made;
  }
  Map ten_in_a_map() {
    const Handle block = s.me->allocate_shareable(sizeof(ContainerState));
    Map::create(*s.me, block);
    s.me->share(block);
    Map made(*s.arena, block);
    EXPECT_TRUE(sync::is_locked(made.lock(*s.me)));
    for (uint64_t i = 0; i < 10; ++i) made.insert(*s.me, hash_of(i), numbered(*s.me, i));
    made.unlock(*s.me);
    return made;
  }
  Values values(const Sequence& x) {
    Values found;
    for (auto& item : x.items()) found.push_back(value_of(item.load()));
    return found;
  }
  Values values(const Map& x) {
    Values found;
    for (uint64_t i = x.begin(); i < x.end(); ++i) {
      const Handle item = x.at(i);
      if (item == 0) continue;
      found.push_back(value_of(item));
      const auto entry = x.entry_at(i);
      EXPECT_EQ(entry.position, i);
    }
    return found;
  }
  Sequence ten(const Operation<Sequence>&) { return ten_in_a_sequence(); }
  Map ten(const Operation<Map>&) { return ten_in_a_map(); }

  // Checks that the content is that from before or after the operation, or, for operations of
  // several changes, after some of them; then that the container ends with no block left.
  template <class Kind>
  void expect_sound(Kind& x, const Operation<Kind>& operation) {
    arena::reap_all_dead(*s.arena, *s.me);
    ASSERT_TRUE(sync::is_locked(x.lock(*s.me, testing::in_ms(5'000)))) << operation.name;
    const Values found = values(x);
    Values before(10);
    for (uint64_t i = 0; i < 10; ++i) before[i] = i;
    const bool between = found.size() > 10 && found.size() < operation.after.size() &&
                         std::equal(found.begin(), found.end(), operation.after.begin());
    EXPECT_TRUE(found == before || found == operation.after || between) << operation.name;
    EXPECT_EQ(x.size(), found.size());
    const uint64_t growing = x.state().growth.table.load() != 0 ? 1 : 0;
    EXPECT_EQ(s.blocks(), found.size() + 2 + growing) << "leaked by " << operation.name;
    x.unlock(*s.me);
    s.arena->check();
    drop(x);
    EXPECT_EQ(s.blocks(), 0U) << operation.name;
  }

  template <class Kind>
  void run_locked(Member& member, Kind& x, const Operation<Kind>& operation) {
    if (!sync::is_locked(x.lock(member))) _exit(3);
    operation.run(member, x);
    x.unlock(member);
  }

  template <class Kind>
  void at_each_kill_point(const std::vector<Operation<Kind>>& operations) {
    for (const std::string& point : testing::kill_point_names()) {
      const bool ours = point.starts_with("container.") || point.starts_with("item.") ||
                        point.starts_with("bag.") || point.starts_with("map.");
      if (!ours) continue;
      for (const auto& operation : operations) {
        for (unsigned nth = 1; nth <= 2; ++nth) {
          SCOPED_TRACE(point + ":" + std::to_string(nth) + " in " + operation.name);
          Kind x = ten(operation);
          ChildMember victim(s.arena, [&](Member& member) {
            testing::arm_kill_point(point.c_str(), nth);
            run_locked(member, x, operation);
            testing::disarm_kill_points();
          });
          const Ending ending = victim.wait();
          if (ending == Ending::killed) died_at_.push_back(point);
          ASSERT_TRUE(ending == Ending::killed || ending == Ending::finished);
          expect_sound(x, operation);
        }
      }
    }
  }

  template <class Kind>
  void at_every_instruction(const std::vector<Operation<Kind>>& operations) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    GTEST_SKIP() << "instructions are the sanitizer's";
#endif
    for (const auto& operation : operations) {
      SCOPED_TRACE(operation.name);
      std::unique_ptr<Kind> x = std::make_unique<Kind>(ten(operation));
      std::unique_ptr<Member> member;
      testing::StepResult last;
      const uint64_t deaths = testing::kill_at_every_instruction(
          [&] {
            member = s.join();
            static_cast<void>(sync::Holds::of(*member));
          },
          [&] { run_locked(*member, *x, operation); },
          [&](uint64_t) {
            expect_sound(*x, operation);
            x = std::make_unique<Kind>(ten(operation));
          },
          &last);
      if (last.outcome == testing::StepOutcome::unavailable) GTEST_SKIP() << "no ptrace here";
      EXPECT_EQ(last.outcome, testing::StepOutcome::completed);
      EXPECT_GT(deaths, 20U);
      drop(*x);
    }
  }

  std::vector<std::string> died_at_;
};

TEST_F(CollectionDeathTest, AtEachKillPointOfASequence) {
  at_each_kill_point(kSequenceOperations);
  for (const char* point :
       {"container.prepare.item", "container.prepare.table", "container.prepare.fresh",
        "container.prepare.bag", "container.put", "container.put.old", "container.put.done",
        "container.swap", "container.swap.old", "container.swap.bag", "container.swap.done",
        "bag.take", "bag.begin", "bag.free", "item.free"}) {
    EXPECT_NE(std::find(died_at_.begin(), died_at_.end(), point), died_at_.end()) << point;
  }
}

TEST_F(CollectionDeathTest, AtEachKillPointOfAMap) {
  at_each_kill_point(kMapOperations);
  for (const char* point : {"map.growth.begin", "map.growth.end", "container.growth.drop"}) {
    EXPECT_NE(std::find(died_at_.begin(), died_at_.end(), point), died_at_.end()) << point;
  }
}

TEST_F(CollectionDeathTest, AtEveryInstructionOfASequence) {
  at_every_instruction(kSequenceOperations);
}

TEST_F(CollectionDeathTest, AtEveryInstructionOfAMap) { at_every_instruction(kMapOperations); }

// Making and removing references: whatever the dead member did, nothing is left of it.
TEST_F(CollectionDeathTest, AtEachKillPointOfReferences) {
  for (const char* point :
       {"arena.record.bit", "arena.record.hold", "arena.record.word", "arena.record.link",
        "arena.record.unlink", "arena.record.drop", "item.free", "container.create.table"}) {
    for (unsigned nth = 1; nth <= 2; ++nth) {
      SCOPED_TRACE(std::string(point) + ":" + std::to_string(nth));
      Sequence inner = ten_in_a_sequence();
      ChildMember victim(s.arena, [&](Member& member) {
        testing::arm_kill_point(point, nth);
        if (!member.hold_shared(inner.handle())) _exit(4);
        for (int i = 0; i < 2; ++i) {
          const Handle block = member.allocate_shareable(sizeof(ContainerState));
          Sequence::create(member, block);
          member.share(block);
          Sequence outer(*s.arena, block);
          if (!sync::is_locked(outer.lock(member))) _exit(3);
          const Handle references[] = {inner.handle()};
          ItemParts parts;
          parts.references = references;
          outer.append(member, make_item(member, parts));
          outer.unlock(member);
          if (member.drop_shared(block)) arena::end_block(member, block);
        }
        if (member.drop_shared(inner.handle())) arena::end_block(member, inner.handle());
      });
      const bool killed = victim.wait() == Ending::killed;
      EXPECT_TRUE(killed || nth > 1) << "no operation passes this point";
      arena::reap_all_dead(*s.arena, *s.me);
      EXPECT_EQ(inner.size(), 10U);
      EXPECT_EQ(s.blocks(), 12U);
      ASSERT_TRUE(s.me->drop_shared(inner.handle()));
      arena::end_block(*s.me, inner.handle());
      EXPECT_EQ(s.blocks(), 0U);
    }
  }
}

// The reaper has freed the block that the dead member had taken out, and the member that takes the
// lock next has allocated that very block again: it must not be freed as part of the change.
TEST_F(CollectionDeathTest, WhatTheDeadTookOutMayBeABlockOfTheNextOneByNow) {
  Sequence x = ten_in_a_sequence();
  ASSERT_TRUE(sync::is_locked(x.lock(*s.me)));
  const Handle old = x.at(3);
  x.unlock(*s.me);
  ChildMember victim(s.arena, [&](Member& member) {
    testing::arm_kill_point("container.put.old");
    run_locked(member, x, kSequenceOperations[1]);  // replace
  });
  ASSERT_EQ(victim.wait(), Ending::killed);
  arena::reap_all_dead(*s.arena, *s.me);
  std::vector<Handle> mine;
  do {
    mine.push_back(item(7));
  } while (mine.back() != old && mine.size() < 100'000);
  ASSERT_EQ(mine.back(), old);
  const uint64_t blocks = s.blocks();
  ASSERT_TRUE(sync::is_locked(x.lock(*s.me, testing::in_ms(5'000))));
  EXPECT_EQ(s.blocks(), blocks);
  EXPECT_EQ(values(x), kSequenceOperations[1].after);
  x.append(*s.me, old);
  EXPECT_EQ(value_of(x.at(10)), 7U);
  x.unlock(*s.me);
  mine.pop_back();
  for (const Handle each : mine) free_item(*s.me, each);
  drop(x);
  EXPECT_EQ(s.blocks(), 0U);
}

// A member that undoes or repairs a dead member's change is killed as well.
TEST_F(CollectionDeathTest, AtEachKillPointOfARepair) {
  for (const char* first : {"container.prepare.item", "container.prepare.fresh",
                            "container.prepare.bag", "container.put", "container.swap"}) {
    for (const char* second : {"arena.move.take_block", "item.take", "container.undo.table",
                               "container.undo.bag", "container.put.old", "container.swap.old",
                               "container.swap.bag", "bag.take", "bag.free"}) {
      for (const auto& operation : kSequenceOperations) {
        SCOPED_TRACE(std::string(first) + ", " + second + " in " + operation.name);
        Sequence x = ten_in_a_sequence();
        ChildMember victim(s.arena, [&](Member& member) {
          testing::arm_kill_point(first);
          run_locked(member, x, operation);
        });
        if (victim.wait() == Ending::killed) {
          ChildMember next(s.arena, [&](Member& member) {
            testing::arm_kill_point(second);
            if (!sync::is_locked(x.lock(member))) _exit(3);
            x.unlock(member);
          });
          if (next.wait() == Ending::killed) died_at_.push_back(second);
        }
        expect_sound(x, operation);
      }
    }
  }
  EXPECT_GT(died_at_.size(), 20U);
}

// Several processes change one map while some of them are killed: what a survivor put is there.
TEST_F(CollectionDeathTest, SurvivorsLoseNothing) {
  Map map = ten_in_a_map();
  constexpr uint64_t kEach = 20'000;
  const Handle counter = s.me->allocate(64);
  auto* const running = new (s.arena->address(counter)) os::Atomic<uint64_t>(0);
  const auto work = [&](Member& member, uint64_t first) {
    running->fetch_add(1);
    for (uint64_t i = 0; i < kEach; ++i) {
      const uint64_t key = first + i;
      if (!sync::is_locked(map.lock(member))) _exit(3);
      map.insert(member, hash_of(key), numbered(member, key));
      map.unlock(member);
    }
  };
  ChildMember survivor(s.arena, [&](Member& member) { work(member, 1'000'000); });
  for (uint64_t round = 0; round < 8; ++round) {
    ChildMember victim(s.arena, [&](Member& member) { work(member, 10'000'000 * (round + 1)); });
    // A fork's child killed before it has taken its slot would hold the map for 30 s more.
    while (running->load() < round + 2) usleep(100);
    usleep(3'000);
    victim.kill();
    victim.wait();
    arena::reap_all_dead(*s.arena, *s.me);
  }
  EXPECT_EQ(survivor.wait(), Ending::finished);
  arena::reap_all_dead(*s.arena, *s.me);
  ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));
  for (uint64_t key = 1'000'000; key < 1'000'000 + kEach; ++key) {
    const auto entry = map.find(hash_of(key), bytes_of(key));
    ASSERT_TRUE(static_cast<bool>(entry)) << key;
    EXPECT_EQ(value_of(entry.item), key);
  }
  EXPECT_EQ(values(map).size(), map.size());
  s.me->free(counter);
  // The map and its table; and the next table, if the last entries have begun to fill it.
  const bool grows = map.state().growth.table.load() != 0;
  EXPECT_EQ(s.blocks(), map.size() + 2 + (grows ? 1 : 0));
  map.unlock(*s.me);
  drop(map);
  EXPECT_EQ(s.blocks(), 0U);
}

}  // namespace
}  // namespace shoal::collections
