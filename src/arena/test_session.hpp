// SPDX-License-Identifier: Apache-2.0
//
// TestSession: a small arena with one member, for tests. The destructor unmaps it, so a test
// program can make thousands.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>
#include <memory>

#include "arena/arena.hpp"

namespace shoal::arena {

struct TestSession {
  explicit TestSession(uint64_t reserve = uint64_t{256} << 20, uint64_t limit = 0)
      : arena(Arena::create({reserve, limit})), me(Member::join(arena, MemberKind::root)) {}
  ~TestSession() {
    me.reset();
    arena->unmap_for_test();
  }
  std::unique_ptr<Member> join() { return Member::join(arena, MemberKind::process); }
  uint64_t blocks() const { return arena->statistics().blocks(); }

  std::shared_ptr<Arena> arena;
  std::unique_ptr<Member> me;
};

// Runs `body` in a forked child; returns the wait status. The child exits with `body`'s result.
inline int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

inline bool killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }
inline bool succeeded(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

}  // namespace shoal::arena
