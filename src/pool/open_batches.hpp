// SPDX-License-Identifier: Apache-2.0
//
// The open batches: those that left the ring while some of their units have not begun. A worker
// opens its batch when it leaves the pool, or when the batch takes much longer than expected; the
// agent opens the batch of a dead worker. Workers look for work here as well as in the ring, so
// these units wait neither for the client, which may be busy, nor for a worker that runs a long
// unit.
//
// A view of PoolState.open, for any member, any thread. Never allocates, blocks or throws.
// Invariant: bit 0 of `any_open` is set while an entry is in the list, except between the two
// stores of add(). Between these, other workers find the batch through the seat of the worker that
// has it. A worker that finds the list empty clears the bit only if no add() has set it since the
// search began: the count in the upper bits of the word shows that.
// Design: docs/design/pool.md
#pragma once

#include "pool/layout.hpp"
#include "testing/kill_point.hpp"

namespace shoal::pool {

class OpenBatches {
 public:
  explicit OpenBatches(PoolState* pool) noexcept : pool_(pool) {}

  [[nodiscard]] bool maybe_any() const noexcept { return (pool_->any_open.load() & 1) != 0; }

  // False: there is no room.
  bool add(Entry entry) noexcept {
    for (os::Atomic<uint64_t>& place : pool_->open) {
      if (place.load() != entry.value) continue;
      say_any();  // the thread that added it may be stopped before say_any()
      return true;
    }
    for (os::Atomic<uint64_t>& place : pool_->open) {
      uint64_t none = 0;
      // COMMIT(pool.open.entry): killed before: the batch still belongs to its worker, and is
      // opened when the death is recorded; after: it is in the list, but workers do not look there
      // until any_open is set.
      if (place.load() != 0 || !place.compare_exchange(none, entry.value)) continue;
      SHOAL_KILL_POINT("pool.open.entry");
      say_any();
      return true;
    }
    return false;
  }

  // The open batch that was submitted first, or none.
  [[nodiscard]] Entry oldest() noexcept {
    uint64_t seen = pool_->any_open.load();
    if ((seen & 1) == 0) return {};
    const Entry found = scan();
    if (found) return found;
    // add() stores the entry before it sets the bit: if the scan has missed the entry, the bit is
    // set after `seen` was read, and stays.
    // COMMIT(pool.open.none): killed before: any_open is set for an empty list; after: it is clear,
    // and the next add() sets it again.
    pool_->any_open.compare_exchange(seen, seen & ~uint64_t{1});
    SHOAL_KILL_POINT("pool.open.none");
    return {};
  }

  // The batch has no unit left, or has ended.
  void remove(Entry entry) noexcept {
    for (os::Atomic<uint64_t>& place : pool_->open) {
      uint64_t expected = entry.value;
      // COMMIT(pool.open.remove): killed before: another worker finds no unit left and removes it;
      // after: removed.
      if (place.load() == entry.value && place.compare_exchange(expected, 0)) {
        SHOAL_KILL_POINT("pool.open.remove");
        return;
      }
    }
  }

 private:
  void say_any() noexcept {
    uint64_t old = pool_->any_open.load();
    // COMMIT(pool.open.any): killed before: in the list, but not seen, as in add(); after: every
    // worker finds the batch.
    while (!pool_->any_open.compare_exchange(old, (old + 2) | 1)) {
    }
    SHOAL_KILL_POINT("pool.open.any");
  }
  [[nodiscard]] Entry scan() const noexcept {
    Entry found;
    for (const os::Atomic<uint64_t>& place : pool_->open) {
      const Entry entry{place.load()};
      if (entry && (!found || entry.generation() < found.generation())) found = entry;
    }
    return found;
  }

  PoolState* pool_;
};

}  // namespace shoal::pool
