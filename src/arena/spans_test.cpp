// SPDX-License-Identifier: Apache-2.0
//
// Spans under concurrent operations of threads and members: freeing into them, adopting, sweeping
// and trimming them. Each operation is delayed at each of its accesses to shared words while
// another operation runs from its beginning to its end. Afterwards no block lies inside another
// block, and nothing is left allocated.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "arena/test_session.hpp"
#include "testing/delay.hpp"

namespace shoal::arena {
namespace {

// Runs `others` before access number `nth` of `operation`. False: it makes fewer accesses.
bool was_stopped(uint64_t nth, const std::function<void()>& operation,
                 const std::function<void()>& others) {
  return testing::delay_once(nth, operation, others) != testing::OtherThread::not_run;
}

constexpr size_t kCommon = 500;    // `me` has a span of this class
constexpr size_t kForeign = 3000;  // only the orphan has blocks of this class
constexpr int64_t kSecondNs = 1'000'000'000;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr unsigned kStep = 7;  // a run takes ten times as long
#else
constexpr unsigned kStep = 1;
#endif

struct Scene {
  Scene() : other(s.join()) {
    prime = s.me->allocate(kCommon);
    lent = s.me->allocate(kCommon);
    pass(*s.me, *other, lent);
    const auto gone = s.join();
    in_common = gone->allocate(kCommon);
    in_foreign = gone->allocate(kForeign);
    pass(*gone, *s.me, in_common);
    pass(*gone, *s.me, in_foreign);
  }  // `gone` leaves, and its two spans become orphans

  static void pass(Member& from, Member& to, Handle b) {
    EXPECT_TRUE(from.give_to_channel(b, 1, 1));
    EXPECT_TRUE(to.take_from_channel(b, 1, 1));
  }

  void free_in_orphans() {
    s.me->free(in_common);
    s.me->free(in_foreign);
  }
  void adopt() { take(*s.me, kForeign, &mine); }
  void adopt_by_other() {
    take(*other, kForeign, &others);
    take(*other, kCommon, &others);
  }
  void take(Member& member, size_t bytes, std::vector<Handle>* out) {
    const Handle b = member.allocate(bytes);
    const std::lock_guard<std::mutex> guard(lists);
    out->push_back(b);
  }

  // Allocates `count` blocks that must be new, and must lie in spans of the member.
  void expect_new(Member& member, size_t bytes, int count, std::vector<Handle>* out) {
    std::set<Handle> seen(mine.begin(), mine.end());
    seen.insert(others.begin(), others.end());
    for (int i = 0; i < count; ++i) {
      const Handle b = member.allocate(bytes);
      const Arena::Located at = s.arena->locate(b);
      ASSERT_EQ(shape_kind(at.shape), PageKind::span)
          << "block " << b << " lies inside another one";
      ASSERT_EQ(s.arena->page(at.first).owner.load(), owner_member(member.incarnation()))
          << "another member allocates in the span of block " << b;
      ASSERT_TRUE(seen.insert(b).second) << "block " << b << " was given out twice";
      std::memset(s.arena->address(b), 0xFF, bytes);
      out->push_back(b);
    }
  }

  // All blocks that the two members have, and all that they can allocate, are disjoint.
  void expect_sound() {
    std::vector<Handle> large;
    for (int i = 0; i < 6; ++i) {
      // Zero bytes look like the owner words of free blocks.
      large.push_back(s.me->allocate(kPage));
      std::memset(s.arena->address(large.back()), 0, kPage);
    }
    expect_new(*s.me, kCommon, 140, &mine);
    expect_new(*s.me, kForeign, 25, &mine);
    expect_new(*other, kCommon, 130, &others);
    expect_new(*other, kForeign, 25, &others);
    for (const Handle b : large) {
      const char* const bytes = s.arena->at<char>(b);
      for (size_t i = 0; i < kPage; ++i) ASSERT_EQ(bytes[i], 0) << "of block " << b;
      s.me->free(b);
    }
    s.arena->check();
  }

  void expect_nothing_left() {
    s.me->free(prime);
    for (const Handle b : mine) s.me->free(b);
    for (const Handle b : others) other->free(b);
    EXPECT_EQ(s.blocks(), 0U);
    other->purge(0);
    s.me->purge(0);
    const Statistics left = s.arena->statistics();
    EXPECT_EQ(left.spans, 0U);
    EXPECT_EQ(left.in_use, 0U);
    s.arena->check();
  }

