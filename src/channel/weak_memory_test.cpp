// SPDX-License-Identifier: Apache-2.0
//
// Channels in a memory that keeps only what the C++ memory model promises
// (testing/weak_memory.hpp). Messages contain plain data; no wait may end by its time limit.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "arena/delayed_members_for_test.hpp"
#include "channel/channel.hpp"
#include "testing/deadline.hpp"

namespace shoal::channel {
namespace {

using arena::Handle;
using arena::Member;
using testing::in_ms;
using testing::PlainWord;
using testing::WeakCounts;

constexpr int64_t kLongMs = 60'000;
constexpr unsigned kSeeds = 200;

class ChannelInWeakMemory : public arena::DelayedMembers {
 protected:
  ChannelInWeakMemory() { register_reap_hooks(); }

  // A channel whose next message is `left` slots before the end of a segment; 0: at its beginning.
  void begin(const Ring::Limits& limits, uint64_t left = 0) {
    channel.reset();
    DelayedMembers::begin();
    channel = Channel::open(*s->me, "c", Channel::Open::create, limits);
    blocks = s->blocks();
    for (auto& values : got) values.clear();
    for (uint64_t i = left; left != 0 && i < RingSegment::kSlots; ++i) {
      send(*s->me, 0);
      ASSERT_TRUE(receive(*s->me, 0));
    }
    got[0].clear();
    if (left != 0) blocks = s->blocks();
  }
  PlainWord& data(Handle message) const {
    return *reinterpret_cast<PlainWord*>(
        const_cast<std::byte*>(open_message(*s->arena, message).bytes));
  }
  void send(Member& member, uint64_t value) {
    const uint64_t nothing = 0;
    const Handle made = make_message(member, std::as_bytes(std::span(&nothing, 1)), {});
    data(made).set(value);
    ASSERT_EQ(channel->send(member, made, in_ms(kLongMs)), Sent::ok);
  }
  bool receive(Member& member, size_t who, int64_t deadline_ns = 0) {
    Handle message = 0;
    if (channel->receive(member, &message, deadline_ns) != Received::ok) return false;
    got[who].push_back(data(message).get());
    data(message).set(UINT64_MAX);
    free_message(member, message);
    return true;
  }
  void try_it(const std::string& what, const std::function<void()>& prepare,
              std::vector<std::function<void()>> operations, const std::function<void()>& check) {
    const WeakCounts counts =
        try_in_weak_memory(what, prepare, std::move(operations), check, kSeeds);
    EXPECT_EQ(counts.timeouts, 0U) << what << ": a wake-up was lost";
  }
  void expect_all(std::vector<uint64_t> expected) {
    while (receive(*s->me, 0)) continue;
    std::vector<uint64_t> all;
    for (const auto& values : got) all.insert(all.end(), values.begin(), values.end());
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all, expected);
    channel->ring().check();
    EXPECT_EQ(s->blocks(), blocks);
    ASSERT_NO_THROW(s->arena->check());
  }

  std::unique_ptr<Channel> channel;
  std::array<std::vector<uint64_t>, 2> got;  // by receiver
  uint64_t blocks = 0;
};

TEST_F(ChannelInWeakMemory, EachMessageArrivesOnceAndAsItWasSent) {
  for (const Ring::Limits& limits : {Ring::Limits{0, 0}, {1, 0}, {0, 4096}}) {
    const std::string what =
        std::to_string(limits.items) + " items, " + std::to_string(limits.bytes) + " bytes";
    const auto send_some = [&](Member& member, uint64_t from) {
      for (uint64_t i = 0; i < 3; ++i) send(member, from + i);
    };
    const auto receive_some = [&](Member& member, size_t who, int count) {
      for (int i = 0; i < count; ++i) ASSERT_TRUE(receive(member, who, in_ms(kLongMs)));
    };
    try_it(
        what + ", two senders", [&] { begin(limits); },
        {[&] { send_some(*first, 10); }, [&] { send_some(*second, 20); },
         [&] { receive_some(*s->me, 0, 6); }},
        [&] { expect_all({10, 11, 12, 20, 21, 22}); });
    try_it(
        what + ", two receivers", [&] { begin(limits); },
        {[&] {
           send_some(*first, 10);
           send_some(*first, 13);
         },
         [&] { receive_some(*second, 0, 3); }, [&] { receive_some(*s->me, 1, 3); }},
        [&] {
          for (const auto& values : got) EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
          expect_all({10, 11, 12, 13, 14, 15});
        });
    if (HasFailure()) return;
  }
}

TEST_F(ChannelInWeakMemory, MessagesCrossTheEndOfASegment) {
  try_it(
      "end of a segment", [&] { begin({0, 0}, 2); },
      {[&] {
         for (uint64_t i = 0; i < 4; ++i) send(*first, 10 + i);
       },
       [&] {
         for (int i = 0; i < 2; ++i) ASSERT_TRUE(receive(*second, 0, in_ms(kLongMs)));
       },
       [&] {
         for (int i = 0; i < 2; ++i) ASSERT_TRUE(receive(*s->me, 1, in_ms(kLongMs)));
       }},
      [&] {
        while (receive(*s->me, 0)) continue;
        std::vector<uint64_t> all = got[0];
        all.insert(all.end(), got[1].begin(), got[1].end());
        std::sort(all.begin(), all.end());
        EXPECT_EQ(all, (std::vector<uint64_t>{10, 11, 12, 13}));
        channel->ring().check();
        ASSERT_NO_THROW(s->arena->check());
      });
}

TEST_F(ChannelInWeakMemory, WhoWaitsForAllToBeDoneSeesWhatWasDone) {
  Handle result = 0;
  const auto results = [&](uint64_t i) -> PlainWord& {
    return *s->arena->at<PlainWord>(result + 64 * i);
  };
  try_it(
      "join",
      [&] {
        begin({0, 0});
        result = s->me->allocate(256);
        for (uint64_t i = 0; i < 2; ++i) {
          results(i).set(0);
          send(*s->me, i);
        }
      },
      {[&] {
         uint64_t lost = 0;
         ASSERT_EQ(channel->wait_all_done(*s->me, &lost, in_ms(kLongMs)), sync::WaitResult::ok);
         ASSERT_EQ(lost, 0U);
         ASSERT_EQ(results(0).get() + results(1).get(), 2U);
       },
       [&] {
         ASSERT_TRUE(receive(*first, 0, in_ms(kLongMs)));
         channel->take_in_hand(*first);
         results(0).set(1);
         ASSERT_TRUE(channel->mark_done(*first));
       },
       [&] {
         ASSERT_TRUE(receive(*second, 1, in_ms(kLongMs)));
         channel->take_in_hand(*second);
         results(1).set(1);
         ASSERT_TRUE(channel->mark_done(*second));
       }},
      [&] { EXPECT_TRUE(channel->is_all_done()); });
}

}  // namespace
}  // namespace shoal::channel
