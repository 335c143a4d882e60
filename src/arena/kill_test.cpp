// SPDX-License-Identifier: Apache-2.0
//
// A member is killed at every kill point of the arena, in a child process that runs every
// operation. Afterwards a survivor reaps, everything must be consistent, and nothing may be left
// over.
#include <gtest/gtest.h>

#include <cstring>

#include "arena/lock.hpp"
#include "arena/referrer_for_test.hpp"
#include "os/memory.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 200'000;
constexpr uint64_t kTestIntent = 1;
constexpr uint32_t kChannel = 7;
constexpr uint64_t kPosition = 42;

// What a ring's reap hook does with a block whose sender died before the block became visible.
void take_back(Arena& arena, Member&, Incarnation dead, Lane& lane) {
  const Handle b = lane.intent.load() & ~uint64_t{15};
  uint64_t expected = owner_channel(kChannel, kPosition);
  give_to_dead(arena, dead, b, expected);
}

// An end hook that runs out of memory once, if asked to.
bool out_of_memory = false;
void fail_once(Arena&, Member&, Handle) {
  if (out_of_memory) {
    out_of_memory = false;
    throw std::bad_alloc();
  }
}

// What the child finds: blocks of a survivor, and what a member that died earlier left behind.
struct Scene {
  explicit Scene(TestSession& session) : s(session) {
    mailed = s.me->allocate(100);
    EXPECT_TRUE(s.me->give_to_channel(mailed, kChannel, kPosition));
    shared = s.me->allocate(kLarge);
    s.me->make_counted(shared);
    used = s.me->allocate_shareable(64);
    s.me->share(used);
    make_orphans();
    make_dead();
  }

  // Two spans whose member has left: another member still owns a block in the first; the last block
  // of the second was freed afterwards.
  void make_orphans() {
    auto gone = s.join();
    survivor = gone->allocate(3000);
    const Handle freed = gone->allocate(1500);
    for (const Handle b : {survivor, freed}) {
      EXPECT_TRUE(gone->give_to_channel(b, kChannel, 1));
      EXPECT_TRUE(s.me->take_from_channel(b, kChannel, 1));
    }
    gone.reset();
    s.me->free(freed);
  }

  // A dead member that has one of everything; it also holds the lock.
  void make_dead() {
    const auto victim = s.join();
    dead = victim->incarnation();
    (void)victim->allocate(64);
    const Handle parent = victim->allocate(500);
    victim->give_to_block(victim->allocate(kLarge), parent);
    victim->give_to_block(victim->allocate(64), parent);
    kept = victim->allocate(128);
    EXPECT_TRUE(victim->give_to_channel(kept, kChannel, 2));
    EXPECT_TRUE(s.me->take_from_channel(kept, kChannel, 2));
    const Handle counted = victim->allocate(kLarge);
    victim->make_counted(counted);
    EXPECT_TRUE(victim->hold(shared));
    EXPECT_TRUE(victim->hold_shared(used));
    const Handle alone = victim->allocate_shareable(64);
    victim->share(alone);
    const Incarnation unborn = try_claim_slot(*s.arena, MemberKind::process, dead);
    os::close_fd(lock_birth(*s.arena, unborn));  // as when the fork has failed
    open_birth(*s.arena, unborn, true);
    victim->abandon_for_test();
    s.arena->header().lock.store(dead);
  }

  // Frees everything that the survivor holds; then nothing may be left.
  void clean() {
    reap_all_dead(*s.arena, *s.me);
    s.arena->check();
    uint64_t word = owner_channel(kChannel, kPosition);
    s.me->mark(mailed);
    if (s.arena->owner_word(mailed).compare_exchange(word, owner_member(s.me->incarnation())))
      s.me->free(mailed);
    s.me->free(survivor);
    s.me->free(kept);
    s.me->drop(shared);
    if (s.me->drop_shared(used)) s.me->free(used);
    s.arena->check();
  }

  TestSession& s;
  Handle mailed = 0, shared = 0, used = 0, survivor = 0, kept = 0;
  Incarnation dead = 0;
};

void move_around(Member& me) {
  const Handle parent = me.allocate(300);
  const Handle child = me.allocate(kLarge);
  me.give_to_block(child, parent);
  EXPECT_TRUE(me.take_from_block(child, parent));
  me.give_to_block(child, parent);
  EXPECT_TRUE(me.free_child(child, parent));
  {
    const LaneGuard lane(me);
    lane->intent.store(parent | kTestIntent);
    EXPECT_TRUE(me.give_to_channel(parent, kChannel, kPosition));
    EXPECT_TRUE(me.take_from_channel(parent, kChannel, kPosition));
    lane->intent.store(0);
  }
  me.free(parent);
}

