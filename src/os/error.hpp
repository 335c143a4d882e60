// SPDX-License-Identifier: Apache-2.0
//
// OsError: a system call failed because of the environment (ENOMEM, EMFILE, ...). Thrown by src/os,
// and by the few layers above that have its errno. `call` names the system call, `error` is its
// errno.
// Design: docs/design/os.md
#pragma once

#include <stdexcept>
#include <string>

namespace shoal::os {

class OsError : public std::runtime_error {
 public:
  // `call` must be a string with static lifetime; `detail` says on what it was called.
  OsError(const char* call, int error, const std::string& detail = {});

  const char* call;
  int error;
};

}  // namespace shoal::os
