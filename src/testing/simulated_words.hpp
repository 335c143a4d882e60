// SPDX-License-Identifier: Apache-2.0
//
// SimulatedWords: the values that the C++ memory model lets a load return; the memory of
// weak_memory.hpp, which says what is simulated. Not synchronized: one access at a time. Each word
// of real memory holds the latest value of its history, so that the kernel, and threads that are
// not simulated, see that one. Tests only.
//
// Invariants:
// 1. The messages of a word are in the order of its modifications. `time` rises along it; a time is
//    never used twice in a word.
// 2. A thread's view has, for each word, the time of the newest message that the thread must know.
//    It never decreases, and the thread reads and writes at no earlier time.
// 3. Between a message that is `followed` and the next one there is nothing: an exchange, an
//    addition or a compare-exchange has read the one and written the other.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "os/atomic.hpp"
#include "testing/weak_memory.hpp"

namespace shoal::testing {

// What a run leaves open.
enum class Choice : uint8_t {
  go_on,   // 0: the thread that runs goes on; else: another one
  thread,  // which thread runs, where the present one cannot
  value,   // of a load; 0: the latest
  place,   // of a store; 0: after the latest
};

class Choices {
 public:
  virtual ~Choices() = default;
  // A number below `options`, which is at least 1.
  virtual unsigned pick(Choice what, unsigned options) = 0;
};

class SimulatedWords {
 public:
  SimulatedWords(unsigned threads, std::vector<SimulatedRange> ranges, Choices& choices,
                 WeakCounts& counts)
      : views_(threads), ranges_(std::move(ranges)), choices_(&choices), counts_(&counts) {}

  [[nodiscard]] bool simulates(const void* word) const noexcept;
  // Carries out one access of a thread; returns the value that it has found.
  uint64_t access(unsigned thread, const os::Access& access);

 private:
  using View = std::vector<double>;  // by number of the word
  struct Message {
    uint64_t value;
    double time;
    bool followed;
    View known;  // to a thread that acquires this message
  };
  struct Word {
    size_t number;
    unsigned size;
    bool simulated;
    double strong = 0;  // time of the last message that a seq_cst access has read or written
    std::vector<Message> history;
  };

  Word& word_of(const os::Access& access);
  static double& at(View& view, const Word& word);
  static void learn(View& view, const View& known);
  const Message& choose_value(const Word& word, double from, const os::Access& access);
  void store(Word& word, View& view, const os::Access& access);
  void change_latest(Word& word, View& view, const os::Access& access, uint64_t value);

  std::vector<View> views_;  // by thread
  std::vector<SimulatedRange> ranges_;
  std::unordered_map<const void*, Word> words_;
  Choices* choices_;
  WeakCounts* counts_;
};

}  // namespace shoal::testing
