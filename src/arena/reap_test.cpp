// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <set>
#include <string>
#include <thread>

#include "arena/slots.hpp"
#include "arena/test_session.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 100'000;

TEST(Members, HaveNewIncarnations) {
  TestSession s;
  std::set<Incarnation> seen{s.me->incarnation()};
  Incarnation last = s.me->incarnation();
  for (int i = 0; i < 2000; ++i) {
    const auto m = s.join();
    ASSERT_TRUE(seen.insert(m->incarnation()).second);
    ASSERT_TRUE(member_alive(*s.arena, m->incarnation()));
    ASSERT_FALSE(member_alive(*s.arena, last == s.me->incarnation() ? 0 : last));
    last = m->incarnation();
  }
  EXPECT_EQ(s.arena->statistics().members, 1U);
}

std::string message_of_a_join(TestSession& s) {
  try {
    (void)s.join();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

TEST(Members, BeyondTheTableAreRefused) {
  TestSession s;
  std::vector<std::unique_ptr<Member>> all;
  for (unsigned i = 1; i < kMemberSlots; ++i) all.push_back(s.join());
  EXPECT_THROW((void)s.join(), TooManyMembers);
  EXPECT_NE(message_of_a_join(s).find("at most 4096 at a time"), std::string::npos);
  all.pop_back();
  EXPECT_NO_THROW(all.push_back(s.join()));
}

TEST(Members, WithoutMemoryForTheirRecordAreToldSo) {
  TestSession s;
  const int number = s.arena->fd();
  const int spare = dup(number);
  // The same file, but no memory can be reserved through this descriptor.
  const int read_only = open(("/proc/self/fd/" + std::to_string(number)).c_str(), O_RDONLY);
  ASSERT_EQ(dup2(read_only, number), number);
  EXPECT_THROW((void)s.join(), MemoryExhausted);
  ASSERT_EQ(dup2(spare, number), number);
  EXPECT_NO_THROW((void)s.join());
  close(read_only);
  close(spare);
}

// With no descriptor left a process cannot read its own start time.
TEST(Members, AreAliveAlthoughTheirStartTimeIsNotKnown) {
  TestSession s;
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const Incarnation born = try_claim_slot(*s.arena, MemberKind::process, 0);
  const auto live = s.join();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(member_alive(*s.arena, born));
  EXPECT_TRUE(member_alive(*s.arena, live->incarnation()));
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 0);
  EXPECT_TRUE(enliven_slot(*s.arena, born, getpid(), 0));
  EXPECT_TRUE(advance_slot(*s.arena, born, SlotState::dead));
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 1);
}

TEST(Members, AreToldWhenTheSessionHasNoNumbersLeft) {
  TestSession s;
  s.arena->header().slots_used.store(kMemberSlots);
  const auto last = [](uint32_t index) { return incarnation_of(index, (1U << kLifeBits) - 1); };
  for (uint32_t i = 0; i < kMemberSlots; ++i) {
    if (i != s.me->slot()) s.arena->slot(i).state.store(make_slot(SlotState::free, last(i), 0, 0));
  }
  const std::string message = message_of_a_join(s);
  EXPECT_NE(message.find("member numbers"), std::string::npos) << message;
}

// Each slot has 2^30 lives, and a join uses one number of one slot.
TEST(Members, UseOneNumberForEachJoinHoweverManyThereAre) {
  TestSession s;
  std::vector<std::unique_ptr<Member>> all;
  for (int i = 0; i < 30; ++i) all.push_back(s.join());
  all.pop_back();
  const Incarnation before = s.join()->incarnation();
  EXPECT_EQ(s.join()->incarnation(), before + kMemberSlots);
  for (int i = 0; i < 20; ++i) (void)s.join();
  EXPECT_EQ(s.join()->incarnation(), before + 22 * kMemberSlots);
  const Incarnation other = all.front()->incarnation();
  all.erase(all.begin());
  EXPECT_EQ(s.join()->incarnation(), other + kMemberSlots);
}

TEST(Members, ThatHaveLeftCanDoNothing) {
  TestSession s;
  const auto m = s.join();
  const Handle b = m->allocate(100);
  m->leave();
  m->leave();
  EXPECT_THROW((void)m->allocate(1), NotAMember);
  m->free(b);
  m->drop(b);
  EXPECT_FALSE(m->hold(b));
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Members, LanesAreClaimedOneEach) {
  TestSession s;
  {
    const LaneGuard a(*s.me);
    const LaneGuard b(*s.me);
    EXPECT_NE(&*a, &*b);
    a->held[0].store(1);
  }
  Lane* lanes[kLanes];
  for (Lane*& lane : lanes) lane = &s.me->claim_lane();
  for (Lane* lane : lanes) s.me->return_lane(*lane);
}

TEST(Reap, OfALiveMemberDoesNothing) {
  TestSession s;
  const auto other = s.join();
  const Handle b = other->allocate(100);
  EXPECT_FALSE(reap(*s.arena, *s.me, other->incarnation()));
  EXPECT_FALSE(reap(*s.arena, *s.me, s.me->incarnation()));
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 0);
  EXPECT_EQ(s.arena->owner_word(b).load(), owner_member(other->incarnation()));
}

