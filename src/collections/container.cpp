// SPDX-License-Identifier: Apache-2.0
//
// All words of a state and its log change under the lock only, which publishes them. In addition a
// death must leave them in program order: each commit is an exchange, which neither the stores
// before it nor those after it may pass.
#include "collections/container.hpp"

#include <new>
#include <string>

#include "collections/item.hpp"
#include "testing/kill_point.hpp"

namespace shoal::collections {

namespace {

constexpr uint64_t kFirstCapacity = 5;
constexpr uint64_t kFirstSlots = 8;

bool is_container(const arena::Arena& arena, Handle handle) noexcept {
  return arena.block_size(handle) >= sizeof(ContainerState) &&
         arena.at<ContainerState>(handle)->magic == arena::magic_at(Container::kMagic, handle);
}

}  // namespace

void register_end_hooks() noexcept {
  arena::register_end_hook(&end_item);
  arena::register_end_hook(&end_table);
  arena::register_end_hook(&Container::end);
}

void Container::create(arena::Member& member, Handle handle, ContainerKind kind) {
  register_end_hooks();
  arena::Arena& arena = member.arena();
  const bool is_map = kind == ContainerKind::map;
  const Handle table = make_table(member, handle, kFirstCapacity, is_map ? kFirstSlots : 0);
  auto* const state = new (arena.address(handle)) ContainerState{};
  sync::Mutex::create(arena, handle);
  state->kind = kind;
  state->table.store(table);
  // COMMIT(container.create.table): killed before: the scan frees both; after: it frees both
  member.give_to_block(table, handle);
  SHOAL_KILL_POINT("container.create.table");
  state->magic = arena::magic_at(kMagic, handle);
}

Container::Container(arena::Arena& arena, Handle handle, ContainerKind kind)
    : arena_(&arena), handle_(handle), state_(arena.at<ContainerState>(handle)) {
  if (!is_container(arena, handle) || state_->kind != kind) {
    throw arena::CorruptArena("no such container at offset " + std::to_string(handle));
  }
}

sync::Locked Container::lock(arena::Member& member, int64_t deadline_ns) {
  sync::Mutex mutex(*arena_, state_->mutex);
  sync::Locked locked = deadline_ns == 0 ? mutex.try_lock(member) : mutex.lock(member, deadline_ns);
  if (locked == sync::Locked::owner_died) [[unlikely]] {
    try {
      repair(member);
    } catch (const arena::CorruptArena&) {
      mutex.unlock(member);
      throw;
    }
    locked = sync::Locked::ok;
  }
  return locked;
}

void Container::let_go(arena::Member& member) {
  sync::Mutex(*arena_, state_->mutex).unlock(member);
}

// ---- preparing

void Container::prepare(arena::Member& member, Handle item) noexcept {
  set(state_->log.prepared_item, item);
  // COMMIT(container.prepare.item): killed before: the scan frees it; after: a lock() undoes it
  member.give_to_block(item, handle_);
  SHOAL_KILL_POINT("container.prepare.item");
}

void Container::prepare_table(arena::Member& member, Handle table) noexcept {
  set(state_->log.prepared_table, table);
  // COMMIT(container.prepare.table): killed before: the scan frees it; after: undone likewise
  member.give_to_block(table, handle_);
  SHOAL_KILL_POINT("container.prepare.table");
  Table& made = *arena_->at<Table>(table);
  for (uint64_t i = made.fresh_begin; i < made.fresh_end; ++i) {
    const Handle item = get(made.items()[i]);
    // COMMIT(container.prepare.fresh): killed before: the scan frees it; after: undone likewise
    member.give_to_block(item, handle_);
    SHOAL_KILL_POINT("container.prepare.fresh");
  }
}

void Container::prepare_bag(arena::Member& member, Handle bag) noexcept {
  set(state_->log.prepared_bag, bag);
  // COMMIT(container.prepare.bag): killed before: the scan frees it; after: undone likewise
  member.give_to_block(bag, handle_);
  SHOAL_KILL_POINT("container.prepare.bag");
}

// ---- committing

void Container::commit(arena::Member& member, const Put& put) {
  ChangeLog& log = state_->log;
  set(log.live, put.live);
  set(log.changes, get(state_->changes) + 1);
  set(log.shape, get(state_->shape) + (put.reshapes ? 1 : 0));
  set(log.begin, put.begin);
  set(log.used, put.used);
  set(log.position, put.position);
  set(log.item, put.item);
  set(log.old_item, put.old_item);
  set(log.hash, put.hash);
  set(log.slot, put.slot);
  set(log.slot_value, put.slot_value);
  // COMMIT(container.put): killed before: nothing has happened; after: the next lock() does it
  log.op.exchange(static_cast<uint64_t>(Change::put));
  SHOAL_KILL_POINT("container.put");
  static_cast<void>(carry_out_put(member));
}

void Container::commit(arena::Member& member, const Swap& swap) {
  ChangeLog& log = state_->log;
  set(log.live, swap.live);
  set(log.changes, get(state_->changes) + 1);
  set(log.shape, get(state_->shape) + (swap.reshapes ? 1 : 0));
  set(log.begin, swap.begin);
  set(log.used, swap.used);
  set(log.table, swap.table);
  set(log.old_table, get(state_->table));
  set(log.old_begin, swap.old_begin);
  set(log.old_used, swap.old_used);
  set(log.bag, swap.bag);
  set(log.bag_used, swap.bag_used);
  // COMMIT(container.swap): killed before: nothing has happened; after: the next lock() does it
  log.op.exchange(static_cast<uint64_t>(Change::swap));
  SHOAL_KILL_POINT("container.swap");
  static_cast<void>(carry_out_swap(member));
}

Handle Container::carry_out_put(arena::Member& member) {
  Handle taken = 0;
  ChangeLog& log = state_->log;
  Table& now = table();
  const uint64_t position = get(log.position);
  const uint64_t slot = get(log.slot);
  if (position >= now.capacity || (now.slots != 0 && slot >= now.slots)) {
    throw arena::CorruptArena("a container's log names position " + std::to_string(position));
  }
  set(now.items()[position], get(log.item));
  if (now.slots != 0) {
    set(now.hashes()[position], get(log.hash));
    // order: relaxed; as set() in table.hpp
    now.slot_array()[slot].store(static_cast<uint32_t>(get(log.slot_value)), os::relaxed);
  }
  set(now.begin, get(log.begin));
  set(now.used, get(log.used));
  set(state_->live, get(log.live));
  set(state_->changes, get(log.changes));
  set(state_->shape, get(log.shape));
  set(log.prepared_item, 0);
  if (const Handle old = get(log.old_item); old != 0) {
    // COMMIT(container.put.old): killed before: the next lock() takes it; after: the scan frees it
    if (member.take_from_block(old, handle_)) taken = old;
    SHOAL_KILL_POINT("container.put.old");
  }
  // COMMIT(container.put.done): killed before: carried out once more; after: done
  log.op.exchange(static_cast<uint64_t>(Change::none));
  SHOAL_KILL_POINT("container.put.done");
  return taken;
}

Container::Bags Container::carry_out_swap(arena::Member& member) {
  Bags taken;
  ChangeLog& log = state_->log;
  const Handle old = get(log.old_table);
  const Handle bag = get(log.bag);
  Table& next = open_table(*arena_, get(log.table), handle_);
  set(next.begin, get(log.begin));
  set(next.used, get(log.used));
  set(state_->table, get(log.table));
  set(state_->live, get(log.live));
  set(state_->changes, get(log.changes));
  set(state_->shape, get(log.shape));
  set(log.prepared_table, 0);
  set(log.prepared_bag, 0);
  if (arena_->owner_word(old).load() == arena::owner_block(handle_)) {
    Table& before = open_table(*arena_, old, handle_);
    set(before.begin, get(log.old_begin));
    set(before.used, get(log.old_used));
    // COMMIT(container.swap.old): killed before: the next lock() takes it; after: the scan frees it
    if (member.take_from_block(old, handle_)) taken.table = old;
    SHOAL_KILL_POINT("container.swap.old");
  }
  if (bag != 0 && arena_->owner_word(bag).load() == arena::owner_block(handle_)) {
    set(open_table(*arena_, bag, handle_).used, get(log.bag_used));
    // COMMIT(container.swap.bag): killed before: the next lock() takes it; after: the scan frees it
    if (member.take_from_block(bag, handle_)) taken.bag = bag;
    SHOAL_KILL_POINT("container.swap.bag");
  }
  // COMMIT(container.swap.done): killed before: carried out once more; after: done
  log.op.exchange(static_cast<uint64_t>(Change::none));
  SHOAL_KILL_POINT("container.swap.done");
  return taken;
}

// ---- after a death

// Frees only blocks that this call took out of the container. A block that the dead member had
// taken out may have been freed by its reaper and allocated again, by this very member.
void Container::repair(arena::Member& member) {
  drop_growth(member);
  const auto op = static_cast<Change>(get(state_->log.op));
  if (op == Change::none) return undo(member);
  if (op == Change::put) {
    if (const Handle item = carry_out_put(member); item != 0) free_item(member, item);
    return;
  }
  const Bags bags = carry_out_swap(member);
  if (bags.table != 0) free_bag(member, bags.table);
  if (bags.bag != 0) free_bag(member, bags.bag);
}

// Frees what was prepared for a change that has not happened. Safe to repeat: it skips blocks that
// are not the container's.
void Container::undo(arena::Member& member) noexcept {
  ChangeLog& log = state_->log;
  if (const Handle item = get(log.prepared_item); item != 0) {
    free_item_of(member, item, handle_);
    set(log.prepared_item, 0);
  }
  if (const Handle table = get(log.prepared_table); table != 0) {
    if (arena_->owner_word(table).load() == arena::owner_block(handle_)) {
      Table& made = *arena_->at<Table>(table);
      set(made.begin, made.fresh_begin);
      set(made.used, made.fresh_end);
      // COMMIT(container.undo.table): killed before: unchanged; after: the scan frees it
      if (member.take_from_block(table, handle_)) free_bag(member, table);
      SHOAL_KILL_POINT("container.undo.table");
    }
    set(log.prepared_table, 0);
  }
  if (const Handle bag = get(log.prepared_bag); bag != 0) {
    // COMMIT(container.undo.bag): killed before: unchanged; after: the scan frees it
    if (member.take_from_block(bag, handle_)) free_bag(member, bag);
    SHOAL_KILL_POINT("container.undo.bag");
    set(log.prepared_bag, 0);
  }
}

void Container::drop_growth(arena::Member& member) noexcept {
  set(state_->growth.asked, 0);
  const Handle next = get(state_->growth.table);
  if (next == 0) return;
  // COMMIT(container.growth.drop): killed before: unchanged; after: the scan frees it
  if (member.take_from_block(next, handle_)) free_bag(member, next);
  SHOAL_KILL_POINT("container.growth.drop");
  set(state_->growth.table, 0);
}

Handle Container::clear(arena::Member& member) {
  drop_growth(member);
  const Table& now = table();
  const Handle fresh =
      make_table(member, handle_, kFirstCapacity, now.slots != 0 ? kFirstSlots : 0);
  const Handle old = get(state_->table);
  const uint64_t begin = get(now.begin);
  const uint64_t used = get(now.used);
  prepare_table(member, fresh);
  commit(member, Swap{fresh, 0, 0, 0, begin, used});
  return old;
}

void Container::end(arena::Arena& arena, arena::Member& member, Handle block) {
  if (!is_container(arena, block)) return;
  ContainerState* const state = arena.at<ContainerState>(block);
  try {
    Container container(arena, block, state->kind);
    container.repair(member);
    const Handle table = get(state->table);
    state->magic = 0;
    if (member.take_from_block(table, block)) free_bag(member, table);
  } catch (const arena::CorruptArena&) {
    return;  // corrupt: its items stay until the session ends
  }
}

}  // namespace shoal::collections
