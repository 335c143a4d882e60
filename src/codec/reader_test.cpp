// SPDX-License-Identifier: Apache-2.0
#include "codec/reader.hpp"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <vector>

#include "arena/test_session.hpp"
#include "codec/summary.hpp"
#include "codec/writer.hpp"

namespace shoal::codec {
namespace {

MessageView view_of(const MessageBuilder& builder, arena::Arena* arena = nullptr) {
  MessageView view;
  view.arena = arena;
  view.bytes = builder.bytes.data();
  view.size = builder.bytes.size();
  view.attachments = builder.attachments.data();
  view.n_attachments = builder.attachments.size();
  return view;
}

// One value of every kind that C++ can write, and some that only Python writes.
void write_sample(MessageBuilder& out) {
  Buffer& bytes = out.bytes;
  write_tuple(bytes, 11);
  write_none(bytes);
  write_bool(bytes, true);
  for (const std::int64_t number : {-1L, 300L, 100000L, 1L << 40}) write_int(bytes, number);
  write_float(bytes, 2.5);
  write_text(out, "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
  write_bytes(out, "raw", 3);
  write_dict(bytes, 2);
  write_text(out, "key");
  write_list(bytes, 0);
  write_text(out, "more");
  write_complex(bytes, 1, -2);
  const std::uint64_t shape[] = {2, 3};
  const std::int32_t elements[6] = {1, 2, 3, 4, 5, 6};
  write_array(out, Element::kInt32, shape, elements);
}

TEST(Reader, ReadsBackWhatTheWriterWrote) {
  MessageBuilder builder;
  write_sample(builder);
  const MessageView view = view_of(builder);
  Reader reader(view);
  Item item;
  const auto next = [&] { return reader.next(item) ? item.kind : Kind::kPickle; };
  EXPECT_EQ(next(), Kind::kTuple);
  EXPECT_EQ(item.count, 11u);
  EXPECT_EQ(next(), Kind::kNone);
  EXPECT_EQ(next(), Kind::kBool);
  for (const std::int64_t number : {-1L, 300L, 100000L, 1L << 40}) {
    EXPECT_EQ(next(), Kind::kInt);
    EXPECT_EQ(item.integer, number);
  }
  EXPECT_EQ(next(), Kind::kFloat);
  EXPECT_EQ(item.real, 2.5);
  EXPECT_EQ(next(), Kind::kText);
  EXPECT_EQ(text_utf8(item), "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
  EXPECT_EQ(next(), Kind::kBytes);
  EXPECT_EQ(item.bytes().size(), 3u);
  EXPECT_EQ(next(), Kind::kDict);
  EXPECT_EQ(item.count, 2u);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(reader.skip());
  EXPECT_EQ(next(), Kind::kArray);
  EXPECT_EQ(item.shape().size(), 2u);
  EXPECT_EQ(item.bytes().size(), 24u);
  EXPECT_TRUE(reader.at_end());
}

TEST(Reader, SkipPassesOverAWholeValue) {
  MessageBuilder builder;
  write_sample(builder);
  write_int(builder.bytes, 7);
  const MessageView view = view_of(builder);
  Reader reader(view);
  Item item;
  ASSERT_TRUE(reader.skip());
  ASSERT_TRUE(reader.next(item));
  EXPECT_EQ(item.integer, 7);
  EXPECT_FALSE(reader.skip());
  EXPECT_NE(reader.error(), nullptr);
}

TEST(Reader, LargeDataLiesInAlignedBlocks) {
  arena::TestSession session;
  MessageBuilder builder(session.me.get());
  const std::vector<double> numbers(20000, 1.5);
  const std::uint64_t shape[] = {numbers.size()};
  write_list(builder.bytes, 3);
  write_array(builder, Element::kFloat64, shape, numbers.data());
  write_text(builder, std::string(100000, 'x'));
  write_bytes(builder, numbers.data(), 160000);
  ASSERT_EQ(builder.attachments.size(), 3u);
  const MessageView view = view_of(builder, session.arena.get());
  Reader reader(view);
  Item item;
  ASSERT_TRUE(reader.next(item) && reader.next(item));
  ASSERT_EQ(item.kind, Kind::kArray);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(item.data.bytes) % 64, 0u);
  EXPECT_EQ(std::memcmp(item.data.bytes, numbers.data(), 160000), 0);
  ASSERT_TRUE(reader.next(item));
  EXPECT_EQ(text_utf8(item), std::string(100000, 'x'));
  ASSERT_TRUE(reader.next(item));
  EXPECT_EQ(item.data.size, 160000u);
  builder.clear();
  EXPECT_EQ(session.blocks(), 0u);
}

TEST(Reader, AnAttachmentThatIsNoBlockIsRefused) {
  arena::TestSession session;
  MessageBuilder builder(session.me.get());
  write_bytes(builder, std::vector<char>(100000).data(), 100000);
  MessageView view = view_of(builder, session.arena.get());
  for (const arena::Handle bad : {arena::Handle{0}, arena::Handle{64}, ~arena::Handle{63},
                                  builder.attachments[0] + 64, session.arena->reserve()}) {
    view.attachments = &bad;
    Reader reader(view);
    Item item;
    EXPECT_FALSE(reader.next(item));
  }
}

TEST(Writer, RefusesWhatIsNotUtf8) {
  MessageBuilder builder;
  for (const char* const bad :
       {"\xFF", "\xC3", "\xC0\x80", "\xE2\x82", "\xF8\x88\x80\x80", "\xF4\x90\x80\x80"}) {
    EXPECT_THROW(write_text(builder, bad), std::invalid_argument);
  }
}

TEST(Summary, ShowsPlainValuesAndIsShort) {
  MessageBuilder builder;
  write_sample(builder);
  const MessageView view = view_of(builder);
  EXPECT_EQ(summarize(view, 0, 40).size(), 40u);
  EXPECT_EQ(summarize(view, 0, 1000),
            "(None, True, -1, 300, 100000, 1099511627776, 2.5, 'h\xC3\xA9 \xE2\x82\xAC "
            "\xF0\x9F\x98\x80', b'raw', {'key': [], 'more': (1.0-2.0j)}, "
            "array(shape=(2, 3), dtype='int32'))");
}

// Damaged bytes in a buffer of exactly their size: a sanitizer sees any access behind it.
TEST(Reader, DamagedMessagesNeverDoMoreThanFail) {
  MessageBuilder builder;
  write_sample(builder);
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 chance(seed);
  for (int round = 0; round < 50000; ++round) {
    std::vector<std::byte> damaged(builder.bytes.data(),
                                   builder.bytes.data() + builder.bytes.size());
    for (std::uint32_t i = chance() % 4 + 1; i > 0; --i) {
      damaged[chance() % damaged.size()] = static_cast<std::byte>(chance());
    }
    damaged.resize(chance() % 4 == 0 ? chance() % damaged.size() : damaged.size());
    damaged.shrink_to_fit();
    MessageView view;
    view.bytes = damaged.data();
    view.size = damaged.size();
    Reader reader(view);
    while (reader.skip()) continue;
    EXPECT_LE(summarize(view, 0, 100).size(), 112u);
  }
}

}  // namespace
}  // namespace shoal::codec
