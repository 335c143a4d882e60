// SPDX-License-Identifier: Apache-2.0
//
// Tells a user which limit a failed system call has reached.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace shoal::os {

// For EMFILE, ENFILE, EAGAIN (from starting a process or a thread) and ENOMEM: a clause that names
// the limit, its value, and what to do about it. "" for other errors, and for ENOMEM without a
// limit. Opens no file: there may be no descriptor left.
std::string limit_behind(int error_number);
// The clause for EMFILE; nullopt: RLIMIT_NOFILE is unlimited.
std::string open_files_clause(std::optional<uint64_t> limit);

}  // namespace shoal::os
