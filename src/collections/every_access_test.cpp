// SPDX-License-Identifier: Apache-2.0
//
// Sequences and maps: each operation is stopped at each of its accesses to shared memory, while
// another member runs each operation to its end, or dies in it with the lock held. The container
// then has the content that the two operations leave one after the other, in either order, and no
// block is left behind. See testing/delay.hpp. The same pairs also run side by side in simulated
// memory: testing/weak_memory.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "arena/delayed_members_for_test.hpp"
#include "collections/map.hpp"
#include "collections/sequence.hpp"
#include "collections/test_container.hpp"
#include "testing/deadline.hpp"

namespace shoal::collections {
namespace {

using arena::Member;
using testing::delay_at_every_access;
using testing::DelayCounts;
using testing::in_ms;
using Values = std::vector<uint64_t>;

constexpr int64_t kLongMs = 60'000;
constexpr uint64_t kFirst = 100;   // the operation that is stopped adds numbers from here on
constexpr uint64_t kSecond = 200;  // and the other one from here on

Bytes bytes_of(const uint64_t& key) { return std::as_bytes(std::span(&key, 1)); }
uint64_t hash_of(uint64_t key) { return key % 4 * 0x9E3779B97F4A7C15; }  // collisions

Handle numbered(Member& member, uint64_t value) {
  return number_item(member, value, bytes_of(value), KeyKind::canonical);
}

// A change of a container that holds numbers, and what it does to a list of these numbers. `fresh`
// is the first of the numbers that it may add.
template <class Kind>
struct Operation {
  const char* name;
  void (*run)(Member&, Kind&, uint64_t fresh);
  void (*model)(Values&, uint64_t fresh);
};

// ---- Sequences

void append(Member& member, Sequence& x, uint64_t fresh) {
  for (uint64_t i = 0; i < 4; ++i) x.append(member, numbered(member, fresh + i));
}
void append_model(Values& x, uint64_t fresh) {
  for (uint64_t i = 0; i < 4; ++i) x.push_back(fresh + i);
}
void replace_first(Member& member, Sequence& x, uint64_t fresh) {
  if (x.size() != 0) free_item(member, x.replace(member, 0, numbered(member, fresh)));
}
void replace_first_model(Values& x, uint64_t fresh) {
  if (!x.empty()) x.front() = fresh;
}
void pop_both_ends(Member& member, Sequence& x, uint64_t) {
  if (x.size() != 0) free_item(member, x.pop_back(member));
  if (x.size() != 0) free_item(member, x.pop_front(member));
}
void pop_both_ends_model(Values& x, uint64_t) {
  if (!x.empty()) x.pop_back();
  if (!x.empty()) x.erase(x.begin());
}
void splice(Member& member, Sequence& x, uint64_t fresh) {
  const Handle made[] = {numbered(member, fresh), numbered(member, fresh + 1)};
  free_bag(member, x.splice(member, 0, std::min<uint64_t>(x.size(), 3), made));
}
void splice_model(Values& x, uint64_t fresh) {
  x.erase(x.begin(), x.begin() + static_cast<int64_t>(std::min<size_t>(x.size(), 3)));
  x.insert(x.begin(), {fresh, fresh + 1});
}
void keep_last_and_first(Member& member, Sequence& x, uint64_t) {
  if (x.size() < 2) return;
  const uint64_t places[] = {x.size() - 1, 0};
  if (const Handle bag = x.rearrange(member, places)) free_bag(member, bag);
}
void keep_last_and_first_model(Values& x, uint64_t) {
  if (x.size() >= 2) x = {x.back(), x.front()};
}
void clear(Member& member, Sequence& x, uint64_t) { free_bag(member, x.clear(member)); }
void clear_model(Values& x, uint64_t) { x.clear(); }

constexpr Operation<Sequence> kSequenceOperations[] = {
    {"append", append, append_model},
    {"replace_first", replace_first, replace_first_model},
    {"pop_both_ends", pop_both_ends, pop_both_ends_model},
    {"splice", splice, splice_model},
    {"keep_last_and_first", keep_last_and_first, keep_last_and_first_model},
    {"clear", clear, clear_model},
};

// ---- Maps

void insert(Member& member, Map& x, uint64_t fresh) {
  for (uint64_t i = 0; i < 4; ++i) {
    x.insert(member, hash_of(fresh + i), numbered(member, fresh + i));
  }
}
// A replaced entry keeps its key, 1, and has a value that no other entry has.
constexpr uint64_t kReplacing = 50;
void replace_one(Member& member, Map& x, uint64_t fresh) {
  const uint64_t key = 1;
  const Map::Entry entry = x.find(hash_of(key), bytes_of(key));
  if (!entry) return;
  const Handle item = number_item(member, fresh + kReplacing, bytes_of(key), KeyKind::canonical);
  free_item(member, x.replace(member, entry, item));
}
void replace_one_model(Values& x, uint64_t fresh) {
  for (uint64_t& value : x) {
    if (value == 1 || value == kFirst + kReplacing || value == kSecond + kReplacing) {
      value = fresh + kReplacing;
    }
  }
}
void erase_two(Member& member, Map& x, uint64_t) {
  for (const uint64_t key : {uint64_t{0}, uint64_t{2}}) {
    if (const Map::Entry entry = x.find(hash_of(key), bytes_of(key))) {
      free_item(member, x.erase(member, entry));
    }
  }
}
void erase_two_model(Values& x, uint64_t) {
  std::erase_if(x, [](uint64_t v) { return v == 0 || v == 2; });
}
void clear_map(Member& member, Map& x, uint64_t) { free_bag(member, x.clear(member)); }

constexpr Operation<Map> kMapOperations[] = {
    {"insert", insert, append_model},
    {"replace_one", replace_one, replace_one_model},
    {"erase_two", erase_two, erase_two_model},
    {"clear", clear_map, clear_model},
};

class ContainerDelays : public arena::DelayedMembers {
 protected:
  ContainerDelays() {
    sync::register_reap_hooks();
    register_end_hooks();
  }

