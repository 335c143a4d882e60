// SPDX-License-Identifier: Apache-2.0
//
// Processes that allocate, free, pass blocks on and count them are killed at random moments, and
// replaced, for a while (SHOAL_STRESS_SECONDS, default 3). No block is given out twice, none is
// lost.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "arena/test_session.hpp"
#include "os/clock.hpp"

namespace shoal::arena {
namespace {

constexpr uint64_t kIntent = 2;
constexpr uint32_t kChannel = 3;
constexpr unsigned kBoxes = 32;
constexpr unsigned kWorkers = 3;

struct Shared {
  os::Atomic<uint64_t> boxes[kBoxes];
  os::Atomic<uint64_t> errors;
  os::Atomic<uint64_t> operations;
  os::Atomic<uint64_t> handed_over;
};

Shared* shared = nullptr;

// The word of a box: block:34 | low bits of its position:30. Without the position, a worker that
// reads a box late could take, or throw out, a block that was received, freed, and is being sent
// again.
constexpr uint64_t kTag = (uint64_t{1} << 30) - 1;
uint64_t box_word(Handle b, uint64_t position) { return b >> 6 << 30 | (position & kTag); }
Handle box_block(uint64_t word) { return word >> 30 << 6; }
bool box_names(uint64_t word, uint64_t owner) {
  return is_channel(owner) && (owner_channel_position(owner) & kTag) == (word & kTag);
}

struct Content {
  uint64_t position;
  uint64_t stamp;
};

// A block's owner fills it with its own stamp, so that two owners at the same time are noticed.
void fill(Arena& arena, Handle b, uint64_t stamp) {
  auto* words = arena.at<uint64_t>(b);
  const size_t count = std::min<size_t>(arena.block_size(b), 512) / 8;
  for (size_t i = 0; i < count; ++i) words[i] = stamp;
}

bool intact(Arena& arena, Handle b, uint64_t stamp) {
  const auto* words = arena.at<uint64_t>(b);
  const size_t count = std::min<size_t>(arena.block_size(b), 512) / 8;
  for (size_t i = 1; i < count; ++i)
    if (words[i] != stamp) return false;
  return true;
}

// After the death of a sender: a block that no box shows becomes MEMBER(dead) and is freed.
void take_back(Arena& arena, Member&, Incarnation dead, Lane& lane) {
  const Handle b = lane.intent.load() & ~uint64_t{15};
  uint64_t owner = arena.owner_word(b).load();
  if (!is_channel(owner) || owner_channel_position(owner) != lane.intent_argument.load()) return;
  for (os::Atomic<uint64_t>& box : shared->boxes)
    if (box.load() == box_word(b, lane.intent_argument.load())) return;
  give_to_dead(arena, dead, b, owner);
}

class Worker {
 public:
  Worker(TestSession& s, unsigned seed) : arena_(*s.arena), me_(s.join()), random_(seed) {}

  void run() {
    while (true) {
      step();
      shared->operations.fetch_add(1);
    }
  }

 private:
  void step() {
    switch (random_() % 8) {
      case 0:
      case 1:
        return keep(size());
      case 2:
      case 3:
        return let_go();
      case 4:
        return send();
      case 5:
        return receive();
      case 6:
        return family();
      default:
        return count();
    }
  }

  size_t size() {
    return random_() % 16 == 0 ? random_() % 400'000 + 40'000 : random_() % 4000 + 64;
  }
  uint64_t stamp() { return uint64_t{me_->incarnation()} << 32 | ++last_stamp_; }

  void expect(bool holds) {
    if (!holds) shared->errors.fetch_add(1);
  }

  void keep(size_t bytes) {
    if (kept_.size() > 300) return let_go();
    const Handle b = me_->allocate(bytes);
    const uint64_t mark = stamp();
    fill(arena_, b, mark);
    kept_.emplace_back(b, mark);
  }

  void let_go() {
    if (kept_.empty()) return;
    std::swap(kept_[random_() % kept_.size()], kept_.back());
    const auto [b, mark] = kept_.back();
    expect(intact(arena_, b, mark) && arena_.at<uint64_t>(b)[0] == mark);
    me_->free(b);
    kept_.pop_back();
  }

