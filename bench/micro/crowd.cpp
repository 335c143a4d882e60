// SPDX-License-Identifier: Apache-2.0
//
// What do many threads at one barrier or one condition cost? A generation of the barrier and a
// notify_all() with n threads, each with its own member, by the wall clock; and the processor time
// of n processes that only wait. Unfair on a machine that does anything else at the same time. Few
// of the threads run at a time, so most of a generation is the time to switch between them.
//
//   g++ -O2 -std=c++20 -Isrc bench/micro/crowd.cpp build/<version>/libshoal_core.a
//       -pthread -o build/crowd   (one line);   build/crowd 64 480
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "os/clock.hpp"
#include "sync/barrier.hpp"
#include "sync/condition.hpp"
#include "sync/holds.hpp"

namespace {

using namespace shoal;
using arena::Member;
using arena::MemberKind;

struct Crowd {
  explicit Crowd(uint32_t count) : parties(count) {
    sync::Barrier::create(*arena, barrier_block, parties);
    sync::Condition::create(*arena, condition_block);
  }
  sync::Barrier barrier() { return {*arena, barrier_block}; }
  sync::Condition condition() { return {*arena, condition_block}; }

  void pass(Member& member) {
    sync::Barrier at = barrier();
    const auto arrival = at.arrive(member, false, sync::kForever);
    if (arrival.came == sync::Barrier::Came::passed) return;
    const auto how = at.wait(member, arrival, sync::kForever);
    if (at.end_wait(member, arrival, how) != sync::Barrier::Left::passed) std::abort();
  }
  void wait_for_notification(Member& member, const std::function<void()>& begun) {
    sync::Condition at = condition();
    const auto ticket = at.begin_wait(member);
    begun();
    while (at.wait(ticket, sync::kForever) != sync::WaitResult::ok) {
    }
    at.end_wait(member, ticket);
  }

  uint32_t parties;
  std::shared_ptr<arena::Arena> arena = arena::Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me = Member::join(arena, MemberKind::root);
  arena::Handle barrier_block = me->allocate(sync::Barrier::size_for(parties));
  arena::Handle condition_block = me->allocate(sizeof(sync::ConditionState));
};

void generation(Crowd& crowd) {
  constexpr int kRounds = 20;
  std::vector<std::thread> threads;
  std::atomic<int64_t> begin_ns{0};
  std::atomic<int64_t> end_ns{0};
  for (uint32_t i = 0; i < crowd.parties; ++i) {
    threads.emplace_back([&] {
      const auto member = Member::join(crowd.arena, MemberKind::process);
      crowd.pass(*member);
      begin_ns = os::monotonic_ns();
      for (int round = 0; round < kRounds; ++round) crowd.pass(*member);
      end_ns = os::monotonic_ns();
      crowd.pass(*member);  // after all have passed, since leaving takes long
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double ms = static_cast<double>(end_ns - begin_ns) / 1e6;
  std::printf("%4u parties: %9.3f ms a generation of the barrier\n", crowd.parties, ms / kRounds);
}

void notify_all(Crowd& crowd) {
  std::vector<std::thread> threads;
  std::atomic<uint32_t> waiting{0};
  for (uint32_t i = 0; i < crowd.parties; ++i) {
    threads.emplace_back([&] {
      const auto member = Member::join(crowd.arena, MemberKind::process);
      crowd.wait_for_notification(*member, [&] { ++waiting; });
    });
  }
  while (waiting < crowd.parties) usleep(1'000);
  usleep(300'000);
  const int64_t begin_ns = os::monotonic_ns();
  crowd.condition().notify_all(*crowd.me);
  const double ms = static_cast<double>(os::monotonic_ns() - begin_ns) / 1e6;
  for (std::thread& thread : threads) thread.join();
  std::printf("%4u waiters: %9.3f ms a notify_all()\n", crowd.parties, ms);
}

double processor_seconds(const std::vector<pid_t>& processes) {
  double sum = 0;
  for (const pid_t pid : processes) {
    std::FILE* const file =
        std::fopen(("/proc/" + std::to_string(pid) + "/schedstat").c_str(), "r");
    unsigned long long ns = 0;
    if (file != nullptr && std::fscanf(file, "%llu", &ns) == 1)
      sum += static_cast<double>(ns) / 1e9;
    if (file != nullptr) std::fclose(file);
  }
  return sum;
}

void sleepers(Crowd& crowd, const char* what, const std::function<void(Member&)>& wait,
              const std::function<uint32_t()>& waiting) {
  constexpr unsigned kSeconds = 5;
  std::vector<pid_t> processes;
  for (uint32_t i = 1; i < crowd.parties; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      auto member = Member::join(crowd.arena, MemberKind::process);
      wait(*member);
      _exit(0);
    }
    processes.push_back(pid);
  }
  while (waiting() < crowd.parties - 1) usleep(10'000);
  sleep(3);
  const double before = processor_seconds(processes);
  sleep(kSeconds);
  const double share = (processor_seconds(processes) - before) / kSeconds * 100;
  std::printf("%4u sleepers at a %s: %.2f %% of one processor\n", crowd.parties - 1, what, share);
  for (const pid_t pid : processes) kill(pid, SIGKILL);
  for (const pid_t pid : processes) waitpid(pid, nullptr, 0);
}

}  // namespace

int main(int count, char** arguments) {
  sync::register_reap_hooks();
  for (int i = 1; i < count; ++i) {
    const auto parties = static_cast<uint32_t>(std::atoi(arguments[i]));
    Crowd threads(parties);
    generation(threads);
    notify_all(threads);
    Crowd processes(parties);
    sleepers(
        processes, "barrier", [&](Member& member) { processes.pass(member); },
        [&] { return processes.barrier().waiting(); });
    Crowd others(parties);
    sleepers(
        others, "condition", [&](Member& member) { others.wait_for_notification(member, [] {}); },
        [&] { return others.condition().waiters(); });
  }
  return 0;
}
