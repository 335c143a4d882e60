// SPDX-License-Identifier: Apache-2.0
//
// What does it cost that a fork is a snapshot? The parent's side of fork() while it holds counted
// blocks: the first one, which makes its views private, and the next; then 100 MB read and written
// after a fork, beside the same in ordinary memory. Medians of this thread's processor time.
// One call makes all neighbouring blocks private, so blocks that are not neighbours are measured as
// well.
//
//   g++ -O2 -std=c++20 -Isrc bench/micro/fork.cpp build/<version>/libshoal_core.a
//       -pthread -o build/fork_bench   (one line)
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "arena/arena.hpp"

namespace {

using namespace shoal::arena;

constexpr int kRounds = 5;
constexpr size_t kBig = 100'000'000;

double now_us() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double timed(const std::function<void()>& action) {
  const double begin = now_us();
  action();
  return now_us() - begin;
}

// The parent's time in fork(). `meanwhile` runs while the child lives.
double forked(const std::function<void()>& meanwhile = [] {}) {
  int end[2];
  if (pipe(end) != 0) return 0;
  pid_t child = 0;
  const double us = timed([&] { child = fork(); });
  if (child == 0) {
    close(end[1]);
    char c;
    _exit(read(end[0], &c, 1) == 0 ? 0 : 1);
  }
  meanwhile();
  close(end[1]);
  waitpid(child, nullptr, 0);
  close(end[0]);
  return us;
}

struct Held {
  explicit Held(Member& member, size_t count, bool scattered) : me(member) {
    for (size_t i = 0; i < count; ++i) {
      blocks.push_back(me.allocate(kPage));
      me.make_counted(blocks.back());
      if (scattered) between.push_back(me.allocate(kPage));
    }
  }
  void drop() {
    for (const Handle b : blocks) me.drop(b);
    for (const Handle b : between) me.free(b);
  }
  Member& me;
  std::vector<Handle> blocks, between;
};

void held_blocks(Member& me, size_t count, bool scattered) {
  std::vector<double> first, next, dropped;
  for (int round = 0; round < kRounds; ++round) {
    Held held(me, count, scattered);
    first.push_back(forked());
    next.push_back(forked());
    reap_all_dead(me.arena(), me);
    dropped.push_back(timed([&] {
      for (const Handle b : held.blocks) me.drop(b);
    }));
    held.blocks.clear();
    held.drop();
  }
  std::printf(
      "%6zu blocks of 64 KiB, %-10s first fork %9.0f us, next %9.0f us, drop of all %9.0f us\n",
      count, scattered ? "scattered:" : "in a row:", median(first), median(next), median(dropped));
}

uint64_t read_all(const uint64_t* words) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kBig / 8; i += 512) sum += words[i];
  return sum;
}

void write_all(uint64_t* words) {
  for (size_t i = 0; i < kBig / 8; i += 512) words[i] = i;
}

void touched(const char* what, const std::function<uint64_t*()>& make,
             const std::function<void()>& drop) {
  std::vector<double> warm, read, written;
  volatile uint64_t sum = 0;
  for (int round = 0; round < kRounds; ++round) {
    uint64_t* const words = make();
    write_all(words);
    warm.push_back(timed([&] { sum = sum + read_all(words); }));
    forked([&] {
      read.push_back(timed([&] { sum = sum + read_all(words); }));
      written.push_back(timed([&] { write_all(words); }));
    });
    drop();
  }
  std::printf(
      "100 MB, one word of each page, %-16s read %6.0f us; after a fork read %6.0f, then "
      "written %6.0f us\n",
      what, median(warm), median(read), median(written));
}

}  // namespace

int main() {
  const auto arena = Arena::create();
  const auto me = Member::join(arena, MemberKind::root);
  std::vector<double> empty;
  for (int i = 0; i < kRounds; ++i) empty.push_back(forked());
  std::printf("nothing held: fork %.0f us\n", median(empty));
  for (const size_t count : {size_t{1}, size_t{1000}, size_t{10'000}}) {
    held_blocks(*me, count, false);
    held_blocks(*me, count, true);
  }
  Handle block = 0;
  touched(
      "in the arena:",
      [&] {
        block = me->allocate(kBig);
        me->make_counted(block);
        return arena->at<uint64_t>(block);
      },
      [&] {
        me->drop(block);
        reap_all_dead(*arena, *me);
      });
  void* memory = nullptr;
  touched(
      "ordinary memory:",
      [&] {
        memory = mmap(nullptr, kBig, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return static_cast<uint64_t*>(memory);
      },
      [&] { munmap(memory, kBig); });
  return 0;
}
