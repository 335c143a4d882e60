// SPDX-License-Identifier: Apache-2.0
//
// A child process for tests that is a member of the session: `body` gets the membership. At its
// end it neither leaves nor frees anything: for the others every end is a death. Tests only.
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