  // A container with the numbers below `count`, as keys and as values.
  template <class Kind>
  void begin(uint64_t count) {
    DelayedMembers::begin();
    container = s->me->allocate(sizeof(ContainerState));
    Kind::create(*s->me, container);
    s->me->share(container);
    Kind x(*s->arena, container);
    ASSERT_TRUE(sync::is_locked(x.lock(*s->me)));
    for (uint64_t i = 0; i < count; ++i) add(x, i);
    x.unlock(*s->me);
  }

  template <class Kind>
  void run(Member& member, const Operation<Kind>& operation, uint64_t fresh) {
    Kind x(*s->arena, container);
    ASSERT_TRUE(sync::is_locked(x.lock(member, in_ms(kLongMs))));
    operation.run(member, x, fresh);
    x.unlock(member);
  }
  // As run(), by a member that dies with the lock held.
  template <class Kind>
  void run_and_die(const Operation<Kind>& operation, uint64_t fresh) {
    in_a_member_that_dies([&](Member& victim) {
      Kind x(*s->arena, container);
      ASSERT_TRUE(sync::is_locked(x.lock(victim, in_ms(kLongMs))));
      operation.run(victim, x, fresh);
    });
  }

  Values content(const Sequence& x) {
    Values found;
    for (auto& item : x.items()) found.push_back(number_of(*s->arena, item.load()));
    return found;
  }
  Values content(const Map& x) {
    Values found;
    for (uint64_t i = x.begin(); i < x.end(); ++i) {
      if (const Handle item = x.at(i)) found.push_back(number_of(*s->arena, item));
    }
    return found;
  }

