// SPDX-License-Identifier: Apache-2.0
//
// The open batches: those that left the ring while some of their units have not begun. A worker
// opens its batch when it leaves the pool, or when the batch takes much longer than expected; the
// agent opens the batch of a dead worker. Workers look for work here as well as in the ring, so
// these units wait neither for the client, which may be busy, nor for a worker that runs a long
// unit.
//
// A view of PoolState.open, for any member, any thread. Never allocates, blocks or throws.
// Invariant: `any_open` is not 0 while an entry is in the list, except between the two stores of
// add() or of oldest(). A death between them leaves an entry that workers find after the next
// add(), and the client pushes all batches with queued units again after a death.
// Design: docs/design/pool.md
#pragma once

#include "pool/layout.hpp"
#include "testing/kill_point.hpp"

namespace shoal::pool {

class OpenBatches {
 public:
  explicit OpenBatches(PoolState* pool) noexcept : pool_(pool) {}

  [[nodiscard]] bool maybe_any() const noexcept { return pool_->any_open.load() != 0; }

  // False: there is no room.
  bool add(Entry entry) noexcept {
    for (os::Atomic<uint64_t>& place : pool_->open) {
      if (place.load() == entry.value) return true;
    }
    for (os::Atomic<uint64_t>& place : pool_->open) {
      uint64_t none = 0;
      // COMMIT(pool.open.entry): killed before: the batch still belongs to its worker, and is
      // opened when the death is recorded; after: it is in the list, but workers do not look there
      // until any_open is set.
      if (place.load() != 0 || !place.compare_exchange(none, entry.value)) continue;
      SHOAL_KILL_POINT("pool.open.entry");
      // COMMIT(pool.open.any): killed before: in the list, but not seen, as above; after: every
      // worker finds the batch.
      pool_->any_open.store(1);
      SHOAL_KILL_POINT("pool.open.any");
      return true;
    }
    return false;
  }

  // The open batch that was submitted first, or none.
  [[nodiscard]] Entry oldest() noexcept {
    if (!maybe_any()) return {};
    Entry found = scan();
    if (found) return found;
    // A concurrent add() stores the entry first and the hint second: either the scan below finds
    // the entry, or add() sets the hint after it was cleared here.
    // COMMIT(pool.open.none): killed before: any_open is set for an empty list; after: the next
    // add() sets any_open again, and the client pushes a batch that was in the list.
    pool_->any_open.store(0);
    SHOAL_KILL_POINT("pool.open.none");
    found = scan();
    if (found) pool_->any_open.store(1);
    return found;
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
