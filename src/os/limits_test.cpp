// SPDX-License-Identifier: Apache-2.0
#include "os/limits.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

namespace shoal::os {
namespace {

TEST(LimitsTest, NamesTheLimitItsValueAndTheRemedy) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const std::string text = limit_behind(EMFILE);
  EXPECT_NE(text.find(std::to_string(before.rlim_cur)), std::string::npos) << text;
  EXPECT_NE(text.find("ulimit -n"), std::string::npos) << text;
  EXPECT_NE(limit_behind(ENFILE).find("fs.file-max"), std::string::npos);
  EXPECT_NE(limit_behind(EAGAIN).find("pids.max"), std::string::npos);
  EXPECT_EQ(limit_behind(EINVAL), "");
}

TEST(LimitsTest, AnUnlimitedNumberOfFilesIsNotCalledZero) {
  EXPECT_EQ(open_files_clause(1024).find("this process may have 1024 files open"), 0U);
  const std::string text = open_files_clause(std::nullopt);
  EXPECT_EQ(text.find("0 files"), std::string::npos) << text;
  EXPECT_NE(text.find("unlimited"), std::string::npos) << text;
  EXPECT_NE(text.find("fs.nr_open"), std::string::npos) << text;
}

TEST(LimitsTest, AddressSpaceIsNamedOnlyWhereItIsLimited) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  if (before.rlim_cur == RLIM_INFINITY) {
    EXPECT_EQ(limit_behind(ENOMEM), "");
  }
  const rlimit some{std::min(before.rlim_cur, rlim_t{1} << 45), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &some), 0);
  const std::string text = limit_behind(ENOMEM);
  EXPECT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_NE(text.find(std::to_string(some.rlim_cur >> 20) + " MiB"), std::string::npos) << text;
}

}  // namespace
}  // namespace shoal::os
