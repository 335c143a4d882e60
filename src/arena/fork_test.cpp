// SPDX-License-Identifier: Apache-2.0
//
// What a fork does with a member and its blocks: the child sees what the parent saw at that
// instant, as in any other memory, whatever either of them writes or drops later, and even if the
// other dies.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <fstream>
#include <string>
#include <thread>

#include "arena/referrer_for_test.hpp"
#include "os/memory.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 200'000;
constexpr size_t kWords = kLarge / sizeof(uint32_t);
const size_t kSmallPage = os::page_size() / sizeof(uint32_t);  // in words

// A byte that one process waits for and another sends; end of file counts as sent.
class Signal {
 public:
  Signal() { EXPECT_EQ(pipe(ends_), 0); }
  ~Signal() {
    close(ends_[0]);
    close(ends_[1]);
  }
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  void send() const { EXPECT_EQ(write(ends_[1], "x", 1), 1); }
  void wait() const {
    char c;
    while (read(ends_[0], &c, 1) < 0 && errno == EINTR) continue;
  }

 private:
  int ends_[2];
};

pid_t start_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  return child;
}

int status_of(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

// A fork handler that runs before the arena's, as it is registered earlier: a test can stop a child
// at its first instruction.
const Signal* hold_up = nullptr;
[[maybe_unused]] const int early = pthread_atfork(nullptr, nullptr, [] {
  if (hold_up != nullptr) hold_up->wait();
});

struct Block {
  explicit Block(const TestSession& session, size_t bytes = kLarge)
      : handle(session.me->allocate(bytes)),
        words(session.arena->at<os::Atomic<uint32_t>>(handle)) {
    for (size_t i = 0; i < bytes / sizeof(uint32_t); ++i) words[i].store(1);
    session.me->make_counted(handle);
  }
  Handle handle;
  os::Atomic<uint32_t>* words;
};

size_t mappings_of_arenas() {
  std::ifstream maps("/proc/self/maps");
  size_t count = 0;
  for (std::string line; std::getline(maps, line);)
    if (line.find("memfd:shoal") != std::string::npos) ++count;
  return count;
}

// ---- The snapshot ----

TEST(Fork, ChildDoesNotSeeWhatTheParentWritesLater) {
  TestSession s;
  const Block b(s);
  const Signal written;
  const pid_t child = start_child([&] {
    b.words[0].store(2);
    written.wait();
    const bool own = b.words[0].load() == 2;
    const bool untouched = b.words[1].load() == 1;  // on the page that the child has written to
    const bool other_page = b.words[kSmallPage].load() == 1;
    return own && untouched && other_page && b.words[kWords - 1].load() == 1 ? 0 : 1;
  });
  for (size_t i = 0; i < kWords; ++i) b.words[i].store(3);
  written.send();
  EXPECT_TRUE(succeeded(status_of(child)));
  for (size_t i = 0; i < kWords; ++i) ASSERT_EQ(b.words[i].load(), 3U);
}

TEST(Fork, ParentDoesNotSeeWhatTheChildWrites) {
  TestSession s;
  const Block b(s);
  const int status = in_child([&] {
    for (size_t i = 0; i < kWords; ++i) b.words[i].store(2);
    return 0;
  });
  EXPECT_TRUE(succeeded(status));
  for (size_t i = 0; i < kWords; ++i) ASSERT_EQ(b.words[i].load(), 1U);
}

TEST(Fork, EachGenerationSeesWhatItsParentSawAtItsFork) {
  TestSession s;
  const Block b(s);
  const Signal grandparent_wrote;
  const pid_t child = start_child([&] {
    b.words[0].store(2);
    const Signal parent_wrote;
    const pid_t grandchild = start_child([&] {
      b.words[1].store(3);
      parent_wrote.wait();
      return b.words[0].load() == 2 && b.words[1].load() == 3 && b.words[kSmallPage].load() == 1 &&
                     b.words[2 * kSmallPage].load() == 1
                 ? 0
                 : 1;
    });
    grandparent_wrote.wait();
    b.words[0].store(4);
    b.words[kSmallPage].store(4);
    parent_wrote.send();
    const bool good = succeeded(status_of(grandchild));
    return good && b.words[1].load() == 1 && b.words[2 * kSmallPage].load() == 1 ? 0 : 1;
  });
  b.words[0].store(9);
  b.words[kSmallPage].store(9);
  b.words[2 * kSmallPage].store(9);
  grandparent_wrote.send();
  EXPECT_TRUE(succeeded(status_of(child)));
  EXPECT_EQ(b.words[1].load(), 1U);
}

TEST(Fork, SecondChildSeesWhatTheParentWroteSinceTheFirst) {
  TestSession s;
  const Block b(s);
  const Signal written;
  const pid_t first = start_child([&] {
    written.wait();
    return b.words[5].load() == 1 ? 0 : 1;
  });
  b.words[5].store(2);
  const Block later(s);
  const pid_t second = start_child([&] {
    written.wait();
    return b.words[5].load() == 2 && later.words[5].load() == 1 ? 0 : 1;
  });
  b.words[5].store(3);
  later.words[5].store(3);
  written.send();
  written.send();
  EXPECT_TRUE(succeeded(status_of(first)));
  EXPECT_TRUE(succeeded(status_of(second)));
}

// One thread counts in two blocks, first in one, then in the other. At whatever point the fork
// happens, the child has both counts as of one instant, and the parent loses no count.
TEST(Fork, IsOneInstantForThreadsThatWriteMeanwhile) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "it takes a mapping that is replaced for memory that is written";
#endif
  TestSession s;
  const Block a(s);
  const Block b(s);
  os::Atomic<uint32_t> stop;
  uint32_t count = 1;
  std::thread writer([&] {
    while (stop.load() == 0) {
      ++count;
      a.words[0].store(count);
      b.words[kSmallPage].store(count);
    }
  });
  for (int i = 0; i < 30; ++i) {
    const Block fresh(s);  // one more view for this fork to make private
    const int status = in_child([&] {
      const uint32_t first = a.words[0].load();
      const uint32_t second = b.words[kSmallPage].load();
      return first == second || first == second + 1 ? 0 : 1;
    });
    EXPECT_TRUE(succeeded(status)) << status;
    s.me->drop(fresh.handle);
    reap_all_dead(*s.arena, *s.me);
  }
  stop.store(1);
  writer.join();
  EXPECT_EQ(a.words[0].load(), count);
  EXPECT_EQ(b.words[kSmallPage].load(), count);
}

