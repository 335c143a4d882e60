// SPDX-License-Identifier: Apache-2.0
#include "testing/simulated_words.hpp"

#include <algorithm>

namespace shoal::testing {

namespace {

using os::AccessKind;
using os::Order;

// An older message is forgotten, as if all threads knew of a later one.
constexpr size_t kMostMessages = 12;

bool acquires(Order order) {
  return order == os::acquire || order == os::acq_rel || order == os::seq_cst;
}
bool releases(Order order) {
  return order == os::release || order == os::acq_rel || order == os::seq_cst;
}
// The order of a compare-exchange that fails, which is a load.
Order as_load(Order order) {
  if (order == os::acq_rel) return os::acquire;
  return order == os::release ? os::relaxed : order;
}

uint64_t value_after(const os::Access& access, uint64_t found) {
  switch (access.kind) {
    case AccessKind::add:
      return access.size == 4 ? static_cast<uint32_t>(found + access.operand)
                              : found + access.operand;
    case AccessKind::bit_or:
      return found | access.operand;
    case AccessKind::bit_and:
      return found & access.operand;
    default:
      return access.operand;
  }
}

uint64_t real_value(const os::Access& access) {
  return access.size == 4 ? __atomic_load_n(static_cast<uint32_t*>(access.word), __ATOMIC_SEQ_CST)
                          : __atomic_load_n(static_cast<uint64_t*>(access.word), __ATOMIC_SEQ_CST);
}

void set_real_value(const os::Access& access, uint64_t value) {
  if (access.size == 4) {
    __atomic_store_n(static_cast<uint32_t*>(access.word), static_cast<uint32_t>(value),
                     __ATOMIC_SEQ_CST);
  } else {
    __atomic_store_n(static_cast<uint64_t*>(access.word), value, __ATOMIC_SEQ_CST);
  }
}

}  // namespace

bool SimulatedWords::simulates(const void* word) const noexcept {
  const auto address = reinterpret_cast<uintptr_t>(word);
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const SimulatedRange& range) {
    const auto begin = reinterpret_cast<uintptr_t>(range.begin);
    return address >= begin && address - begin < range.bytes;
  });
}

// Finds the word's history. Begins a new one if the word is new, or if something outside of the
// simulation has changed it: then a thread that acquires the new value knows all that any thread
// has known until then.
SimulatedWords::Word& SimulatedWords::word_of(const os::Access& access) {
  const auto [place, is_new] = words_.try_emplace(access.word);
  Word& word = place->second;
  const uint64_t value = real_value(access);
  if (is_new) {
    word.number = words_.size() - 1;
    word.simulated = simulates(access.word);
    word.history.push_back({value, 1, false, {}});
  } else if (word.size != access.size || word.history.back().value != value) {
    word.history = {{value, word.history.back().time + 1, false, {}}};
    for (const View& view : views_) learn(word.history.front().known, view);
  }
  word.size = access.size;
  return word;
}

double& SimulatedWords::at(View& view, const Word& word) {
  if (view.size() <= word.number) view.resize(word.number + 1);
  return view[word.number];
}

void SimulatedWords::learn(View& view, const View& known) {
  if (view.size() < known.size()) view.resize(known.size());
  for (size_t i = 0; i < known.size(); ++i) view[i] = std::max(view[i], known[i]);
}

// The message that a load returns, or a compare-exchange that fails: one that the thread may still
// see. A compare-exchange that finds what it expects in an older message than the latest would
// not fail, so it does not see that one.
const SimulatedWords::Message& SimulatedWords::choose_value(const Word& word, double from,
                                                            const os::Access& access) {
  std::vector<const Message*> seen{&word.history.back()};
  for (size_t i = word.history.size() - 1; word.simulated && i > 0; --i) {
    const Message& message = word.history[i - 1];
    if (message.time < from) break;
    const bool would_succeed =
        access.kind == AccessKind::compare_exchange && message.value == access.expected;
    if (!would_succeed) seen.push_back(&message);
  }
  const unsigned picked =
      seen.size() == 1 ? 0 : choices_->pick(Choice::value, static_cast<unsigned>(seen.size()));
  counts_->stale += picked != 0 ? 1 : 0;
  return *seen[picked];
}

void SimulatedWords::store(Word& word, View& view, const os::Access& access) {
  std::vector<Message>& history = word.history;
  double from = at(view, word);
  if (access.order == os::seq_cst) from = std::max(from, word.strong);
  std::vector<size_t> places{history.size()};
  for (size_t i = history.size() - 1; word.simulated && i > 0; --i) {
    if (history[i - 1].time < from) break;
    if (!history[i - 1].followed) places.push_back(i);
  }
  const unsigned picked =
      places.size() == 1 ? 0 : choices_->pick(Choice::place, static_cast<unsigned>(places.size()));
  const size_t place = places[picked];
  const bool latest = place == history.size();
  counts_->late += latest ? 0 : 1;
  const double before = history[place - 1].time;
  Message made{access.operand, latest ? before + 1 : (before + history[place].time) / 2, false, {}};
  at(view, word) = made.time;
  if (releases(access.order)) {
    made.known = view;
  } else {
    at(made.known, word) = made.time;
  }
  if (access.order == os::seq_cst) word.strong = std::max(word.strong, made.time);
  if (latest) set_real_value(access, made.value);
  history.insert(history.begin() + static_cast<int64_t>(place), std::move(made));
}

// An access that reads the latest message and writes the next one. It hands on what the message
// that it has read makes known, whatever its own order: the release sequence.
void SimulatedWords::change_latest(Word& word, View& view, const os::Access& access,
                                   uint64_t value) {
  Message& read = word.history.back();
  read.followed = true;
  if (acquires(access.order)) learn(view, read.known);
  Message made{value, read.time + 1, false, read.known};
  at(view, word) = made.time;
  at(made.known, word) = made.time;
  if (releases(access.order)) learn(made.known, view);
  if (access.order == os::seq_cst) word.strong = made.time;
  set_real_value(access, value);
  word.history.push_back(std::move(made));
}

uint64_t SimulatedWords::access(unsigned thread, const os::Access& access) {
  Word& word = word_of(access);
  View& view = views_[thread];
  const uint64_t latest = word.history.back().value;
  uint64_t found = latest;
  const bool fails = access.kind == AccessKind::compare_exchange && latest != access.expected;
  if (access.kind == AccessKind::load || fails) {
    const Order order = fails ? as_load(access.order) : access.order;
    double from = at(view, word);
    if (order == os::seq_cst) from = std::max(from, word.strong);
    const Message& read = choose_value(word, from, access);
    found = read.value;
    at(view, word) = std::max(at(view, word), read.time);
    if (order == os::seq_cst) word.strong = std::max(word.strong, read.time);
    if (acquires(order)) learn(view, read.known);
  } else if (access.kind == AccessKind::store) {
    store(word, view, access);
  } else {
    change_latest(word, view, access, value_after(access, latest));
  }
  if (word.history.size() > kMostMessages) word.history.erase(word.history.begin());
  return found;
}

}  // namespace shoal::testing
