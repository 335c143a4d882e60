// SPDX-License-Identifier: Apache-2.0
//
// Shared by the tests of containers: items whose value is a number. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <cstring>

#include "arena/test_session.hpp"
#include "collections/container.hpp"
#include "collections/item.hpp"
#include "sync/event.hpp"

namespace shoal::collections {

inline Handle number_item(arena::Member& member, uint64_t value, Bytes key = {},
                          KeyKind kind = KeyKind::none) {
  ItemParts parts;
  parts.key = key;
  parts.key_kind = kind;
  parts.value = std::as_bytes(std::span(&value, 1));
  return make_item(member, parts);
}

inline uint64_t number_of(const arena::Arena& arena, Handle item) {
  uint64_t value = 0;
  std::memcpy(&value, open_item(arena, item).value.data(), sizeof value);
  return value;
}

struct ContainerTest : ::testing::Test {
  ContainerTest() {
    sync::register_reap_hooks();
    register_end_hooks();
  }
  Handle item(uint64_t value) { return number_item(*s.me, value); }
  uint64_t value_of(Handle item) { return number_of(*s.arena, item); }
  Handle referring(Handle to) {
    ItemParts parts;
    parts.references = std::span(&to, 1);
    return make_item(*s.me, parts);
  }
  // Lets go of a container; it ends here if nothing refers to it.
  void drop(Container& container) {
    if (s.me->drop_shared(container.handle())) arena::end_block(*s.me, container.handle());
  }

  arena::TestSession s;
};

}  // namespace shoal::collections
