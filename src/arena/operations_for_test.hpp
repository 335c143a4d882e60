// SPDX-License-Identifier: Apache-2.0
//
// The operations of the arena of which tests try pairs. Each leaves nothing behind.
#pragma once

#include <gtest/gtest.h>

#include "arena/arena.hpp"
#include "arena/referrer_for_test.hpp"

namespace shoal::arena {

inline constexpr size_t kSmall = 500;
inline constexpr size_t kLarge = 3 * kPage;

struct Scene {
  Member& me;            // the member that runs the operation
  Member& peer;          // stays alive during the whole test
  Handle counted, held;  // a counted and a shared block, which `peer` holds
};

struct Operation {
  const char* name;
  void (*run)(const Scene&);
};

inline void allocate_small(const Scene& scene) { scene.me.free(scene.me.allocate(kSmall)); }
inline void allocate_large(const Scene& scene) { scene.me.free(scene.me.allocate(kLarge)); }
inline void shrink_and_grow(const Scene& scene) {
  const Handle first = scene.me.allocate(kLarge);
  const Handle second = scene.me.allocate(2 * kLarge);
  scene.me.free(first);
  scene.me.free(second);
}
inline void hold_counted(const Scene& scene) {
  if (scene.me.hold(scene.counted)) scene.me.drop(scene.counted);
}
inline void hold_shared(const Scene& scene) {
  ASSERT_TRUE(scene.me.hold_shared(scene.held));
  ASSERT_FALSE(scene.me.drop_shared(scene.held));
}
inline void refer_to_shared(const Scene& scene) {
  ASSERT_TRUE(scene.me.hold_shared(scene.held));
  const Handle first = make_referrer(scene.me, scene.held);
  const Handle second = make_referrer(scene.me, scene.held);
  end_block(scene.me, first);
  ASSERT_FALSE(scene.me.drop_shared(scene.held));
  end_block(scene.me, second);
}
inline void share_and_drop(const Scene& scene) {
  const Handle block = scene.me.allocate_shareable(kSmall);
  scene.me.share(block);
  if (scene.me.drop_shared(block)) scene.me.free(block);  // else a reaper has seen it first
}
inline void count_and_take(const Scene& scene) {
  const Handle block = scene.me.allocate(kLarge);
  scene.me.make_counted(block);
  ASSERT_TRUE(scene.me.take_counted(block));
  scene.me.free(block);
}
inline void send_a_block(const Scene& scene) {
  const Handle block = scene.me.allocate(kSmall);
  ASSERT_TRUE(scene.me.give_to_channel(block, 7, 1));
  ASSERT_TRUE(scene.peer.take_from_channel(block, 7, 1));
  scene.peer.free(block);
}
inline void allocate_again(const Scene& scene) {
  for (int i = 0; i < 2; ++i) scene.me.free(scene.me.allocate(kLarge));
}
inline void give_a_child(const Scene& scene) {
  const Handle parent = scene.me.allocate(kSmall);
  const Handle child = scene.me.allocate(kLarge);
  scene.me.give_to_block(child, parent);
  (void)scene.me.free_child(child, parent);
  scene.me.free(parent);
}
// The maker of the child is gone when the parent's owner dies.
inline void inherit_a_child_and_die(const Scene& scene) {
  auto maker = Member::join(scene.me.arena_pointer(), MemberKind::process);
  const auto victim = Member::join(scene.me.arena_pointer(), MemberKind::process);
  const Handle parent = victim->allocate(kSmall);
  maker->give_to_block(maker->allocate(kSmall), parent);
  maker.reset();
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  (void)reap(scene.me.arena(), scene.me, dead);
}
inline void purge_all(const Scene& scene) { scene.me.purge(0); }
inline void join_and_leave(const Scene& scene) {
  const auto guest = Member::join(scene.me.arena_pointer(), MemberKind::guest);
  guest->free(guest->allocate(kSmall));
}
inline void die_and_be_reaped(const Scene& scene) {
  const auto victim = Member::join(scene.me.arena_pointer(), MemberKind::process);
  (void)victim->allocate(kSmall);
  (void)victim->allocate(kLarge);
  (void)victim->hold(scene.counted);
  (void)victim->hold_shared(scene.held);
  (void)make_referrer(*victim, scene.held);
  (void)make_referrer(*victim, scene.held);
  const Incarnation dead = victim->incarnation();
  victim->abandon_for_test();
  (void)reap(scene.me.arena(), scene.me, dead);
}

inline constexpr Operation kOperations[] = {
    {"allocate_small", allocate_small},
    {"allocate_large", allocate_large},
    {"shrink_and_grow", shrink_and_grow},
    {"hold_counted", hold_counted},
    {"hold_shared", hold_shared},
    {"refer_to_shared", refer_to_shared},
    {"share_and_drop", share_and_drop},
    {"count_and_take", count_and_take},
    {"send_a_block", send_a_block},
    {"purge_all", purge_all},
    {"allocate_again", allocate_again},
    {"give_a_child", give_a_child},
    {"inherit_a_child_and_die", inherit_a_child_and_die},
    {"join_and_leave", join_and_leave},
    {"die_and_be_reaped", die_and_be_reaped},
};

}  // namespace shoal::arena
