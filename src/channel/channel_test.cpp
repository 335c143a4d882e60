// SPDX-License-Identifier: Apache-2.0
#include "channel/channel.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "sync/child_member_for_test.hpp"
#include "testing/deadline.hpp"

namespace shoal::channel {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using sync::ChildMember;
using testing::Ending;
using testing::in_ms;

Handle message(Member& member, uint64_t value, size_t attached = 0) {
  std::vector<Handle> attachments;
  if (attached != 0) attachments.push_back(member.allocate(attached));
  return make_message(member, std::as_bytes(std::span(&value, 1)), attachments);
}

uint64_t value_of(Arena& arena, Handle handle) {
  uint64_t value = 0;
  std::memcpy(&value, open_message(arena, handle).bytes, sizeof value);
  return value;
}

class ChannelTest : public ::testing::Test {
 protected:
  ChannelTest() { register_reap_hooks(); }
  std::unique_ptr<Channel> open(const char* name = "test", const Ring::Limits& limits = {}) {
    return Channel::open(*me_, name, Channel::Open::either, limits);
  }
  // Blocks that no living member owns: none after all messages were received and freed.
  uint64_t blocks_in_transit() {
    const auto s = arena_->statistics();
    return s.blocks_channel + s.blocks_block + s.blocks_dying;
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_F(ChannelTest, IsFoundByItsNameAndMadeOnce) {
  EXPECT_EQ(Channel::open(*me_, "a", Channel::Open::existing), nullptr);
  const auto made = Channel::open(*me_, "a", Channel::Open::create, {10, 0});
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(Channel::open(*me_, "a", Channel::Open::create), nullptr);
  const auto found = Channel::open(*me_, "a", Channel::Open::existing);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->handle(), made->handle());
  EXPECT_EQ(found->statistics().item_limit, 10U);
  EXPECT_THROW(Channel::open(*me_, ""), std::invalid_argument);
  EXPECT_THROW(Channel::open(*me_, std::string(46, 'x')), std::invalid_argument);
  EXPECT_TRUE(made->remove(*me_));
  EXPECT_EQ(Channel::open(*me_, "a", Channel::Open::existing), nullptr);
  EXPECT_EQ(arena_->statistics().blocks_named, 0U);
}

TEST_F(ChannelTest, NamesOfRemovedChannelsCanBeUsedAgain) {
  for (int i = 0; i < 200; ++i) {
    const std::string name = "channel " + std::to_string(i);
    const auto made = Channel::open(*me_, name, Channel::Open::create);
    ASSERT_NE(made, nullptr) << name;
    ASSERT_TRUE(made->remove(*me_)) << name;
  }
}

TEST_F(ChannelTest, EachChannelHasANumberOfItsOwn) {
  const Handle block = me_->allocate(Channel::state_size({}));
  const auto* const state = arena_->at<ChannelState>(block);
  std::set<uint32_t> numbers;
  for (int i = 0; i < 10'000; ++i) {
    Channel::create_state(*arena_, block, {});
    EXPECT_TRUE(numbers.insert(state->id & 0xFFFFF).second) << "channel " << i;
    EXPECT_EQ(state->ring.id, state->id);
  }
  me_->free(block);
}

TEST_F(ChannelTest, CarriesAttachments) {
  const auto channel = open();
  const Handle sent = message(*me_, 5, 100'000);
  ASSERT_EQ(channel->send(*me_, sent), Sent::ok);
  Handle got = 0;
  const auto other = Member::join(arena_, MemberKind::process);
  ASSERT_EQ(channel->receive(*other, &got), Received::ok);
  const Message opened = open_message(*arena_, got);
  ASSERT_EQ(opened.attachment_count, 1U);
  EXPECT_TRUE(other->take_from_block(opened.attachments[0], got));
  other->free(opened.attachments[0]);
  free_message(*other, got);
  EXPECT_EQ(blocks_in_transit(), 0U);
}

TEST_F(ChannelTest, TimesOutWhenFullAndWhenEmpty) {
  const auto channel = open("t", {1, 0});
  Handle got = 0;
  EXPECT_EQ(channel->receive(*me_, &got, 0), Received::empty);
  EXPECT_EQ(channel->receive(*me_, &got, in_ms(20)), Received::empty);
  ASSERT_EQ(channel->send(*me_, message(*me_, 1)), Sent::ok);
  const Handle second = message(*me_, 2);
  EXPECT_EQ(channel->send(*me_, second, in_ms(20)), Sent::full);
  EXPECT_EQ(channel->receive(*me_, &got), Received::ok);
  free_message(*me_, got);
  EXPECT_EQ(channel->send(*me_, second, in_ms(20)), Sent::ok);
}

TEST_F(ChannelTest, CloseLetsReceiversFinishAndWakesSleepers) {
  const auto channel = open();
  ASSERT_EQ(channel->send(*me_, message(*me_, 1)), Sent::ok);
  std::thread sleeper([&] {
    const auto member = Member::join(arena_, MemberKind::process);
    Handle got = 0;
    EXPECT_EQ(channel->receive(*member, &got), Received::ok);
    free_message(*member, got);
    EXPECT_EQ(channel->receive(*member, &got), Received::closed);
  });
  usleep(20'000);
  channel->close(*me_);
  sleeper.join();
  const Handle late = message(*me_, 2);
  EXPECT_EQ(channel->send(*me_, late), Sent::closed);
}

TEST_F(ChannelTest, SleepersAreWokenUnderAllLimits) {
  for (const Ring::Limits limits : {Ring::Limits{1, 0}, {7, 0}, {100, 256}}) {
    constexpr uint64_t kEach = 5'000;
    const auto channel = open("s", limits);
    std::vector<std::thread> threads;
    os::Atomic<uint64_t> sum;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        const auto member = Member::join(arena_, MemberKind::process);
        for (uint64_t n = 1; n <= kEach; ++n) {
          ASSERT_EQ(channel->send(*member, message(*member, n), in_ms(60'000)), Sent::ok);
        }
      });
      threads.emplace_back([&] {
        const auto member = Member::join(arena_, MemberKind::process);
        for (uint64_t n = 0; n < kEach; ++n) {
          Handle got = 0;
          ASSERT_EQ(channel->receive(*member, &got, in_ms(60'000)), Received::ok);
          sum.fetch_add(value_of(*arena_, got));
          free_message(*member, got);
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(sum.load(), 3 * kEach * (kEach + 1) / 2);
    EXPECT_EQ(channel->length(), 0U);
    EXPECT_TRUE(channel->remove(*me_));
  }
}

TEST_F(ChannelTest, DescriptorNeverMissesAMessage) {
  const auto channel = open("d", {16, 0});
  constexpr uint64_t kMessages = 20'000;
  std::thread sender([&] {
    const auto member = Member::join(arena_, MemberKind::process);
    for (uint64_t i = 0; i < kMessages; ++i) {
      ASSERT_EQ(channel->send(*member, message(*member, i), in_ms(60'000)), Sent::ok);
    }
  });
  const int fd = channel->descriptor(*me_);
  for (uint64_t i = 0; i < kMessages;) {
    pollfd entry{fd, POLLIN, 0};
    ASSERT_EQ(poll(&entry, 1, 30'000), 1) << "missed message " << i;
    Handle got = 0;
    while (channel->try_receive(*me_, &got) == Received::ok) {
      ASSERT_EQ(value_of(*arena_, got), i++);
      free_message(*me_, got);
    }
  }
  sender.join();
}

// Senders number their messages, receivers record in shared memory what they received. Members are
// killed at random; each message is received at most once, and is lost only if a dead member had
// received it.
class RandomKills : public ChannelTest, public ::testing::WithParamInterface<uint64_t> {};
INSTANTIATE_TEST_SUITE_P(ItemLimits, RandomKills, ::testing::Values(uint64_t{50}, uint64_t{0}));

TEST_P(RandomKills, LoseOnlyWhatTheDeadHadInHand) {
  constexpr uint64_t kSenders = 3;
  constexpr uint64_t kReceivers = 3;
  // Per place of a sender, more than can be sent; a new sender continues its predecessor's numbers.
  constexpr uint64_t kNumbers = 1 << 22;
  std::random_device device;
  const auto seed = device();
  std::mt19937 random(seed);
  SCOPED_TRACE(seed);
  const bool bounded = GetParam() != 0;
  const auto channel = open("k", {GetParam(), bounded ? uint64_t{20'000} : 0});
  auto* const next = arena_->at<os::Atomic<uint64_t>>(me_->allocate(4096));
  auto* const seen = arena_->at<os::Atomic<uint32_t>>(me_->allocate(kSenders * kNumbers * 4));
  for (uint64_t i = 0; i < 16; ++i) next[i].store(0);
  for (uint64_t i = 0; i < kSenders * kNumbers; ++i) seen[i].store(0);
  const uint64_t blocks_before = arena_->statistics().blocks();

  const auto send = [&](uint64_t place) {
    return [&, place](Member& member) {
      for (;;) {
        const uint64_t number = next[place].fetch_add(1);
        if (number >= kNumbers) return;
        const Handle made =
            message(member, place * kNumbers + number, bounded && number % 8 == 0 ? 70'000 : 0);
        while (!bounded && channel->length() > 10'000) usleep(100);  // of five segments
        if (channel->send(member, made) != Sent::ok) _exit(3);
      }
    };
  };
  const auto receive = [&](Member& member) {
    for (;;) {
      Handle got = 0;
      const Received received = channel->receive(member, &got);
      if (received == Received::closed) return;
      if (received != Received::ok) _exit(4);
      if (seen[value_of(*arena_, got)].fetch_add(1) != 0) _exit(5);
      free_message(member, got);
    }
  };
  std::vector<std::unique_ptr<ChildMember>> children;
  const auto start = [&](size_t place) {
    if (place < kSenders) return std::make_unique<ChildMember>(arena_, send(place));
    return std::make_unique<ChildMember>(arena_, receive);
  };
  for (size_t i = 0; i < kSenders + kReceivers; ++i) children.push_back(start(i));
  constexpr int kKills = 250;
  for (int kills = 0; kills < kKills; ++kills) {
    usleep(static_cast<useconds_t>(random() % 6'000));
    const size_t victim = random() % children.size();
    const size_t frozen = random() % children.size();
    if (frozen != victim) children[frozen]->stop();
    children[victim]->kill();
    const Ending ending = children[victim]->wait();
    ASSERT_TRUE(ending == Ending::killed || ending == Ending::finished) << static_cast<int>(ending);
    children[victim] = start(victim);
    usleep(static_cast<useconds_t>(random() % 300));
    // Before this process needs the arena: a stopped process may hold the lock for allocating large
    // blocks.
    if (frozen != victim) children[frozen]->resume();
    if (kills % 2 == 0) arena::reap_all_dead(*arena_, *me_);  // otherwise the waiters reap
  }
  const uint64_t progress = channel->ring().popped();
  for (int i = 0; i < 10'000 && channel->ring().popped() == progress; ++i) usleep(1'000);
  uint64_t still_to_send = 0;
  for (uint64_t place = 0; place < kSenders; ++place)
    still_to_send += next[place].load() < kNumbers;
  EXPECT_TRUE(still_to_send == 0 || channel->ring().popped() != progress) << "the channel hangs";
  channel->close(*me_);
  for (auto& child : children) {
    const Ending ending = child->wait(30'000);
    EXPECT_TRUE(ending == Ending::finished || ending == Ending::failed) << static_cast<int>(ending);
  }
  arena::reap_all_dead(*arena_, *me_);
  uint64_t lost = 0;
  uint64_t sent = 0;
  for (uint64_t place = 0; place < kSenders; ++place) {
    const uint64_t numbers = std::min(next[place].load(), kNumbers);
    sent += numbers;
    for (uint64_t i = 0; i < numbers; ++i) {
      const uint32_t times = seen[place * kNumbers + i].load();
      ASSERT_LE(times, 1U);
      lost += times == 0 ? 1 : 0;
    }
  }
  Handle left = 0;
  while (channel->try_receive(*me_, &left) == Received::ok) {
    --lost;
    free_message(*me_, left);
  }
  EXPECT_LE(lost, kKills + kSenders);  // one in the hand of each that was killed or found it closed
  const uint64_t segments = channel->ring().segments() - 1;
  EXPECT_EQ(blocks_in_transit(), segments);
  EXPECT_EQ(arena_->statistics().blocks(), blocks_before + segments) << "leaked or freed too much";
  channel->ring().check();
  arena_->check();
  RecordProperty("messages", static_cast<int>(sent));
  RecordProperty("lost", static_cast<int>(lost));
}

}  // namespace
}  // namespace shoal::channel
