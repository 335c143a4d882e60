// SPDX-License-Identifier: Apache-2.0
#include "testing/kill_point.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "testing/single_step.hpp"

namespace shoal::testing {
namespace {

int run_in_child(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

void pass_two_points() {
  for (int i = 0; i < 3; ++i) {
    SHOAL_KILL_POINT("test.first");
    SHOAL_KILL_POINT("test.second");
  }
}

TEST(KillPoints, KnowTheirNames) {
  const std::vector<std::string> names = kill_point_names();
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(std::count(names.begin(), names.end(), "test.first"), 1);
  EXPECT_EQ(std::count(names.begin(), names.end(), "test.second"), 1);
}

TEST(KillPoints, DoNothingUnlessArmed) { EXPECT_EQ(run_in_child(pass_two_points), 0); }

TEST(KillPoints, KillAtTheNthPass) {
  EXPECT_EQ(run_in_child([] {
              arm_kill_point("test.second", 3);
              pass_two_points();
            }),
            SIGKILL);
  EXPECT_EQ(run_in_child([] {
              arm_kill_point("test.second", 4);
              pass_two_points();
            }),
            0);
  EXPECT_EQ(run_in_child([] {
              arm_kill_point("test.first", 1);
              disarm_kill_points();
              pass_two_points();
            }),
            0);
}

TEST(SingleStep, KillsAfterEachInstructionUntilTheOperationIsThrough) {
  volatile int value = 0;
  StepResult last;
  uint64_t survived = 0;
  const uint64_t deaths = kill_at_every_instruction([] {}, [&] { value = value + 1; },
                                                    [&](uint64_t) { ++survived; }, &last);
  if (last.outcome == StepOutcome::unavailable) GTEST_SKIP() << "ptrace is not permitted here";
  EXPECT_EQ(last.outcome, StepOutcome::completed);
  EXPECT_GT(deaths, 3U);
  EXPECT_EQ(survived, deaths + 2);
}

TEST(SingleStep, TellsOperationsThatEndTheProcess) {
  const StepResult result = run_killed_after(UINT64_MAX, [] { _exit(3); });
  if (result.outcome == StepOutcome::unavailable) GTEST_SKIP() << "ptrace is not permitted here";
  EXPECT_EQ(result.outcome, StepOutcome::failed);
  EXPECT_EQ(WEXITSTATUS(result.status), 3);
}

}  // namespace
}  // namespace shoal::testing
