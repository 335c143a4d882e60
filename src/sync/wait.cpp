// SPDX-License-Identifier: Apache-2.0
#include "sync/wait.hpp"

#include <pthread.h>

#include <algorithm>
#include <thread>

#include "os/cpus.hpp"

namespace shoal::sync {

namespace {

constexpr int64_t kMaxSpinNs = 30'000;
constexpr int64_t kMinSpinNs = 1'000;
constexpr uint32_t kRetryAfter = 16;

os::Atomic<uint32_t> spinners;  // how many threads of this process spin

// A forked child inherits the count, but not the threads. Its only thread is the one that forked,
// which was not spinning.
void forget_spinners() noexcept {
  spinners.store(0, os::relaxed);  // order: relaxed; the process has one thread
}

struct SpinHistory {
  int64_t budget_ns = kMaxSpinNs;
  uint32_t failures = 0;
};
thread_local SpinHistory history;

// How many threads may spin, plus 1; 0: not known yet. No initialization guard: a fork while
// another thread initializes would leave the child with a guard that nobody ever opens.
os::Atomic<uint32_t> spinner_places;

uint32_t spinner_limit() noexcept {
  // order: relaxed, both; the number is all there is, and every thread finds the same one
  uint32_t places = spinner_places.load(os::relaxed);
  if (places == 0) {
    places = static_cast<uint32_t>(std::max(1, os::usable_cpus()));
    uint32_t unknown = 0;
    // If this fails because memory is exhausted, threads of a forked child may spin less.
    if (spinner_places.compare_exchange(unknown, places))
      (void)pthread_atfork(nullptr, nullptr, &forget_spinners);
  }
  return places - 1;
}

}  // namespace

SpinPermit::SpinPermit() noexcept : granted_(false) {
  if (os::has_access_model()) return;  // the length of a spin is no part of a simulated run
  const uint32_t limit = spinner_limit();
  if (limit == 0) return;
  // order: relaxed; the count only limits how many threads spin; it publishes nothing
  granted_ = spinners.fetch_add(1, os::relaxed) < limit;
  if (!granted_) spinners.fetch_sub(1, os::relaxed);  // order: relaxed; as above
}

SpinPermit::~SpinPermit() {
  if (granted_) spinners.fetch_sub(1, os::relaxed);  // order: relaxed; as above
}

int64_t spin_budget_ns() noexcept {
  return history.failures % kRetryAfter == kRetryAfter - 1 ? kMaxSpinNs : history.budget_ns;
}

void spin_ended(bool success) noexcept {
  if (success) {
    history.failures = 0;
    history.budget_ns = history.budget_ns * 2 < kMaxSpinNs ? history.budget_ns * 2 : kMaxSpinNs;
  } else {
    ++history.failures;
    history.budget_ns = history.budget_ns / 2 > kMinSpinNs ? history.budget_ns / 2 : kMinSpinNs;
  }
}

void yield_processor() noexcept { std::this_thread::yield(); }

os::Wake Ticker::sleep(os::Atomic<uint32_t>* word, uint32_t expected, bool* ticked) noexcept {
  *ticked = false;
  const int64_t tick_ns = os::monotonic_ns() + pause_ns_;
  const bool last = deadline_ns_ >= 0 && deadline_ns_ <= tick_ns;
  const os::Wake wake = os::futex_wait(word, expected, last ? deadline_ns_ : tick_ns);
  if (wake != os::Wake::timed_out || last) return wake;
  *ticked = true;
  pause_ns_ = tick_after(pause_ns_);
  return os::Wake::woken;
}

}  // namespace shoal::sync