TEST(Reap, GivesBackBlocksChildrenAndGrandchildren) {
  TestSession s;
  const auto victim = s.join();
  const Handle parent = victim->allocate(100);
  const Handle child = victim->allocate(kLarge);
  const Handle grandchild = victim->allocate(300);
  victim->give_to_block(grandchild, child);
  victim->give_to_block(child, parent);
  (void)victim->allocate(1 << 20);
  const Handle mine = s.me->allocate(64);
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  EXPECT_FALSE(member_alive(*s.arena, dead));
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));  // already reaped
  EXPECT_EQ(s.blocks(), 1U);
  EXPECT_EQ(s.arena->statistics().deaths, 1U);
  s.me->free(mine);
  s.arena->check();
}

TEST(Reap, LeavesWhatTheDeadOneHadGivenAway) {
  TestSession s;
  auto victim = s.join();
  const Handle sent = victim->allocate(500);
  ASSERT_TRUE(victim->give_to_channel(sent, 3, 9));
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  s.arena->check();
  EXPECT_EQ(s.arena->statistics().orphan_spans, 1U);
  ASSERT_TRUE(s.me->take_from_channel(sent, 3, 9));
  s.me->free(sent);
  s.me->purge(0);
  EXPECT_EQ(s.arena->statistics().orphan_spans, 0U);
}

TEST(Reap, OrphanedSpansAreAdopted) {
  TestSession s;
  Handle kept = 0;
  for (int i = 0; i < 20; ++i) {
    const auto victim = s.join();
    for (int n = 0; n < 100; ++n) (void)victim->allocate(500);
    kept = victim->allocate(500);
    ASSERT_TRUE(victim->give_to_channel(kept, 1, 1));
    ASSERT_TRUE(s.me->take_from_channel(kept, 1, 1));
    victim->abandon_for_test();
    reap_all_dead(*s.arena, *s.me);
  }
  EXPECT_LE(s.arena->statistics().spans, 3U);
  s.arena->check();
}

TEST(Reap, OfAProcessThatWasKilled) {
  TestSession s;
  const int status = in_child([&] {
    const auto me = s.join();
    (void)me->allocate(100);
    (void)me->allocate(kLarge);
    kill(getpid(), SIGKILL);
    return 0;
  });
  ASSERT_TRUE(killed(status));
  EXPECT_EQ(s.blocks(), 2U);
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 1);
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

TEST(Reap, SeesAZombieAsDead) {
  TestSession s;
  const pid_t child = fork();
  if (child == 0) {
    const auto me = s.join();
    (void)me->allocate(100);
    kill(getpid(), SIGKILL);
  }
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 1);
  EXPECT_EQ(s.blocks(), 0U);
  waitpid(child, nullptr, 0);
}

TEST(Reap, OfAProcessThatExecdAnotherProgram) {
  TestSession s;
  const pid_t child = fork();
  if (child == 0) {
    const auto me = s.join();
    (void)me->allocate(100);
    execl("/bin/sleep", "sleep", "60", nullptr);
    _exit(1);
  }
  while (reap_all_dead(*s.arena, *s.me) == 0) usleep(1000);
  EXPECT_EQ(kill(child, 0), 0);
  EXPECT_EQ(s.blocks(), 0U);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(Reap, ByManyAtOnceIsDoneOnce) {
  for (int round = 0; round < 20; ++round) {
    TestSession s;
    const auto victim = s.join();
    for (int i = 0; i < 500; ++i) (void)victim->allocate(i % 50 == 0 ? kLarge : 200);
    const Incarnation dead = victim->incarnation();
    victim->abandon_for_test();
    os::Atomic<uint32_t> done;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        const auto me = s.join();
        while (!reap(*s.arena, *me, dead)) std::this_thread::yield();
        done.fetch_add(1);
      });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(done.load(), 4U);
    EXPECT_EQ(s.blocks(), 0U);
    s.arena->check();
  }
}

TEST(Reap, CallsTheHooksOfUpperLayersForEachLane) {
  static std::vector<uint64_t> seen;
  seen.clear();
  register_reap_hook(
      5, [](Arena&, Member&, Incarnation, Lane& lane) { seen.push_back(lane.intent.load()); });
  register_reap_hook(
      0, [](Arena&, Member&, Incarnation, Lane& lane) { seen.push_back(lane.held[2].load()); });
  TestSession s;
  const auto victim = s.join();
  const LaneGuard a(*victim);
  const LaneGuard b(*victim);
  a->intent.store(640 | 5);
  b->held[2].store(77);
  victim->abandon_for_test();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(seen, (std::vector<uint64_t>{640 | 5, 0, 77}));
  register_reap_hook(5, nullptr);
  register_reap_hook(0, nullptr);
}

