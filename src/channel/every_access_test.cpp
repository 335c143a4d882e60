// SPDX-License-Identifier: Apache-2.0
//
// Channels: each operation is stopped at each of its accesses to shared memory, while other members
// send, receive, mark messages as done, or die. See testing/delay.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "arena/delayed_members_for_test.hpp"
#include "channel/channel.hpp"
#include "testing/deadline.hpp"

namespace shoal::channel {
namespace {

using arena::Handle;
using arena::Member;
using testing::delay_at_every_access;
using testing::DelayCounts;
using testing::in_ms;

constexpr int64_t kLongMs = 60'000;

class ChannelDelays : public arena::DelayedMembers {
 protected:
  ChannelDelays() { register_reap_hooks(); }

  void begin(const Ring::Limits& limits = {}) {
    channel.reset();
    DelayedMembers::begin();
    channel = Channel::open(*s->me, "c", Channel::Open::create, limits);
    next = 0;
    got.clear();
    blocks = s->blocks();
  }

  void send(Member& member, uint64_t value) {
    const Handle made = make_message(member, std::as_bytes(std::span(&value, 1)), {});
    ASSERT_EQ(channel->send(member, made, in_ms(kLongMs)), Sent::ok);
  }

  uint64_t take(Member& member, Handle message) {
    uint64_t value = 0;
    std::memcpy(&value, open_message(*s->arena, message).bytes, sizeof value);
    free_message(member, message);
    return value;
  }

  // Receives a message if there is one.
  bool receive(Member& member) {
    Handle message = 0;
    if (channel->try_receive(member, &message) != Received::ok) return false;
    got.push_back(take(member, message));
    return true;
  }

  // Every message that was sent arrives once, except `lost` messages; then nothing is left.
  void check_all_arrive(uint64_t sent, uint64_t lost) {
    while (receive(*s->me)) continue;
    std::sort(got.begin(), got.end());
    EXPECT_TRUE(std::adjacent_find(got.begin(), got.end()) == got.end()) << "a message came twice";
    EXPECT_EQ(got.size() + lost, sent);
    channel->ring().check();
    EXPECT_EQ(s->blocks(), blocks);
    ASSERT_NO_THROW(s->arena->check());
  }

  std::unique_ptr<Channel> channel;
  uint64_t next = 0;
  std::vector<uint64_t> got;
  uint64_t blocks = 0;
};

// A consumer has died with a message in hand. While the loss is being counted, another message is
// sent: it does not count as done before its consumer marks it.
TEST_F(ChannelDelays, OfASettlementSwallowNoLaterMessage) {
  uint64_t lost = 0;
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        lost = 0;
        send(*s->me, 1);
        in_a_member_that_dies([&](Member& victim) {
          ASSERT_TRUE(receive(victim));
          channel->take_in_hand(victim);
        });
      },
      [&] { (void)channel->wait_all_done(*first, &lost, 0); },
      [&] {
        send(*s->me, 2);
        ASSERT_TRUE(receive(*second));
        channel->take_in_hand(*second);
      },
      [&](uint64_t k) {
        SCOPED_TRACE("access " + std::to_string(k));
        uint64_t later = 0;
        const bool over = channel->wait_all_done(*first, &later, 0) == sync::WaitResult::ok;
        EXPECT_FALSE(over) << "the second message counts as done, or as lost: " << later;
        EXPECT_TRUE(channel->mark_done(*second)) << "the second message was done already";
        ASSERT_EQ(channel->wait_all_done(*first, &later, in_ms(kLongMs)), sync::WaitResult::ok);
        EXPECT_EQ(lost + later, 1U);
      });
  expect_stops("settle", counts);
}

TEST_F(ChannelDelays, OfSendsAndReceivesLoseNothing) {
  uint64_t lost = 0;
  const std::function<void()> operations[] = {
      [&] { send(*first, next++); },
      [&] { (void)receive(*first); },
      [&] {
        send(*first, next++);
        (void)receive(*first);
      },
  };
  const std::function<void()> others[] = {
      [&] { send(*second, 100 + next++); },
      [&] { (void)receive(*second); },
      [&] { in_a_member_that_dies([&](Member& victim) { send(victim, 100 + next++); }); },
      [&] {
        in_a_member_that_dies([&](Member& victim) {
          Handle message = 0;
          if (channel->try_receive(victim, &message) == Received::ok) lost += 1;
        });
      },
  };
  for (const Ring::Limits limits : {Ring::Limits{0, 0}, {3, 0}, {0, 4096}}) {
    for (size_t i = 0; i < std::size(operations); ++i) {
      for (size_t j = 0; j < std::size(others); ++j) {
        const DelayCounts counts = delay_at_every_access(
            [&] {
              begin(limits);
              lost = 0;
              send(*s->me, next++);
            },
            operations[i], others[j],
            [&](uint64_t k) {
              SCOPED_TRACE(std::to_string(i) + " against " + std::to_string(j) + ", access " +
                           std::to_string(k));
              check_all_arrive(next, lost);
            },
            60);
        expect_stops(std::to_string(i) + std::to_string(j), counts);
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace shoal::channel
