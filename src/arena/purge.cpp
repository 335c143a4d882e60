// SPDX-License-Identifier: Apache-2.0
//
// Member: gives back memory that is not needed: empty spans, empty orphan spans, and warm pages
// that have been free for a while, also those that members keep. Runs in slow paths (when a page
// run was allocated or freed and a second has passed) and when a program calls purge().
#include "arena/kept_runs.hpp"
#include "arena/member.hpp"
#include "arena/runs.hpp"

namespace shoal::arena {

namespace {
constexpr uint64_t kPurgeEveryMs = 1000;
constexpr uint64_t kPurgeBytes = 16 << 20;  // takes 4 ms, in a slow path of the program
}  // namespace

uint64_t Member::purge(int64_t older_than_ns, uint64_t most_bytes) {
  require_membership();
  const size_t keep = older_than_ns <= 0 ? 0 : 1;
  for (uint32_t size_class = 0; size_class < kClasses; ++size_class) trim(size_class, keep);
  sweep_orphans();
  const uint64_t older_than_ms =
      older_than_ns <= 0 ? 0 : static_cast<uint64_t>(older_than_ns) / 1'000'000;
  release_kept(*arena_, incarnation_, older_than_ms);
  return RunAllocator(*arena_, incarnation_).purge(older_than_ms, most_bytes);
}

// Purges once a second for all members: the first member that finds the time past does it.
void Member::purge_if_due() noexcept {
  os::Atomic<uint64_t>& next = arena_->header().next_purge_ms;
  uint64_t due = next.load(os::relaxed);  // order: relaxed; a hint
  const uint64_t now = now_ms();
  if (now < due || !next.compare_exchange(due, now + kPurgeEveryMs) || due == 0) return;
  try {
    purge(decay_ns_, kPurgeBytes);
  } catch (const std::exception&) {
    return;  // this member has left the session: another member purges
  }
}

}  // namespace shoal::arena