TEST(Reap, TakesOverFromAReaperThatDied) {
  TestSession s;
  const auto victim = s.join();
  const auto reaper = s.join();
  for (int i = 0; i < 10; ++i) (void)victim->allocate(100);
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  s.arena->slot(slot_of(dead)).reaper.store(life_of_slot(dead) << 34 | reaper->incarnation());
  EXPECT_FALSE(reap(*s.arena, *s.me, dead));  // a live member is reaping it
  reaper->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Reap, ThatRunsOutOfMemoryIsDoneByTheNextWhoTries) {
  static int failures;
  register_reap_hook(5, [](Arena&, Member&, Incarnation, Lane&) {
    if (failures-- > 0) throw std::bad_alloc();
  });
  TestSession s;
  const auto first = s.join();
  const auto victim = s.join();
  for (int i = 0; i < 10; ++i) (void)victim->allocate(i % 2 == 0 ? kLarge : 100);
  const LaneGuard lane(*victim);
  lane->intent.store(5);
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  failures = 1;
  EXPECT_THROW((void)reap(*s.arena, *first, dead), std::bad_alloc);
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));  // although the first reaper is alive
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
  register_reap_hook(5, nullptr);
}

int end_failures = 0;
void fail_at_an_end(Arena&, Member&, Handle) {
  if (end_failures-- > 0) throw std::bad_alloc();
}

TEST(Reap, ThatRunsOutOfMemoryHalfWayClaimsNothing) {
  register_end_hook(fail_at_an_end);
  TestSession s;
  const auto victim = s.join();
  const Handle parent = victim->allocate(100);
  victim->give_to_block(victim->allocate(kLarge), parent);
  victim->make_counted(victim->allocate(kLarge));
  victim->share(victim->allocate_shareable(64));
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  end_failures = 2;
  EXPECT_THROW((void)reap(*s.arena, *s.me, dead), std::bad_alloc);
  EXPECT_THROW((void)reap(*s.arena, *s.me, dead), std::bad_alloc);
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

TEST(Reap, OfItselfThatRunsOutOfMemoryIsLeftToAnother) {
  register_end_hook(fail_at_an_end);
  TestSession s;
  const auto leaver = s.join();
  (void)leaver->allocate(100);
  (void)leaver->allocate(kLarge);
  end_failures = 1;
  leaver->leave();
  EXPECT_EQ(s.blocks(), 2U);
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 1);
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

TEST(Reap, FindsAJoinerThatDiedBeforeItWasAMember) {
  TestSession s;
  in_child([&] {
    (void)claim_slot(*s.arena, MemberKind::process, 0);
    return 0;
  });
  EXPECT_EQ(s.arena->statistics().members, 2U);
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 1);
  EXPECT_EQ(s.arena->statistics().members, 1U);
}

// Runs `body` in a new pid namespace with its own /proc, as in a container.
int in_container(const std::function<int()>& body) {
  return in_child([&] {
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) return 77;
    return WEXITSTATUS(in_child([&] {
      if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          mount("proc", "/proc", "proc", 0, nullptr) != 0)
        return 77;
      return body();
    }));
  });
}

TEST(PidNamespace, OfTheSessionIsThatOfItsMembers) {
  TestSession s;
  const auto other = s.join();
  const Handle b = other->allocate(100);
  const int status = in_container([&] {
    try {
      const auto guest = Member::join(Arena::attach(s.arena->fd()), MemberKind::guest);
      return reap_all_dead(guest->arena(), *guest) == 0 ? 1 : 2;
    } catch (const NotAMember& error) {
      return std::string(error.what()).find("pid namespace") != std::string::npos ? 0 : 3;
    }
  });
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no namespaces can be made here";
  EXPECT_TRUE(succeeded(status)) << WEXITSTATUS(status);
  EXPECT_EQ(s.arena->owner_word(b).load(), owner_member(other->incarnation()));
  EXPECT_EQ(s.arena->statistics().members, 2U);
  s.arena->check();
}

TEST(PidNamespace, OfAForkedChildMayBeAnotherWhileItUsesWhatItInherited) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
  data[0].store(5);
  s.me->make_counted(b);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t between = fork();
  if (between == 0) {
    if (s.me->incarnation() == 0) s.me->rejoin();
    if (unshare(CLONE_NEWPID) != 0) _exit(77);
    const pid_t child = fork();
    if (child == 0) {
      char c;
      const bool go = read(ends[0], &c, 1) == 1;
      const bool member = s.me->incarnation() != 0;
      bool refused = false;
      try {
        s.me->rejoin();
      } catch (const NotAMember&) {
        refused = true;
      }
      _exit(!go ? 1 : member ? 2 : !refused ? 3 : data[0].load() == 5 ? 0 : 4);
    }
    int status = 0;
    waitpid(child, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 5);
  }
  while (s.arena->statistics().members < 3 && waitpid(between, nullptr, WNOHANG) == 0)
    std::this_thread::yield();
  s.me->drop(b);
  reap_all_dead(*s.arena, *s.me);
  const Handle next = s.me->allocate(kLarge);  // must not be the pages of b
  s.arena->at<os::Atomic<uint32_t>>(next)[0].store(6);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  int status = 0;
  waitpid(between, &status, 0);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no namespaces can be made here";
  EXPECT_TRUE(succeeded(status)) << WEXITSTATUS(status);
  s.me->free(next);
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
  EXPECT_EQ(s.arena->statistics().members, 1U);
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace shoal::arena
