// SPDX-License-Identifier: Apache-2.0
#include "os/segment.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/error.hpp"
#include "os/memory.hpp"

namespace shoal::os {
namespace {

constexpr uint64_t kSize = 64 << 20;

class Segment : public ::testing::Test {
 protected:
  Segment() { make_segment(file, kSize); }
  ~Segment() override { close_fd(file); }
  int file = memfd_create("test", MFD_CLOEXEC);
};

TEST_F(Segment, IsMappedByWhoeverHasTheFile) {
  EXPECT_EQ(segment_size(file), kSize);
  FileIdentity identity;
  ASSERT_TRUE(identify(file, &identity));
  EXPECT_TRUE(identity.is_segment);
  EXPECT_EQ(identity.size, kSize);
  std::byte* const one = map_file(file, 0, kSize, true);
  ASSERT_NE(one, nullptr);
  one[kSize - 1] = std::byte{7};
  std::byte* const other = map_file(file, kSize - (1 << 20), 1 << 20, true);
  ASSERT_NE(other, nullptr);
  EXPECT_EQ(other[(1 << 20) - 1], std::byte{7});
  EXPECT_EQ(map_file(file, kSize, 4096, true), nullptr);
  unmap(one, kSize);
  unmap(other, 1 << 20);
}

TEST_F(Segment, HasPrivateViewsThatHideWrites) {
  std::byte* const at = map_file(file, 0, kSize, true);
  at[1 << 20] = std::byte{1};
  ASSERT_EQ(map_file(file, 1 << 20, 1 << 16, false, at + (1 << 20)), at + (1 << 20));
  EXPECT_EQ(at[1 << 20], std::byte{1});
  at[1 << 20] = std::byte{2};
  ASSERT_EQ(map_file(file, 1 << 20, 1 << 16, true, at + (1 << 20)), at + (1 << 20));
  EXPECT_EQ(at[1 << 20], std::byte{1});
  ASSERT_TRUE(populate(at, 1 << 16));
  ASSERT_TRUE(punch(at + (1 << 20), 1 << 16));
  EXPECT_EQ(at[1 << 20], std::byte{0});
  unmap(at, kSize);
}

// The requested size may be smaller than a page: kernels have pages of up to 64 KiB.
TEST_F(Segment, LeavesNothingMappedBehindThePagesOfAPart) {
  const auto attached = [&] {
    struct stat status;
    shmid_ds found{};
    EXPECT_EQ(fstat(file, &status), 0);
    EXPECT_EQ(shmctl(static_cast<int>(status.st_mtim.tv_sec), IPC_STAT, &found), 0);
    return found.shm_nattch;
  };
  const auto before = attached();
  const uint64_t size = page_size() + 100;
  std::byte* const part = map_file(file, 0, size, true);
  ASSERT_NE(part, nullptr);
  part[size - 1] = std::byte{7};
  unmap(part, size);
  EXPECT_EQ(attached(), before);
}

TEST_F(Segment, IsMarkedForRemoval) {
  struct stat status;
  ASSERT_EQ(fstat(file, &status), 0);
  shmid_ds found{};
  ASSERT_EQ(shmctl(static_cast<int>(status.st_mtim.tv_sec), IPC_STAT, &found), 0);
  EXPECT_NE(found.shm_perm.mode & SHM_DEST, 0);
}

TEST(SegmentFile, OtherFilesStandForNothing) {
  const int other = memfd_create("test", MFD_CLOEXEC);
  EXPECT_EQ(segment_size(other), 0U);
  EXPECT_EQ(segment_size(-1), 0U);
  close_fd(other);
}

TEST(SegmentFile, WhatAKilledProcessLeftIsRemoved) {
  const auto key = static_cast<key_t>(kKeyPrefix | 9);
  const pid_t child = fork();
  if (child == 0) {
    shmget(key, 1 << 20, IPC_CREAT | SHM_NORESERVE | 0600);
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  ASSERT_GE(shmget(key, 0, 0), 0);
  const int file = memfd_create("test", MFD_CLOEXEC);
  make_segment(file, 1 << 20);
  EXPECT_LT(shmget(key, 0, 0), 0);
  close_fd(file);
}

}  // namespace
}  // namespace shoal::os
