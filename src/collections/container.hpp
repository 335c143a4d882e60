// SPDX-License-Identifier: Apache-2.0
//
// Container: what Sequence and Map have in common: a state in a shared block, the lock over it, and
// the log that makes each change of it one step whoever dies.
//
// A change is prepared (blocks are made and become the container's, named by the log's prepared_
// words), described in the log by absolute values, committed by one exchange of `op`, and then
// carried out. Carrying it out again changes nothing.
// Invariants, for who has taken the lock from a dead owner (lock() does it):
// 1. op is 0: nothing of the change has happened. What the prepared_ words name is freed if it has
//    become the container's already; else the dead owns it, and its reaper frees it.
// 2. op is not 0: the change has happened, and is carried out again.
// 3. Blocks that a change takes out become MEMBER(whoever carries it out), and are freed after the
//    lock was let go; if he dies before that, by his reaper.
// So a member killed inside a change loses that change at most, and nobody sees half of one.
//
// All functions but the constructor, create() and lock() need the lock. No code of a program (no
// Python) runs under it; every step is bounded by the size of the container.
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
  // After the change, for both:
  os::Atomic<uint64_t> live;
  os::Atomic<uint64_t> changes;
  os::Atomic<uint64_t> shape;
  os::Atomic<uint64_t> begin;  // of the table in use then
  os::Atomic<uint64_t> used;
  // put: one item of the table is another one from now on
  os::Atomic<uint64_t> position;
  os::Atomic<uint64_t> item;  // 0: erased
  os::Atomic<uint64_t> old_item;
  os::Atomic<uint64_t> hash;  // maps only, with the next two
  os::Atomic<uint64_t> slot;
  os::Atomic<uint64_t> slot_value;
  // swap: another table, and what is to be freed with the old one and with a bag beside it
  os::Atomic<uint64_t> table;
  os::Atomic<uint64_t> old_table;
  os::Atomic<uint64_t> old_begin;
  os::Atomic<uint64_t> old_used;
  os::Atomic<uint64_t> bag;
  os::Atomic<uint64_t> bag_used;
};

// A map's next table while it is filled, a few entries with each change of the map, so that no
// change holds the lock for as long as a whole table takes. Nothing depends on it: who takes the
// lock from a dead owner drops it, as does a change of the table by other ways.
struct Growth {
  os::Atomic<uint64_t> table;  // BLOCK(container); 0 = none
  os::Atomic<uint64_t>
      cleared;                // its slots before that are empty or in use, those after mean nothing
  os::Atomic<uint64_t> from;  // entries of the present table before that are in it, or erased
  os::Atomic<uint64_t> to;    // its entries
  os::Atomic<uint64_t> asked;  // `changes` + 1 when somebody went to make one; 0 = nobody
};

struct ContainerState {
  sync::MutexState mutex;
  uint32_t magic;
  ContainerKind kind;
  os::Atomic<uint64_t> table;
  os::Atomic<uint64_t> live;     // items
  os::Atomic<uint64_t> changes;  // counts committed changes
  os::Atomic<uint64_t> shape;    // counts those that added, removed or moved items
  os::Atomic<uint64_t> user[4];  // for the layers above; under the lock
  Growth growth;
  ChangeLog log;
};

// Makes reapers and last holders of this process end containers. Cheap; create() calls it.
void register_end_hooks() noexcept;

class Container {
 public:
  static constexpr uint32_t kMagic = 0x746e6f63;  // "cont"

  // Makes an empty one in the block at `handle`, which becomes usable by being shared. Throws
  // MemoryExhausted.
  static void create(arena::Member& member, Handle handle, ContainerKind kind);
  // Throws CorruptArena when there is no such container.
  Container(arena::Arena& arena, Handle handle, ContainerKind kind);

  // Repairs what a dead owner left, and is then as if nobody had died: never owner_died. Throws
  // CorruptArena, not locked then. The derived classes have unlock().
  sync::Locked lock(arena::Member& member, int64_t deadline_ns = sync::kForever);

  [[nodiscard]] uint64_t size() const noexcept { return state_->live.load(); }  // a hint without
  [[nodiscard]] uint64_t changes() const noexcept { return state_->changes.load(); }
  [[nodiscard]] uint64_t shape() const noexcept { return state_->shape.load(); }
  [[nodiscard]] Handle handle() const noexcept { return handle_; }
  [[nodiscard]] ContainerState& state() const noexcept { return *state_; }

  // Removes all items; a bag for free_bag() after the lock was let go.
  [[nodiscard]] Handle clear(arena::Member& member);

  // The end hook: if the block is a container, frees what is in it.
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

  void let_go(arena::Member& member);  // of the lock
  [[nodiscard]] Table& table() const { return open_table(*arena_, state_->table.load(), handle_); }
  // The item becomes the container's. Between here and commit() nothing may throw.
  void prepare(arena::Member& member, Handle item) noexcept;
  void prepare_table(arena::Member& member, Handle table) noexcept;
  void prepare_bag(arena::Member& member, Handle bag) noexcept;
  void drop_growth(arena::Member& member) noexcept;
  void commit(arena::Member& member, const Put& put);    // the old item is MEMBER(me) then
  void commit(arena::Member& member, const Swap& swap);  // the old table and the bag are

  arena::Arena* arena_;
  Handle handle_;
  ContainerState* state_;

 private:
  struct Bags {
    Handle table = 0;
    Handle bag = 0;
  };
  // What was taken out of the container, MEMBER(me); 0: somebody who died had taken it.
  [[nodiscard]] Handle carry_out_put(arena::Member& member);
  [[nodiscard]] Bags carry_out_swap(arena::Member& member);
  void undo(arena::Member& member) noexcept;
  void repair(arena::Member& member);
};

}  // namespace shoal::collections
