// SPDX-License-Identifier: Apache-2.0
#include "arena/fork.hpp"

#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <vector>

#include "arena/member.hpp"
#include "arena/record.hpp"
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
  static bool holds_nothing(Member& member) noexcept;
  static Incarnation claim_for_child(Member& member) noexcept;
  static void lock_with_words(Member& member) noexcept;
  static uint64_t spare_bytes(const Member& member) noexcept;
  static size_t missing_words(Member& member) noexcept;
  static bool make_words(Member& member) noexcept;
  static void give_up_child(Member& member) noexcept;
  static void free_spares(Member& member) noexcept;
  static void prepare_member(Member& member) noexcept;
  static void give_to_child(Member& member, Incarnation child) noexcept;
  static void adopt_member(Member& member) noexcept;
  static void hide_what_is_held(Member& member) noexcept;
  static void end_birth(Member& member) noexcept;
  static void take_back(Member& member) noexcept;
};

bool ForkHandlers::holds_nothing(Member& member) noexcept {
  return member.held_.empty() && member.shared_.empty();
}

// A slot for the child; 0: the child needs none, or there is none even after the dead were reaped.
// Until open_birth(), the slot counts as alive while this process is alive.
Incarnation ForkHandlers::claim_for_child(Member& member) noexcept {
  {
    const std::lock_guard<LocalLock> local(member.local_);
    if (member.incarnation_ == 0 || holds_nothing(member)) return 0;
  }
  Arena& arena = *member.arena_;
  const Incarnation child = try_claim_slot(arena, MemberKind::process, member.incarnation_);
  if (child != 0) return child;
  try {
    reap_all_dead(arena, member);
  } catch (const std::exception&) {
    return 0;
  }
  return try_claim_slot(arena, MemberKind::process, member.incarnation_);
}

// Takes the member's locks. Returns when each record that the member holds has a word for the slot
// of its child, or when the child's slot was given up since there is no memory for such words.
void ForkHandlers::lock_with_words(Member& member) noexcept {
  while (true) {
    member.views_.lock();
    member.local_.lock();
    if (member.fork_child_ == 0 || make_words(member)) return;
    const size_t missing = missing_words(member);
    member.local_.unlock();
    member.views_.unlock();
    try {
      member.fork_spares_.reserve(missing);
      while (member.fork_spares_.size() < missing)
        member.fork_spares_.push_back(member.allocate(spare_bytes(member)));
    } catch (const std::exception&) {
      give_up_child(member);
    }
  }
}

// Enough for each level that may be missing.
uint64_t ForkHandlers::spare_bytes(const Member& member) noexcept {
  const uint32_t slot = slot_of(member.fork_child_);
  return kRecordLevels[slot < kRecordLevels[2].first_slot ? 1 : 2].bytes;
}

// How many extensions may be missing. Needs local_.
size_t ForkHandlers::missing_words(Member& member) noexcept {
  const uint32_t slot = slot_of(member.fork_child_);
  size_t missing = 0;
  const size_t levels = slot < kRecordLevels[2].first_slot ? 1 : 2;
  const auto count = [&](Handle b) {
    missing += Record(*member.arena_, b).has_word(slot) ? 0 : levels;
  };
  for (const auto& [block, references] : member.shared_) count(block);
  for (const auto& [block, held] : member.held_) count(block);
  return missing;
}

// Makes words for the child's slot of the spare blocks. Needs local_. False: there are not enough
// spare blocks.
bool ForkHandlers::make_words(Member& member) noexcept {
  const uint32_t slot = slot_of(member.fork_child_);
  if (slot < kInlineSlots) return true;
  const auto make = [&](Handle b) {
    Record record(*member.arena_, b);
    while (!record.has_word(slot)) {
      if (member.fork_spares_.empty()) return false;
      if (record.extend(member.fork_spares_.back(), member.incarnation_))
        member.fork_spares_.pop_back();
    }
    return true;
  };
  for (const auto& [block, references] : member.shared_)
    if (!make(block)) return false;
  for (const auto& [block, held] : member.held_)
    if (!make(block)) return false;
  return true;
}

void ForkHandlers::give_up_child(Member& member) noexcept {
  const Incarnation child = member.fork_child_;
  member.fork_child_ = 0;
  advance_slot(*member.arena_, child, SlotState::dead);
  try {
    static_cast<void>(reap(*member.arena_, member, child));
  } catch (const std::exception&) {
    return;  // the next member that reaps frees the slot
  }
}

void ForkHandlers::free_spares(Member& member) noexcept {
  for (const Handle spare : member.fork_spares_) member.free(spare);
  member.fork_spares_.clear();
}

// Makes the views of this process private, so that the child's are as well, and the child a holder.
// Prepares its birth lock, which tells reapers that the child may live although no slot names its
// process yet. A child without a slot cannot hold anything: it gets copies of the counted blocks,
// and cannot use the shared ones.
void ForkHandlers::prepare_member(Member& member) noexcept {
  if (member.incarnation_ == 0 || holds_nothing(member)) return;
  const Incarnation child = member.fork_child_;
  if (child == 0) return member.copy_views(true);
  if (!member.make_views_private()) member.copy_views(false);
  Arena& arena = *member.arena_;
  member.birth_lock_ = lock_birth(arena, child);
  give_to_child(member, child);
  open_birth(arena, child, member.birth_lock_ >= 0);
}

// Makes the child, whose slot is prepared, hold what this process holds. A death leaves bits of a
// prepared slot, which is reaped with this member.
void ForkHandlers::give_to_child(Member& member, Incarnation child) noexcept {
  const auto hold = [&](Handle b) {
    mark_for(*member.arena_, child, b);
    static_cast<void>(Record(*member.arena_, b).hold(slot_of(child), member.next_version()));
  };
  for (const auto& [block, references] : member.shared_) hold(block);
  for (const auto& [block, held] : member.held_) hold(block);
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
  const bool was_member = member.incarnation_ != 0;
  member.incarnation_ = 0;
  member.fork_child_ = 0;
  member.forked_child_ = true;
  member.unseen_.blocks = 0;
  member.lanes_taken_.store(0);
  member.next_version_ = member.end_of_versions_ = 0;  // these are the parent's
  member.fork_spares_.clear();
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
  if (lost && !holds_nothing(member)) member.lost_ = Member::Lost::parent_died;
  if (was_member && child == 0 && !member.shared_.empty()) member.lost_ = Member::Lost::no_place;
  if (lost)
    hide_what_is_held(member);
  else
    member.leave_views(child != 0);
  member.unseen_.lost = lost;
  if (adopted) {
    member.incarnation_ = child;
  } else {
    member.held_.clear();  // private views stay mapped, of blocks that are copied or kept
    member.shared_.clear();
  }
  if (keeps_lock) member.birth_lock_ = -1;  // the descriptor stays open until this process ends
  end_birth(member);
}

void ForkHandlers::prepare() {
  const int saved = errno;
  registry_lock.lock();
  for (Member* member : registry()) {
    member->fork_child_ = claim_for_child(*member);
    lock_with_words(*member);
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
  for (Member* member : registry()) {
    free_spares(*member);
    take_back(*member);
  }
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