// ---- Taking, dropping, recycling ----

TEST(Fork, WhatWasPrivateIsNeverHandedOnWithoutACopy) {
  TestSession s;
  const Block b(s);
  EXPECT_TRUE(succeeded(in_child([&] { return s.me->take_counted(b.handle) ? 1 : 0; })));
  reap_all_dead(*s.arena, *s.me);
  EXPECT_FALSE(s.me->take_counted(b.handle));  // although no other member holds it any more
  s.me->drop(b.handle);
  const Block next(s);
  EXPECT_TRUE(s.me->take_counted(next.handle));
  s.me->free(next.handle);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Fork, WhatTheParentDropsIsNotRecycledUnderTheChild) {
  TestSession s;
  const Block b(s);
  const Signal recycled;
  const pid_t child = start_child([&] {
    b.words[0].store(2);
    recycled.wait();
    bool good = b.words[0].load() == 2;
    for (size_t i = 1; i < kWords; ++i) good &= b.words[i].load() == 1;
    s.me->drop(b.handle);
    return good ? 0 : 1;
  });
  s.me->drop(b.handle);
  EXPECT_EQ(s.blocks(), 1U);  // the child holds it
  std::vector<Handle> mine;
  for (int i = 0; i < 20; ++i) {
    mine.push_back(s.me->allocate(kLarge));
    EXPECT_NE(mine.back(), b.handle);
    for (size_t w = 0; w < kWords; ++w) s.arena->at<uint32_t>(mine.back())[w] = 7;
  }
  s.me->purge(0);
  recycled.send();
  EXPECT_TRUE(succeeded(status_of(child)));
  for (const Handle m : mine) s.me->free(m);
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

TEST(Fork, NextUseOfADroppedBlockIsSeenByEverybody) {
  TestSession s;
  const Block b(s);
  const Signal dropped;
  const Signal used;
  const pid_t child = start_child([&] {
    b.words[0].store(5);
    s.me->drop(b.handle);
    dropped.send();
    used.wait();
    return b.words[0].load() == 6 ? 0 : 1;  // the parent's next use of these pages
  });
  b.words[0].store(4);
  dropped.wait();
  s.me->drop(b.handle);
  const Handle next = s.me->allocate(kLarge);
  ASSERT_EQ(next, b.handle);
  b.words[0].store(6);
  used.send();
  EXPECT_TRUE(succeeded(status_of(child)));
}

// Without the arena's descriptor the shared view cannot be restored, so the block stays held until
// a later drop restores it.
TEST(Fork, BlockIsKeptUntilItsSharedViewIsBack) {
  TestSession s;
  const Block first(s);
  const Block second(s);
  EXPECT_TRUE(succeeded(in_child([] { return 0; })));
  reap_all_dead(*s.arena, *s.me);
  const int number = s.arena->fd();
  const int spare = dup(number);
  close(number);
  s.me->drop(first.handle);
  EXPECT_EQ(s.blocks(), 2U);
  ASSERT_EQ(dup2(spare, number), number);
  close(spare);
  s.me->drop(second.handle);
  EXPECT_EQ(s.blocks(), 0U);
}

// ---- Deaths ----

TEST(Fork, SnapshotOutlivesAParentThatIsKilledAtOnce) {
  TestSession s;
  const Signal go;
  const Signal ended;
  int result[2];
  ASSERT_EQ(pipe(result), 0);
  const pid_t parent = start_child([&] {
    s.me->rejoin();
    const Block b(s);
    b.words[3].store(2);
    hold_up = &go;
    const pid_t child = fork();
    if (child == 0) {
      bool good = s.me->incarnation() != 0 && b.words[3].load() == 2;
      for (size_t i = 4; i < kWords; ++i) good &= b.words[i].load() == 1;
      _exit(write(result[1], good ? "1" : "0", 1) == 1 ? 0 : 1);
    }
    kill(getpid(), SIGKILL);
    return 1;
  });
  EXPECT_TRUE(killed(status_of(parent)));
  // The child has not run an instruction of the arena: only its birth lock shows that it lives.
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 1U);
  std::vector<Handle> mine;
  for (int i = 0; i < 10; ++i) {
    mine.push_back(s.me->allocate(kLarge));
    for (size_t w = 0; w < kWords; ++w) s.arena->at<uint32_t>(mine.back())[w] = 7;
  }
  go.send();
  char good = '?';
  EXPECT_EQ(read(result[0], &good, 1), 1);
  EXPECT_EQ(good, '1');
  for (const Handle m : mine) s.me->free(m);
  close(result[0]);
  close(result[1]);
  while (s.arena->statistics().members > 1) {  // its parent is dead: waitpid() cannot wait for it
    reap_all_dead(*s.arena, *s.me);
    std::this_thread::yield();
  }
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

TEST(Fork, ChildStoppedBeforeItsFirstInstructionIsWaitedForAnyTime) {
  TestSession s;
  const Block b(s);
  const Signal go;
  hold_up = &go;
  const pid_t child =
      start_child([&] { return s.me->incarnation() != 0 && b.words[0].load() == 1 ? 0 : 1; });
  hold_up = nullptr;
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 0);
  b.words[0].store(2);
  go.send();
  EXPECT_TRUE(succeeded(status_of(child)));
}

