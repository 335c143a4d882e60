// SPDX-License-Identifier: Apache-2.0
//
// The simulated memory: the known small programs that tell memory models apart, and planted
// mistakes that it must find. Each expectation is what the C++ memory model says.
#include "testing/weak_memory.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "os/futex.hpp"

namespace shoal::testing {
namespace {

using os::Order;
using Word = os::Atomic<uint32_t>;

// Shared words and what each thread has read, fresh for each run.
struct Words {
  Word x, y, z;
  std::array<uint32_t, 4> read{};
};

class WeakMemory : public ::testing::Test {
 protected:
  // Every result of the operations, as text: what was read, then the words' last values.
  std::set<std::string> results(std::vector<std::function<void()>> operations,
                                const WeakLimits& limits = {4, 4, 2, 200'000}) {
    std::set<std::string> found;
    const WeakScene scene{[this] { return begin(); }, std::move(operations),
                          [&](const std::string&) {
                            found.insert(result());
                            return true;
                          }};
    counts = weak_every(scene, limits);
    EXPECT_TRUE(counts.complete);
    return found;
  }

  std::vector<SimulatedRange> begin() {
    words = std::make_unique<Words>();
    return {{words.get(), sizeof(Words)}};
  }
  std::string result() const {
    std::string text;
    for (const uint32_t value : words->read) text += std::to_string(value);
    return text + " " + std::to_string(words->x.load()) + std::to_string(words->y.load());
  }
  uint32_t& read(size_t i) { return words->read[i]; }
  Word& x() { return words->x; }
  Word& y() { return words->y; }
  Word& z() { return words->z; }

  std::unique_ptr<Words> words;
  WeakCounts counts;
};

// Store buffering: each thread stores one word and loads the other.
TEST_F(WeakMemory, LetsTwoThreadsMissEachOthersStoresUnlessAllIsSeqCst) {
  const auto program = [&](Order store, Order load) {
    return results({[&, store, load] {
                      x().store(1, store);
                      read(0) = y().load(load);
                    },
                    [&, store, load] {
                      y().store(1, store);
                      read(1) = x().load(load);
                    }});
  };
  const std::set<std::string> strong{"0100 11", "1000 11", "1100 11"};
  EXPECT_EQ(program(os::seq_cst, os::seq_cst), strong);
  for (const auto& [store, load] : {std::pair{os::release, os::acquire},
                                    {os::relaxed, os::relaxed},
                                    {os::seq_cst, os::acquire},
                                    {os::release, os::seq_cst}}) {
    EXPECT_TRUE(program(store, load).contains("0000 11"));
  }
}

// Message passing: a flag says that the data is there.
TEST_F(WeakMemory, PublishesDataByReleaseAndAcquireAndByNothingLess) {
  const auto breaks = [&](Order store, Order load) {
    return results({[&, store] {
                      x().store(1, os::relaxed);
                      y().store(1, store);
                    },
                    [&, load] {
                      read(0) = y().load(load);
                      read(1) = x().load(os::relaxed);
                    }})
        .contains("1000 11");
  };
  EXPECT_FALSE(breaks(os::release, os::acquire));
  EXPECT_FALSE(breaks(os::seq_cst, os::seq_cst));
  EXPECT_TRUE(breaks(os::relaxed, os::acquire));
  EXPECT_TRUE(breaks(os::release, os::relaxed));
  EXPECT_TRUE(breaks(os::relaxed, os::relaxed));
}

// Additions in between hand on what a release has published; a plain relaxed store does not.
TEST_F(WeakMemory, KeepsAReleaseSequence) {
  const auto breaks = [&](bool by_addition) {
    return results({[&] {
                      x().store(1, os::relaxed);
                      y().store(1, os::release);
                    },
                    [&, by_addition] {
                      if (by_addition) {
                        y().fetch_add(1, os::relaxed);
                      } else if (y().load(os::relaxed) == 1) {
                        y().store(2, os::relaxed);
                      }
                    },
                    [&] {
                      read(0) = y().load(os::acquire);
                      read(1) = x().load(os::relaxed);
                    }},
                   {3, 2, 1, 200'000})
        .contains("2000 12");
  };
  EXPECT_FALSE(breaks(true));
  EXPECT_TRUE(breaks(false));
}

// Independent reads of independent writes: two readers see two stores in opposite orders.
TEST_F(WeakMemory, LetsReadersDisagreeAboutTwoStoresUnlessAllIsSeqCst) {
  const auto breaks = [&](Order store, Order load) {
    return results({[&, store] { x().store(1, store); }, [&, store] { y().store(1, store); },
                    [&, load] {
                      read(0) = x().load(load);
                      read(1) = y().load(load);
                    },
                    [&, load] {
                      read(2) = y().load(load);
                      read(3) = x().load(load);
                    }},
                   {1, 2, 0, 200'000})
        .contains("1010 11");
  };
  EXPECT_FALSE(breaks(os::seq_cst, os::seq_cst));
  EXPECT_TRUE(breaks(os::release, os::acquire));
}

// One word alone never goes back.
TEST_F(WeakMemory, IsCoherent) {
  const auto found = results({[&] {
                                x().store(1, os::relaxed);
                                x().store(2, os::relaxed);
                              },
                              [&] {
                                read(0) = x().load(os::relaxed);
                                read(1) = x().load(os::relaxed);
                              }});
  EXPECT_EQ(found, (std::set<std::string>{"0000 20", "0100 20", "0200 20", "1100 20", "1200 20",
                                          "2200 20"}));
}

// Two threads store both words in opposite orders, and the first store of each comes last.
TEST_F(WeakMemory, LetsStoresComeLate) {
  const auto breaks = [&](Order order) {
    return results({[&, order] {
                      x().store(1, order);
                      y().store(2, order);
                    },
                    [&, order] {
                      y().store(1, order);
                      x().store(2, order);
                    }})
        .contains("0000 11");
  };
  EXPECT_TRUE(breaks(os::relaxed));
  EXPECT_TRUE(breaks(os::release));
  EXPECT_FALSE(breaks(os::seq_cst));
}

TEST_F(WeakMemory, NeverLosesAnAddition) {
  const auto add = [&] {
    for (int i = 0; i < 3; ++i) x().fetch_add(1, os::relaxed);
  };
  EXPECT_EQ(results({add, add}), std::set<std::string>{"0000 60"});
}

// ---- Planted mistakes, found by every seedless search and by seeds

// A lock as LocalLock is, around a word that stands for what it guards.
WeakScene lock_scene(std::unique_ptr<Words>& words, Order taking, Order leaving, bool& broken) {
  const auto add_one = [&words, taking, leaving] {
    for (int turn = 0; turn < 2; ++turn) {
      while (words->x.exchange(1, taking) != 0) continue;
      words->y.store(words->y.load(os::relaxed) + 1, os::relaxed);
      words->x.store(0, leaving);
    }
  };
  return {[&words] {
            words = std::make_unique<Words>();
            return std::vector<SimulatedRange>{{words.get(), sizeof(Words)}};
          },
          {add_one, add_one},
          [&words, &broken](const std::string&) {
            broken = words->y.load() != 4;
            return !broken;
          }};
}

TEST_F(WeakMemory, FindsALockThatPublishesNothing) {
  bool broken = false;
  EXPECT_FALSE(weak_random(lock_scene(words, os::acquire, os::release, broken), 300).failed);
  EXPECT_TRUE(weak_random(lock_scene(words, os::acquire, os::relaxed, broken), 300).failed);
  EXPECT_TRUE(weak_random(lock_scene(words, os::relaxed, os::release, broken), 300).failed);
  EXPECT_FALSE(weak_every(lock_scene(words, os::acquire, os::release, broken), {2, 2, 1}).failed);
  EXPECT_TRUE(weak_every(lock_scene(words, os::acquire, os::relaxed, broken), {2, 2, 1}).failed);
  EXPECT_TRUE(weak_every(lock_scene(words, os::relaxed, os::release, broken), {2, 2, 1}).failed);
}

// A sleeper says that it sleeps, looks, and sleeps; the other publishes, looks, and wakes: the
// protocol of sync/wait.hpp. x is the condition, y the futex word, whose first bit says "waiters".
WeakScene sleeper_scene(std::unique_ptr<Words>& words, Order order) {
  const Order loading = order == os::release ? os::acquire : order;
  const auto sleep = [&words, order, loading] {
    while (true) {
      const uint32_t seen = words->y.load(os::relaxed) | 1;
      words->y.store(seen, order);
      if (words->x.load(loading) == 1) return;
      (void)os::futex_wait(&words->y, seen, os::kNoDeadline);
    }
  };
  const auto wake = [&words, order, loading] {
    words->x.store(1, order);
    if ((words->y.load(loading) & 1) == 0) return;
    words->y.store(2, order);
    os::futex_wake(&words->y, 1);
  };
  return {[&words] {
            words = std::make_unique<Words>();
            return std::vector<SimulatedRange>{{words.get(), sizeof(Words)}};
          },
          {sleep, wake},
          [](const std::string&) { return true; }};
}

TEST_F(WeakMemory, FindsAWakeUpThatIsLost) {
  const WeakCounts fine = weak_every(sleeper_scene(words, os::seq_cst), {2, 2, 0});
  EXPECT_FALSE(fine.failed);
  EXPECT_TRUE(fine.complete);
  EXPECT_GT(weak_every(sleeper_scene(words, os::release), {2, 2, 0}).lost, 0U);
  EXPECT_EQ(weak_random(sleeper_scene(words, os::seq_cst), 300).lost, 0U);
  EXPECT_GT(weak_random(sleeper_scene(words, os::release), 300).lost, 0U);
}

// A failing seed fails again.
TEST_F(WeakMemory, RepeatsARunBySeed) {
  bool broken = false;
  std::string failing;
  WeakScene scene = lock_scene(words, os::relaxed, os::relaxed, broken);
  const auto check = scene.check;
  scene.check = [&](const std::string& run) {
    failing = run;
    return check(run);
  };
  ASSERT_TRUE(weak_random(scene, 300).failed);
  const std::string seed = failing.substr(failing.find('=') + 1);
  setenv("SHOAL_WEAK_SEED", seed.c_str(), 1);
  for (int i = 0; i < 5; ++i) {
    const WeakCounts again = weak_random(scene, 300);
    EXPECT_TRUE(again.failed);
    EXPECT_EQ(again.runs, 1U);
  }
  unsetenv("SHOAL_WEAK_SEED");
}

}  // namespace
}  // namespace shoal::testing
