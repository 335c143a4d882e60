// SPDX-License-Identifier: Apache-2.0
//
// The single-step killer: runs an operation in a forked child under ptrace and kills the child
// after exactly k of the operation's instructions, for every k. The survivors must find a state
// that is consistent or repairable: this tests "killed at any instruction" literally. Linux only;
// not under sanitizers (they add their own instructions, and are slow).
//
// The child is a fork of the caller: it sees the caller's mappings and must join sessions as a
// member of its own. It is single-threaded. Only its own instructions are counted; a system call
// counts as one.
#pragma once

#include <cstdint>
#include <functional>

namespace shoal::testing {

enum class StepOutcome {
  killed,  // died after k instructions of `operation`
  // the operation ended within k instructions (the child was killed afterwards, without clean-up)
  completed,
  failed,       // the child died by itself or exited before the end: see `status`
  unavailable,  // ptrace is not permitted here
};

struct StepResult {
  StepOutcome outcome = StepOutcome::failed;
  uint64_t steps = 0;  // instructions executed
  int status = 0;      // from waitpid, when `failed`
};

// Forks; the child runs `setup` at full speed, then at most `k` instructions of `operation`. When
// this returns, the child is dead and reaped.
StepResult run_killed_after(uint64_t k, const std::function<void()>& setup,
                            const std::function<void()>& operation);
inline StepResult run_killed_after(uint64_t k, const std::function<void()>& operation) {
  return run_killed_after(k, [] {}, operation);
}

// Kills at every instruction of the operation, or, when it has more than 200, at `samples` of them
// spread evenly from a random start (SHOAL_EVERY_INSTRUCTION=1: at every one, however long it
// takes). `survive(k)` runs after each death and after one run that completes. Returns the number
// of deaths; stops at the first failure, which `*last` describes.
uint64_t kill_at_every_instruction(const std::function<void()>& setup,
                                   const std::function<void()>& operation,
                                   const std::function<void(uint64_t)>& survive, StepResult* last,
                                   uint64_t samples = 40);

}  // namespace shoal::testing
