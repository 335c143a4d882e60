// SPDX-License-Identifier: Apache-2.0
#include "testing/delay.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <utility>

#include "os/atomic.hpp"
#include "os/futex.hpp"

namespace shoal::testing {

namespace {

// More accesses than any operation of a test makes, and few enough that a spinning operation is
// soon recognized.
constexpr uint64_t kSpins = 200'000;
// A thread that sleeps at so many looks in a row waits for something; one look may find it at a
// lock of the kernel.
constexpr int kLooks = 5;
constexpr std::chrono::microseconds kBetweenLooks{200};
// An operation that has not ended after this time aborts the program.
constexpr std::chrono::seconds kPatience{20};

}  // namespace

thread_local Delayed* Delayed::mine_ = nullptr;

bool thread_sleeps(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
  std::FILE* const file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return false;
  char text[256] = {};
  const size_t size = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  text[size] = '\0';
  const char* const name_end = std::strrchr(text, ')');
  return name_end != nullptr && name_end[1] != '\0' && name_end[2] == 'S';
}

Delayed::Delayed(uint64_t stop_at, std::function<void()> operation, const void* only)
    : stop_at_(stop_at), only_(only) {
  thread_ = std::thread([this, run = std::move(operation)] {
    mine_ = this;
    os::access_hook = &count_access;
    os::wait_hook = &before_sleep;
    try {
      run();
    } catch (...) {
      error_ = std::current_exception();
    }
    os::access_hook = nullptr;
    os::wait_hook = nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  });
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return was_stopped_ || sleeps_ || ended_; });
}

Delayed::~Delayed() {
  release();
  if (thread_.joinable()) thread_.join();
}

void Delayed::count_access(const void* address) {
  if (mine_->only_ != nullptr && mine_->only_ != address) return;
  if (++mine_->accesses_ == mine_->stop_at_) mine_->stop();
}

void Delayed::stop() {
  std::unique_lock<std::mutex> lock(mutex_);
  was_stopped_ = true;
  changed_.notify_all();
  for (int asleep = 0; !may_go_on_ && asleep < kLooks;) {
    changed_.wait_for(lock, kBetweenLooks, [this] { return may_go_on_; });
    asleep = others_ != 0 && thread_sleeps(others_) ? asleep + 1 : 0;
  }
  was_waited_for_ = !may_go_on_ || was_waited_for_;
}

void Delayed::before_sleep() {
  const std::lock_guard<std::mutex> lock(mine_->mutex_);
  mine_->sleeps_ = true;
  mine_->changed_.notify_all();
}

void Delayed::release() {
  const std::lock_guard<std::mutex> lock(mutex_);
  may_go_on_ = true;
  changed_.notify_all();
}

void Delayed::count_others(const void*) {
  if (++mine_->others_accesses_ != kSpins) return;
  mine_->was_waited_for_ = mine_->was_stopped_;
  mine_->release();
}

void Delayed::set_others(pid_t thread) {
  const std::lock_guard<std::mutex> lock(mutex_);
  others_ = thread;
}

void Delayed::meanwhile(const std::function<void()>& others) {
  others_accesses_ = 0;
  mine_ = this;
  os::access_hook = &count_others;
  set_others(gettid());
  std::exception_ptr error;
  try {
    others();
  } catch (...) {
    error = std::current_exception();
  }
  set_others(0);
  os::access_hook = nullptr;
  mine_ = nullptr;
  if (error) std::rethrow_exception(error);
}

void Delayed::go_on() {
  release();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [this] { return ended_; })) {
      std::fprintf(stderr, "the operation that was to be stopped at access %llu does not end\n",
                   static_cast<unsigned long long>(stop_at_));
      std::abort();
    }
  }
  thread_.join();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

OtherThread delay_once(uint64_t stop_at, const std::function<void()>& operation,
                       const std::function<void()>& others, const void* only) {
  Delayed delayed(stop_at, operation, only);
  delayed.meanwhile(others);
  delayed.go_on();
  if (!delayed.was_stopped()) return OtherThread::not_run;
  return delayed.was_waited_for() ? OtherThread::waited : OtherThread::ended;
}

DelayCounts delay_at_every_access(const std::function<void()>& prepare,
                                  const std::function<void()>& operation,
                                  const std::function<void()>& others,
                                  const std::function<void(uint64_t k)>& check,
                                  uint64_t most_stops) {
  DelayCounts counts;
  const auto stop_at = [&](uint64_t k) {
    prepare();
    Delayed delayed(k == 0 ? UINT64_MAX : k, operation);
    const bool was_stopped = delayed.was_stopped();
    delayed.meanwhile(others);
    delayed.go_on();
    if (k == 0) counts.accesses = delayed.accesses();
    counts.stops += was_stopped ? 1 : 0;
    counts.waits += was_stopped && delayed.was_waited_for() ? 1 : 0;
    check(k);
    return was_stopped;
  };
  stop_at(0);
  const char* const at = std::getenv("SHOAL_DELAY_AT");
  const bool every = std::getenv("SHOAL_EVERY_ACCESS") != nullptr || counts.accesses <= most_stops;
  const uint64_t stride = every ? 1 : (counts.accesses + most_stops - 1) / most_stops;
  std::random_device entropy;
  uint64_t k = 1 + (stride > 1 ? entropy() % stride : 0);
  if (at != nullptr) k = std::max<uint64_t>(1, std::strtoull(at, nullptr, 10));
  for (; k <= counts.accesses; k += stride) {
    if (!stop_at(k) || at != nullptr) break;
  }
  return counts;
}

}  // namespace shoal::testing
