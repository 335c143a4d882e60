// SPDX-License-Identifier: Apache-2.0
//
// Kill points: named places, right after each publishing store, where a test build can be made to
// die by SIGKILL. SHOAL_KILL_POINT("ring.push.slot") stands after the store whose comment is
// `// COMMIT(ring.push.slot): killed before: ...; after: ...`. A no-op unless SHOAL_TESTING is set;
// with SHOAL_TESTING it costs one relaxed load while no kill point is armed. Safe in any function,
// inline and template ones too, any thread. A kill point is armed by arm_kill_point() or by the
// environment: SHOAL_KILL="name:nth" (the nth hit kills, counted from 1; read when the program or
// module is loaded; a forked child inherits the armed kill point and the count so far).
#pragma once

#if defined(SHOAL_TESTING) && SHOAL_TESTING

#include <string>
#include <vector>

#include "os/atomic.hpp"

namespace shoal::testing {

extern os::Atomic<uint32_t> kill_armed;  // 1 while a kill point is armed in this process

void arm_kill_point(const char* name, unsigned nth = 1) noexcept;
void disarm_kill_points() noexcept;
void hit_kill_point(const char* name) noexcept;

// The names of all kill points that are linked into this program or module, sorted, without
// duplicates.
std::vector<std::string> kill_point_names();

}  // namespace shoal::testing

// The name goes into a section of its own, from which kill_point_names() reads them back.
#define SHOAL_KILL_POINT(name)                                                                     \
  do {                                                                                             \
    asm volatile(".pushsection shoal_kill_points,\"a\",@progbits\n.asciz " #name "\n.popsection"); \
    /* order: relaxed; armed before the operation under test starts, by the same thread */         \
    if (::shoal::testing::kill_armed.load(::shoal::os::relaxed) != 0)                              \
      ::shoal::testing::hit_kill_point(name);                                                      \
  } while (false)

#else
#define SHOAL_KILL_POINT(name) \
  do {                         \
  } while (false)
#endif
