// SPDX-License-Identifier: Apache-2.0
//
// Container: what Sequence and Map have in common: a state in a shared block, the lock over it, and
// the log that makes each change atomic, whichever process dies.
//
// A change is prepared (new blocks are made and given to the container; the log's prepared_ words
// name them), described in the log by absolute values, committed by one exchange of `op`, and then
// carried out. Carrying it out again changes nothing.
// Invariants, for a member that takes the lock from a dead owner (lock() does all this):
// 1. op is 0: nothing of the change has happened. A block that a prepared_ word names is freed if
//    it belongs to the container already; otherwise it is the dead member's, and its reaper's scan
//    of the dead member's blocks frees it.
// 2. op is not 0: the change has happened, and is carried out again.
// 3. Blocks that a change removes become MEMBER(whoever carries the change out). That member frees
//    them after it has released the lock; if it dies before, its reaper frees them.
// So a member killed inside a change loses at most that change, and no member sees half of one.
//
// All functions but the constructor, create() and lock() need the lock. No user code (no Python)
// runs under it; every step is bounded by the size of the container.
// Design: docs/design/collections.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "collections/table.hpp"
#include "os/atomic.hpp"
#include "sync/mutex.hpp"

namespace shoal::collections {

enum class ContainerKind : uint32_t { none = 0, sequence = 1, map = 2 };

enum class Change : uint64_t { none = 0, put = 1, swap = 2 };

struct ChangeLog {
  os::Atomic<uint64_t> op;  // Change
  os::Atomic<uint64_t> prepared_item;
  os::Atomic<uint64_t> prepared_table;
  os::Atomic<uint64_t> prepared_bag;
  // After the change, for put and swap:
  os::Atomic<uint64_t> live;
  os::Atomic<uint64_t> changes;
  os::Atomic<uint64_t> shape;
  os::Atomic<uint64_t> begin;  // of the table that is in use after the change
  os::Atomic<uint64_t> used;
  // put: one item of the table is replaced
  os::Atomic<uint64_t> position;
  os::Atomic<uint64_t> item;  // 0: erased
  os::Atomic<uint64_t> old_item;
  os::Atomic<uint64_t> hash;  // maps only, as are the next two
  os::Atomic<uint64_t> slot;
  os::Atomic<uint64_t> slot_value;
  // swap: the new table, and what is freed: the old table's items in [old_begin, old_used), a bag
  os::Atomic<uint64_t> table;
  os::Atomic<uint64_t> old_table;
  os::Atomic<uint64_t> old_begin;
  os::Atomic<uint64_t> old_used;
  os::Atomic<uint64_t> bag;
  os::Atomic<uint64_t> bag_used;
};

// A map's next table while it is filled, a few entries with each change of the map, so that no
// change holds the lock for as long as a whole table takes. Nothing depends on it: it is dropped by
// a member that takes the lock from a dead owner, and by a change that makes a whole table.
struct Growth {
  os::Atomic<uint64_t> table;    // BLOCK(container); 0 = none
  os::Atomic<uint64_t> cleared;  // slots before this one are initialised, later ones are not
  os::Atomic<uint64_t> from;   // entries of the present table before this one are copied or erased
  os::Atomic<uint64_t> to;     // number of entries in the next table
  os::Atomic<uint64_t> asked;  // `changes` + 1 when a member went to make a table; 0 = none did
};

struct ContainerState {
  sync::MutexState mutex;
  uint32_t magic;
  ContainerKind kind;
  os::Atomic<uint64_t> table;
  os::Atomic<uint64_t> live;     // items
  os::Atomic<uint64_t> changes;  // counts committed changes
  os::Atomic<uint64_t> shape;    // counts the changes that added, removed or moved items
  os::Atomic<uint64_t> user[4];  // for the layers above, read and written under the lock
  Growth growth;
  ChangeLog log;
};

// Makes reapers and last holders in this process free containers' contents. Cheap; create() calls
// it.
void register_end_hooks() noexcept;

class Container {
 public:
  static constexpr uint32_t kMagic = 0x746e6f63;  // "cont"

  // Makes an empty container in the block at `handle`; it becomes usable when the block is shared.
  // Throws MemoryExhausted.
  static void create(arena::Member& member, Handle handle, ContainerKind kind);
  // Throws CorruptArena when there is no container of this kind.
  Container(arena::Arena& arena, Handle handle, ContainerKind kind);

  // Repairs what a dead owner left, so it never returns owner_died. When it throws CorruptArena the
  // lock is not held. The derived classes have unlock().
  sync::Locked lock(arena::Member& member, int64_t deadline_ns = sync::kForever);

  [[nodiscard]] uint64_t size() const noexcept { return state_->live.load(); }  // unlocked: a hint
  [[nodiscard]] uint64_t changes() const noexcept { return state_->changes.load(); }
  [[nodiscard]] uint64_t shape() const noexcept { return state_->shape.load(); }
  [[nodiscard]] Handle handle() const noexcept { return handle_; }
  [[nodiscard]] ContainerState& state() const noexcept { return *state_; }

  // Removes all items. Returns a bag, to be freed by free_bag() after the lock was released.
  [[nodiscard]] Handle clear(arena::Member& member);

  // The end hook: if the block is a container, frees its contents.
  static void end(arena::Arena& arena, arena::Member& member, Handle block);

 protected:
  struct Put {
    uint64_t position;
    Handle item;
    Handle old_item;
    uint64_t begin;
    uint64_t used;
    uint64_t live;
    bool reshapes;
    uint64_t hash = 0;
    uint64_t slot = 0;
    uint32_t slot_value = 0;
  };
  struct Swap {
    Handle table;
    uint64_t begin;
    uint64_t used;
    uint64_t live;
    uint64_t old_begin;
    uint64_t old_used;
    Handle bag = 0;
    uint64_t bag_used = 0;
    bool reshapes = true;
  };

  void let_go(arena::Member& member);  // releases the lock
  [[nodiscard]] Table& table() const { return open_table(*arena_, state_->table.load(), handle_); }
  // Gives the item to the container. Between here and commit() nothing may throw.
  void prepare(arena::Member& member, Handle item) noexcept;
  void prepare_table(arena::Member& member, Handle table) noexcept;
  void prepare_bag(arena::Member& member, Handle bag) noexcept;
  void drop_growth(arena::Member& member) noexcept;
  void commit(arena::Member& member, const Put& put);    // makes the old item MEMBER(me)
  void commit(arena::Member& member, const Swap& swap);  // and the old table and the bag

  arena::Arena* arena_;
  Handle handle_;
  ContainerState* state_;

 private:
  struct Bags {
    Handle table = 0;
    Handle bag = 0;
  };
  // Returns what it removed, MEMBER(me) now; 0: a member that died had removed it already.
  [[nodiscard]] Handle carry_out_put(arena::Member& member);
  [[nodiscard]] Bags carry_out_swap(arena::Member& member);
  void undo(arena::Member& member) noexcept;
  void repair(arena::Member& member);
};

}  // namespace shoal::collections
