// SPDX-License-Identifier: Apache-2.0
//
// What can go wrong in the arena, beside OsError.
// Design: docs/design/arena.md
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace shoal::arena {

// Shared memory holds something that no correct member writes. The message says where and what was
// expected.
class CorruptArena : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// No memory for what was asked. The message holds the figures: asked, in use, the limit, which
// limit, remedy.
class MemoryExhausted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// This process is no member (any more): it was forked from one, has left, or was declared dead.
class NotAMember : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// All member slots are taken.
class TooManyMembers : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace shoal::arena
