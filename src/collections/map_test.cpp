// SPDX-License-Identifier: Apache-2.0
//
// Map against a model that keeps the order of a dict.
#include "collections/map.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <random>
#include <utility>
#include <vector>

#include "collections/test_container.hpp"

namespace shoal::collections {
namespace {

using Pairs = std::vector<std::pair<uint64_t, uint64_t>>;

struct MapTest : ContainerTest {
  Map make() {
    const Handle block = s.me->allocate_shareable(sizeof(ContainerState));
    Map::create(*s.me, block);
    s.me->share(block);
    return {*s.arena, block};
  }
  static uint64_t hash_of(uint64_t key) { return key % 64 * 0x9E3779B97F4A7C15; }  // collisions
  static uint64_t mixed(uint64_t key) { return key * 0x9E3779B97F4A7C15 >> 7; }    // few
  static Bytes bytes(const uint64_t& key) { return std::as_bytes(std::span(&key, 1)); }
  Handle pair(const uint64_t& key, uint64_t value) {
    return number_item(*s.me, value, bytes(key), KeyKind::canonical);
  }
  void put(Map& map, uint64_t key, uint64_t value) {
    if (const Map::Entry entry = map.find(hash_of(key), bytes(key))) {
      free_item(*s.me, map.replace(*s.me, entry, pair(key, value)));
    } else {
      map.insert(*s.me, hash_of(key), pair(key, value));
    }
  }
  Pairs pairs(const Map& map) {
    Pairs found;
    for (uint64_t i = map.begin(); i < map.end(); ++i) {
      const Handle item = map.at(i);
      if (item == 0) continue;
      uint64_t key = 0;
      std::memcpy(&key, open_item(*s.arena, item).key.data(), sizeof key);
      found.emplace_back(key, value_of(item));
    }
    return found;
  }
};

TEST_F(MapTest, DoesWhatADictDoes) {
  std::mt19937 random(2);  // NOLINT(cert-msc51-cpp): the same each time
  Map map = make();
  Pairs model;
  const auto place = [&](uint64_t key) {
    return std::find_if(model.begin(), model.end(),
                        [&](auto& entry) { return entry.first == key; });
  };
  ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));
  for (uint64_t step = 0; step < 30'000; ++step) {
    const uint64_t key = random() % 300;
    switch (random() % 6) {
      case 0:
      case 1:
      case 2:
        put(map, key, step);
        if (const auto at = place(key); at != model.end()) {
          at->second = step;
        } else {
          model.emplace_back(key, step);
        }
        break;
      case 3: {
        const Map::Entry entry = map.find(hash_of(key), bytes(key));
        const auto at = place(key);
        ASSERT_EQ(static_cast<bool>(entry), at != model.end());
        if (!entry) break;
        EXPECT_EQ(value_of(entry.item), at->second);
        free_item(*s.me, map.erase(*s.me, entry));
        model.erase(at);
        break;
      }
      case 4: {  // from either end
        if (model.empty()) break;
        const bool front = random() % 2 == 0;
        const uint64_t end_key = front ? model.front().first : model.back().first;
        const Map::Entry entry = map.find(hash_of(end_key), bytes(end_key));
        ASSERT_EQ(map.at(front ? map.begin() : map.end() - 1), entry.item);
        free_item(*s.me, map.erase(*s.me, entry));
        model.erase(front ? model.begin() : model.end() - 1);
        break;
      }
      default:
        if (step % 1'000 != 999) break;
        free_bag(*s.me, map.clear(*s.me));
        model.clear();
    }
    ASSERT_EQ(map.size(), model.size());
    if (step % 97 == 0) {
      ASSERT_EQ(pairs(map), model) << step;
    }
  }
  EXPECT_EQ(pairs(map), model);
  EXPECT_EQ(s.blocks(), model.size() + 2 + (map.state().growth.table.load() != 0 ? 1 : 0));
  map.unlock(*s.me);
  drop(map);
  EXPECT_EQ(s.blocks(), 0U);
}

// Inserting and erasing over and over uses up neither memory nor time.
TEST_F(MapTest, ComingAndGoingCostsNothingThatStays) {
  Map map = make();
  ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));
  for (uint64_t i = 0; i < 300'000; ++i) {
    const uint64_t hash = i * 0x9E3779B97F4A7C15;
    map.insert(*s.me, hash, pair(i, i));
    free_item(*s.me, map.erase(*s.me, map.find(hash, bytes(i))));
  }
  EXPECT_EQ(map.size(), 0U);
  EXPECT_LE(s.blocks(), 3U);
  map.unlock(*s.me);
  drop(map);
}

