// SPDX-License-Identifier: Apache-2.0
//
// Members killed at each kill point of this layer, and after each instruction of push and pop:
// the ring continues, each message is received at most once, and no block is left behind.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstring>
#include <functional>
#include <string>

#include "channel/channel.hpp"
#include "sync/child_member_for_test.hpp"
#include "testing/deadline.hpp"
#include "testing/kill_point.hpp"
#include "testing/single_step.hpp"

namespace shoal::channel {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using sync::ChildMember;
using testing::Ending;
using testing::in_ms;

Handle message(Member& member, uint64_t value) {
  const Handle attached = member.allocate(100);
  return make_message(member, std::as_bytes(std::span(&value, 1)), std::span(&attached, 1));
}

class ChannelDeathTest : public ::testing::Test {
 protected:
  ChannelDeathTest() { register_reap_hooks(); }

  // The channel holds `least` to `most` messages with increasing numbers; it works; nothing leaks.
  void expect_sound(Channel& channel, uint64_t least, uint64_t most) {
    arena::reap_all_dead(*arena_, *me_);
    ASSERT_NO_THROW(channel.ring().check());
    const uint64_t length = channel.length();
    EXPECT_GE(length, least);
    EXPECT_LE(length, most);
    ASSERT_EQ(channel.send(*me_, message(*me_, 1'000'000), in_ms(10'000)), Sent::ok);
    uint64_t previous = 0;
    for (uint64_t i = 0; i <= length; ++i) {
      Handle got = 0;
      ASSERT_EQ(channel.receive(*me_, &got, in_ms(10'000)), Received::ok);
      uint64_t value = 0;
      std::memcpy(&value, open_message(*arena_, got).bytes, sizeof value);
      EXPECT_GT(value, previous);
      previous = value;
      free_message(*me_, got);
    }
    EXPECT_EQ(channel.length(), 0U);
    EXPECT_EQ(channel.ring().bytes(), 0U);
    const auto s = arena_->statistics();
    const uint64_t segments = channel.ring().segments() - 1;
    EXPECT_EQ(s.blocks_channel + s.blocks_block + s.blocks_dying, segments);
    EXPECT_EQ(s.blocks(), blocks_ + segments) << "leaked";
  }

  // Sends and receives messages through the empty channel until `left` more pushes fill the lap.
  void go_near_the_end_of_a_lap(Channel& channel, uint64_t left) {
    do {
      ASSERT_EQ(channel.send(*me_, message(*me_, 1)), Sent::ok);
      Handle got = 0;
      ASSERT_EQ(channel.receive(*me_, &got), Received::ok);
      free_message(*me_, got);
    } while ((channel.ring().pushed() + left) % RingSegment::kSlots != 0);
  }

  void lose_at(const char* point);

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  uint64_t blocks_ = 0;
};

// A segment is made only where none is reusable. So for the kill points of making one the ring
// first only grows: many processes reach the end of a lap at the same time, again and again.
void ChannelDeathTest::lose_at(const char* point) {
  const bool grows = std::string(point) == "ring.segment.back";
  const Handle counter = me_->allocate(64);
  auto* const running = new (arena_->address(counter)) os::Atomic<uint32_t>(0);
  blocks_ = arena_->statistics().blocks() + 1;
  const auto channel = Channel::make(*me_, {grows ? uint64_t{0} : 4, grows ? 0 : 1'000'000U});
  const auto run = [&](Member& member) {
    running->fetch_add(1);
    for (;;) {
      const Handle made = make_message(member, {}, {});
      if (channel->try_send(member, made) != Sent::ok) free_message(member, made);
      Handle got = 0;
      if (channel->length() < (grows ? 200'000 : 0)) continue;
      if (channel->try_receive(member, &got) == Received::ok) free_message(member, got);
    }
  };
  ChildMember a(arena_, run);
  ChildMember b(arena_, run);
  ChildMember victim(arena_, [&](Member& member) {
    testing::arm_kill_point(point, 1);
    run(member);
  });
  EXPECT_EQ(victim.wait(60'000), Ending::killed) << point;
  // A fork's child killed before it has taken its slot would hold the channel for 30 s more.
  while (running->load() < 3) usleep(1'000);
  a.kill();
  b.kill();
  EXPECT_EQ(a.wait(), Ending::killed);
  EXPECT_EQ(b.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  Handle got = 0;
  while (channel->try_receive(*me_, &got) == Received::ok) free_message(*me_, got);
  expect_sound(*channel, 0, 0);
  EXPECT_TRUE(channel->let_go(*me_));
  me_->free(counter);
}

TEST_F(ChannelDeathTest, AtEachKillPointOfSendAndReceive) {
  const auto channel = Channel::open(*me_, "c", Channel::Open::create, {100, 100'000});
  blocks_ = arena_->statistics().blocks();
  for (const char* point : {"message.attach", "message.detach", "message.free", "ring.push.enter",
                            "ring.push.owner", "ring.push.slot", "ring.push.sum", "ring.push.tail",
                            "ring.push.done", "ring.pop.enter", "ring.pop.owner", "ring.pop.slot",
                            "ring.pop.head", "channel.done.hand", "channel.done.count"}) {
    for (unsigned nth = 1; nth <= 3; ++nth) {
      SCOPED_TRACE(std::string(point) + ":" + std::to_string(nth));
      ChildMember victim(arena_, [&](Member& member) {
        testing::arm_kill_point(point, nth);
        for (uint64_t i = 1; i <= 6; ++i) {
          if (channel->send(member, message(member, i)) != Sent::ok) _exit(3);
          Handle got = 0;
          if (i > 3 && channel->receive(member, &got) == Received::ok) free_message(member, got);
          if (!channel->mark_done(member)) _exit(4);
        }
      });
      EXPECT_EQ(victim.wait(), Ending::killed);
      expect_sound(*channel, 0, 4);
    }
  }
}

// The first lap's end makes a segment; the later ones reuse one.
TEST_F(ChannelDeathTest, AtEachKillPointOfALapsEnd) {
  for (const uint64_t limit : {uint64_t{0}, uint64_t{100'000}}) {
    for (const char* point :
         {"ring.segment.owner", "ring.segment.link", "ring.segment.reuse", "ring.segment.base",
          "ring.segment.tail", "ring.segment.head", "ring.push.tail", "ring.pop.head"}) {
      SCOPED_TRACE(std::string(point) + " " + std::to_string(limit));
      if (limit == 0 && std::string(point) == "ring.segment.base") continue;
      blocks_ = arena_->statistics().blocks() + 1;
      const auto channel = Channel::make(*me_, {0, limit});
      const bool reused = std::string(point) == "ring.segment.reuse";
      for (int laps = 0; laps < (reused ? 2 : 1); ++laps) {
        go_near_the_end_of_a_lap(*channel, 0);
      }
      ChildMember victim(arena_, [&](Member& member) {
        testing::arm_kill_point(point, 1);
        for (uint64_t i = 1; i <= 6; ++i) {
          if (channel->send(member, message(member, i)) != Sent::ok) _exit(3);
          Handle got = 0;
          if (i > 1 && channel->receive(member, &got) == Received::ok) free_message(member, got);
        }
      });
      EXPECT_EQ(victim.wait(), Ending::killed);
      expect_sound(*channel, 0, 2);
      EXPECT_TRUE(channel->let_go(*me_));
      EXPECT_EQ(arena_->statistics().blocks(), blocks_ - 1);
    }
  }
}

TEST_F(ChannelDeathTest, WhileTheLastHolderOfAChannelLetsGoOfIt) {
  for (const char* point : {"arena.record.make", "arena.record.end", "ring.pop.slot",
                            "message.free", "ring.segment.free", ""}) {
    SCOPED_TRACE(point);
    ChildMember victim(arena_, [&](Member& member) {
      if (std::string(point) == "arena.record.make") testing::arm_kill_point(point, 1);
      const auto channel = Channel::make(member, {0, 0});
      for (uint64_t i = 0; i < 3'000; ++i) {
        if (channel->send(member, message(member, i)) != Sent::ok) _exit(3);
      }
      if (*point == 0) raise(SIGKILL);
      testing::arm_kill_point(point, 1);
      channel->let_go(member);
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    EXPECT_EQ(arena_->statistics().blocks(), 0U);
  }
}

TEST_F(ChannelDeathTest, WhoWaitsForAllToBeDoneIsToldWhatTheDeadHadInHand) {
  const auto channel = Channel::make(*me_, {0, 0});
  const auto receive = [&](Member& member) {
    Handle got = 0;
    if (channel->receive(member, &got) != Received::ok) _exit(3);
    free_message(member, got);
    channel->take_in_hand(member);
  };
  for (uint64_t i = 1; i <= 5; ++i) ASSERT_EQ(channel->send(*me_, message(*me_, i)), Sent::ok);
  ChildMember victim(arena_, [&](Member& member) {
    receive(member);
    if (!channel->mark_done(member)) _exit(4);
    receive(member);
    testing::arm_kill_point("channel.hand.count", 1);
    receive(member);
  });
  EXPECT_EQ(victim.wait(), Ending::killed);
  uint64_t lost = 0;
  receive(*me_);
  EXPECT_EQ(channel->wait_all_done(*me_, &lost, in_ms(50)), sync::WaitResult::timed_out);
  EXPECT_TRUE(channel->mark_done(*me_));
  receive(*me_);
  EXPECT_EQ(channel->wait_all_done(*me_, &lost, in_ms(50)), sync::WaitResult::timed_out);
  EXPECT_TRUE(channel->mark_done(*me_));
  EXPECT_EQ(channel->wait_all_done(*me_, &lost, in_ms(10'000)), sync::WaitResult::ok);
  EXPECT_EQ(lost, 2U);
  // From then on they count as done.
  EXPECT_EQ(channel->wait_all_done(*me_, &lost, in_ms(10'000)), sync::WaitResult::ok);
  EXPECT_EQ(lost, 0U);
  EXPECT_FALSE(channel->mark_done(*me_));
  EXPECT_TRUE(channel->let_go(*me_));
  EXPECT_EQ(arena_->statistics().blocks(), 0U);
}

// The reaper of a consumer dies as well: the count may be lost (then waiters go on waiting), but is
// never too high.
TEST_F(ChannelDeathTest, AReaperMayDieWithTheHandOfTheDead) {
  for (const char* point : {"channel.hand.end", "channel.hand.lost"}) {
    SCOPED_TRACE(point);
    const bool counted = std::string(point) == "channel.hand.lost";
    const auto channel = Channel::make(*me_, {0, 0});
    ASSERT_EQ(channel->send(*me_, message(*me_, 1)), Sent::ok);
    ChildMember consumer(arena_, [&](Member& member) {
      Handle got = 0;
      if (channel->receive(member, &got) != Received::ok) _exit(3);
      free_message(member, got);
      channel->take_in_hand(member);
    });
    EXPECT_EQ(consumer.wait(), Ending::finished);
    ChildMember reaper(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      arena::reap_all_dead(*arena_, member);
    });
    EXPECT_EQ(reaper.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    uint64_t lost = 0;
    EXPECT_EQ(channel->wait_all_done(*me_, &lost, 0),
              counted ? sync::WaitResult::ok : sync::WaitResult::timed_out);
    EXPECT_EQ(lost, counted ? 1U : 0U);
    EXPECT_EQ(channel->mark_done(*me_), !counted);
    EXPECT_EQ(channel->wait_all_done(*me_, &lost, in_ms(10'000)), sync::WaitResult::ok);
    EXPECT_EQ(lost, 0U);
    EXPECT_TRUE(channel->let_go(*me_));
    EXPECT_EQ(arena_->statistics().blocks(), 0U);
  }
}

TEST_F(ChannelDeathTest, HandsMeanNothingWhereOthersMarkWhatTheyDidNotReceive) {
  const auto channel = Channel::make(*me_, {0, 0});
  for (uint64_t i = 1; i <= 2; ++i) ASSERT_EQ(channel->send(*me_, message(*me_, i)), Sent::ok);
  ChildMember receiver(arena_, [&](Member& member) {
    for (int i = 0; i < 2; ++i) {
      Handle got = 0;
      if (channel->receive(member, &got) != Received::ok) _exit(3);
      free_message(member, got);
      channel->take_in_hand(member);
    }
  });
  EXPECT_EQ(receiver.wait(), Ending::finished);
  EXPECT_TRUE(channel->mark_done(*me_));  // as if the receiver had told this process
  arena::reap_all_dead(*arena_, *me_);
  uint64_t lost = 0;
  EXPECT_EQ(channel->wait_all_done(*me_, &lost, in_ms(50)), sync::WaitResult::timed_out);
  EXPECT_TRUE(channel->mark_done(*me_));
  EXPECT_EQ(channel->wait_all_done(*me_, &lost, in_ms(10'000)), sync::WaitResult::ok);
  EXPECT_EQ(lost, 0U);
  EXPECT_TRUE(channel->let_go(*me_));
}

TEST_F(ChannelDeathTest, WhoWaitsForAllToBeDoneIsWokenWhenTheLastOneDies) {
  const auto channel = Channel::make(*me_, {0, 0});
  ASSERT_EQ(channel->send(*me_, message(*me_, 1)), Sent::ok);
  ChildMember waiter(arena_, [&](Member& member) {
    uint64_t lost = 0;
    if (channel->wait_all_done(member, &lost) != sync::WaitResult::ok || lost != 0) _exit(3);
  });
  usleep(20'000);
  ChildMember victim(arena_, [&](Member& member) {
    testing::arm_kill_point("channel.done.count", 1);
    static_cast<void>(channel->mark_done(member));
  });
  EXPECT_EQ(victim.wait(), Ending::killed);
  EXPECT_EQ(waiter.wait(20'000), Ending::finished);
  EXPECT_FALSE(channel->mark_done(*me_));
}

TEST_F(ChannelDeathTest, SleepersAreWokenWhenTheirWakerDies) {
  const auto channel = Channel::open(*me_, "c", Channel::Open::create, {1, 0});
  for (const char* point : {"ring.push.slot", "ring.push.tail"}) {
    ChildMember sleeper(arena_, [&](Member& member) {
      Handle got = 0;
      if (channel->receive(member, &got) != Received::ok) _exit(3);
      free_message(member, got);
    });
    usleep(20'000);
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      static_cast<void>(channel->send(member, message(member, 1)));
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    EXPECT_EQ(sleeper.wait(20'000), Ending::finished) << point;
  }
  ASSERT_EQ(channel->send(*me_, message(*me_, 1)), Sent::ok);
  ChildMember sender(arena_, [&](Member& member) {
    if (channel->send(member, message(member, 2)) != Sent::ok) _exit(3);
  });
  usleep(20'000);
  ChildMember victim(arena_, [&](Member& member) {
    testing::arm_kill_point("ring.pop.slot", 1);
    Handle got = 0;
    static_cast<void>(channel->receive(member, &got));
  });
  EXPECT_EQ(victim.wait(), Ending::killed);
  EXPECT_EQ(sender.wait(20'000), Ending::finished);
}

TEST_F(ChannelDeathTest, WhileChannelsAreMadeAndRemoved) {
  for (const char* point : {"channel.create.owner", "channel.create.root"}) {
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      Channel::open(member, "made", Channel::Open::create);
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    const auto channel = Channel::open(*me_, "made");
    ASSERT_EQ(channel->send(*me_, message(*me_, 1)), Sent::ok);
    EXPECT_TRUE(channel->remove(*me_));
    EXPECT_EQ(arena_->statistics().blocks(), 0U) << point;
  }
  for (const char* point :
       {"channel.close.closed", "channel.remove.root", "channel.remove.owner", "message.detach"}) {
    const auto channel = Channel::open(*me_, "removed", Channel::Open::create);
    ASSERT_EQ(channel->send(*me_, message(*me_, 1)), Sent::ok);
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      channel->remove(member);
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    if (const auto again = Channel::open(*me_, "removed", Channel::Open::existing)) {
      EXPECT_TRUE(again->remove(*me_));
    }
    EXPECT_EQ(arena_->statistics().blocks(), 0U) << point;
  }
}

TEST_F(ChannelDeathTest, NoKillPointIsForgotten) {
  const std::string known =
      " message.attach message.detach message.free ring.push.enter ring.push.owner ring.push.slot"
      " ring.push.sum ring.push.tail ring.push.back ring.push.done ring.pop.enter ring.pop.owner"
      " ring.pop.slot ring.pop.head channel.create.owner channel.create.root channel.close.closed"
      " channel.remove.root channel.remove.owner bell.make.pipe bell.keep.word"
      " bell.forget.keeper bell.end.pipe bell.change.begin bell.change.end bell.change.alone"
      " ring.segment.owner ring.segment.link ring.segment.back"
      " ring.segment.reuse ring.segment.base ring.segment.tail ring.segment.head"
      " ring.segment.free channel.done.hand channel.done.count channel.hand.count"
      " channel.hand.end channel.hand.lost channel.lost.tell ";
  for (const std::string& name : testing::kill_point_names()) {
    for (const char* prefix : {"message.", "ring.", "channel.", "bell."}) {
      if (!name.starts_with(prefix)) continue;
      EXPECT_NE(known.find(" " + name + " "), std::string::npos) << name << " is not tested";
    }
  }
}

// These points are reached only when two members meet; here three members push and pop until the
// victim has died at the point.
TEST_F(ChannelDeathTest, WhenAPushLosesToAnother) {
  for (const char* point : {"ring.push.back", "ring.segment.back"}) lose_at(point);
}

TEST_F(ChannelDeathTest, AtEveryInstructionOfPushAndPop) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "instructions are the sanitizer's";
#endif
  for (const uint64_t byte_limit : {uint64_t{0}, uint64_t{100'000}}) {
    const auto channel = Channel::open(*me_, "s" + std::to_string(byte_limit),
                                       Channel::Open::create, {10, byte_limit});
    blocks_ = arena_->statistics().blocks();
    std::unique_ptr<Member> member;
    Handle made = 0;
    testing::StepResult last;
    const uint64_t deaths = testing::kill_at_every_instruction(
        [&] {
          member = Member::join(arena_, MemberKind::process);
          sync::Holds::of(*member);
          made = message(*member, 1);
        },
        [&] {
          static_cast<void>(channel->try_send(*member, made));
          Handle got = 0;
          static_cast<void>(channel->try_receive(*member, &got));
        },
        [&](uint64_t) { expect_sound(*channel, 0, 1); }, &last);
    if (last.outcome == testing::StepOutcome::unavailable) GTEST_SKIP() << "no ptrace here";
    EXPECT_EQ(last.outcome, testing::StepOutcome::completed) << last.status;
    EXPECT_GT(deaths, 20U);
  }
}

TEST_F(ChannelDeathTest, AtEveryInstructionOfALapsEnd) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "instructions are the sanitizer's";
#endif
  for (const bool reused : {false, true}) {
    std::unique_ptr<Channel> channel;
    const auto renew = [&] {
      if (channel) channel->let_go(*me_);
      blocks_ = arena_->statistics().blocks() + 1;
      channel = Channel::make(*me_, {0, reused ? uint64_t{100'000} : 0});
      for (int laps = 0; laps < (reused ? 2 : 1); ++laps) go_near_the_end_of_a_lap(*channel, 0);
    };
    renew();
    std::unique_ptr<Member> member;
    Handle made = 0;
    testing::StepResult last;
    const uint64_t deaths = testing::kill_at_every_instruction(
        [&] {
          member = Member::join(arena_, MemberKind::process);
          sync::Holds::of(*member);
          made = message(*member, 1);
          // Allocates once before, with its system calls: most steps would fall into them.
          if (!reused) member->free(member->allocate(sizeof(RingSegment) + 2048 * 8));
        },
        [&] {
          static_cast<void>(channel->try_send(*member, made));
          Handle got = 0;
          static_cast<void>(channel->try_receive(*member, &got));
        },
        [&](uint64_t) {
          expect_sound(*channel, 0, 1);
          renew();
        },
        &last, reused ? 40 : 16);
    if (last.outcome == testing::StepOutcome::unavailable) GTEST_SKIP() << "no ptrace here";
    EXPECT_EQ(last.outcome, testing::StepOutcome::completed) << last.status;
    EXPECT_GT(deaths, 10U);
  }
}

}  // namespace
}  // namespace shoal::channel
