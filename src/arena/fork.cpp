// SPDX-License-Identifier: Apache-2.0
#include "arena/fork.hpp"

#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <vector>

#include "arena/member.hpp"
#include "arena/slots.hpp"
#include "os/memory.hpp"
#include "os/process.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {
std::mutex registry_lock;  // lock order: registry_lock, then each Member::local_
std::vector<Member*>& registry() {
  // lives as long as the process: fork may happen at exit
  static auto* members = new std::vector<Member*>;
  return *members;
}
}  // namespace

struct ForkHandlers {
  static void prepare();
  static void in_parent();
  static void in_child();

 private:
  static void make_room(Member& member) noexcept;
  static void prepare_member(Member& member) noexcept;
  static void adopt_member(Member& member) noexcept;
  static void unshare(Member& member, bool protected_by_bits) noexcept;
};

// Gives the child a slot and lets it hold what we hold. Without a slot that can hold, the blocks
// are pinned: they stay until the session ends, which is better than memory that changes under the
// child.
void ForkHandlers::prepare_member(Member& member) noexcept {
  member.fork_child_ = 0;
  if (member.incarnation_ == 0 || (member.held_.empty() && member.shared_.empty())) return;
  Arena& arena = *member.arena_;
  try {
    for (const auto& [block, count] : member.held_)
      if (member.private_.count(block) == 0) member.fork_private_[block] = arena.block_size(block);
    member.private_.reserve(member.held_.size());  // the child's merge allocates nothing
  } catch (const std::bad_alloc&) {
    // the child will be no member; its views are unprotected, as after any fork without memory
    return;
  }
  const Incarnation child = try_claim_slot(arena, MemberKind::process, 0, member.incarnation_);
  member.share_with_child(child);
  const bool holds = child != 0 && slot_of(child) < kHolderSlots;
  const uint64_t bit = holds ? uint64_t{1} << slot_of(child) : kPinned;
  for (const auto& [block, count] : member.held_) {
    // COMMIT(arena.fork.hold): killed before: held by me; after: by the prepared child, reaped with
    // me
    arena.page(arena.page_of(block)).holders.fetch_or(bit);
    SHOAL_KILL_POINT("arena.fork.hold");
  }
  member.fork_child_ = child;
}

// The child sees its own copy of what it inherited. When it is no member, nothing guarantees the
// contents any more, and a fault is better than another's data. When a mapping fails (too many),
// the pages stay shared: held, so never recycled.
void ForkHandlers::unshare(Member& member, bool protected_by_bits) noexcept {
  for (const auto& [block, bytes] : member.fork_private_) {
    if (protected_by_bits)
      static_cast<void>(member.arena_->map_private(block, bytes));
    else
      os::forbid(member.arena_->address(block), bytes);
  }
}

void ForkHandlers::adopt_member(Member& member) noexcept {
  const Incarnation child = member.fork_child_;
  const int pid = os::own_pid();
  member.fork_child_ = 0;
  member.incarnation_ = 0;
  member.forked_child_ = true;
  member.lanes_taken_.store(0);
  for (Member::Cache& cache : member.caches_) {
    cache.free.clear();
    cache.spans.clear();
    cache.cursor = 0;
  }
  const bool adopted = child != 0 && enliven_slot(*member.arena_, child, pid, os::start_time(pid));
  unshare(member, adopted || child == 0);
  if (adopted) {
    member.incarnation_ = child;
    // moves nodes: allocates nothing while there is room
    member.private_.merge(member.fork_private_);
  } else {
    member.held_.clear();
    member.lost_ = child != 0 && !member.shared_.empty();
  }
  member.fork_private_.clear();
}

// The dead give their slots back, if the child would get one without bits of its own.
void ForkHandlers::make_room(Member& member) noexcept {
  if (member.incarnation_ == 0 || sharer_slot_is_free(*member.arena_)) return;
  try {
    reap_all_dead(*member.arena_, member);
  } catch (const std::exception&) {
    return;  // what the child shares stays until the session ends
  }
}

void ForkHandlers::prepare() {
  const int saved = errno;
  registry_lock.lock();
  for (Member* member : registry()) {
    make_room(*member);
    member->local_.lock();
    prepare_member(*member);
  }
  errno = saved;
}

void ForkHandlers::in_parent() {
  const int saved = errno;
  for (Member* member : registry()) {
    member->fork_private_.clear();
    member->fork_child_ = 0;
    member->local_.unlock();
  }
  registry_lock.unlock();
  errno = saved;
}

void ForkHandlers::in_child() {
  const int saved = errno;
  for (Member* member : registry()) {
    adopt_member(*member);
    // Another thread of the parent may have held it; that thread does not exist here.
    new (&member->reaping_) std::mutex;
    member->local_.unlock();
  }
  registry_lock.unlock();
  errno = saved;
}

void register_for_fork(Member& member) {
  static const int installed =
      pthread_atfork(&ForkHandlers::prepare, &ForkHandlers::in_parent, &ForkHandlers::in_child);
  if (installed != 0) throw std::bad_alloc();
  const std::lock_guard<std::mutex> lock(registry_lock);
  registry().push_back(&member);
}

void unregister_for_fork(Member& member) noexcept {
  const std::lock_guard<std::mutex> lock(registry_lock);
  std::vector<Member*>& members = registry();
  members.erase(std::remove(members.begin(), members.end(), &member), members.end());
}

}  // namespace shoal::arena
