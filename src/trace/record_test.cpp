// SPDX-License-Identifier: Apache-2.0
#include "trace/record.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "testing/weak_memory.hpp"

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

// The same where nothing but the orders holds (testing/weak_memory.hpp).
TEST(TraceRing, AReaderNeverSeesHalfASpanInWeakMemory) {
  std::unique_ptr<Ring> ring;
  const auto record = [&](uint64_t i) {
    ring->record(Kind::wait, i << 20, (i << 20) + kShortest + i);
  };
  const testing::WeakScene scene{
      [&] {
        ring = std::make_unique<Ring>();
        for (uint64_t i = 0; i < kSpans; ++i) record(i);
        return std::vector<testing::SimulatedRange>{{ring.get(), sizeof(Ring)}};
      },
      {[&] {
         for (uint64_t i = kSpans; i < kSpans + 4; ++i) record(i);
       },
       [&] {
         Span spans[kSpans];
         const uint32_t count = ring->read(spans);
         for (uint32_t i = 0; i < count; ++i) {
           const uint64_t number = spans[i].begin_ticks >> 20;
           ASSERT_EQ(spans[i].ticks(), kShortest + number);
           ASSERT_TRUE(i == 0 || number == (spans[i - 1].begin_ticks >> 20) + 1);
         }
       }},
      [&](const std::string& run) {
        EXPECT_FALSE(::testing::Test::HasFailure()) << run;
        return !::testing::Test::HasFailure();
      }};
  testing::weak_random(scene, 1'000);
}

}  // namespace
}  // namespace shoal::trace
