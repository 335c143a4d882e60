// SPDX-License-Identifier: Apache-2.0
#include "arena/member.hpp"

#include <bit>
#include <cstdlib>
#include <string>

#include "arena/fork.hpp"
#include "arena/slots.hpp"
#include "os/backoff.hpp"
#include "os/memory.hpp"
#include "os/process.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {
constexpr double kDefaultDecaySeconds = 30;
// A private view inside a shared mapping costs two mappings: its own, and one since it splits the
// shared one. So with this divisor half of what the kernel allows is left to the program.
constexpr uint64_t kMappingsPerHeld = 4;

int64_t decay_from_environment() {
  const char* text = std::getenv("SHOAL_DECAY");
  char* end = nullptr;
  const double seconds = text == nullptr ? kDefaultDecaySeconds : std::strtod(text, &end);
  return static_cast<int64_t>((seconds < 0 || end == text ? kDefaultDecaySeconds : seconds) * 1e9);
}
}  // namespace

Member::Member(std::shared_ptr<Arena> arena) noexcept : arena_(std::move(arena)) {}

std::unique_ptr<Member> Member::join(std::shared_ptr<Arena> arena, MemberKind kind) {
  std::unique_ptr<Member> member(new Member(std::move(arena)));
  member->decay_ns_ = decay_from_environment();
  member->most_held_ = os::most_mappings() / kMappingsPerHeld;
  member->require_own_namespace();
  member->join_slot(kind);
  register_for_fork(*member);
  return member;
}

Member::~Member() {
  unregister_for_fork(*this);
  leave();
}

void Member::join_slot(MemberKind kind) { enter_slot(claim_slot(*arena_, kind, 0), kind); }

void Member::enter_slot(Incarnation claimed, MemberKind kind) {
  const int pid = os::own_pid();
  if (!enliven_slot(*arena_, claimed, pid, os::start_time(pid)))
    throw NotAMember("shoal: this process was declared dead while it joined the session");
  kind_ = kind;
  incarnation_ = claimed;
}

// In another pid namespace the members' processes have other pids, and this process has another pid
// for them: each side would consider the other dead.
void Member::require_own_namespace() const {
  if (arena_->is_of_this_namespace()) return;
  throw NotAMember(
      "shoal: this process is in another pid namespace (another container, or the host) than the "
      "session that it tries to join, so neither can see whether the other is alive. Join from a "
      "process in the session's own container");
}

void Member::rejoin() {
  if (incarnation_ != 0) return;
  if (lost_ == Lost::parent_died) {
    throw NotAMember(
        "shoal: the process that this one was forked from died before this one could join the "
        "session: the shared objects that this one inherited are gone");
  }
  if (lost_ == Lost::no_place) {
    throw NotAMember(
        "shoal: when this process was forked, the session had no free place for it (at most " +
        std::to_string(kMemberSlots) +
        " processes at a time), or no memory: it cannot use the shared objects that it inherited");
  }
  require_own_namespace();
  join_slot(MemberKind::process);
  unregister_for_fork(*this);  // a forked child is still in the list, a member that left is not
  register_for_fork(*this);
}

void Member::require_membership() const {
  if (incarnation_ != 0) return;
  throw NotAMember(
      forked_child_
          ? "shoal: this process was forked from a member of the session and is no member itself"
          : "shoal: this member has left the session");
}

// Clears all process-local state about what this member owns and holds.
void Member::forget() noexcept {
  for (Cache& cache : caches_) {
    cache.free.clear();
    cache.spans.clear();
    cache.cursor = 0;
    cache.trim_at = 0;
  }
  kept_.clear();
  held_.clear();
  undropped_ = 0;
  shared_.clear();
  // order: relaxed; the member is not in use any more
  lanes_taken_.store(0, os::relaxed);
}

void Member::abandon_for_test() noexcept {
  if (incarnation_ == 0) return;
  restore_views();
  advance_slot(*arena_, incarnation_, SlotState::dead);
  forget();
  incarnation_ = 0;
}

Lane& Member::claim_lane() noexcept {
  os::Backoff backoff;
  while (true) {
    uint32_t taken = lanes_taken_.load();
    const int free = std::countr_one(taken);
    if (free >= static_cast<int>(kLanes)) {
      backoff.pause();
      continue;
    }
    if (lanes_taken_.compare_exchange(taken, taken | uint32_t{1} << free))
      return shared().lanes[free];
  }
}

void Member::return_lane(Lane& lane) noexcept {
  const auto index = static_cast<uint32_t>(&lane - shared().lanes);
  if (index < kLanes) lanes_taken_.fetch_and(~(uint32_t{1} << index));
}

}  // namespace shoal::arena
