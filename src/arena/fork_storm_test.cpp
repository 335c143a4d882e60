// SPDX-License-Identifier: Apache-2.0
//
// A family of processes that hold blocks, write to them, drop them, fork and are killed, all at
// random. Each process also keeps the expected contents of its blocks in ordinary memory: after a
// fork the blocks must equal what the fork has made of that memory.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <random>

#include "arena/test_session.hpp"

namespace shoal::arena {
namespace {

constexpr int kDeepest = 3;
constexpr int kSteps = 120;
constexpr size_t kSamples = 24;
constexpr size_t kBytes = 3 * kPage;
constexpr size_t kStride = kBytes / kSamples / sizeof(uint32_t);

struct Shared {
  os::Atomic<uint32_t> wrong;
  os::Atomic<uint32_t> forks;
  os::Atomic<uint32_t> kills;
  os::Atomic<uint32_t> checks;
};

class Family {
 public:
  Family(TestSession& session, Shared& shared, unsigned seed) : s_(session), shared_(shared) {
    random_.seed(seed);
  }

  // The life of one process. A forked child lives its own life inside step(), and never returns.
  void live() {
    for (int i = 0; i < kSteps; ++i) step();
    if (depth_ > 0) {
      bury(true);
      _exit(0);  // without leaving the session, as if killed
    }
    bury(false);
    for (const Known& known : blocks_) check(known), s_.me->drop(known.block);
  }

 private:
  struct Known {
    Handle block;
    std::array<uint32_t, kSamples> words;
  };

  void step() {
    switch (random_() % 16) {
      case 0:
      case 1:
        return make();
      case 2:
        return drop();
      case 3:
        return give_birth();
      case 4:
        static_cast<void>(reap_all_dead(*s_.arena, *s_.me));
        return;
      case 5:
        return recycle();
      case 6:
      case 7:
      case 8:
        for (const Known& known : blocks_) check(known);
        return;
      default:
        return write();
    }
  }

  uint32_t* word(const Known& known, size_t i) {
    return s_.arena->at<uint32_t>(known.block) + i * kStride;
  }

  void make() {
    if (blocks_.size() >= 8) return;
    Known known{s_.me->allocate(kBytes), {}};
    for (size_t i = 0; i < kSamples; ++i) *word(known, i) = known.words[i] = next_++;
    if (!s_.me->can_count(known.block)) return s_.me->free(known.block);
    s_.me->make_counted(known.block);
    blocks_.push_back(known);
  }

  void write() {
    if (blocks_.empty()) return;
    Known& known = blocks_[random_() % blocks_.size()];
    const size_t i = random_() % kSamples;
    *word(known, i) = known.words[i] = next_++;
  }

  void check(const Known& known) {
    shared_.checks.fetch_add(1);
    for (size_t i = 0; i < kSamples; ++i)
      if (*word(known, i) != known.words[i]) shared_.wrong.fetch_add(1);
  }

  void drop() {
    if (blocks_.empty()) return;
    std::swap(blocks_[random_() % blocks_.size()], blocks_.back());
    check(blocks_.back());
    s_.me->drop(blocks_.back().block);
    blocks_.pop_back();
  }

  // Overwrites memory that is free now.
  void recycle() {
    const Handle b = s_.me->allocate(kBytes);
    for (size_t i = 0; i < kBytes / sizeof(uint32_t); ++i) s_.arena->at<uint32_t>(b)[i] = 0xBAD;
    s_.me->free(b);
  }

  void give_birth() {
    if (depth_ >= kDeepest || children_.size() >= 3) return;
    shared_.forks.fetch_add(1);
    const auto seed = static_cast<unsigned>(random_());
    const pid_t child = fork();
    if (child != 0) {
      children_.push_back(child);
      if (seed % 4 == 0 && kill(child, SIGKILL) == 0) shared_.kills.fetch_add(1);
      return;
    }
    ++depth_;
    children_.clear();
    random_.seed(seed);
    next_ = seed << 8;
    if (s_.me->incarnation() == 0) s_.me->rejoin();
    live();
  }

  void bury(bool some_are_killed) {
    for (const pid_t child : children_) {
      if (some_are_killed && random_() % 4 == 0 && kill(child, SIGKILL) == 0)
        shared_.kills.fetch_add(1);
      int status = 0;
      while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
      if (!succeeded(status) && !killed(status)) shared_.wrong.fetch_add(1);
    }
    children_.clear();
  }

  TestSession& s_;
  Shared& shared_;
  std::mt19937 random_;
  int depth_ = 0;
  uint32_t next_ = 1;
  std::vector<Known> blocks_;
  std::vector<pid_t> children_;
};

TEST(ForkStorm, EverybodySeesWhatOrdinaryMemoryWouldShow) {
  const char* const wanted = std::getenv("SHOAL_STRESS_SEED");
  unsigned seed = wanted != nullptr ? static_cast<unsigned>(std::strtoul(wanted, nullptr, 10))
                                    : std::random_device{}();
  std::cout << "SHOAL_STRESS_SEED=" << seed << "\n";
  auto* shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(shared, MAP_FAILED);
  for (int round = 0; round < 3; ++round, ++seed) {
    TestSession s;
    Family(s, *shared, seed).live();
    // This process cannot wait for the children of children that were killed, so reap until only
    // this member is left.
    while (s.arena->statistics().members > 1) reap_all_dead(*s.arena, *s.me);
    EXPECT_EQ(s.blocks(), 0U) << "seed " << seed;
    s.arena->check();
  }
  EXPECT_EQ(shared->wrong.load(), 0U);
  std::cout << shared->forks.load() << " forks, " << shared->kills.load() << " kills, "
            << shared->checks.load() << " checks\n";
  munmap(shared, sizeof(Shared));
}

}  // namespace
}  // namespace shoal::arena
