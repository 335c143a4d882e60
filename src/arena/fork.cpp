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
std::mutex registry_lock;  // lock order: registry_lock, then each views_ and local_
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
  static void give_to_child(Member& member, Incarnation child) noexcept;
  static void adopt_member(Member& member) noexcept;
  static void hide_what_is_held(Member& member) noexcept;
  static void end_birth(Member& member) noexcept;
  static void take_back(Member& member) noexcept;
};

// Makes the views of this process private, so that the child's are as well. Prepares a slot for the
// child, and its birth lock, which tells reapers that the child may live although no slot names its
// process yet. Until open_birth(), the slot counts as alive while this process is alive.
void ForkHandlers::prepare_member(Member& member) noexcept {
  member.fork_child_ = 0;
  if (member.incarnation_ == 0 || (member.held_.empty() && member.shared_.empty())) return;
  if (!member.make_views_private()) member.copy_shared_views();
  Arena& arena = *member.arena_;
  const Incarnation child = try_claim_slot(arena, MemberKind::process, 0, member.incarnation_);
  if (child != 0) member.birth_lock_ = lock_birth(arena, child);
  give_to_child(member, child);
  if (child != 0) open_birth(arena, child, member.birth_lock_ >= 0);
  member.fork_child_ = child;
}

// Makes the child hold what this process holds. If the child has no slot, or one that cannot hold,
// the blocks are pinned until the session ends: better than memory that is reused under the child.
void ForkHandlers::give_to_child(Member& member, Incarnation child) noexcept {
  member.share_with_child(child);
  const bool holds = child != 0 && slot_of(child) < kHolderSlots;
  const uint64_t bit = holds ? uint64_t{1} << slot_of(child) : kPinned;
  Arena& arena = *member.arena_;
  for (const auto& [block, held] : member.held_) {
    mark_for(arena, child, block);
    // COMMIT(arena.fork.hold): killed before: held by this member; after: by the prepared child as
    // well, whose slot is reaped with this member.
    arena.page(arena.page_of(block)).holders.fetch_or(bit);
    SHOAL_KILL_POINT("arena.fork.hold");
  }
}

// For a child that was declared dead: its blocks may be reused by now, and a fault is better than
// another member's data.
void ForkHandlers::hide_what_is_held(Member& member) noexcept {
  for (auto& [block, held] : member.held_) member.hide(block, held);
}

// Runs in the parent and in the child after the fork, also after one that failed.
void ForkHandlers::end_birth(Member& member) noexcept {
  member.forget_copies();
  os::close_fd(member.birth_lock_);
  member.birth_lock_ = -1;
}

// Runs in the parent after it has closed its descriptor of the birth lock and released its locks.
// Frees the prepared slot if the fork has failed.
void ForkHandlers::take_back(Member& member) noexcept {
  const Incarnation child = member.fork_child_;
  member.fork_child_ = 0;
  if (child == 0 || !end_failed_birth(*member.arena_, child)) return;
  try {
    static_cast<void>(reap(*member.arena_, member, child));
  } catch (const std::exception&) {
    return;  // the next member that reaps frees the slot
  }
}

void ForkHandlers::adopt_member(Member& member) noexcept {
  const Incarnation child = member.fork_child_;
  const int pid = os::own_pid();
  member.incarnation_ = 0;
  member.fork_child_ = 0;
  member.forked_child_ = true;
  member.unseen_.blocks = 0;
  member.lanes_taken_.store(0);
  for (Member::Cache& cache : member.caches_) {
    cache.free.clear();
    cache.spans.clear();
    cache.cursor = 0;
  }
  member.kept_.clear();
  const bool foreign = child != 0 && !member.arena_->is_of_this_namespace();
  const bool keeps_lock = foreign && member.birth_lock_ >= 0;
  const bool adopted =
      child != 0 && !foreign && enliven_slot(*member.arena_, child, pid, os::start_time(pid));
  const bool lost = child != 0 && !adopted && !keeps_lock;
  member.lost_ |= lost && !(member.held_.empty() && member.shared_.empty());
  if (lost)
    hide_what_is_held(member);
  else
    member.leave_shared_views();
  member.unseen_.lost = lost;
  if (adopted)
    member.incarnation_ = child;
  else
    member.held_.clear();  // private views stay mapped, of blocks that are pinned or kept
  if (keeps_lock) member.birth_lock_ = -1;  // the descriptor stays open until this process ends
  end_birth(member);
}

// Reaps the dead if no slot with a bit in shared blocks is free for the child.
void ForkHandlers::make_room(Member& member) noexcept {
  if (member.incarnation_ == 0 || sharer_slot_is_free(*member.arena_)) return;
  try {
    reap_all_dead(*member.arena_, member);
  } catch (const std::exception&) {
    return;  // shared blocks that the child holds may then stay until the session ends
  }
}

void ForkHandlers::prepare() {
  const int saved = errno;
  registry_lock.lock();
  for (Member* member : registry()) {
    make_room(*member);
    member->views_.lock();
    member->local_.lock();
    prepare_member(*member);
  }
  errno = saved;
}

void ForkHandlers::in_parent() {
  const int saved = errno;
  for (Member* member : registry()) {
    end_birth(*member);
    member->local_.unlock();
    member->views_.unlock();
  }
  for (Member* member : registry()) take_back(*member);
  registry_lock.unlock();
  errno = saved;
}

void ForkHandlers::in_child() {
  const int saved = errno;
  for (Member* member : registry()) {
    adopt_member(*member);
    // Another thread of the parent may have held this mutex; that thread does not exist here.
    new (&member->reaping_) std::mutex;
    member->local_.unlock();
    member->views_.unlock();
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
