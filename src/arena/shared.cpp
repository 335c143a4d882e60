// SPDX-License-Identifier: Apache-2.0
//
// Member: shared blocks, which are records (arena/record.hpp), and the references that other blocks
// have to them. How often this process holds a block is counted in private memory; the record has
// one bit for it.
#include <algorithm>

#include "arena/member.hpp"
#include "arena/record.hpp"

namespace shoal::arena {

namespace {
constexpr uint64_t kVersionsAtOnce = 1024;
constexpr uint64_t kTagMask = (uint64_t{1} << 29) - 1;  // of the shortest tag
}  // namespace

// A number that is given out once in the session, whose low bits are not 0: words that nobody has
// set have the tag 0. Needs local_.
uint64_t Member::next_version() noexcept {
  do {
    if (next_version_ == end_of_versions_) {
      next_version_ = arena_->header().last_version.fetch_add(kVersionsAtOnce) + 1;
      end_of_versions_ = next_version_ + kVersionsAtOnce;
    }
  } while ((next_version_++ & kTagMask) == 0);
  return next_version_ - 1;
}

// Makes a record of a block of this member in two steps, since only the first may allocate, and
// only the second needs local_. Returns the version; 0: not begun, since it needs no extension.
uint64_t Member::begin_with_extensions(Record& record) {
  if (slot() < kInlineSlots) return 0;
  uint64_t version = 0;
  {
    const std::lock_guard<LocalLock> local(local_);
    version = next_version();
  }
  record.begin(version);
  while (!record.has_word(slot())) extend_record(record);
  return version;
}

void Member::finish_record(Record& record, uint64_t begun) noexcept {
  const uint64_t version = begun != 0 ? begun : next_version();
  if (begun == 0) record.begin(version);
  record.finish(slot(), version);
}

void Member::extend_record(Record& record) {
  const uint64_t bytes = record.extension_bytes();
  if (bytes == 0) throw MemoryExhausted("shoal: too many references to one shared object");
  const Handle extension = allocate(bytes);
  if (!record.extend(extension, incarnation_)) free(extension);
}

void Member::extend_record(Handle b) {
  Record record(*arena_, b);
  extend_record(record);
}

Handle Member::allocate_shareable(size_t bytes) {
  if (bytes + kRecordBytes <= kMaxSmall) return allocate(bytes + kRecordBytes);
  return allocate(std::max<size_t>(bytes, kMaxSmall + 1));  // a run, which has its record apart
}

void Member::share(Handle b) {
  require_membership();
  Record record(*arena_, b);
  if (!record.is_owned_by(incarnation_))
    throw std::logic_error("share: this member does not own the block");
  const uint64_t begun = begin_with_extensions(record);
  const std::lock_guard<LocalLock> local(local_);
  shared_.emplace(b, 1);  // first, since it may throw
  finish_record(record, begun);
}

bool Member::hold_shared(Handle b) {
  while (true) {
    Record::Done done{};
    {
      const std::lock_guard<LocalLock> local(local_);
      require_membership();
      if (const auto entry = shared_.find(b); entry != shared_.end()) {
        ++entry->second;
        return true;
      }
      Record record(*arena_, b);
      if (!record.is_alive()) return false;
      const auto entry = shared_.emplace(b, 1).first;  // first, since it may throw
      mark(b);
      done = record.hold(slot(), next_version());
      if (done == Record::Done::yes) return true;
      shared_.erase(entry);
    }
    if (done == Record::Done::no) return false;
    extend_record(b);
  }
}

bool Member::drop_shared(Handle b) noexcept {
  {
    const std::lock_guard<LocalLock> local(local_);
    const auto entry = shared_.find(b);
    if (incarnation_ == 0 || entry == shared_.end() || --entry->second > 0) return false;
    shared_.erase(entry);
    if (!Record(*arena_, b).drop(slot(), owner_member(incarnation_))) return false;
  }
  free_extensions(*this, b);
  return true;
}

bool Member::link(Handle b, Handle referrer, os::Atomic<uint32_t>& place) {
  Record record(*arena_, b);
  while (true) {
    uint64_t version = 0;
    {
      const std::lock_guard<LocalLock> local(local_);
      require_membership();
      version = next_version();
    }
    const Record::Done done = record.link(referrer, place, version);
    if (done != Record::Done::no_word) return done == Record::Done::yes;
    extend_record(record);
  }
}

bool Member::unlink(Handle b, Handle referrer, uint32_t place) noexcept {
  if (incarnation_ == 0) return false;
  Record record(*arena_, b);
  mark(b);  // first: if this member dies before it settles the record, its reaper does
  record.unlink(referrer, place);
  if (!record.settle(owner_member(incarnation_))) return false;
  free_extensions(*this, b);
  return true;
}

size_t Member::shared_held() const noexcept {
  const std::lock_guard<LocalLock> local(local_);
  return shared_.size();
}

}  // namespace shoal::arena
