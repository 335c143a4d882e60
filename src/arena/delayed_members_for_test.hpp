// SPDX-License-Identifier: Apache-2.0
//
// DelayedMembers: the fixture of each layer's every_access_test.cpp. A session with two members
// beside the root: `first` runs the operation that is stopped, `second` runs the others.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "arena/test_session.hpp"
#include "testing/delay.hpp"

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

  std::unique_ptr<TestSession> s;
  std::unique_ptr<Member> first, second;
};

}  // namespace shoal::arena
