// SPDX-License-Identifier: Apache-2.0
//
// The directory of named roots. Members write it under the RunsLock; readers take no lock. struct
// Root in arena/layout.hpp says what an entry holds at each moment.
#include <cstring>
#include <stdexcept>

#include "arena/lock.hpp"
#include "arena/member.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

struct RootName {
  uint64_t words[kRootNameWords];
};

RootName make_root_name(const char* name) {
  const size_t length = std::strlen(name);
  if (length == 0 || length > sizeof(RootName))
    throw std::invalid_argument("a root's name must have 1 to 48 bytes");
  RootName result;
  std::memset(&result, 0xFF, sizeof result);
  std::memcpy(&result, name, length);
  return result;
}

bool has_name(const Root& root, const RootName& name) noexcept {
  for (uint32_t i = 0; i < kRootNameWords; ++i)
    if (root.name[i].load() != name.words[i]) return false;
  return true;
}

// The entry's handle if the entry has this name, else 0. Retries if the name has changed between
// the first load and the last.
Handle read_entry(const Root& root, const RootName& name) noexcept {
  for (;;) {
    const uint64_t version = root.version.load();
    const Handle handle = root.handle.load();
    if (handle == 0 || !has_name(root, name)) return 0;
    if (root.version.load() == version) return handle;
  }
}

// Needs: the caller holds the RunsLock, and the entry is free.
void write_entry_locked(Root& root, const RootName& name, Handle handle) noexcept {
  // COMMIT(arena.root.version): killed before: the entry is free; after: the same, and a reader
  // that is still comparing the old name retries
  root.version.store(root.version.load() + 1);
  SHOAL_KILL_POINT("arena.root.version");
  for (uint32_t i = 0; i < kRootNameWords; ++i) {
    // COMMIT(arena.root.name): killed before or after: the entry is free, so its name means nothing
    root.name[i].store(name.words[i]);
    SHOAL_KILL_POINT("arena.root.name");
  }
  // COMMIT(arena.root.set): killed before: the entry is free; after: the root is set
  root.handle.store(handle);
  SHOAL_KILL_POINT("arena.root.set");
}

}  // namespace

Handle Arena::root_get(const char* name) const {
  const RootName wanted = make_root_name(name);
  for (const Root& root : header().roots)
    if (const Handle handle = read_entry(root, wanted); handle != 0) return handle;
  return 0;
}

RootSet Member::set_root(const char* name, Handle h, Handle expected) {
  const RootName wanted = make_root_name(name);
  require_membership();
  const RunsLock lock(*arena_, incarnation_);
  Root* empty = nullptr;
  for (Root& root : arena_->header().roots) {
    const Handle found = root.handle.load();
    if (found == 0) {
      if (empty == nullptr) empty = &root;
    } else if (has_name(root, wanted)) {
      if (found != expected) return RootSet::differs;
      // COMMIT(arena.root.change): killed before: the root has its old value; after: its new one,
      // or if that is 0, the entry is free
      root.handle.store(h);
      SHOAL_KILL_POINT("arena.root.change");
      return RootSet::done;
    }
  }
  if (expected != 0) return RootSet::differs;
  if (h == 0) return RootSet::done;
  if (empty == nullptr) return RootSet::full;
  write_entry_locked(*empty, wanted, h);
  return RootSet::done;
}

}  // namespace shoal::arena
