// SPDX-License-Identifier: Apache-2.0
//
// The exceptions of the arena, besides OsError.
// Design: docs/design/arena.md
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace shoal::arena {

// Shared memory holds a value that no correct member writes. The message says where, and what was
// expected.
class CorruptArena : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A request for shared memory cannot be met. The message holds the figures: bytes requested, in
// use, the limit, which limit it is, and a remedy.
class MemoryExhausted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// This process is not a member: it was forked from one, has left, was declared dead, or cannot be
// one in its pid namespace.
class NotAMember : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// No member slot is usable: each is taken, or has used up its incarnation numbers.
class TooManyMembers : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace shoal::arena