void count_and_fork(Member& me, Handle shared) {
  EXPECT_TRUE(me.hold(shared));
  const Handle own = me.allocate(kLarge);
  me.make_counted(own);
  in_child([] { return 0; });  // this process dies here if the point is in a fork handler
  me.drop(own);                // the dead child of the fork still holds it
  me.drop(shared);
  const Handle alone = me.allocate(kLarge);
  me.make_counted(alone);
  EXPECT_TRUE(me.take_counted(alone));
  me.make_counted(alone);
  me.drop(alone);
  const Handle taken = me.allocate(kLarge);
  me.make_counted(taken);
  if (me.take_counted(taken)) me.free(taken);
}

void share_and_fork(Member& me, Handle used) {
  EXPECT_TRUE(me.hold_shared(used));
  const Handle own = me.allocate_shareable(64);
  me.share(own);
  end_block(me, make_referrer(me, used));
  const Handle first = make_referrer(me, own);
  const Handle second = make_referrer(me, own);
  end_block(me, first);
  in_child([] { return 0; });
  EXPECT_FALSE(me.drop_shared(own));
  end_block(me, second);  // ends `own` as well, unless the dead child of the fork still holds it
  EXPECT_FALSE(me.drop_shared(used));
  const Handle alone = me.allocate_shareable(64);
  me.share(alone);
  if (me.drop_shared(alone)) me.free(alone);
}

// A member that cannot mark its pages: its reaper looks at all of them.
void work_without_marks(Scene& scene) {
  scene.s.arena->marks_refused_for_test = true;
  const auto me = scene.s.join();
  me->free(me->allocate(kLarge));
  me->free(me->allocate(100));
  me->leave();
  scene.s.arena->marks_refused_for_test = false;
}

// Allocates so many blocks that the arena grows and spans are released.
void fill_and_empty(Member& me) {
  std::vector<Handle> blocks;
  for (int i = 0; i < 200; ++i) blocks.push_back(me.allocate(4000));
  blocks.push_back(me.allocate(70 << 20));
  for (const Handle b : blocks) me.free(b);
}

// Runs every operation of the arena. Runs in the child.
int do_everything(Scene& scene) {
  scene.s.join().reset();
  const auto me = join_at(scene.s, 40);  // a slot for which records need extensions
  EXPECT_EQ(me->set_root("test.root", 64), RootSet::done);
  EXPECT_EQ(me->set_root("test.root", 0, 64), RootSet::done);
  if (me->take_from_channel(scene.mailed, kChannel, kPosition)) me->free(scene.mailed);
  me->free(me->allocate(3000));
  move_around(*me);
  count_and_fork(*me, scene.shared);
  share_and_fork(*me, scene.used);
  fill_and_empty(*me);
  work_without_marks(scene);
  out_of_memory = true;
  EXPECT_THROW((void)reap(*scene.s.arena, *me, scene.dead), std::bad_alloc);
  EXPECT_TRUE(reap(*scene.s.arena, *me, scene.dead));
  me->purge(0);
  me->leave();
  return ::testing::Test::HasFailure() ? 1 : 0;
}

std::vector<std::string> arena_kill_points() {
  std::vector<std::string> names;
  for (const std::string& name : testing::kill_point_names())
    if (name.rfind("arena.", 0) == 0) names.push_back(name);
  return names;
}

// Kills the child at the nth pass of the point; false: the child passed it less often.
bool kill_once(const std::string& name, unsigned nth) {
  TestSession session;
  Scene scene(session);
  const int status = in_child([&] {
    testing::arm_kill_point(name.c_str(), nth);
    return do_everything(scene);
  });
  EXPECT_TRUE(killed(status) || succeeded(status)) << name << " " << nth << " status " << status;
  scene.clean();
  const Statistics left = session.arena->statistics();
  EXPECT_EQ(left.blocks(), 0U) << name << " " << nth;
  EXPECT_EQ(left.members, 1U) << name << " " << nth;
  session.me->purge(0);
  EXPECT_EQ(session.arena->statistics().orphan_spans, 0U) << name << " " << nth;
  fill_and_empty(*session.me);
  session.arena->check();
  return killed(status);
}

class KillPoint : public ::testing::TestWithParam<std::string> {};

TEST_P(KillPoint, SurvivorsRepairEverything) {
  register_reap_hook(kTestIntent, take_back);
  register_end_hook(fail_once);
  register_end_hook(&end_referrer);
  EXPECT_TRUE(kill_once(GetParam(), 1)) << "no operation passes this point";
  for (unsigned nth = 2; nth <= 5; ++nth)
    if (!kill_once(GetParam(), nth)) return;
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (c == '.') c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Arena, KillPoint, ::testing::ValuesIn(arena_kill_points()), test_name);

TEST(KillPointNames, AreFoundInTheProgram) { EXPECT_GT(arena_kill_points().size(), 25U); }

}  // namespace
}  // namespace shoal::arena