TEST(Fork, ChildKilledBeforeItsFirstInstructionLeavesNothing) {
  TestSession s;
  const Block b(s);
  const Signal go;
  hold_up = &go;
  const pid_t child = start_child([] { return 0; });
  hold_up = nullptr;
  kill(child, SIGKILL);
  EXPECT_TRUE(killed(status_of(child)));
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 1);
  s.me->drop(b.handle);
  EXPECT_EQ(s.blocks(), 0U);
  EXPECT_EQ(s.arena->statistics().members, 1U);
}

// Without /proc or a free descriptor there is no birth lock, and elapsed time decides.
TEST(Fork, ChildWithoutABirthLockIsReapedWhenItIsLate) {
  TestSession s;
  const Incarnation child = try_claim_slot(*s.arena, MemberKind::process, s.me->incarnation());
  open_birth(*s.arena, child, false);
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 0);
  s.arena->slot(slot_of(child)).birth.store(kBirthLocked + 1);
  EXPECT_EQ(reap_all_dead(*s.arena, *s.me), 1);
  EXPECT_FALSE(enliven_slot(*s.arena, child, getpid(), 1));
}

TEST(Fork, ThatFailsChangesNothingForTheParent) {
  TestSession s;
  const int status = in_child([&] {
    s.me->rejoin();
    const Block b(s);
    rlimit none{0, 0};
    if (setrlimit(RLIMIT_NPROC, &none) != 0) return 1;
    if (getuid() == 0 && setuid(65534) != 0) return 0;  // root is not limited
    const pid_t child = fork();
    if (child == 0) _exit(0);
    if (child > 0) return succeeded(status_of(child)) ? 0 : 2;  // a kernel without this limit
    b.words[0].store(2);
    if (b.words[0].load() != 2 || b.words[kSmallPage].load() != 1) return 3;
    s.me->drop(b.handle);
    const Block next(s);
    next.words[0].store(5);
    return next.words[0].load() == 5 ? 0 : 4;
  });
  EXPECT_TRUE(succeeded(status)) << status;
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
  EXPECT_EQ(s.arena->statistics().members, 1U);
}

