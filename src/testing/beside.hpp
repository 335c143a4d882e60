// SPDX-License-Identifier: Apache-2.0
//
// run_beside(): delays one operation while another operation runs. The calling thread runs `first`
// and is stopped right before its nth access to an os::Atomic. Then `second` runs on another thread
// until it has ended or waits; it can only be waiting for `first`. Then `first` continues. A test
// that calls it with n = 0, 1, 2, ... until it returns false has tried every place at which `first`
// can be delayed. run_beside_at() stops `first` before its first access to one address instead.
// Tests only; needs SHOAL_TESTING. `first` and `second` must not throw.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "os/atomic.hpp"

namespace shoal::testing {

// Does this thread of this process sleep in the kernel?
inline bool thread_sleeps(pid_t thread) {
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

enum class SecondThread {
  not_run,  // `first` was not stopped
  ended,    // before `first` continued
  waited,   // for `first` to continue
};

class Beside {
 public:
  // `at`: null, or the address at whose access number `nth` the caller is stopped.
  Beside(unsigned nth, const void* at, const std::function<void()>& second)
      : left_(nth), at_(at), second_(second) {
    current = this;
    os::access_hook = &Beside::before_access_of_first;
  }
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;
  ~Beside() {
    os::access_hook = nullptr;
    current = nullptr;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] SecondThread result() const noexcept { return result_; }

 private:
  // A thread that has loaded the same word so many times in a row is waiting for it to change.
  static constexpr unsigned kLooksOfAWaiter = 150;

  static void before_access_of_first(const void* address) {
    if (current->at_ != nullptr && address != current->at_) return;
    if (current->left_-- > 0) return;
    os::access_hook = nullptr;
    current->run_second();
  }

  static void before_access_of_second(const void* address) {
    current->looks_ = address == current->looked_at_ ? current->looks_ + 1 : 0;
    current->looked_at_ = address;
    if (current->looks_ >= kLooksOfAWaiter) current->waits_.store(true);
  }

  void run_second() {
    result_ = SecondThread::waited;
    thread_ = std::thread([this] {
      current = this;
      tid_.store(gettid());
      os::access_hook = &Beside::before_access_of_second;
      second_();
      os::access_hook = nullptr;
      ended_.store(true);
    });
    while (!ended_.load() && !waits_.load()) {
      const pid_t thread = tid_.load();
      if (thread != 0 && thread_sleeps(thread)) break;
      std::this_thread::yield();
    }
    if (ended_.load()) result_ = SecondThread::ended;
  }

  static inline thread_local Beside* current = nullptr;
  unsigned left_;
  const void* at_;
  SecondThread result_ = SecondThread::not_run;
  const std::function<void()>& second_;
  std::thread thread_;
  std::atomic<pid_t> tid_{0};
  std::atomic<bool> ended_{false};
  std::atomic<bool> waits_{false};
  const void* looked_at_ = nullptr;  // of the second thread
  unsigned looks_ = 0;
};

// False: `first` has made at most `nth` accesses, and `second` ran after it.
inline bool run_beside(unsigned nth, const std::function<void()>& first,
                       const std::function<void()>& second) {
  SecondThread result{};
  {
    const Beside beside(nth, nullptr, second);
    first();
    result = beside.result();
  }
  if (result == SecondThread::not_run) second();
  return result != SecondThread::not_run;
}

inline SecondThread run_beside_at(const void* address, const std::function<void()>& first,
                                  const std::function<void()>& second) {
  const Beside beside(0, address, second);
  first();
  return beside.result();
}

}  // namespace shoal::testing
