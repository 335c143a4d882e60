// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <numeric>
#include <thread>

#include "api/plain.hpp"
#include "shoal/channel.hpp"
#include "shoal/session.hpp"
#include "shoal/value.hpp"

namespace shoal {
namespace {

using std::chrono::milliseconds;

std::vector<Value> samples() {
  std::vector<double> numbers(20'000);
  std::iota(numbers.begin(), numbers.end(), 0.5);
  const std::vector<std::int32_t> few{1, -2, 3};
  return {
      None{},
      true,
      -7,
      std::int64_t{1} << 62,
      2.5,
      "caf\xc3\xa9 \xf0\x9f\x90\x9f",
      Bytes{std::string(100'000, '\0')},
      Value::list({1, Value::tuple({2, "three"}), Value::dict({{"k", Value::list({})}})}),
      Array::of(std::span<const double>(numbers)),
      Array::of(std::span<const std::int32_t>(few)),
      Array(ElementType::complex128, {3, 0, 2}),
  };
}

TEST(Api, ValuesGoThroughAChannelAndComeBackEqual) {
  const Session session = Session::create();
  Channel channel(session, "values");
  for (const Value& value : samples()) {
    ASSERT_EQ(channel.send(value), SendResult::ok);
    Value got;
    ASSERT_EQ(channel.receive(&got), ReceiveResult::ok);
    EXPECT_EQ(got, value) << value.type_name();
  }
  EXPECT_EQ(channel.length(), 0U);
}

TEST(Api, AReceivedArrayKeepsItsMemoryWhenTheChannelIsGone) {
  Value got;
  std::uint64_t before = 0;
  {
    const Session session = Session::create();
    Channel channel(session, "arrays");
    Array array(ElementType::float64, {100, 100});
    array.as<double>()[77] = 1.5;
    ASSERT_EQ(channel.send(array), SendResult::ok);
    ASSERT_EQ(channel.receive(&got), ReceiveResult::ok);
    before = session.statistics().in_use;
  }
  EXPECT_GT(before, 0U);
  EXPECT_EQ(got.get<Array>().as<double>()[77], 1.5);
  got.get<Array>().as<double>()[78] = 2.5;  // writable
}

TEST(Api, TimesOutAndCloses) {
  const Session session = Session::create();
  Channel channel(session, "t", {1, 0});
  Value got;
  EXPECT_EQ(channel.receive(&got, milliseconds(0)), ReceiveResult::empty);
  EXPECT_EQ(channel.receive(&got, milliseconds(20)), ReceiveResult::empty);
  EXPECT_EQ(channel.send(1), SendResult::ok);
  EXPECT_EQ(channel.send(2, milliseconds(20)), SendResult::full);
  channel.close();
  EXPECT_EQ(channel.send(3), SendResult::closed);
  EXPECT_EQ(channel.receive(&got), ReceiveResult::ok);
  EXPECT_EQ(channel.receive(&got), ReceiveResult::closed);
}

TEST(Api, OthersJoinByProcessNumberAndByDescriptor) {
  const Session session = Session::create();
  const Session by_descriptor = Session::join_descriptor(session.descriptor());
  EXPECT_NE(by_descriptor.member(), session.member());
  Channel there(by_descriptor, "j");
  Channel here(session, "j");
  ASSERT_EQ(there.send("hello"), SendResult::ok);
  Value got;
  ASSERT_EQ(here.receive(&got), ReceiveResult::ok);
  EXPECT_EQ(got, Value("hello"));
  EXPECT_NO_THROW(static_cast<void>(Session::join(getpid())));
  EXPECT_THROW(static_cast<void>(Session::join(1 << 22)), Error);
}

TEST(Api, BlocksAreTheSessionsMemory) {
  const Session session = Session::create();
  Block block = session.allocate(1000);
  EXPECT_EQ(block.size(), 1000U);
  EXPECT_NE(block.handle(), 0U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.data()) % 64, 0U);
  block.data()[999] = std::byte{1};
}

TEST(Api, AccessToTheWrongTypeThrows) {
  const Value value = Value::dict({{"a", 1}});
  EXPECT_EQ(value.at("a").get<std::int64_t>(), 1);
  EXPECT_THROW(static_cast<void>(value.at("b")), std::out_of_range);
  EXPECT_THROW(static_cast<void>(value.get<double>()), NotPlain);
  EXPECT_THROW(static_cast<void>(Array(ElementType::int8, {2}).as<double>()), NotPlain);
  EXPECT_THROW(Array(ElementType::int8, {1ULL << 40, 1ULL << 40}), std::length_error);
}

// Decoding checks all bytes: random ones, and messages with one byte changed, give an error or a
// value, never an access out of bounds (run this under AddressSanitizer).
TEST(Api, BadBytesGiveErrors) {
  const Session session = Session::create();
  std::uint64_t state = 88172645463325252ULL;
  const auto next = [&] { return state ^= state << 13, state ^= state >> 7, state ^= state << 17; };
  for (const Value& value : samples()) {
    codec::MessageBuilder builder(session.membership()->member.get());
    detail::encode(value, builder);
    for (int round = 0; round < 300; ++round) {
      std::vector<std::byte> bytes(
          builder.bytes.data(),
          builder.bytes.data() + std::min<size_t>(builder.bytes.size(), 4096));
      const auto changes = next() % 3;
      for (std::uint64_t i = 0; i < changes; ++i) bytes[next() % bytes.size()] = std::byte(next());
      bytes.resize(bytes.size() - next() % std::min<size_t>(bytes.size(), 3));
      codec::MessageView view;
      view.arena = session.membership()->arena.get();
      view.member = session.membership()->member.get();
      view.bytes = bytes.data();
      view.size = bytes.size();
      view.attachments = builder.attachments.data();
      view.n_attachments = builder.attachments.size();
      try {
        static_cast<void>(detail::decode(view, session.membership()));
      } catch (const std::exception&) {
        continue;
      }
    }
  }
}

}  // namespace
}  // namespace shoal
