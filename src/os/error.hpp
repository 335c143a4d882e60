// SPDX-License-Identifier: Apache-2.0
//
// OsError: a system call failed for a reason that lies in the environment (ENOMEM, EMFILE, ...).
// Only src/os throws it. `call` says which call and on what, `error` is its errno.
// Design: docs/design/os.md
#pragma once

#include <stdexcept>
#include <string>

namespace shoal::os {

class OsError : public std::runtime_error {
 public:
  // `call` must be a string with static lifetime; `detail` says what it was called on.
  OsError(const char* call, int error, const std::string& detail = {});

  const char* call;
  int error;
};

}  // namespace shoal::os
