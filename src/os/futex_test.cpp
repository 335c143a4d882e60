// SPDX-License-Identifier: Apache-2.0
#include "os/futex.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "os/clock.hpp"

namespace shoal::os {
namespace {

TEST(Futex, ReturnsAtOnceWhenTheWordHasChanged) {
  Atomic<uint32_t> word(1);
  EXPECT_EQ(futex_wait(&word, 0, kNoDeadline), Wake::changed);
}

TEST(Futex, TimesOutAtAnAbsoluteDeadline) {
  Atomic<uint32_t> word;
  const int64_t deadline = monotonic_ns() + 5'000'000;
  Wake wake = Wake::woken;
  while (wake != Wake::timed_out) wake = futex_wait(&word, 0, deadline);
  EXPECT_GE(monotonic_ns(), deadline);
  EXPECT_EQ(futex_wait(&word, 0, 0), Wake::timed_out);
}

TEST(Futex, WakesAcrossProcesses) {
  auto* word = static_cast<Atomic<uint32_t>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t child = fork();
  if (child == 0) {
    while (word->load() == 0) (void)futex_wait(word, 0, kNoDeadline);
    _exit(0);
  }
  usleep(1000);
  word->store(1);
  futex_wake(word, 1);
  int status = 1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  munmap(word, 4096);
}

TEST(Futex, LetsSignalsThrough) {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  struct sigaction before{};
  sigaction(SIGUSR1, &action, &before);
  static Atomic<uint32_t> word;
  Wake wake = Wake::woken;
  Atomic<uint32_t> done;
  const pthread_t waiter = pthread_self();
  std::thread other([&] {
    while (done.load() == 0) {
      pthread_kill(waiter, SIGUSR1);
      usleep(1000);
    }
  });
  wake = futex_wait(&word, 0, kNoDeadline);
  done.store(1);
  other.join();
  EXPECT_EQ(wake, Wake::interrupted);
  sigaction(SIGUSR1, &before, nullptr);
}

TEST(Clock, TicksAgreeWithNanoseconds) {
  const double tick = ns_per_tick();
  const int64_t start_ns = monotonic_ns();
  const uint64_t start = ticks();
  usleep(20'000);
  const auto by_ticks = static_cast<double>(ticks() - start) * tick;
  const auto by_clock = static_cast<double>(monotonic_ns() - start_ns);
  EXPECT_NEAR(by_ticks / by_clock, 1.0, 0.1);
}

}  // namespace
}  // namespace shoal::os
