// SPDX-License-Identifier: Apache-2.0
#include "os/process.hpp"

#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

namespace shoal::os {
namespace {

pid_t sleeping_child() {
  const pid_t child = fork();
  if (child == 0)
    while (true) pause();
  return child;
}

void end(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(Process, IsAliveWithItsStartTimeOnly) {
  const pid_t me = own_pid();
  EXPECT_EQ(me, getpid());
  ASSERT_NE(start_time(me), 0U);
  EXPECT_EQ(process_life(me, start_time(me)), Life::alive);
  EXPECT_EQ(process_life(me, 0), Life::alive);
  EXPECT_EQ(process_life(me, start_time(me) + 1), Life::dead);
  EXPECT_EQ(process_life(0, 0), Life::dead);
}

TEST(Process, IsAliveWhenStoppedAndDeadAsAZombie) {
  const pid_t child = sleeping_child();
  const uint64_t start = start_time(child);
  kill(child, SIGSTOP);
  waitpid(child, nullptr, WUNTRACED);
  EXPECT_EQ(process_life(child, start), Life::alive);
  kill(child, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_EQ(process_life(child, start), Life::dead);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(process_life(child, start), Life::dead);
  EXPECT_EQ(start_time(child), 0U);
}

// A process whose first thread has ended while another one runs.
pid_t child_without_its_first_thread() {
  int ready[2];
  EXPECT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    static int out = ready[1];
    pthread_t other;
    pthread_create(
        &other, nullptr,
        [](void*) -> void* {
          char state = 0;  // wait until the leader has ended: /proc/self/stat then shows Z
          while (state != 'Z') {
            FILE* file = fopen("/proc/self/stat", "r");
            if (file == nullptr || fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 0;
            if (file != nullptr) fclose(file);
          }
          if (write(out, "x", 1) != 1) _exit(1);
          while (true) pause();
        },
        nullptr);
    syscall(SYS_exit, 0);  // ends this thread only, without unwinding
  }
  char c;
  EXPECT_EQ(read(ready[0], &c, 1), 1);
  close(ready[0]);
  close(ready[1]);
  return child;
}

TEST(Process, LivesOnWhenOnlyItsFirstThreadHasEnded) {
  const pid_t child = child_without_its_first_thread();
  EXPECT_EQ(process_life(child, start_time(child)), Life::alive);
  end(child);
}

TEST(Process, IsNotDeadWhenItsThreadsCannotBeRead) {
  const pid_t child = child_without_its_first_thread();
  const uint64_t start = start_time(child);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = dup(0);
  close(next);
  // With one descriptor the list of threads can be opened, but no entry of it.
  for (const int left : {0, 1, 2}) {
    const rlimit few{static_cast<rlim_t>(next + left), before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    const Life life = process_life(child, start);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_NE(life, Life::dead) << left << " descriptors";
  }
  end(child);
}

TEST(Process, IsNotDeadWhereProcHidesOtherUsersProcesses) {
  const pid_t hidden = sleeping_child();
  const uint64_t start = start_time(hidden);
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("proc", "/proc", "proc", 0, "hidepid=2") != 0 || setgroups(0, nullptr) != 0 ||
        setgid(65534) != 0 || setuid(65534) != 0)
      _exit(77);
    _exit(start_time(hidden) != 0 ? 77 : process_life(hidden, start) == Life::dead ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  end(hidden);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "processes cannot be hidden here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// As under `unshare --pid --fork` without --mount-proc: /proc shows other processes.
TEST(Process, IsNotJudgedByTheProcOfAnotherNamespace) {
  const pid_t outer = fork();
  if (outer == 0) {
    if (unshare(CLONE_NEWPID) != 0) _exit(77);
    const pid_t inner = fork();
    if (inner == 0) {
      const pid_t me = own_pid();  // 1: outside that is the machine's first process
      _exit(start_time(me) != 0 ? 1 : process_life(me, 12345) == Life::dead ? 2 : 0);
    }
    int status = 0;
    waitpid(inner, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
  }
  int status = 0;
  waitpid(outer, &status, 0);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no namespaces can be made here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Process, IsAnotherOneAfterExec) {
  const pid_t child = fork();
  if (child == 0) {
    raise(SIGSTOP);
    execl("/bin/sleep", "sleep", "60", nullptr);
    _exit(1);
  }
  waitpid(child, nullptr, WUNTRACED);
  const uint64_t start = start_time(child);
  const uint64_t image = process_image(child);
  EXPECT_NE(image, 0U);
  EXPECT_EQ(process_life(child, start, image), Life::alive);
  kill(child, SIGCONT);
  while (process_life(child, start, image) != Life::dead) usleep(1000);
  EXPECT_EQ(kill(child, 0), 0);
  EXPECT_EQ(process_life(child, start), Life::alive);
  end(child);
}

TEST(Pidfd, TellsADeath) {
  const pid_t child = sleeping_child();
  const int fd = pidfd_open(child);
  if (fd < 0) {
    end(child);
    GTEST_SKIP() << "no pidfd here";
  }
  EXPECT_FALSE(pidfd_dead(fd));
  EXPECT_EQ(pidfd_send_signal(fd, SIGKILL), 0);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_TRUE(pidfd_dead(fd));
  waitpid(child, nullptr, 0);
  close(fd);
}

}  // namespace
}  // namespace shoal::os