// Forks until `count` forks have failed; false: forks cannot be made to fail on this system.
bool fail_to_fork(int count) {
  rlimit none{0, 0};
  if (setrlimit(RLIMIT_NPROC, &none) != 0) return false;
  if (getuid() == 0 && setuid(65534) != 0) return false;  // root is not limited
  for (int i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    if (child > 0) return status_of(child), false;  // a kernel without this limit
  }
  return true;
}

void use_up_descriptors() {
  while (dup(0) >= 0) continue;
}

TEST(Fork, ThatFailsLeavesNothingBehind) {
  for (const bool descriptors_left : {true, false}) {
    TestSession s;
    const Handle shared = s.me->allocate_shareable(64);
    s.me->share(shared);
    const int status = in_child([&] {
      s.me->rejoin();
      if (!s.me->hold_shared(shared)) return 1;
      const std::vector<uint32_t> holders = holders_of(*s.arena, shared);
      const uint64_t members = s.arena->statistics().members;
      if (!descriptors_left) use_up_descriptors();
      if (!fail_to_fork(600)) return 0;
      if (s.arena->statistics().members != members) return 2;
      return holders_of(*s.arena, shared) == holders ? 0 : 3;
    });
    EXPECT_TRUE(succeeded(status)) << status << " descriptors left: " << descriptors_left;
    reap_all_dead(*s.arena, *s.me);
    EXPECT_TRUE(s.me->drop_shared(shared));
    s.me->free(shared);
  }
}

// ---- What cannot be mapped ----

TEST(Fork, NeighboursAreTurnedTogether) {
  TestSession s;
  std::vector<Block> blocks;
  for (int i = 0; i < 200; ++i) blocks.emplace_back(s, kPage);
  const size_t before = mappings_of_arenas();
  EXPECT_TRUE(succeeded(in_child([] { return 0; })));
  EXPECT_LE(mappings_of_arenas(), before + 4);
  EXPECT_EQ(s.me->private_views_for_test(), 200U);
  for (size_t i = 0; i < blocks.size(); i += 2) s.me->drop(blocks[i].handle);
  EXPECT_LE(mappings_of_arenas(), before + 202);
  for (size_t i = 1; i < blocks.size(); i += 2) s.me->drop(blocks[i].handle);
  EXPECT_LE(mappings_of_arenas(), before + 2);
}

