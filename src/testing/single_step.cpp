// SPDX-License-Identifier: Apache-2.0
#include "testing/single_step.hpp"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <random>

namespace shoal::testing {

namespace {

constexpr uint64_t kFew = 200;  // instructions: at up to so many, every one is tried
constexpr int kNoTrace = 97;    // exit code of a child that may not be traced

[[noreturn]] void be_child(const std::function<void()>& setup,
                           const std::function<void()>& operation) {
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(kNoTrace);
  setup();
  raise(SIGSTOP);  // the tracer counts from here
  operation();
  raise(SIGSTOP);  // completed
  _exit(0);
}

bool wait_for_stop(pid_t child, int* status) {
  while (waitpid(child, status, 0) < 0)
    if (errno != EINTR) return false;
  return WIFSTOPPED(*status);
}

// Passes signals other than be_child()'s stops on to the child, so that `setup` may use them.
bool run_to_stop(pid_t child, int* status) {
  while (wait_for_stop(child, status)) {
    if (WSTOPSIG(*status) == SIGSTOP) return true;
    ptrace(PTRACE_CONT, child, nullptr, WSTOPSIG(*status));
  }
  return false;
}

void finish(pid_t child) {
  int status = 0;
  kill(child, SIGKILL);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
}

}  // namespace

StepResult run_killed_after(uint64_t k, const std::function<void()>& setup,
                            const std::function<void()>& operation) {
  StepResult result;
  const pid_t child = fork();
  if (child == 0) be_child(setup, operation);
  if (!run_to_stop(child, &result.status)) {
    const bool refused = WIFEXITED(result.status) && WEXITSTATUS(result.status) == kNoTrace;
    if (refused) result.outcome = StepOutcome::unavailable;
    return result;
  }
  result.outcome = StepOutcome::killed;
  for (long pass = 0; result.steps < k; ++result.steps) {
    ptrace(PTRACE_SINGLESTEP, child, nullptr, pass);
    if (!wait_for_stop(child, &result.status)) {
      result.outcome = StepOutcome::failed;
      return result;
    }
    const int signal = WSTOPSIG(result.status);
    if (signal == SIGSTOP) {
      result.outcome = StepOutcome::completed;
      break;
    }
    pass = signal == SIGTRAP ? 0 : signal;
  }
  finish(child);
  return result;
}

uint64_t kill_at_every_instruction(const std::function<void()>& setup,
                                   const std::function<void()>& operation,
                                   const std::function<void(uint64_t)>& survive, StepResult* last,
                                   uint64_t samples) {
  *last = run_killed_after(UINT64_MAX, setup, operation);
  if (last->outcome != StepOutcome::completed) return 0;
  survive(last->steps);
  const bool all = std::getenv("SHOAL_EVERY_INSTRUCTION") != nullptr;
  const uint64_t stride =
      all || last->steps <= kFew ? 1 : std::max<uint64_t>(last->steps / samples, 1);
  uint64_t deaths = 0;
  for (uint64_t k = 1 + std::random_device{}() % stride;; k += stride) {
    *last = run_killed_after(k, setup, operation);
    if (last->outcome != StepOutcome::killed && last->outcome != StepOutcome::completed)
      return deaths;
    survive(k);
    if (last->outcome == StepOutcome::completed) return deaths;
    ++deaths;
  }
}

}  // namespace shoal::testing
