// SPDX-License-Identifier: Apache-2.0
#include "channel/bell.hpp"

#include <cstdio>
#include <stdexcept>

#include "os/datagram.hpp"
#include "os/process.hpp"
#include "testing/kill_point.hpp"

namespace shoal::channel {

namespace {

constexpr uint64_t kRandomMask = (uint64_t{1} << 34) - 1;

struct Name {
  char text[32];
};

Name name_of(uint64_t word) noexcept {
  Name name{};
  std::snprintf(name.text, sizeof name.text, "shoal-bell-%016llx",
                static_cast<unsigned long long>(word));
  return name;
}

}  // namespace

void BellBoard::ring_all(bool unarmed_too) noexcept {
  for (int i = 0; i < kBells; ++i) {
    const uint64_t bit = uint64_t{1} << i;
    // COMMIT(bell.ring.armed): killed before: still armed; after: the reaper rings every bell.
    const bool was_armed = (armed.load() & bit) != 0 && (armed.fetch_and(~bit) & bit) != 0;
    SHOAL_KILL_POINT("bell.ring.armed");
    uint64_t word = bells[i].load();
    if (word == 0 || (!was_armed && !unarmed_too)) continue;
    if (os::datagram_ring(name_of(word).text) != os::Rung::nobody) continue;
    // COMMIT(bell.ring.gone): killed before: the next one finds it gone; after: unused.
    bells[i].compare_exchange(word, 0);
    SHOAL_KILL_POINT("bell.ring.gone");
  }
}

Bell::Bell(BellBoard& board, arena::Incarnation incarnation)
    : board_(&board), incarnation_(incarnation), process_(os::own_pid()) {
  while (descriptor_ < 0) {
    word_ = uint64_t{incarnation} << 34 | (os::random_bits() & kRandomMask);
    descriptor_ = os::datagram_bind(name_of(word_).text);
  }
  board.ring_all(true);  // makes room: bells of the dead are removed
  for (int i = 0; i < BellBoard::kBells && index_ < 0; ++i) {
    uint64_t expected = 0;
    // COMMIT(bell.hang.word): killed before: nothing; after: removed by the next one who rings it.
    if (board.bells[i].compare_exchange(expected, word_)) index_ = i;
    SHOAL_KILL_POINT("bell.hang.word");
  }
  if (index_ >= 0) return;
  os::datagram_close(descriptor_);
  throw std::runtime_error("15 others have asked for this channel's descriptor, more cannot");
}

Bell::~Bell() {
  uint64_t expected = os::own_pid() == process_ ? word_ : 0;  // after a fork it is the parent's
  // COMMIT(bell.unhang.word): killed before: removed by who rings it; after: unused.
  if (expected != 0) board_->bells[index_].compare_exchange(expected, 0);
  SHOAL_KILL_POINT("bell.unhang.word");
  os::datagram_close(descriptor_);
}

void Bell::quiet() noexcept {
  os::datagram_drain(descriptor_);
  // COMMIT(bell.quiet.armed): killed before: nothing; after: one ring that nobody hears.
  board_->armed.fetch_or(uint64_t{1} << index_);
  SHOAL_KILL_POINT("bell.quiet.armed");
}

void Bell::ring() noexcept { os::datagram_ring(name_of(word_).text); }

}  // namespace shoal::channel