TEST_F(MapTest, KeysOfOneHashAreToldApart) {
  Map map = make();
  ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));
  for (uint64_t key = 0; key < 100; ++key) map.insert(*s.me, 5, pair(key, key * 2));
  for (uint64_t key = 0; key < 100; ++key) {
    const Map::Entry entry = map.find(5, bytes(key));
    ASSERT_TRUE(static_cast<bool>(entry));
    EXPECT_EQ(value_of(entry.item), key * 2);
    EXPECT_EQ(map.entry_at(entry.position).slot, entry.slot);
  }
  map.unlock(*s.me);
  drop(map);
}

TEST_F(MapTest, GrowsInStepsThatAreSmallHoweverLargeItIs) {
  constexpr uint64_t kKeys = 40'000;
  Map map = make();
  const Growth& growth = map.state().growth;
  uint64_t grown = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));  // large tables are made between two locks
    const Handle table = map.state().table.load();
    const Handle next = growth.table.load();
    const uint64_t left = map.end() - growth.from.load();
    map.insert(*s.me, mixed(key), pair(key, key));
    if (map.state().table.load() != table && key > 10) {
      ++grown;
      EXPECT_EQ(map.state().table.load(), next) << key;
      EXPECT_LE(left, 1U) << key << ": to be copied by one change";
    }
    const Map::Entry some = map.find(mixed(key / 2), bytes(key / 2));
    if (key % 3 == 0 && some) free_item(*s.me, map.erase(*s.me, some));
    if (key % 3 == 1 && some) free_item(*s.me, map.replace(*s.me, some, pair(key / 2, key)));
    map.unlock(*s.me);
  }
  EXPECT_GE(grown, 4U);
  ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));
  uint64_t count = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    // What the last round did with this key.
    const bool erased = key < kKeys / 2 && (2 * key % 3 == 0 || (2 * key + 1) % 3 == 0);
    const Map::Entry found = map.find(mixed(key), bytes(key));
    ASSERT_EQ(static_cast<bool>(found), !erased) << key;
    count += erased ? 0 : 1;
    if (found) {
      const uint64_t replaced = 2 * key % 3 == 1 ? 2 * key : 2 * key + 1;
      ASSERT_EQ(value_of(found.item), key < kKeys / 2 ? replaced : key) << key;
    }
  }
  EXPECT_EQ(map.size(), count);
  map.unlock(*s.me);
  drop(map);
  EXPECT_EQ(s.blocks(), 0U);
}

// Allocating a large table takes milliseconds: no other thread may wait for the lock for so long.
TEST_F(MapTest, MakesNoLargeTableUnderTheLock) {
  constexpr uint64_t kKeys = 300'000;
  Map map = make();
  const Growth& growth = map.state().growth;
  uint64_t made = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    const Handle item = pair(key, key);
    ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));
    const Handle table = map.state().table.load();
    const Handle before = growth.table.load();
    map.insert(*s.me, mixed(key), item);
    const Handle after = growth.table.load();
    if (key > 4096) {
      EXPECT_TRUE(after == before || after == 0) << key;
      EXPECT_TRUE(map.state().table.load() == table || map.state().table.load() == before) << key;
    }
    map.unlock(*s.me);
    made += growth.table.load() != after ? 1 : 0;
  }
  EXPECT_GE(made, 6U);
  drop(map);
  EXPECT_EQ(s.blocks(), 0U);
}

// The thread that makes the next table may be stopped or killed meanwhile: then another makes one.
TEST_F(MapTest, AsksAgainForATableThatDoesNotCome) {
  constexpr uint64_t kKeys = 20'000;
  Map map = make();
  const Growth& growth = map.state().growth;
  uint64_t grown = 0;
  bool lost = false;
  for (uint64_t key = 0; key < kKeys; ++key) {
    const Handle item = pair(key, key);
    ASSERT_TRUE(sync::is_locked(map.lock(*s.me)));
    const Handle table = map.state().table.load();
    const Handle next = growth.table.load();
    map.insert(*s.me, mixed(key), item);
    if (key > 4096 && map.state().table.load() != table) {
      EXPECT_EQ(map.state().table.load(), next) << key;
      ++grown;
      lost = false;
    }
    const bool asks = growth.asked.load() == map.changes() && growth.table.load() == 0;
    if (key > 4096 && asks && !lost) {
      Map same(*s.arena, map.handle());
      same.unlock(*s.me);  // as if killed before making one
      map = same;
      lost = true;
    } else {
      map.unlock(*s.me);
    }
  }
  EXPECT_GE(grown, 2U);
  drop(map);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST_F(MapTest, IsNotTakenForASequence) {
  Map map = make();
  EXPECT_THROW(Container(*s.arena, map.handle(), ContainerKind::sequence), arena::CorruptArena);
  EXPECT_THROW(Map(*s.arena, 64), arena::CorruptArena);
  drop(map);
}

}  // namespace
}  // namespace shoal::collections
