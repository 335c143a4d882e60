// SPDX-License-Identifier: Apache-2.0
#include "os/copy.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "testing/child_process.hpp"

namespace shoal::os {
namespace {

std::vector<std::uint64_t> noise(std::size_t bytes) {
  std::vector<std::uint64_t> words(bytes / 8 + 2);
  std::mt19937_64 random(bytes);
  for (std::uint64_t& word : words) word = random();
  return words;
}

// Copies `size` bytes between unaligned addresses, and checks that the bytes around the target are
// unchanged.
bool copies_exactly(std::size_t size, std::size_t from_shift, std::size_t to_shift) {
  const std::vector<std::uint64_t> source = noise(size + 64);
  const auto* const from = reinterpret_cast<const std::byte*>(source.data()) + from_shift;
  std::vector<std::byte> target(size + 128, std::byte{0x5A});
  copy(target.data() + to_shift, from, size);
  if (std::memcmp(target.data() + to_shift, from, size) != 0) return false;
  for (std::size_t i = 0; i < to_shift; ++i) {
    if (target[i] != std::byte{0x5A}) return false;
  }
  for (std::size_t i = to_shift + size; i < target.size(); ++i) {
    if (target[i] != std::byte{0x5A}) return false;
  }
  return true;
}

TEST(Copy, SmallAndEmpty) {
  copy(nullptr, nullptr, 0);
  EXPECT_TRUE(copies_exactly(1, 0, 3));
  EXPECT_TRUE(copies_exactly(4097, 5, 1));
}

TEST(Copy, SharedByThreadsAtOddPlacesAndSizes) {
  for (const std::size_t more : {std::size_t{0}, std::size_t{1}, (std::size_t{5} << 20) + 13}) {
    EXPECT_TRUE(copies_exactly(kShareCopyFrom + more, 0, 0));
    EXPECT_TRUE(copies_exactly(kShareCopyFrom + more, 7, 9));
  }
  EXPECT_TRUE(copies_exactly(3 * kShareCopyFrom - 1, 1, 0));
}

TEST(Copy, OnOneCpu) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
      break;
    }
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_TRUE(copies_exactly(kShareCopyFrom + 11, 2, 5));
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(Copy, WhereNoThreadCanBeStarted) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer needs the memory";
#endif
  testing::ChildProcess child([] {
    const std::vector<std::uint64_t> source = noise(kShareCopyFrom);
    std::vector<std::byte> target(kShareCopyFrom);
    rlimit none{1, 1};
    if (setrlimit(RLIMIT_AS, &none) != 0) _exit(2);
    copy(target.data(), source.data(), kShareCopyFrom);
    if (std::memcmp(target.data(), source.data(), kShareCopyFrom) != 0) _exit(3);
  });
  EXPECT_EQ(child.wait(), testing::Ending::finished);
}

}  // namespace
}  // namespace shoal::os
