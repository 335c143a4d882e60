// SPDX-License-Identifier: Apache-2.0
//
// Child processes for tests: run a function in a forked child, and report how it ended. Tests only;
// the parent should have one thread when it forks.
//
// 1. The child never returns into the test: it leaves by _exit(0), or 1 after an exception.
// 2. A watchdog kills a child that runs longer than its limit: a hang is a failed test, not a hung
//    suite.
#pragma once

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "os/clock.hpp"

namespace shoal::testing {

enum class Ending { finished, killed, failed, hung };

class ChildProcess {
 public:
  template <class Body>
  explicit ChildProcess(Body&& body) {
    pid_ = fork();
    if (pid_ != 0) return;
    int code = 1;
    try {
      body();
      code = 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child %d: %s\n", getpid(), error.what());
    }
    _exit(code);
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess() {
    if (pid_ <= 0) return;
    kill();
    wait();
  }

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void kill() noexcept { ::kill(pid_, SIGKILL); }
  void stop() noexcept { ::kill(pid_, SIGSTOP); }
  void resume() noexcept { ::kill(pid_, SIGCONT); }

  Ending wait(int64_t limit_ms = 60'000) {
    const int64_t end_ns = os::monotonic_ns() + limit_ms * 1'000'000;
    int status = 0;
    while (waitpid(pid_, &status, WNOHANG) == 0) {
      if (os::monotonic_ns() > end_ns) {
        kill();
        waitpid(pid_, &status, 0);
        pid_ = 0;
        return Ending::hung;
      }
      usleep(200);
    }
    pid_ = 0;
    if (WIFSIGNALED(status)) return Ending::killed;
    return WEXITSTATUS(status) == 0 ? Ending::finished : Ending::failed;
  }

 private:
  pid_t pid_ = 0;
};

}  // namespace shoal::testing
