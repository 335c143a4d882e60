// SPDX-License-Identifier: Apache-2.0
//
// The reaper's side of sync/holds.hpp: calls the hooks for the held words of a dead member's lane
// and for its wake word, which has the same form.
#include <array>
#include <exception>

#include "sync/barrier.hpp"
#include "sync/condition.hpp"
#include "sync/event.hpp"
#include "sync/holds.hpp"
#include "sync/mutex.hpp"
#include "sync/semaphore.hpp"

namespace shoal::sync {

namespace {

std::array<os::Atomic<uint64_t>, kHeldKindMask + 1> hooks;  // HeldHook by kind

void reap_lane(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
               arena::Lane& lane) {
  for (const uint64_t word : {lane.held[0].load(), lane.held[1].load(), lane.held[2].load(),
                              lane.held[3].load(), lane.wake.load()}) {
    const arena::Handle object = word & ~kHeldKindMask;
    const auto hook = reinterpret_cast<HeldHook>(hooks[word & kHeldKindMask].load());
    if (object == 0 || hook == nullptr || arena.block_of(arena.address(object)) == 0) continue;
    hook(arena, reaper, dead, object);
  }
}

}  // namespace

void register_held_hook(HeldKind kind, HeldHook hook) noexcept {
  hooks[static_cast<size_t>(kind)].store(reinterpret_cast<uint64_t>(hook));
}

void register_reap_hooks() noexcept {
  register_held_hook(HeldKind::mutex, &Mutex::reap);
  register_held_hook(HeldKind::semaphore, &Semaphore::reap);
  register_held_hook(HeldKind::event, &Event::reap);
  register_held_hook(HeldKind::condition, &Condition::reap);
  register_held_hook(HeldKind::barrier, &Barrier::reap);
  arena::register_reap_hook(0, &reap_lane);
  arena::register_end_hook(&Condition::end);
}

void reap_quietly(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead) noexcept {
  try {
    static_cast<void>(arena::reap(arena, reaper, dead));
  } catch (const std::exception&) {
    return;
  }
}

}  // namespace shoal::sync
