// SPDX-License-Identifier: Apache-2.0
//
// The text that tells a user which limit a failed system call has reached.
#pragma once

#include <string>

namespace shoal::os {

// For EMFILE, ENFILE, EAGAIN (from starting a process or a thread) and ENOMEM: the limit, its
// value, and how to get past it, as the end of a sentence. "" for other errors, and where there is
// no limit. Opens no file: there may be no descriptor left.
std::string limit_behind(int error_number);

}  // namespace shoal::os
