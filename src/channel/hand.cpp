// SPDX-License-Identifier: Apache-2.0
#include "channel/hand.hpp"

#include <new>

namespace shoal::channel {

arena::Handle make_hand(arena::Member& member, arena::Handle channel, uint32_t id) {
  const arena::Handle block = member.allocate(sizeof(Hand));
  auto* const hand = new (member.arena().address(block)) Hand{};
  hand->channel = channel;
  hand->id = id;
  hand->owner = member.incarnation();
  hand->check = Hand::kCheck ^ block;
  return block;
}

bool take_from_hand(Hand& hand) noexcept {
  uint64_t count = hand.count.load();
  while (count > 0) {
    if (hand.count.compare_exchange(count, count - 1)) return true;
  }
  return false;
}

Hand* hand_at(const arena::Arena& arena, arena::Handle block) noexcept {
  if (arena.block_size(block) < sizeof(Hand)) return nullptr;
  auto* const hand = arena.at<Hand>(block);
  return hand->check == (Hand::kCheck ^ block) ? hand : nullptr;
}

}  // namespace shoal::channel