  template <class Kind>
  void check(const Values& one, const Values& other) {
    reap_all_dead(*s->arena, *s->me);
    Kind x(*s->arena, container);
    ASSERT_TRUE(sync::is_locked(x.lock(*s->me, in_ms(kLongMs))));
    const Values found = content(x);
    EXPECT_TRUE(found == one || found == other) << ::testing::PrintToString(found);
    EXPECT_EQ(x.size(), found.size());
    const uint64_t growing = x.state().growth.table.load() != 0 ? 1 : 0;
    EXPECT_EQ(s->blocks(), found.size() + 2 + growing) << "a block is left behind";
    x.unlock(*s->me);
    ASSERT_NO_THROW(s->arena->check());
    ASSERT_TRUE(s->me->drop_shared(container));
    arena::end_block(*s->me, container);
    EXPECT_EQ(s->blocks(), 0U);
  }

  // Each operation, stopped at each access, against each operation of another member.
  template <class Kind, size_t n>
  void try_all_pairs(const Operation<Kind> (&operations)[n]) {
    for (const Operation<Kind>& late : operations) {
      for (const Operation<Kind>& other : operations) {
        for (const bool dies : {false, true}) {
          SCOPED_TRACE(std::string(late.name) + " against " + other.name +
                       (dies ? " of a member that dies" : ""));
          try_pair(late, other, dies);
          if (HasFailure()) return;
        }
      }
    }
  }

  // The contents that the two operations may leave.
  struct Orders {
    Values late_first, other_first;
  };
  template <class Kind>
  static Orders orders(const Operation<Kind>& late, const Operation<Kind>& other) {
    Orders made;
    for (uint64_t i = 0; i < kCount; ++i) made.late_first.push_back(i);
    made.other_first = made.late_first;
    late.model(made.late_first, kFirst);
    other.model(made.late_first, kSecond);
    other.model(made.other_first, kSecond);
    late.model(made.other_first, kFirst);
    return made;
  }

  template <class Kind>
  void try_pair(const Operation<Kind>& late, const Operation<Kind>& other, bool dies) {
    const Orders expected = orders(late, other);
    const DelayCounts counts = delay_at_every_access(
        [&] { begin<Kind>(kCount); }, [&] { run(*first, late, kFirst); },
        [&] { dies ? run_and_die(other, kSecond) : run(*second, other, kSecond); },
        [&](uint64_t k) {
          SCOPED_TRACE("stopped at access " + std::to_string(k));
          check<Kind>(expected.late_first, expected.other_first);
        },
        12);
    expect_stops(std::string(late.name) + "." + other.name, counts);
  }

  // Each operation side by side with each operation of another member.
  template <class Kind, size_t n>
  void try_all_in_weak_memory(const Operation<Kind> (&operations)[n]) {
    for (const Operation<Kind>& one : operations) {
      for (const Operation<Kind>& other : operations) {
        const Orders expected = orders(one, other);
        const testing::WeakCounts counts = try_in_weak_memory(
            std::string(one.name) + " and " + other.name, [&] { begin<Kind>(kCount); },
            {[&] { run(*first, one, kFirst); }, [&] { run(*second, other, kSecond); }},
            [&] { check<Kind>(expected.late_first, expected.other_first); }, 30);
        EXPECT_EQ(counts.timeouts, 0U) << "a wake-up was lost";
        if (HasFailure()) return;
      }
    }
  }

  static constexpr uint64_t kCount = 5;
  Handle container = 0;

 private:
  void add(Sequence& x, uint64_t value) { x.append(*s->me, numbered(*s->me, value)); }
  void add(Map& x, uint64_t value) { x.insert(*s->me, hash_of(value), numbered(*s->me, value)); }
};

TEST_F(ContainerDelays, OfSequencesLeaveTheContentOfOneOrder) {
  try_all_pairs(kSequenceOperations);
}

TEST_F(ContainerDelays, OfMapsLeaveTheContentOfOneOrder) { try_all_pairs(kMapOperations); }

TEST_F(ContainerDelays, AndWeakMemoryLeaveASequenceTheContentOfOneOrder) {
  try_all_in_weak_memory(kSequenceOperations);
}

TEST_F(ContainerDelays, AndWeakMemoryLeaveAMapTheContentOfOneOrder) {
  try_all_in_weak_memory(kMapOperations);
}

}  // namespace
}  // namespace shoal::collections
