// SPDX-License-Identifier: Apache-2.0
#include "testing/weak_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "os/futex.hpp"
#include "testing/delay.hpp"
#include "testing/simulated_words.hpp"

namespace shoal::testing {

namespace {

constexpr unsigned kNobody = UINT_MAX;
// A thread that makes so many accesses in a row, or so many to one word, waits for another one.
constexpr uint64_t kSpins = 1'000;
constexpr uint64_t kSpinsOnOneWord = 8;
// After so many accesses, or forced wake-ups, a run does not end by itself.
constexpr uint64_t kMostAccesses = 2'000'000;
constexpr uint64_t kMostForced = 2'000;
// A thread that sleeps at so many looks in a row waits for a lock of the standard library.
constexpr int kLooks = 5;
constexpr std::chrono::milliseconds kBetweenLooks{1};

// One run of a scene. One thread runs at a time, the `current_` one: a thread waits for its turn
// before each access, and may then pass the turn on.
class Run {
 public:
  Run(const WeakScene& scene, std::vector<SimulatedRange> ranges, Choices& choices,
      std::string name, WeakCounts& counts)
      : words_(static_cast<unsigned>(scene.operations.size()), std::move(ranges), choices, counts),
        choices_(choices),
        name_(std::move(name)),
        counts_(counts),
        threads_(scene.operations.size()) {
    for (unsigned i = 0; i < threads_.size(); ++i) {
      threads_[i].thread = std::thread([this, i, &run = scene.operations[i]] { body(i, run); });
    }
    Lock lock(mutex_);
    all_ready_.wait(lock, [this] { return ready_ == threads_.size(); });
    begun_ = true;
    give_turn(choices_.pick(Choice::thread, static_cast<unsigned>(threads_.size())));
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() = default;

  // Rethrows the exception of the first operation that threw one.
  void end() {
    for (Thread& thread : threads_) thread.thread.join();
    for (Thread& thread : threads_) {
      if (thread.error) std::rethrow_exception(thread.error);
    }
  }

 private:
  enum class State : uint8_t {
    ready,
    sleeps,  // on a futex
    stuck,   // in the kernel, outside of the simulation: on a lock of the standard library
    ended,
  };
  struct Thread {
    std::thread thread;
    std::condition_variable turn;
    pid_t id = 0;
    State state = State::ready;
    bool runs = false;                  // has the turn, and is not in take_turn()
    const void* word = nullptr;         // on which it sleeps
    bool has_deadline = false;          // its sleep
    os::Wake result = os::Wake::woken;  // of its sleep
    std::exception_ptr error = nullptr;
  };
  using Lock = std::unique_lock<std::mutex>;

  static thread_local Run* mine_;
  static thread_local unsigned me_;

  void body(unsigned me, const std::function<void()>& run) {
    static constexpr os::FutexModel kKernel{&on_wait, &on_wake};
    mine_ = this;
    me_ = me;
    {
      Lock lock(mutex_);
      threads_[me].id = gettid();
      ++ready_;
      all_ready_.notify_one();
      threads_[me].turn.wait(lock, [this, me] { return begun_ && current_ == me; });
      take_turn(lock);
    }
    os::access_model = &on_access;
    os::futex_model = &kKernel;
    try {
      run();
    } catch (...) {
      threads_[me].error = std::current_exception();
    }
    os::access_model = nullptr;
    os::futex_model = nullptr;
    Lock lock(mutex_);
    threads_[me].state = State::ended;
    if (current_ == me) pass_on();
  }

  static uint64_t on_access(const os::Access& access) { return mine_->access(access); }
  static os::Wake on_wait(os::Atomic<uint32_t>* word, uint32_t expected, bool has_deadline) {
    return mine_->sleep(word, expected, has_deadline);
  }
  static int on_wake(os::Atomic<uint32_t>* word, int count, uint32_t add) {
    return mine_->wake(word, count, add);
  }

  uint64_t access(const os::Access& access) {
    Lock lock(mutex_);
    take_turn(lock);
    on_one_word_ = access.word == last_word_ ? on_one_word_ + 1 : 0;
    last_word_ = access.word;
    if (words_.simulates(access.word) || waits_for_another()) maybe_switch(lock);
    ++in_a_row_;
    if (++counts_.accesses - accesses_before_ > kMostAccesses) give_up("does not end");
    const uint64_t found = words_.access(me_, access);
    if (traced_ && words_.simulates(access.word)) trace(access, found);
    return found;
  }

  void trace(const os::Access& access, uint64_t found) const {
    static constexpr const char* kKinds[] = {"load", "store", "exchange", "compare_exchange",
                                             "add",  "or",    "and"};
    static constexpr const char* kOrders[] = {"relaxed", "consume", "acquire",
                                              "release", "acq_rel", "seq_cst"};
    std::fprintf(stderr, "%s thread %u %s %s %p: found %llx, expected %llx, operand %llx\n",
                 name_.c_str(), me_, kKinds[static_cast<size_t>(access.kind)],
                 kOrders[static_cast<size_t>(access.order)], access.word,
                 static_cast<unsigned long long>(found),
                 static_cast<unsigned long long>(access.expected),
                 static_cast<unsigned long long>(access.operand));
  }

  os::Wake sleep(os::Atomic<uint32_t>* word, uint32_t expected, bool has_deadline) {
    Lock lock(mutex_);
    take_turn(lock);
    maybe_switch(lock);
    // The kernel compares the latest value.
    if (__atomic_load_n(word->raw(), __ATOMIC_SEQ_CST) != expected) return os::Wake::changed;
    Thread& me = threads_[me_];
    me.state = State::sleeps;
    me.word = word;
    me.has_deadline = has_deadline;
    pass_on();
    take_turn(lock);
    return me.result;
  }

  int wake(os::Atomic<uint32_t>* word, int count, uint32_t add) {
    Lock lock(mutex_);
    take_turn(lock);
    maybe_switch(lock);
    if (add != 0) {
      words_.access(me_, {os::AccessKind::add, os::seq_cst, sizeof add, word, add, 0});
    }
    int woken = 0;
    for (Thread& thread : threads_) {
      if (thread.state != State::sleeps || thread.word != word || woken == count) continue;
      rouse(thread, os::Wake::woken);
      ++woken;
    }
    return woken;
  }

  static void rouse(Thread& thread, os::Wake result) {
    thread.state = State::ready;
    thread.result = result;
  }

  // Returns when it is this thread's turn. If the thread that has the turn sleeps in the kernel for
  // something that another thread has, this thread takes the turn from it.
  void take_turn(Lock& lock) {
    Thread& me = threads_[me_];
    if (me.state == State::stuck) me.state = State::ready;
    me.runs = false;
    int asleep = 0;
    for (uint64_t turns = turns_; current_ != me_;) {
      if (current_ == kNobody && me.state == State::ready) {
        current_ = me_;
        break;
      }
      me.turn.wait_for(lock, kBetweenLooks);
      if (current_ == me_ || current_ == kNobody || me.state != State::ready) continue;
      Thread& other = threads_[current_];
      asleep = turns == turns_ && other.runs && thread_sleeps(other.id) ? asleep + 1 : 0;
      turns = turns_;
      if (asleep < kLooks) continue;
      other.state = State::stuck;
      give_turn(me_);
    }
    me.runs = true;
    ++turns_;
  }

  // Lets another thread go on, if the choices say so.
  void maybe_switch(Lock& lock) {
    const std::vector<unsigned> others = ready_threads(me_);
    if (others.empty()) return;
    const auto options = static_cast<unsigned>(others.size());
    unsigned picked = 0;
    if (waits_for_another()) {
      picked = 1 + choices_.pick(Choice::thread, options);
    } else {
      picked = choices_.pick(Choice::go_on, options + 1);
    }
    if (picked == 0) return;
    ++counts_.switches;
    give_turn(others[picked - 1]);
    take_turn(lock);
  }

  // This thread cannot go on.
  void pass_on() {
    const std::vector<unsigned> others = ready_threads(me_);
    if (!others.empty()) {
      give_turn(others[choices_.pick(Choice::thread, static_cast<unsigned>(others.size()))]);
      return;
    }
    const bool stuck = std::any_of(threads_.begin(), threads_.end(),
                                   [](Thread& thread) { return thread.state == State::stuck; });
    give_turn(stuck ? kNobody : end_a_sleep());
  }

  // All threads sleep, or have ended. Returns the one whose sleep ends, kNobody if all have ended.
  // The threads take turns.
  unsigned end_a_sleep() {
    const auto count = static_cast<unsigned>(threads_.size());
    for (const bool deadline : {true, false}) {
      for (unsigned i = 1; i <= count; ++i) {
        const unsigned next = (last_forced_ + i) % count;
        Thread& thread = threads_[next];
        if (thread.state != State::sleeps || thread.has_deadline != deadline) continue;
        rouse(thread, deadline ? os::Wake::timed_out : os::Wake::woken);
        (deadline ? counts_.timeouts : counts_.lost) += 1;
        if (++forced_ > kMostForced) give_up("sleeps for ever");
        last_forced_ = next;
        return next;
      }
    }
    return kNobody;
  }

  [[nodiscard]] bool waits_for_another() const noexcept {
    return in_a_row_ >= kSpins || on_one_word_ >= kSpinsOnOneWord;
  }

  void give_turn(unsigned to) {
    current_ = to;
    in_a_row_ = 0;
    on_one_word_ = 0;
    if (to != kNobody) threads_[to].turn.notify_one();
  }

  std::vector<unsigned> ready_threads(unsigned but) const {
    std::vector<unsigned> found;
    for (unsigned i = 0; i < threads_.size(); ++i) {
      if (i != but && threads_[i].state == State::ready) found.push_back(i);
    }
    return found;
  }

  [[noreturn]] void give_up(const char* why) const {
    std::fprintf(stderr, "simulated memory: the run with %s %s\n", name_.c_str(), why);
    std::abort();
  }

  SimulatedWords words_;
  Choices& choices_;
  const std::string name_;
  WeakCounts& counts_;
  const uint64_t accesses_before_ = counts_.accesses;
  std::mutex mutex_;  // guards all that follows, and words_
  std::condition_variable all_ready_;
  std::vector<Thread> threads_;
  size_t ready_ = 0;
  bool begun_ = false;
  unsigned current_ = kNobody;
  uint64_t turns_ = 0;     // counts take_turn()
  uint64_t in_a_row_ = 0;  // accesses since the turn was given
  const void* last_word_ = nullptr;
  uint64_t on_one_word_ = 0;  // how many of the last accesses were to last_word_
  unsigned last_forced_ = 0;
  uint64_t forced_ = 0;  // sleeps that ended because nothing could run
  const bool traced_ = std::getenv("SHOAL_WEAK_TRACE") != nullptr;
};

thread_local Run* Run::mine_ = nullptr;
thread_local unsigned Run::me_ = 0;

// False: the scene failed.
bool run_once(const WeakScene& scene, Choices& choices, const std::string& name,
              WeakCounts& counts) {
  const uint64_t lost = counts.lost;
  std::vector<SimulatedRange> ranges = scene.prepare();
  Run(scene, std::move(ranges), choices, name, counts).end();
  ++counts.runs;
  counts.failed = !scene.check(name) || counts.lost != lost;
  return !counts.failed;
}

// Choices that follow from a seed; how often they differ from 0 does so as well. Some runs hardly
// switch: one operation of thousands of accesses ends while another one has just begun.
class SeededChoices : public Choices {
 public:
  explicit SeededChoices(uint64_t seed) : random_(seed) {
    for (uint64_t& rarity : rarity_) rarity = uint64_t{2} << 2 * (random_() % 4);
    rarity_[static_cast<size_t>(Choice::go_on)] = uint64_t{4} << 3 * (random_() % 4);
  }
  unsigned pick(Choice what, unsigned options) override {
    if (what == Choice::thread) return static_cast<unsigned>(random_() % options);
    if (random_() % rarity_[static_cast<size_t>(what)] != 0) return 0;
    return 1 + static_cast<unsigned>(random_() % (options - 1));
  }