  void send() {
    const Handle b = me_->allocate(size());
    const uint64_t position = (uint64_t{me_->incarnation()} & 0xFFFFF) << 20 | (++sent_ & 0xFFFFF);
    fill(arena_, b, position);
    const LaneGuard lane(*me_);
    lane->intent_argument.store(position);
    lane->intent.store(b | kIntent);
    expect(me_->give_to_channel(b, kChannel, position));
    uint64_t empty = 0;
    os::Atomic<uint64_t>& box = shared->boxes[random_() % kBoxes];
    const bool posted = box.compare_exchange(empty, box_word(b, position));
    if (!posted) {
      expect(me_->take_from_channel(b, kChannel, position));
      me_->free(b);
    }
    lane->intent.store(0);
  }

  void receive() {
    os::Atomic<uint64_t>& box = shared->boxes[random_() % kBoxes];
    uint64_t word = box.load();
    if (word == 0) return;
    const Handle b = box_block(word);
    const uint64_t owner = arena_.owner_word(b).load();
    if (!box_names(word, owner)) {  // its receiver died before it emptied the box
      box.compare_exchange(word, 0);
      return;
    }
    const uint64_t position = owner_channel_position(owner);
    if (!me_->take_from_channel(b, kChannel, position)) return;
    box.compare_exchange(word, 0);
    expect(intact(arena_, b, position));
    me_->free(b);
    shared->handed_over.fetch_add(1);
  }

  void family() {
    const Handle parent = me_->allocate(200);
    const Handle child = me_->allocate(size());
    const uint64_t mark = stamp();
    fill(arena_, child, mark);
    me_->give_to_block(child, parent);
    if (random_() % 2 == 0) {
      expect(me_->take_from_block(child, parent));
      expect(intact(arena_, child, mark));
      me_->free(child);
    } else {
      expect(me_->free_child(child, parent));
    }
    me_->free(parent);
  }

  void count() {
    const Handle b = me_->allocate(100'000);
    if (!me_->can_count(b)) return me_->free(b);
    me_->make_counted(b);
    expect(me_->hold(b));
    me_->drop(b);
    me_->drop(b);
  }

  Arena& arena_;
  std::unique_ptr<Member> me_;
  std::mt19937 random_;
  std::vector<std::pair<Handle, uint64_t>> kept_;
  uint64_t last_stamp_ = 0;
  uint64_t sent_ = 0;
};

pid_t start_worker(TestSession& s, unsigned seed) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  Worker(s, seed).run();
  _exit(0);
}

TEST(Stress, KilledAtRandomNothingIsLostOrGivenOutTwice) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  TestSession s;
  register_reap_hook(kIntent, take_back);
  const Handle area = s.me->allocate(sizeof(Shared));
  shared = new (s.arena->address(area)) Shared{};
  pid_t workers[kWorkers];
  for (pid_t& pid : workers) pid = start_worker(s, static_cast<unsigned>(random()));
  const char* seconds = std::getenv("SHOAL_STRESS_SECONDS");
  const int64_t end =
      os::monotonic_ns() + (seconds == nullptr ? 3 : std::atoi(seconds)) * int64_t{1'000'000'000};
  int deaths = 0;
  while (os::monotonic_ns() < end) {
    usleep(static_cast<useconds_t>(random() % 4000));
    pid_t& pid = workers[random() % kWorkers];
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    ++deaths;
    reap_all_dead(*s.arena, *s.me);
    pid = start_worker(s, static_cast<unsigned>(random()));
  }
  for (const pid_t pid : workers) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  reap_all_dead(*s.arena, *s.me);
  s.arena->check();
  for (os::Atomic<uint64_t>& box : shared->boxes) {
    const uint64_t word = box.load();
    const Handle b = box_block(word);
    const uint64_t owner = word == 0 ? 0 : s.arena->owner_word(b).load();
    if (box_names(word, owner) &&
        s.me->take_from_channel(b, kChannel, owner_channel_position(owner)))
      s.me->free(b);
  }
  EXPECT_EQ(shared->errors.load(), 0U);
  EXPECT_GT(shared->handed_over.load(), 0U);
  std::printf("%d deaths, %lu operations, %lu blocks handed over\n", deaths,
              shared->operations.load(), shared->handed_over.load());
  EXPECT_EQ(s.blocks(), 1U);
  s.me->free(area);
  s.me->purge(0);
  EXPECT_EQ(s.arena->statistics().orphan_spans, 0U);
  EXPECT_LE(s.arena->statistics().committed, uint64_t{8} << 20);
  s.arena->check();
}

}  // namespace
}  // namespace shoal::arena