TEST(Fork, IsASnapshotWithoutTheArenasDescriptor) {
  TestSession s;
  const Block b(s);
  const int number = s.arena->fd();
  const int spare = dup(number);
  close(number);
  const Signal written;
  const pid_t child = start_child([&] {
    b.words[1].store(2);
    written.wait();
    const bool good = b.words[0].load() == 1 && b.words[1].load() == 2;
    return good && b.words[kSmallPage].load() == 1 && s.me->unseen().blocks == 0 ? 0 : 1;
  });
  for (size_t i = 0; i < kWords; ++i) b.words[i].store(3);
  written.send();
  EXPECT_TRUE(succeeded(status_of(child)));
  EXPECT_EQ(b.words[1].load(), 3U);
  ASSERT_EQ(dup2(spare, number), number);
  close(spare);
}

// Where no memory file can be made, the arena is a segment, which has no private views.
TEST(Fork, IsASnapshotOfASegmentToo) {
  const int status = in_child([] {
    const rlimit none{0, 0};
    if (setrlimit(RLIMIT_FSIZE, &none) != 0) return 1;
    const TestSession s(uint64_t{64} << 20);
    const Block b(s);
    const Signal written;
    const pid_t child = start_child([&] {
      b.words[1].store(2);
      written.wait();
      const bool good = b.words[0].load() == 1 && b.words[1].load() == 2;
      return good && b.words[kSmallPage].load() == 1 && s.me->unseen().blocks == 0 ? 0 : 1;
    });
    for (size_t i = 0; i < kWords; ++i) b.words[i].store(3);
    written.send();
    return succeeded(status_of(child)) && b.words[1].load() == 3 ? 0 : 2;
  });
  EXPECT_TRUE(succeeded(status)) << status;
}

TEST(Fork, WhatCannotBeMadePrivateIsHiddenFromTheChild) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need the memory that this test forbids";
#endif
  TestSession s;
  const Block b(s);
  const int status = in_child([&] {
    const rlimit little{1 << 12, RLIM_INFINITY};
    const Block own(s);
    if (setrlimit(RLIMIT_DATA, &little) != 0) return 1;
    const int child = in_child([&] {
      if (s.me->unseen().blocks != 1 || s.me->unseen().exposed) _exit(2);
      if (b.words[0].load() != 1) _exit(3);          // its view was private already
      return static_cast<int>(own.words[0].load());  // must fault
    });
    own.words[0].store(2);
    return WIFSIGNALED(child) && WTERMSIG(child) == SIGSEGV && own.words[0].load() == 2 ? 0 : 4;
  });
  EXPECT_TRUE(succeeded(status)) << status;
  reap_all_dead(*s.arena, *s.me);
  s.me->drop(b.handle);
  EXPECT_EQ(s.blocks(), 0U);
}

// With no mapping left the blocks cannot even be made to fault: the child is told that it must not
// go on.
TEST(Fork, ChildIsToldWhenItSeesWhatItsParentWrites) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need mappings";
#endif
  TestSession s;
  const int status = in_child([&] {
    s.me->rejoin();
    const Block b(s);
    const size_t pages = os::most_mappings() + 10;
    auto* area = static_cast<char*>(mmap(nullptr, pages * os::page_size(), PROT_NONE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (area == MAP_FAILED) return 1;
    for (size_t i = 1; i < pages; i += 2)
      if (mprotect(area + i * os::page_size(), os::page_size(), PROT_READ) != 0) break;
    return succeeded(in_child([&] { return s.me->unseen().exposed ? 0 : 2; })) ? 0 : 2;
  });
  EXPECT_TRUE(succeeded(status)) << status;
}

// ---- Membership ----

TEST(Fork, ChildOfAMemberWithoutSharedBlocksIsNoMemberUntilItJoins) {
  TestSession s;
  const Handle b = s.me->allocate(100);
  const int status = in_child([&] {
    if (!s.me->forked_child() || s.me->incarnation() != 0) return 1;
    s.me->free(b);  // does nothing: the block is the parent's
    try {
      (void)s.me->allocate(1);
      return 2;
    } catch (const NotAMember&) {
    }
    s.me->rejoin();
    const Handle own = s.me->allocate(100);
    if (own == b || s.arena->block_size(own) == 0) return 3;
    s.me->leave();
    return 0;
  });
  EXPECT_TRUE(succeeded(status)) << status;
  EXPECT_FALSE(s.me->forked_child());
  EXPECT_EQ(s.blocks(), 1U);
  s.arena->check();
}

TEST(Fork, ChildSeesItsOwnCopyOfSharedBlocks) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
  data[0].store(1);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    data[0].store(2);  // the parent must not see it
    char c;
    const bool woken = read(ready[0], &c, 1) == 1;
    const bool intact = data[0].load() == 2 && data[100].load() == 0;
    const Handle other = s.me->allocate(kLarge);
    const bool separate = other != b;
    s.me->drop(b);
    _exit(woken && intact && separate && s.me->incarnation() != 0 ? 0 : 1);
  }
  while (member_listed(*s.arena, s.me->incarnation()) && s.arena->statistics().members < 2)
    std::this_thread::yield();
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 1U);  // the child holds it: not recycled
  const Handle mine = s.me->allocate(kLarge);
  EXPECT_NE(mine, b);
  s.arena->at<os::Atomic<uint32_t>>(mine)[100].store(7);
  ASSERT_EQ(write(ready[1], "x", 1), 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(succeeded(status)) << status;
  s.me->free(mine);
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
  close(ready[0]);
  close(ready[1]);
}