  TestSession s;
  std::unique_ptr<Member> other;
  Handle prime = 0, lent = 0, in_common = 0, in_foreign = 0;
  std::mutex lists;  // two threads may adopt at the same time
  std::vector<Handle> mine, others;
};

struct Operation {
  const char* name;
  bool once;  // frees blocks, so it cannot run twice
  std::function<void(Scene&)> run;
};

const std::vector<Operation>& operations() {
  static const std::vector<Operation> all = {
      {"FreeInOrphans", true, [](Scene& scene) { scene.free_in_orphans(); }},
      {"RemoteFree", true, [](Scene& scene) { scene.other->free(scene.lent); }},
      {"Sweep", false, [](Scene& scene) { scene.s.me->purge(kSecondNs); }},
      {"PurgeAll", false, [](Scene& scene) { scene.s.me->purge(0); }},
      {"PurgeByOther", false, [](Scene& scene) { scene.other->purge(0); }},
      {"Adopt", false, [](Scene& scene) { scene.adopt(); }},
      {"AdoptByOther", false, [](Scene& scene) { scene.adopt_by_other(); }},
  };
  return all;
}

using Pair = std::pair<const Operation*, const Operation*>;

// All, except those that would free the same blocks twice.
std::vector<Pair> pairs() {
  std::vector<Pair> found;
  for (const Operation& first : operations())
    for (const Operation& second : operations())
      if (&first != &second || !first.once) found.emplace_back(&first, &second);
  return found;
}

class SpansUnderDelays : public ::testing::TestWithParam<Pair> {};

TEST_P(SpansUnderDelays, StayDisjoint) {
  const Operation& first = *GetParam().first;
  const Operation& second = *GetParam().second;
  bool stopped = true;
  for (unsigned nth = 1; stopped; nth += kStep) {
    SCOPED_TRACE(std::string(first.name) + " stopped before its access " + std::to_string(nth) +
                 ", while " + second.name + " runs");
    Scene scene;
    stopped = was_stopped(nth, [&] { first.run(scene); }, [&] { second.run(scene); });
    if (!first.once || std::strcmp(first.name, "RemoteFree") != 0) {
      if (std::strcmp(second.name, "RemoteFree") != 0) scene.other->free(scene.lent);
    }
    ASSERT_NO_FATAL_FAILURE(scene.expect_sound());
    if (std::strcmp(first.name, "FreeInOrphans") != 0 &&
        std::strcmp(second.name, "FreeInOrphans") != 0)
      scene.free_in_orphans();
    ASSERT_NO_FATAL_FAILURE(scene.expect_nothing_left());
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Pairs, SpansUnderDelays, ::testing::ValuesIn(pairs()),
                         [](const auto& pair) {
                           return std::string(pair.param.first->name) + "While" +
                                  pair.param.second->name;
                         });

// How many accesses to shared words an operation makes.
unsigned accesses_of(const std::function<void()>& operation) {
  static thread_local unsigned accesses;
  accesses = 0;
  os::access_hook = [](const void*) { ++accesses; };
  operation();
  os::access_hook = nullptr;
  return accesses;
}

TEST(Orphans, AreFoundWithoutALookAtEachPage) {
  TestSession s(uint64_t{1} << 30);
  std::vector<Handle> kept;
  for (int i = 0; i < 3000; ++i) kept.push_back(s.me->allocate(kPage));
  const auto gone = s.join();
  const Handle adopted = gone->allocate(kForeign);
  const Handle swept = gone->allocate(kCommon);
  Scene::pass(*gone, *s.me, adopted);
  Scene::pass(*gone, *s.me, swept);
  gone->leave();
  EXPECT_EQ(s.arena->statistics().orphan_spans, 2U);
  EXPECT_LE(accesses_of([&] { kept.push_back(s.me->allocate(kForeign)); }), 400U);
  EXPECT_EQ(s.arena->span_of(kept.back()), s.arena->span_of(adopted));
  s.me->free(swept);
  s.me->free(kept.front());
  const unsigned first = accesses_of([&] { s.me->purge(kSecondNs); });
  EXPECT_EQ(s.arena->statistics().orphan_spans, 0U);
  EXPECT_LE(first, 1500U);
  for (const Handle b : kept) s.me->free(b);
  s.me->free(adopted);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Orphans, AreSoughtOnceInAnEpoch) {
  TestSession s;
  const auto make_orphans = [&] {
    const auto gone = s.join();
    for (int i = 0; i < 100; ++i) Scene::pass(*gone, *s.me, gone->allocate(32'000));
  };
  make_orphans();
  EXPECT_GE(s.arena->statistics().orphan_spans, 14U);
  const auto take_span = [&] {  // more than a span's blocks of a class that no orphan has
    for (uint32_t i = 0; i <= kSizeClasses[class_for(kForeign)].count; ++i)
      (void)s.me->allocate(kForeign);
  };
  take_span();
  const unsigned later = accesses_of(take_span);
  make_orphans();
  EXPECT_GE(s.arena->statistics().orphan_spans, 28U);
  EXPECT_GT(accesses_of(take_span), later);
}

}  // namespace
}  // namespace shoal::arena
