// SPDX-License-Identifier: Apache-2.0
#include "trace/record.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace shoal::trace {
namespace {

TEST(TraceRing, KeepsTheNewestSpansInOrder) {
  auto ring = std::make_unique<Ring>();
  for (uint64_t i = 0; i < 100; ++i) ring->record(Kind::task, i * 10'000, i * 10'000 + 5'000);
  Span spans[kSpans];
  const uint32_t count = ring->read(spans);
  ASSERT_EQ(count, kSpans - 1);  // the writer may be overwriting the oldest
  EXPECT_EQ(spans[0].begin_ticks, 41u * 10'000);
  EXPECT_EQ(spans[count - 1].begin_ticks, 99u * 10'000);
  EXPECT_EQ(spans[0].ticks(), 5'000u);
  EXPECT_EQ(spans[0].kind(), Kind::task);
}

TEST(TraceRing, LeavesOutWhatIsTooShortToTell) {
  auto ring = std::make_unique<Ring>();
  ring->record(Kind::encode, 100, 100 + kShortest - 1);
  ring->record(Kind::encode, 100, 100 + kShortest);
  Span spans[kSpans];
  EXPECT_EQ(ring->read(spans), 1u);
}

TEST(TraceRing, AReaderNeverSeesHalfASpan) {
  auto ring = std::make_unique<Ring>();
  os::Atomic<uint32_t> stop{0};
  std::thread writer([&] {
    for (uint64_t i = 1; stop.load() == 0; ++i)
      ring->record(Kind::wait, i << 20, (i << 20) + kShortest + i);
  });
  while (ring->written.load() == 0) std::this_thread::yield();
  for (int round = 0; round < 20'000; ++round) {
    Span spans[kSpans];
    const uint32_t count = ring->read(spans);
    for (uint32_t i = 0; i < count; ++i) {
      ASSERT_EQ(spans[i].ticks(), kShortest + (spans[i].begin_ticks >> 20));
    }
  }
  stop.store(1);
  writer.join();
}

}  // namespace
}  // namespace shoal::trace
