// SPDX-License-Identifier: Apache-2.0
//
// Member: counted blocks, which are records (arena/record.hpp). How often this process holds a
// block is counted in private memory; the record has one bit for it.
#include <algorithm>

#include "arena/member.hpp"
#include "arena/record.hpp"
#include "arena/runs.hpp"

namespace shoal::arena {

bool Member::can_count(Handle b) const noexcept {
  if (incarnation_ == 0 || !arena_->is_run(b)) return false;
  const std::lock_guard<LocalLock> local(local_);
  return held_.size() < most_held_;
}

void Member::make_counted(Handle b) {
  require_membership();
  Record record(*arena_, b);
  if (!record.is_run()) throw std::logic_error("make_counted: the block is no page run");
  if (!record.is_owned_by(incarnation_))
    throw std::logic_error("make_counted: this member does not own the block");
  const uint64_t begun = begin_with_extensions(record);
  const std::lock_guard<LocalLock> local(local_);
  held_.emplace(b, Held{1, false});  // first, since this may throw
  finish_record(record, begun);
}

bool Member::hold(Handle b) {
  while (true) {
    Record::Done done{};
    {
      std::unique_lock<LocalLock> local(local_);
      if (incarnation_ == 0) return false;
      const auto entry = held_.find(b);
      if (entry != held_.end() && entry->second.references > 0) {
        ++entry->second.references;
        return true;
      }
      Record record(*arena_, b);
      if (!record.is_run() || !record.is_alive()) return false;
      Held* held = &held_.try_emplace(b, Held{0, false}).first->second;
      if (held->references == 0 && held->is_private) {
        // This process is dropping the block and still has the private view: no new reference may
        // see it.
        local.unlock();
        restore_and_let_go(b);
        local.lock();
        if (!record.is_alive()) return false;
        held = &held_.try_emplace(b, Held{0, false}).first->second;
        if (held->references == 0 && held->is_private) return false;
      }
      if (held->references > 0) {  // another thread has held it meanwhile
        ++held->references;
        return true;
      }
      mark(b);
      done = record.hold(slot(), next_version());
      if (done == Record::Done::yes) {
        held->references = 1;
        return true;
      }
      held_.erase(b);
    }
    if (done == Record::Done::no) return false;
    extend_record(b);
  }
}

void Member::drop(Handle b) noexcept {
  bool last = false;
  bool is_private = false;
  bool others = false;
  {
    const std::lock_guard<LocalLock> local(local_);
    const auto entry = held_.find(b);
    if (incarnation_ == 0 || entry == held_.end() || entry->second.references == 0) return;
    if (--entry->second.references > 0) return;
    others = undropped_ > 0;
    is_private = entry->second.is_private;
    if (is_private)
      ++undropped_;
    else
      last = let_go(entry);
  }
  if (last) release_last(b);
  if (is_private) restore_and_let_go(b);
  if (others) drop_again();
}

// Ends this process's hold on a block to which it has no reference left, and of which it has a
// shared view. Needs local_. True: nobody else holds it; the caller calls release_last().
bool Member::let_go(HeldEntry entry) noexcept {
  const Handle b = entry->first;
  held_.erase(entry);
  return Record(*arena_, b).drop(slot(), owner_dying(incarnation_));
}

// Ends this process's hold on a block to which it has no reference left, and of which it has a
// private view. Restores the shared view first, with views_ but without local_, since that is a
// system call; during this the entry stays in held_, with 0 references. False: the view cannot be
// restored. The block stays held then, because its pages must not be reused.
bool Member::restore_and_let_go(Handle b) noexcept {
  bool last = false;
  {
    const std::lock_guard<std::mutex> views(views_);
    const auto find = [&]() noexcept {
      const auto entry = held_.find(b);
      const bool waits = entry != held_.end() && entry->second.references == 0;
      return waits && entry->second.is_private ? entry : held_.end();
    };
    {
      const std::lock_guard<LocalLock> local(local_);
      if (find() == held_.end()) return true;  // another thread has done it
    }
    if (!restore_view(b)) return false;
    const std::lock_guard<LocalLock> local(local_);
    const auto entry = find();
    if (entry == held_.end()) return true;
    --undropped_;
    last = let_go(entry);
  }
  if (last) release_last(b);
  return true;
}

// Tries again to end the holds for which restoring the shared view failed.
void Member::drop_again() noexcept {
  while (true) {
    Handle b = 0;
    {
      const std::lock_guard<LocalLock> local(local_);
      if (undropped_ == 0) return;
      const auto entry = std::find_if(held_.begin(), held_.end(),
                                      [](const auto& held) { return held.second.references == 0; });
      if (entry == held_.end()) {
        undropped_ = 0;
        return;
      }
      b = entry->first;
    }
    if (!restore_and_let_go(b)) return;
  }
}

bool Member::take_counted(Handle b) noexcept {
  {
    const std::lock_guard<LocalLock> local(local_);
    const auto entry = held_.find(b);
    if (incarnation_ == 0 || entry == held_.end() || entry->second.references != 1 ||
        entry->second.is_private)
      return false;
    if (!Record(*arena_, b).take(owner_member(incarnation_), slot())) return false;
    held_.erase(entry);
  }
  free_extensions(*this, b);
  return true;
}

// Frees a block that let_go() has made DYING(me).
void Member::release_last(Handle b) noexcept {
  free_extensions(*this, b);
  RunAllocator(*arena_, incarnation_)
      .release(arena_->page_of(b), arena_->block_size(b) >> kPageShift);
}

}  // namespace shoal::arena
