// SPDX-License-Identifier: Apache-2.0
#include "sync/event.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "sync/event_count.hpp"
#include "sync/holds.hpp"
#include "testing/deadline.hpp"
#include "testing/stop_at.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Member;
using arena::MemberKind;
using testing::in_ms;

class EventTest : public ::testing::Test {
 protected:
  EventTest() { register_reap_hooks(); }
  Event make() {
    const arena::Handle block = me_->allocate(sizeof(EventState));
    Event::create(*arena_, block);
    return {*arena_, block};
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_F(EventTest, WaitsUntilItIsSet) {
  Event event = make();
  EXPECT_FALSE(event.is_set());
  EXPECT_EQ(event.wait(in_ms(20)), WaitResult::timed_out);
  event.set(*me_);
  event.set(*me_);
  EXPECT_TRUE(event.is_set());
  EXPECT_EQ(event.wait(), WaitResult::ok);
  event.clear();
  EXPECT_FALSE(event.is_set());
}

TEST_F(EventTest, AWaitSeesWhatHappenedSinceItListened) {
  Event event = make();
  const uint32_t first = event.listen();
  EXPECT_EQ(event.wait(first, 0), WaitResult::timed_out);
  EXPECT_EQ(event.wait(first, in_ms(20)), WaitResult::timed_out);
  event.set(*me_);
  event.clear();
  EXPECT_EQ(event.wait(first, in_ms(60'000)), WaitResult::ok);
  EXPECT_EQ(event.wait(0), WaitResult::timed_out);
}

TEST_F(EventTest, WakesAllWaitersEvenIfItIsClearedAtOnce) {
  for (int round = 0; round < 200; ++round) {
    Event event = make();
    os::Atomic<uint32_t> waiting;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        waiting.fetch_add(1);
        EXPECT_EQ(event.wait(in_ms(60'000)), WaitResult::ok);
        waiting.fetch_sub(1);
      });
    }
    // A thread that was not yet waiting at set() may miss it, so set again until all have returned.
    while (waiting.load() != 4) std::this_thread::yield();
    while (waiting.load() != 0) {
      event.set(*me_);
      event.clear();
    }
    for (auto& thread : threads) thread.join();
  }
}

TEST(EventCountTest, NoNotificationIsLost) {
  EventCount count;
  os::Atomic<uint64_t> produced;
  os::Atomic<uint64_t> consumed;
  constexpr uint64_t kItems = 100'000;
  const auto consume = [&] {
    for (;;) {
      const uint32_t seen = count.prepare();
      uint64_t have = consumed.load();
      if (have == kItems) {
        count.notify_all();
        return;
      }
      if (have < produced.load()) {
        consumed.compare_exchange(have, have + 1);
        continue;
      }
      ASSERT_NE(os::futex_wait(&count.word(), seen, in_ms(60'000)), os::Wake::timed_out);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(consume);
  for (uint64_t i = 0; i < kItems; ++i) {
    produced.fetch_add(1);
    count.notify_one();
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(consumed.load(), kItems);
}

// A thread asleep on an event count.
class Sleeper {
 public:
  explicit Sleeper(EventCount& count)
      : thread_([this, &count] {
          id_.store(static_cast<uint32_t>(gettid()));
          (void)os::futex_wait(&count.word(), count.prepare(), os::kNoDeadline);
        }) {
    while (!sleeps()) std::this_thread::yield();
  }
  ~Sleeper() { thread_.join(); }
  [[nodiscard]] bool sleeps() const {
    return testing::sleeps_for_ever(static_cast<pid_t>(id_.load()));
  }

 private:
  os::Atomic<uint32_t> id_;
  std::thread thread_;
};

// The notifier `late` is stopped before each access to the word in turn, including accesses by
// system calls. During the stop another notifier notifies.
void expect_others_wake(void (*late)(EventCount&), void (*other)(EventCount&)) {
  for (unsigned nth = 1;; ++nth) {
    EventCount count;
    auto sleeper = std::make_unique<Sleeper>(count);
    const bool reached = testing::stopped_at(
        nth, testing::accesses_to(&count, sizeof count), [&] { late(count); }, {[&] {
          other(count);
          EXPECT_FALSE(sleeper->sleeps()) << "no thread was woken at access " << nth;
        }});
    count.wake_all();
    sleeper.reset();
    if (!reached || ::testing::Test::HasFailure()) return;
  }
}

TEST(EventCountTest, ANotifierThatIsStoppedHoldsBackNoOtherNotification) {
  const auto notify_one = [](EventCount& count) { count.notify_one(); };
  const auto notify_all = [](EventCount& count) { count.notify_all(); };
  const auto wake_all = [](EventCount& count) { count.wake_all(); };
  expect_others_wake(notify_one, notify_one);
  expect_others_wake(notify_all, notify_one);
  expect_others_wake(wake_all, notify_one);
}

// A thread goes to sleep while a notifier, which found no sleeper to wake, is stopped.
TEST(EventCountTest, ASleeperThatComesWhileANotifierIsStoppedIsWokenByTheNext) {
  for (unsigned nth = 1;; ++nth) {
    EventCount count;
    (void)count.prepare();  // by a thread that then finds its condition true
    std::unique_ptr<Sleeper> sleeper;
    const bool reached = testing::stopped_at(
        nth, testing::accesses_to(&count, sizeof count), [&] { count.notify_one(); },
        {[&] { sleeper = std::make_unique<Sleeper>(count); },
         [&] {
           count.notify_one();
           EXPECT_FALSE(sleeper->sleeps()) << "no thread was woken at access " << nth + 1;
         }});
    count.wake_all();
    if (sleeper == nullptr || HasFailure()) break;
    (void)reached;
  }
}

// A thread prepares while one notifier is stopped. Then another notifier notifies, and a third
// thread prepares: the word must not have the value again that the first thread saw.
TEST(EventCountTest, WhoHasPreparedDoesNotSleepAfterANotification) {
  const std::vector<void (*)(EventCount&)> notifiers = {
      [](EventCount& count) { count.notify_one(); }, [](EventCount& count) { count.notify_all(); },
      [](EventCount& count) { count.wake_all(); }, [](EventCount& count) { count.advance_all(); }};
  for (const auto late : notifiers) {
    bool reached = true;
    for (unsigned nth = 1; reached; ++nth) {
      EventCount count;
      (void)count.prepare();  // by a thread that then finds its condition true
      uint32_t seen = 0;
      reached = testing::stopped_at(nth, testing::accesses_to(&count, sizeof count),
                                    [&] { late(count); }, {[&] { seen = count.prepare(); }});
      if (!reached) continue;
      count.notify_one();
      (void)count.prepare();
      EXPECT_EQ(os::futex_wait(&count.word(), seen, 0), os::Wake::changed) << "access " << nth;
    }
  }
}

TEST(EventCountTest, AListenerSleepsOnlyOnWhatItHeard) {
  EventCount count;
  uint32_t seen = count.listen();
  count.advance_all();
  EXPECT_FALSE(count.announce(&seen));
  seen = count.listen();
  EXPECT_TRUE(count.announce(&seen));
  EXPECT_TRUE(count.has_waiters());
  count.advance_all();
  EXPECT_FALSE(count.has_waiters());
  EXPECT_EQ(os::futex_wait(&count.word(), seen, os::kNoDeadline), os::Wake::changed);
}

TEST(EventCountTest, ListenersMissNothing) {
  EventCount counts[2];
  os::Atomic<uint64_t> turn{};
  constexpr uint64_t kTurns = 30'000;
  const auto play = [&](uint64_t me) {
    for (;;) {
      uint32_t seen = counts[me].listen();
      const uint64_t now = turn.load();
      if (now >= kTurns) break;
      if (now % 2 == me) {
        turn.store(now + 1);
        counts[1 - me].advance_all();
      } else if (counts[me].announce(&seen)) {
        (void)os::futex_wait(&counts[me].word(), seen, os::kNoDeadline);
      }
    }
    counts[1 - me].advance_all();
  };
  std::thread first(play, 0), second(play, 1);
  first.join();
  second.join();
  EXPECT_GE(turn.load(), kTurns);
}

}  // namespace
}  // namespace shoal::sync
