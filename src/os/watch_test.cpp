// SPDX-License-Identifier: Apache-2.0
#include "os/watch.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace shoal::os {
namespace {

pid_t sleeping_child() {
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  return child;
}

bool readable(int fd, int timeout_ms) {
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, timeout_ms) == 1;
}

class Watch : public ::testing::TestWithParam<int (*)(pid_t) noexcept> {};
INSTANTIATE_TEST_SUITE_P(Ways, Watch, ::testing::Values(&watch_process, &watch_by_looking));

TEST_P(Watch, TellsADeathAndSendsSignals) {
  const pid_t child = sleeping_child();
  const int fd = GetParam()(child);
  ASSERT_GE(fd, 0);
  EXPECT_FALSE(readable(fd, 3 * kLookMs));
  EXPECT_EQ(signal_watched(fd, child, SIGKILL), 0);
  EXPECT_TRUE(readable(fd, 30'000));
  waitpid(child, nullptr, 0);
  EXPECT_EQ(signal_watched(fd, child, SIGKILL), -1);
  EXPECT_EQ(errno, ESRCH);
  close(fd);
  EXPECT_EQ(GetParam()(child), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST_P(Watch, TellsOfAChildThatNobodyHasWaitedFor) {
  const pid_t child = sleeping_child();
  kill(child, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  const int fd = GetParam()(child);
  ASSERT_GE(fd, 0);
  EXPECT_TRUE(readable(fd, 30'000));
  waitpid(child, nullptr, 0);
  close(fd);
}

TEST_P(Watch, WatchesManyAtOnceAcrossForks) {
  pid_t children[8];
  int fds[8];
  for (int i = 0; i < 8; ++i) {
    children[i] = sleeping_child();  // a fork while others are watched
    fds[i] = GetParam()(children[i]);
    ASSERT_GE(fds[i], 0);
  }
  for (int i = 7; i >= 0; --i) {
    kill(children[i], SIGKILL);
    EXPECT_TRUE(readable(fds[i], 30'000));
    if (i > 0) {
      EXPECT_FALSE(readable(fds[i - 1], 0));
    }
    waitpid(children[i], nullptr, 0);
    close(fds[i]);
  }
}

// A closed descriptor makes room for another watched process.
TEST(WatchByLooking, ForgetsWhoseDescriptorIsClosed) {
  const pid_t child = sleeping_child();
  for (int i = 0; i < 2 * kMostWatched; ++i) {
    int fd = watch_by_looking(child);
    while (fd < 0 && errno == EMFILE) {
      usleep(1'000);
      fd = watch_by_looking(child);
    }
    ASSERT_GE(fd, 0) << errno;
    close(fd);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace shoal::os
