// SPDX-License-Identifier: Apache-2.0
#include "testing/delay.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <utility>

#include "os/atomic.hpp"
#include "os/futex.hpp"

namespace shoal::testing {

namespace {

// More accesses than any operation of a test makes, and few enough that a spinning operation is
// soon recognized.
constexpr uint64_t kSpins = 200'000;
// After this time a wait that the tester does not see (a std::mutex) ends, and an operation that
// has not ended aborts the program.
constexpr std::chrono::seconds kPatience{20};

}  // namespace

thread_local Delayed* Delayed::mine_ = nullptr;

Delayed::Delayed(uint64_t stop_at, std::function<void()> operation) : stop_at_(stop_at) {
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

void Delayed::count_access(const void*) {
  if (++mine_->accesses_ == mine_->stop_at_) mine_->stop();
}

void Delayed::stop() {
  std::unique_lock<std::mutex> lock(mutex_);
  was_stopped_ = true;
  changed_.notify_all();
  if (!changed_.wait_for(lock, kPatience, [this] { return may_go_on_; })) was_waited_for_ = true;
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
  if (++mine_->others_accesses_ == kSpins) before_wait();
}

void Delayed::before_wait() {
  mine_->was_waited_for_ = true;
  mine_->release();
}

void Delayed::meanwhile(const std::function<void()>& others) {
  others_accesses_ = 0;
  mine_ = this;
  os::access_hook = &count_others;
  os::wait_hook = &before_wait;
  std::exception_ptr error;
  try {
    others();
  } catch (...) {
    error = std::current_exception();
  }
  os::access_hook = nullptr;
  os::wait_hook = nullptr;
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
