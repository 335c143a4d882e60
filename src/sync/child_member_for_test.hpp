// SPDX-License-Identifier: Apache-2.0
//
// ChildMember: a child process that is a member of the session, for tests; `body` gets the
// Member. When the process ends it does not leave the session and frees nothing, so the other
// members see every end as a death.
// Design: docs/design/sync.md
#pragma once

#include <memory>

#include "arena/arena.hpp"
#include "testing/child_process.hpp"

namespace shoal::sync {

class ChildMember : public testing::ChildProcess {
 public:
  template <class Body>
  ChildMember(const std::shared_ptr<arena::Arena>& arena, Body&& body)
      : ChildProcess([&] {
          auto member = arena::Member::join(arena, arena::MemberKind::process);
          body(*member);
          static_cast<void>(member.release());
        }) {}
};

}  // namespace shoal::sync
