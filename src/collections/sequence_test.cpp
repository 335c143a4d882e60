// SPDX-License-Identifier: Apache-2.0
//
// Sequence against std::vector, and that all blocks are freed.
#include "collections/sequence.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "collections/test_container.hpp"

namespace shoal::collections {
namespace {

struct SequenceTest : ContainerTest {
  Sequence make() {
    const Handle block = s.me->allocate_shareable(sizeof(ContainerState));
    Sequence::create(*s.me, block);
    s.me->share(block);
    return {*s.arena, block};
  }
  std::vector<uint64_t> values(const Sequence& sequence) {
    std::vector<uint64_t> found;
    for (auto& item : sequence.items()) found.push_back(value_of(item.load()));
    return found;
  }
};

TEST_F(SequenceTest, DoesWhatAVectorDoes) {
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same each time
  Sequence sequence = make();
  std::vector<uint64_t> model;
  ASSERT_TRUE(sync::is_locked(sequence.lock(*s.me)));
  for (uint64_t step = 0; step < 20'000; ++step) {
    const uint64_t size = model.size();
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        sequence.append(*s.me, item(step));
        model.push_back(step);
        break;
      case 3:
        if (size == 0) break;
        free_item(*s.me, sequence.pop_back(*s.me));
        model.pop_back();
        break;
      case 4:
        if (size == 0) break;
        free_item(*s.me, sequence.pop_front(*s.me));
        model.erase(model.begin());
        break;
      case 5: {
        if (size == 0) break;
        const uint64_t i = random() % size;
        free_item(*s.me, sequence.replace(*s.me, i, item(step)));
        model[i] = step;
        break;
      }
      case 6: {
        const uint64_t first = random() % (size + 1);
        const uint64_t last = first + random() % (size - first + 1);
        std::vector<Handle> fresh;
        std::vector<uint64_t> numbers;
        for (uint64_t i = 0; i < random() % 5; ++i) {
          fresh.push_back(item(step + i));
          numbers.push_back(step + i);
        }
        free_bag(*s.me, sequence.splice(*s.me, first, last, fresh));
        model.erase(model.begin() + static_cast<ptrdiff_t>(first),
                    model.begin() + static_cast<ptrdiff_t>(last));
        model.insert(model.begin() + static_cast<ptrdiff_t>(first), numbers.begin(), numbers.end());
        break;
      }
      default: {
        std::vector<uint64_t> places(size);
        for (uint64_t i = 0; i < size; ++i) places[i] = i;
        std::shuffle(places.begin(), places.end(), random);
        places.resize(size - (size == 0 ? 0 : random() % size / 4));
        if (const Handle bag = sequence.rearrange(*s.me, places); bag != 0) free_bag(*s.me, bag);
        std::vector<uint64_t> next;
        next.reserve(places.size());
        for (const uint64_t place : places) next.push_back(model[place]);
        model = next;
      }
    }
    ASSERT_EQ(sequence.size(), model.size());
    if (step % 97 == 0) {
      ASSERT_EQ(values(sequence), model) << step;
    }
  }
  EXPECT_EQ(values(sequence), model);
  EXPECT_EQ(s.blocks(), model.size() + 2);  // the items, the state, the table
  sequence.unlock(*s.me);
  drop(sequence);
}

TEST_F(SequenceTest, ClearLeavesOneEmptyTable) {
  Sequence sequence = make();
  ASSERT_TRUE(sync::is_locked(sequence.lock(*s.me)));
  for (uint64_t i = 0; i < 100'000; ++i) sequence.append(*s.me, item(i));
  const Handle bag = sequence.clear(*s.me);
  EXPECT_EQ(sequence.size(), 0U);
  sequence.unlock(*s.me);
  free_bag(*s.me, bag);
  EXPECT_EQ(s.blocks(), 2U);
  drop(sequence);
}

TEST_F(SequenceTest, WrongPlacesAreErrorsAndChangeNothing) {
  Sequence sequence = make();
  ASSERT_TRUE(sync::is_locked(sequence.lock(*s.me)));
  EXPECT_THROW(static_cast<void>(sequence.pop_back(*s.me)), std::out_of_range);
  sequence.append(*s.me, item(1));
  EXPECT_THROW(static_cast<void>(sequence.at(1)), std::out_of_range);
  const uint64_t twice[] = {0, 0};
  EXPECT_THROW(static_cast<void>(sequence.rearrange(*s.me, twice)), std::invalid_argument);
  EXPECT_EQ(values(sequence), std::vector<uint64_t>{1});
  sequence.unlock(*s.me);
  drop(sequence);
}

// A container in a container, in a container: the outer ones keep the inner ones alive.
TEST_F(SequenceTest, HoldsWhatItsItemsReferTo) {
  Sequence inner = make();
  ASSERT_TRUE(sync::is_locked(inner.lock(*s.me)));
  inner.append(*s.me, item(7));
  inner.unlock(*s.me);
  Handle last = inner.handle();
  for (int depth = 0; depth < 50'000; ++depth) {  // ending them must not recurse
    Sequence outer = make();
    ASSERT_TRUE(sync::is_locked(outer.lock(*s.me)));
    outer.append(*s.me, referring(last));
    outer.unlock(*s.me);
    EXPECT_FALSE(s.me->drop_shared(last));
    last = outer.handle();
  }
  ASSERT_TRUE(s.me->hold_shared(inner.handle()));
  EXPECT_FALSE(s.me->drop_shared(inner.handle()));
  ASSERT_TRUE(s.me->drop_shared(last));
  arena::end_block(*s.me, last);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST_F(SequenceTest, TheReaperOfItsLastHolderEndsIt) {
  const auto victim = s.join();
  const Handle block = victim->allocate_shareable(sizeof(ContainerState));
  Sequence::create(*victim, block);
  victim->share(block);
  Sequence sequence(*s.arena, block);
  Sequence inner = make();
  ASSERT_TRUE(sync::is_locked(sequence.lock(*victim)));
  const Handle references[] = {inner.handle()};
  ASSERT_TRUE(victim->hold_shared(inner.handle()));
  ItemParts parts;
  parts.references = references;
  sequence.append(*victim, make_item(*victim, parts));
  sequence.unlock(*victim);
  drop(inner);
  EXPECT_EQ(s.blocks(), 5U);
  victim->abandon_for_test();
  arena::reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST_F(SequenceTest, AnyNumberOfReferencesKeepsABlockAndTheLastOneEndsIt) {
  Sequence inner = make();
  Sequence outer = make();
  ASSERT_TRUE(sync::is_locked(outer.lock(*s.me)));
  for (int i = 0; i < 1'100; ++i) outer.append(*s.me, referring(inner.handle()));
  const Handle bag = outer.clear(*s.me);
  outer.unlock(*s.me);
  EXPECT_FALSE(s.me->drop_shared(inner.handle()));
  s.arena->check();
  free_bag(*s.me, bag);
  drop(outer);
  EXPECT_EQ(s.blocks(), 0U);
}

}  // namespace
}  // namespace shoal::collections
