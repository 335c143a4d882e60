// SPDX-License-Identifier: Apache-2.0
//
// wait_all_done(), mark_done() and hands while members are stopped or killed at each of their
// accesses to shared memory: no join ends while a message is being worked on, and no message counts
// as done before it is.
#include <gtest/gtest.h>
#include <signal.h>

#include "channel/channel.hpp"
#include "channel/hand.hpp"
#include "sync/child_member_for_test.hpp"
#include "testing/deadline.hpp"
#include "testing/stop_at.hpp"

namespace shoal::channel {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using sync::ChildMember;
using sync::WaitResult;
using testing::Ending;
using testing::in_ms;
using testing::stopped_at;

class JoinTest : public ::testing::Test {
 protected:
  JoinTest() { register_reap_hooks(); }

  void renew() {
    if (channel_ != nullptr) channel_->let_go(*me_);
    channel_ = Channel::make(*me_, {0, 0});
  }

  void send(Member& member) {
    ASSERT_EQ(channel_->try_send(member, make_message(member, {}, {})), Sent::ok);
  }

  static void take(Channel& channel, Member& member) {
    Handle got = 0;
    if (channel.try_receive(member, &got) != Received::ok) _exit(3);
    free_message(member, got);
    channel.take_in_hand(member);
  }

  // A member takes a message in hand and dies.
  void lose_one() {
    const auto consumer = Member::join(arena_, MemberKind::process);
    send(*me_);
    take(*Channel::at(*consumer, channel_->handle()), *consumer);
    const arena::Incarnation dead = consumer->incarnation();
    consumer->abandon_for_test();
    ASSERT_TRUE(arena::reap(*arena_, *me_, dead));
  }

  WaitResult join(uint64_t* lost) { return channel_->wait_all_done(*me_, lost, 0); }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  std::unique_ptr<Channel> channel_;
};

TEST_F(JoinTest, AMessageThatIsSentMeanwhileIsNotDone) {
  const auto other = Member::join(arena_, MemberKind::process);
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    renew();
    lose_one();
    uint64_t lost = 0;
    WaitResult joined{};
    const bool stopped = stopped_at(nth, [&] { joined = join(&lost); }, [&] { send(*other); });
    if (!stopped) break;
    EXPECT_EQ(joined == WaitResult::ok, lost == 1);
    EXPECT_EQ(channel_->statistics().unfinished, 2 - lost);
    take(*channel_, *me_);
    EXPECT_EQ(join(&lost), WaitResult::timed_out);
    EXPECT_TRUE(channel_->mark_done(*me_)) << "the message was swallowed";
    EXPECT_EQ(join(&lost), WaitResult::ok);
  }
}

TEST_F(JoinTest, AMessageThatIsMarkedMeanwhileCountsOnce) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    renew();
    lose_one();
    send(*me_);
    send(*me_);
    take(*channel_, *me_);
    take(*channel_, *me_);
    uint64_t lost = 0;
    EXPECT_TRUE(channel_->mark_done(*me_));
    const bool stopped = stopped_at(
        nth, [&] { static_cast<void>(join(&lost)); },
        [&] { EXPECT_TRUE(channel_->mark_done(*me_)); });
    if (!stopped) break;
    const uint64_t told = lost;
    EXPECT_EQ(join(&lost), WaitResult::ok);
    EXPECT_EQ(told + lost, 1U);
    send(*me_);
    EXPECT_EQ(channel_->statistics().unfinished, 1U);
    EXPECT_EQ(join(&lost), WaitResult::timed_out);
  }
}

TEST_F(JoinTest, OneThatIsKilledInItTellsNoOtherTooMuch) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    renew();
    lose_one();
    ChildMember joiner(arena_, [&](Member& member) {
      uint64_t lost = 0;
      (void)stopped_at(
          nth, [&] { static_cast<void>(channel_->wait_all_done(member, &lost, 0)); },
          [] { raise(SIGKILL); });
    });
    const Ending ending = joiner.wait();
    arena::reap_all_dead(*arena_, *me_);
    send(*me_);
    take(*channel_, *me_);
    uint64_t lost = 0;
    EXPECT_EQ(join(&lost), WaitResult::timed_out) << "the second message is being worked on";
    EXPECT_EQ(lost, 0U);
    EXPECT_TRUE(channel_->mark_done(*me_));
    EXPECT_EQ(join(&lost), WaitResult::ok);
    if (ending == Ending::finished) break;
    EXPECT_EQ(ending, Ending::killed);
  }
}

TEST_F(JoinTest, NobodyIsToldThatAMarkedMessageIsLost) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    renew();
    for (int i = 0; i < 3; ++i) send(*me_);
    take(*channel_, *me_);
    ChildMember consumer(arena_, [&](Member& member) {
      take(*channel_, member);
      take(*channel_, member);
      bool marked = false;
      (void)stopped_at(nth, [&] { marked = channel_->mark_done(member); }, [] { raise(SIGKILL); });
      if (!marked) _exit(4);
    });
    const Ending ending = consumer.wait();
    arena::reap_all_dead(*arena_, *me_);
    uint64_t lost = 0;
    EXPECT_EQ(join(&lost), WaitResult::timed_out) << "this member works on a message";
    EXPECT_TRUE(channel_->mark_done(*me_));
    static_cast<void>(join(&lost));
    EXPECT_LE(lost + channel_->statistics().unfinished, 2U);
    if (ending == Ending::finished) break;
    EXPECT_EQ(ending, Ending::killed);
  }
}

TEST_F(JoinTest, AReaperThatIsKilledBeforeItTakesTheCountLeavesItToTheNext) {
  renew();
  send(*me_);
  const auto* const state = arena_->at<ChannelState>(channel_->handle());
  Handle hand = 0;
  os::Atomic<uint64_t>* count = nullptr;
  {
    const auto consumer = Member::join(arena_, MemberKind::process);
    hand = make_hand(*consumer, channel_->handle(), state->id);
    count = &hand_at(*arena_, hand)->count;
    Handle got = 0;
    ASSERT_EQ(channel_->try_receive(*consumer, &got), Received::ok);
    free_message(*consumer, got);
    count->store(1);
    consumer->abandon_for_test();
  }
  ChildMember reaper(arena_, [&](Member& member) {
    (void)stopped_at(1, testing::accesses_to(count, sizeof *count),
                     [&] { arena::reap_all_dead(*arena_, member); }, {[] { raise(SIGKILL); }});
  });
  EXPECT_EQ(reaper.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  uint64_t lost = 0;
  EXPECT_EQ(join(&lost), WaitResult::ok);
  EXPECT_EQ(lost, 1U);
}

// A forked child has a copy of the parent's Channel object. If another hand now lies where the
// parent's hand was, the child must not use it as its own.
TEST_F(JoinTest, AHandOfAnotherChannelIsNotCounted) {
  renew();
  for (int i = 0; i < 2; ++i) send(*me_);
  take(*channel_, *me_);
  const auto other = Channel::make(*me_, {0, 0});
  const auto* const others = arena_->at<ChannelState>(other->handle());
  Hand* hand = nullptr;
  for (Handle at = arena_->page_handle(0); hand == nullptr; at += 64) {
    Hand* const found = hand_at(*arena_, at);
    if (found != nullptr && found->channel == channel_->handle()) hand = found;
  }
  hand->channel = other->handle();
  hand->id = others->id;
  take(*channel_, *me_);
  EXPECT_EQ(hand->count.load(), 1U);
  EXPECT_TRUE(other->let_go(*me_));
}

}  // namespace
}  // namespace shoal::channel