TEST(Fork, ChildThatDroppedABlockSeesItsNextUseByOthers) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  const int status = in_child([&] {
    auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
    data[0].store(5);
    s.me->drop(b);
    return data[0].load() == 0 ? 0 : 1;  // shared again: the parent's value
  });
  EXPECT_TRUE(succeeded(status)) << status;
}

TEST(Fork, GrandchildKeepsWhatTheChildWrote) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
  const int status = in_child([&] {
    data[3].store(9);
    return succeeded(
               in_child([&] { return data[3].load() == 9 && s.me->incarnation() != 0 ? 0 : 1; }))
               ? 0
               : 1;
  });
  EXPECT_TRUE(succeeded(status)) << status;
  EXPECT_EQ(data[3].load(), 0U);
  reap_all_dead(*s.arena, *s.me);
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Fork, PreparedChildDiesWithAParentThatDiesBeforeTheFork) {
  TestSession s;
  const int status = in_child([&] {
    const auto parent = s.join();
    const Incarnation child = try_claim_slot(*s.arena, MemberKind::process, parent->incarnation());
    const Handle b = parent->allocate(kLarge);
    parent->make_counted(b);
    mark_for(*s.arena, child, b);
    if (Record(*s.arena, b).hold(slot_of(child), UINT32_MAX) != Record::Done::yes) return 1;
    kill(getpid(), SIGKILL);
    return 0;
  });
  EXPECT_TRUE(killed(status));
  EXPECT_GE(reap_all_dead(*s.arena, *s.me), 1);
  EXPECT_EQ(s.blocks(), 0U);
  EXPECT_EQ(s.arena->statistics().members, 1U);
}

TEST(Fork, PreparedChildDiesWithTheReapOfItsParent) {
  TestSession s;
  const auto parent = s.join();
  const Incarnation dead = parent->incarnation();
  const Incarnation child = try_claim_slot(*s.arena, MemberKind::process, dead);
  os::close_fd(lock_birth(*s.arena, child));
  open_birth(*s.arena, child, true);
  parent->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_FALSE(enliven_slot(*s.arena, child, getpid(), 1));
  EXPECT_EQ(s.arena->statistics().members, 1U);
}

TEST(Fork, WhileOtherThreadsAllocateNeverHangsTheChild) {
  TestSession s;
  os::Atomic<uint32_t> stop;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&] {
      while (stop.load() == 0) {
        const Handle b = s.me->allocate(kLarge);
        s.me->make_counted(b);
        s.me->free(s.me->allocate(100));
        s.me->drop(b);
      }
    });
  for (int i = 0; i < 50; ++i) {
    const int status = in_child([&] {
      alarm(20);
      if (s.me->incarnation() == 0) s.me->rejoin();
      s.me->free(s.me->allocate(100));
      s.me->free(s.me->allocate(kLarge));
      return 0;
    });
    EXPECT_TRUE(succeeded(status)) << status;
    reap_all_dead(*s.arena, *s.me);
  }
  stop.store(1);
  for (std::thread& t : threads) t.join();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

}  // namespace
}  // namespace shoal::arena
