// SPDX-License-Identifier: Apache-2.0
#include "codec/format.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "codec/buffer.hpp"
#include "codec/pointer_map.hpp"

namespace shoal::codec {
namespace {

TEST(Cursor, SizesOfEveryWidthComeBack) {
  for (const std::uint64_t size : {0ull, 1ull, 253ull, 254ull, 255ull, 65536ull, 0xFFFFFFFFull,
                                   0x100000000ull, 0xFFFFFFFFFFFFFFFFull}) {
    Buffer buffer;
    buffer.put_size(size);
    Cursor cursor(buffer.data(), buffer.size());
    std::uint64_t back = 0;
    ASSERT_TRUE(cursor.take_size(back));
    EXPECT_EQ(back, size);
    EXPECT_EQ(cursor.left(), 0u);
  }
}

TEST(Cursor, StaysWhereItIsWhenAFieldDoesNotFit) {
  Buffer buffer;
  buffer.put_size(70000);  // five bytes
  for (std::size_t size = 0; size < 5; ++size) {
    Cursor cursor(buffer.data(), size);
    std::uint64_t number = 0;
    EXPECT_FALSE(cursor.take_size(number));
    EXPECT_EQ(cursor.offset(), 0u);
    EXPECT_EQ(cursor.left(), size);
  }
  Cursor cursor(buffer.data(), 5);
  const std::byte* bytes = nullptr;
  EXPECT_FALSE(cursor.take_bytes(bytes, 6));
  EXPECT_FALSE(cursor.take_bytes(bytes, UINT64_MAX));
  EXPECT_TRUE(cursor.take_bytes(bytes, 5));
}

TEST(Cursor, AnOffsetBehindTheEndLeavesNothing) {
  const std::byte bytes[4] = {};
  Cursor cursor(bytes, sizeof bytes, 100);
  std::uint8_t byte;
  EXPECT_EQ(cursor.left(), 0u);
  EXPECT_FALSE(cursor.take(byte));
}

TEST(Format, ElementsHaveTheSizesOfTheirTypes) {
  EXPECT_EQ(element_size(Element::kFloat64), sizeof(double));
  EXPECT_EQ(element_size(Element::kComplex64), 2 * sizeof(float));
  EXPECT_EQ(element_size(Element::kNamed), 0u);
  EXPECT_EQ(element_size(static_cast<Element>(200)), 0u);
}

TEST(Buffer, KeepsItsContentsWhenItGrows) {
  Buffer buffer;
  for (std::uint32_t i = 0; i < 100000; ++i) buffer.put(i);
  for (std::uint32_t i = 0; i < 100000; ++i) {
    std::uint32_t value;
    std::memcpy(&value, buffer.data() + i * sizeof value, sizeof value);
    ASSERT_EQ(value, i);
  }
}

TEST(PointerMap, FindsWhatWasPutInUntilItIsCleared) {
  PointerMap map;
  std::vector<int> objects(1000);
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < objects.size(); ++i) {
      bool inserted = false;
      EXPECT_EQ(map.find(&objects[i]), nullptr);
      map.find_or_insert(&objects[i], i, inserted);
      EXPECT_TRUE(inserted);
      EXPECT_EQ(*map.find_or_insert(&objects[i], 77777, inserted), i);
      EXPECT_FALSE(inserted);
    }
    map.clear();
    EXPECT_EQ(map.find(&objects[0]), nullptr);
  }
}

}  // namespace
}  // namespace shoal::codec