 private:
  std::mt19937_64 random_;
  uint64_t rarity_[4];  // by Choice: one pick in so many is not 0
};

// All choices within limits, one run after the other, depth first.
class EveryChoice : public Choices {
 public:
  explicit EveryChoice(const WeakLimits& limits)
      : limits_{limits.switches, UINT_MAX, limits.stale, limits.late} {}

  unsigned pick(Choice what, unsigned options) override {
    const auto kind = static_cast<size_t>(what);
    if (used_[kind] == limits_[kind]) return 0;
    if (next_ == path_.size()) path_.push_back({what, options, 0});
    const Step& step = path_[next_++];
    used_[kind] += step.taken != 0 ? 1 : 0;
    return std::min(step.taken, options - 1);
  }
  // The next run; false: there is none.
  bool advance() {
    path_.resize(next_);
    while (!path_.empty() && path_.back().taken + 1 == path_.back().options) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().taken;
    next_ = 0;
    std::fill(std::begin(used_), std::end(used_), 0);
    return true;
  }

 private:
  struct Step {
    Choice what;
    unsigned options;
    unsigned taken;
  };
  const unsigned limits_[4];  // by Choice
  unsigned used_[4] = {};
  std::vector<Step> path_;
  size_t next_ = 0;
};

}  // namespace

WeakCounts weak_random(const WeakScene& scene, unsigned seeds) {
  const auto run = [&](uint64_t seed, WeakCounts& counts) {
    SeededChoices choices(seed);
    return run_once(scene, choices, "SHOAL_WEAK_SEED=" + std::to_string(seed), counts);
  };
  WeakCounts counts;
  if (const char* const text = std::getenv("SHOAL_WEAK_SEED")) {
    run(std::strtoull(text, nullptr, 10), counts);
    return counts;
  }
  const char* const times = std::getenv("SHOAL_WEAK_SEEDS");
  const uint64_t most = seeds * (times == nullptr ? 1 : std::strtoull(times, nullptr, 10));
  for (uint64_t seed = 1; seed <= most && run(seed, counts); ++seed) continue;
  return counts;
}

WeakCounts weak_every(const WeakScene& scene, const WeakLimits& limits) {
  WeakCounts counts;
  EveryChoice choices(limits);
  do {
    if (counts.runs == limits.runs) return counts;
    if (!run_once(scene, choices, "run " + std::to_string(counts.runs), counts)) return counts;
  } while (choices.advance());
  counts.complete = true;
  return counts;
}

}  // namespace shoal::testing
