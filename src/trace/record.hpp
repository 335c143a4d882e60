// SPDX-License-Identifier: Apache-2.0
//
// The writing side of tracing: a small ring of spans per member, in the member's slot of shared
// memory, always on.
//
// Who may call it: any layer, for its own member; one thread at a time per member (today the
// worker's loop). It never allocates, blocks or throws, and makes no system calls. Any process may
// read at any time, also after the writer's death.
//
// A span is begin (ticks, os/clock.hpp) and kind:8 | duration in ticks:56. Spans shorter than
// kShortest are not recorded, since the ring would hold nothing else; the layer that measured them
// adds them to its counters. Cost: two stores and an index for a recorded span; the times are read
// for the counters anyway.
//
// Invariants:
//   1. written = number of spans ever recorded; span i is in ring[i % kSpans] until span i + kSpans
//      is written.
//   2. A reader copies the spans, then reads `written` again and drops the spans that may have been
//      overwritten meanwhile (read()).
// Design: docs/design/trace.md
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/atomic.hpp"

namespace shoal::trace {

enum class Kind : uint64_t { none = 0, task = 1, decode = 2, encode = 3, wait = 4, collect = 5 };

inline constexpr uint32_t kSpans = 60;
inline constexpr uint64_t kShortest = 2048;  // ticks, about 1 us
inline constexpr uint64_t kDurationMask = (uint64_t{1} << 56) - 1;

struct Span {
  uint64_t begin_ticks;
  uint64_t kind_and_duration;
  [[nodiscard]] Kind kind() const noexcept { return static_cast<Kind>(kind_and_duration >> 56); }
  [[nodiscard]] uint64_t ticks() const noexcept { return kind_and_duration & kDurationMask; }
};

// Located in arena::MemberSlot::trace; zero when the member joins.
struct Ring {
  os::Atomic<uint64_t> written;  // written by the member, read by any process
  uint64_t reserved[7];
  struct Slot {
    os::Atomic<uint64_t> begin_ticks;
    os::Atomic<uint64_t> kind_and_duration;
  } spans[kSpans];

  void record(Kind kind, uint64_t begin_ticks, uint64_t end_ticks) noexcept {
    const uint64_t duration = end_ticks - begin_ticks;
    if (duration < kShortest) return;
    const uint64_t index = written.load(os::relaxed);  // order: relaxed; only this thread writes it
    Slot& slot = spans[index % kSpans];
    // order: release, twice; pairs with the loads in read(): a reader that sees a word of this span
    // in place of an older span's sees in `written` that the older one is lost
    slot.begin_ticks.store(begin_ticks, os::release);
    slot.kind_and_duration.store(static_cast<uint64_t>(kind) << 56 | (duration & kDurationMask),
                                 os::release);
    // order: release; pairs with the acquire loads in read(); publishes the span
    written.store(index + 1, os::release);
  }

  // Copies the newest spans, oldest first, into out[kSpans]; returns their number.
  uint32_t read(Span* out) const noexcept {
    // order: acquire; pairs with the release in record()
    const uint64_t end = written.load(os::acquire);
    const uint64_t first = end > kSpans ? end - kSpans : 0;
    for (uint64_t i = first; i < end; ++i) {
      const Slot& slot = spans[i % kSpans];
      out[i - first] = {slot.begin_ticks.load(), slot.kind_and_duration.load()};
    }
    // The writer may have been writing: all spans before `now` are complete, and it may be writing
    // the slot of span `now`.
    const uint64_t now = written.load();
    const uint64_t safe = now + 1 > kSpans ? now + 1 - kSpans : 0;
    const uint64_t lost = now == end && end < kSpans ? 0 : (safe > first ? safe - first : 0);
    if (lost >= end - first) return 0;
    for (uint64_t i = 0; i + lost < end - first; ++i) out[i] = out[i + lost];
    return static_cast<uint32_t>(end - first - lost);
  }
};
static_assert(sizeof(Ring) == 1024);

}  // namespace shoal::trace
