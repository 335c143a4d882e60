// SPDX-License-Identifier: Apache-2.0
//
// DelayedMembers: the fixture of each layer's every_access_test.cpp and weak_memory_test.cpp. A
// session with two members beside the root: `first` runs the operation that is stopped, `second`
// runs the others.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arena/test_session.hpp"
#include "testing/delay.hpp"
#include "testing/weak_memory.hpp"

namespace shoal::arena {

class DelayedMembers : public ::testing::Test {
 protected:
  // A fresh session. It never purges by itself: the purge depends on the time, and so would the
  // number of an operation's accesses.
  void begin() {
    first.reset();
    second.reset();
    s.reset();
    s = std::make_unique<TestSession>(uint64_t{64} << 20);
    s->arena->header().next_purge_ms.store(UINT64_MAX);
    first = s->join();
    second = s->join();
  }

  // A member that runs `body` and is killed. The second member reaps it.
  void in_a_member_that_dies(const std::function<void(Member&)>& body) {
    const auto victim = s->join();
    body(*victim);
    const Incarnation dead = victim->incarnation();
    victim->abandon_for_test();
    ASSERT_TRUE(reap(*s->arena, *second, dead));
  }

  static void expect_stops(const std::string& what, const testing::DelayCounts& counts) {
    RecordProperty(what + ".stops", static_cast<int>(counts.stops));
    EXPECT_GT(counts.stops, 0U) << what;
  }

  // Runs the operations side by side in simulated memory, once a seed: all of the session's memory,
  // and `more`. No wake-up may be lost.
  testing::WeakCounts try_in_weak_memory(
      const std::string& what, const std::function<void()>& prepare,
      std::vector<std::function<void()>> operations, const std::function<void()>& check,
      unsigned seeds, const std::function<std::vector<testing::SimulatedRange>()>& more = nullptr) {
    const testing::WeakScene scene{
        [&] {
          prepare();
          std::vector<testing::SimulatedRange> ranges;
          if (more) ranges = more();
          ranges.push_back({s->arena->base(), s->arena->header().reserve});
          return ranges;
        },
        std::move(operations),
        [&](const std::string& run) {
          SCOPED_TRACE(what + ": " + run);
          check();
          return !HasFailure();
        }};
    const testing::WeakCounts counts = testing::weak_random(scene, seeds);
    RecordProperty(what + ".accesses", static_cast<int>(counts.accesses));
    RecordProperty(what + ".stale", static_cast<int>(counts.stale));
    EXPECT_EQ(counts.lost, 0U) << what;
    return counts;
  }

  std::unique_ptr<TestSession> s;
  std::unique_ptr<Member> first, second;
};

}  // namespace shoal::arena
