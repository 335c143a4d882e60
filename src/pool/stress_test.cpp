// SPDX-License-Identifier: Apache-2.0
//
// The complete protocol between threads of one process: a client, an agent, and workers with
// members of their own. Workers die at random times and places: their thread simply ends, like a
// killed process. Suitable for ThreadSanitizer.
#include "pool/test_pool.hpp"

#include <cstdlib>
#include <random>
#include <thread>

namespace shoal::pool {
namespace {

uint64_t seed() {
  const char* text = std::getenv("SHOAL_TEST_SEED");
  const uint64_t value =
      text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
  std::printf("SHOAL_TEST_SEED=%llu\n", static_cast<unsigned long long>(value));
  return value;
}

// A worker in a thread. It dies with probability 1 / `deadly` at each step; 0: never.
class Thread {
 public:
  Thread(TestPool& pool, uint64_t random_seed, uint32_t deadly)
      : worker_(pool.hire()), random_(random_seed), deadly_(deadly), thread_([this] { live(); }) {}
  ~Thread() { thread_.join(); }

  [[nodiscard]] bool dead() const { return dead_.load() != 0; }
  TestWorker& worker() { return *worker_; }

 private:
  bool dies() { return deadly_ != 0 && random_() % deadly_ == 0; }

  void live() {
    WorkerSeat& seat = worker_->seat;
    for (;;) {
      if (dies()) break;
      if (seat.enter_next()) {
        if (!run_batch(seat)) break;
      } else if (seat.should_leave() || seat.wait() == WorkerSeat::Wait::leave) {
        return;
      }
    }
    dead_.store(1);
  }

  bool run_batch(WorkerSeat& seat) {
    if (dies()) return false;
    while (const auto claim = seat.claim()) {
      if (random_() % 50 == 0 && seat.hand_over()) {
        // like a worker that has run its share of units, except that it still runs this one
      }
      const uint32_t items = seat.batch().item_count(claim->unit);
      for (uint32_t item = claim->progress; item < items; ++item) {
        seat.begin_unit(*claim, 0);
        if (dies()) return false;
        publish(seat, *claim, item, item + 1 == items);
        if (dies()) return false;
        seat.end_unit();
        seat.notify(os::ticks());
      }
    }
    if (dies()) return false;
    seat.leave_batch();
    return true;
  }

  std::unique_ptr<TestWorker> worker_;
  std::mt19937_64 random_;
  uint32_t deadly_;
  os::Atomic<uint32_t> dead_{};
  std::thread thread_;
};

class Storm {
 public:
  Storm(uint32_t workers, uint32_t spinners, uint32_t deadly, bool waits = true)
      : pool_({workers, 0, 0, spinners}), random_(seed()), deadly_(deadly), waits_(waits) {
    for (uint32_t i = 0; i < workers; ++i) threads_.push_back(hire());
  }

  void run(uint32_t batches) {
    for (uint32_t sent = 0; sent < batches;) {
      for (uint32_t burst = static_cast<uint32_t>(random_() % 8); burst > 0 && sent < batches;
           --burst, ++sent) {
        pool_.submit(static_cast<uint32_t>(random_() % 20 + 1), random_() % 3 == 0 ? 3 : 1,
                     random_() % 2 != 0 ? 2 : 0, random_() % 2 != 0);
      }
      turn();
    }
    while (pool_.client->anything_in_flight()) turn();
    pool_.client->set_phase(Phase::stopping);
    threads_.clear();
    pool_.expect_everything_done();
    pool_.expect_clean_end();
    std::printf("%llu items, %llu lost, %u deaths\n",
                static_cast<unsigned long long>(pool_.submitted),
                static_cast<unsigned long long>(pool_.lost), deaths_);
  }

 private:
  std::unique_ptr<Thread> hire() { return std::make_unique<Thread>(pool_, random_(), deadly_); }

  void turn() {
    const uint32_t seen = pool_.client->listen();
    bury_and_hire();
    if (pool_.collect()) return;
    if (!waits_) return std::this_thread::yield();
    pool_.client->wait(seen, os::monotonic_ns() + 2'000'000, random_() % 2 != 0);
  }

  void bury_and_hire() {
    for (auto& thread : threads_) {
      if (!thread->dead()) continue;
      pool_.die(thread->worker());
      ++deaths_;
      thread = hire();
    }
  }

  TestPool pool_;
  std::mt19937_64 random_;
  uint32_t deadly_;
  bool waits_;  // the client waits for outcomes, and handles stopped workers while it waits
  uint32_t deaths_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;
};

TEST(Stress, NobodyDies) { Storm(4, 2, 0).run(3000); }
TEST(Stress, WithoutSpinners) { Storm(3, 0, 0).run(2000); }
TEST(Stress, NobodyWaits) { Storm(3, 0, 0, false).run(3000); }
TEST(Stress, ManyDie) { Storm(4, 2, 60).run(2000); }
TEST(Stress, FewDie) { Storm(4, 1, 2000).run(3000); }
TEST(Stress, OneWorkerThatDies) { Storm(1, 1, 100).run(1000); }

}  // namespace
}  // namespace shoal::pool
