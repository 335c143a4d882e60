// SPDX-License-Identifier: Apache-2.0
#include "os/memory.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/error.hpp"

namespace shoal::os {
namespace {

constexpr uint64_t kSize = 64 << 20;

uint64_t blocks_behind(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

class MemoryFile : public ::testing::Test {
 protected:
  ~MemoryFile() override {
    if (at != nullptr) unmap(at, kSize);
    close_fd(fd);
  }
  int fd = create_memory_file("test", kSize);
  std::byte* at = map_file(fd, 0, kSize, true);
};

TEST_F(MemoryFile, IsReservedInStepsAndGivenBack) {
  EXPECT_EQ(blocks_behind(fd), 0U);
  ASSERT_TRUE(reserve_file_range(fd, 0, 40 << 20));
  EXPECT_EQ(blocks_behind(fd), uint64_t{40} << 20);
  at[1000] = std::byte{1};
  ASSERT_TRUE(punch(at, 20 << 20));
  EXPECT_EQ(blocks_behind(fd), uint64_t{20} << 20);
  EXPECT_EQ(at[1000], std::byte{0});
}

TEST_F(MemoryFile, CanBePopulatedWithoutItsDescriptor) {
  if (!populate(at, 1 << 20)) GTEST_SKIP() << "no MADV_POPULATE_WRITE";
  EXPECT_EQ(blocks_behind(fd), uint64_t{1} << 20);
  ASSERT_TRUE(populate(at + (2 << 20) + 100, page_size()));  // the two pages that it touches
  EXPECT_EQ(blocks_behind(fd), (uint64_t{1} << 20) + 2 * page_size());
}

TEST_F(MemoryFile, NeitherShrinksNorGrows) {
  EXPECT_NE(ftruncate(fd, 4096), 0);
  EXPECT_NE(ftruncate(fd, 2 * kSize), 0);
}

TEST_F(MemoryFile, PrivateViewsHideWrites) {
  at[0] = std::byte{1};
  ASSERT_NE(map_file(fd, 0, 1 << 16, false, at), nullptr);
  EXPECT_EQ(at[0], std::byte{1});
  at[0] = std::byte{2};
  ASSERT_NE(map_file(fd, 0, 1 << 16, true, at), nullptr);
  EXPECT_EQ(at[0], std::byte{1});
  void* const copy = copy_of(at, 1 << 16);
  ASSERT_NE(copy, nullptr);
  ASSERT_TRUE(put_in_place(copy, 1 << 16, at));
  at[0] = std::byte{3};
  ASSERT_NE(map_file(fd, 0, 1 << 16, true, at), nullptr);
  EXPECT_EQ(at[0], std::byte{1});
}

TEST_F(MemoryFile, ByteStaysLockedWhileAnyProcessHasTheDescriptor) {
  const int lock = lock_byte(fd, 7);
  ASSERT_GE(lock, 0);
  EXPECT_FALSE(byte_is_free(fd, 7));
  EXPECT_TRUE(byte_is_free(fd, 8));
  EXPECT_EQ(lock_byte(fd, 7), -1);
  int end[2];
  ASSERT_EQ(pipe(end), 0);
  const pid_t child = fork();
  if (child == 0) {
    close_fd(end[1]);
    char c;
    _exit(read(end[0], &c, 1) == 0 ? 0 : 1);
  }
  close_fd(lock);
  EXPECT_FALSE(byte_is_free(fd, 7));
  close_fd(end[1]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(byte_is_free(fd, 7));
  EXPECT_FALSE(byte_is_free(-1, 7));  // not known
  EXPECT_EQ(lock_byte(-1, 7), -1);
  close_fd(end[0]);
}

TEST(Mappings, AreLimitedByTheKernel) { EXPECT_GE(most_mappings(), 1000U); }

TEST_F(MemoryFile, IsToldFromAnotherOne) {
  const int other = create_memory_file("other", 4096);
  const int copy = duplicate_fd(fd);
  FileIdentity a, b, c;
  ASSERT_TRUE(identify(fd, &a) && identify(other, &b) && identify(copy, &c));
  EXPECT_FALSE(a == b);
  EXPECT_TRUE(a == c);
  EXPECT_FALSE(identify(-1, &a));
  EXPECT_THROW(duplicate_fd(-1), OsError);
  close_fd(other);
  close_fd(copy);
}

}  // namespace
}  // namespace shoal::os
