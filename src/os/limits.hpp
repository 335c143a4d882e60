// SPDX-License-Identifier: Apache-2.0
//
// Which limit of this process or of the machine an error number speaks of.
#pragma once

#include <string>

namespace shoal::os {

// For EMFILE, ENFILE, EAGAIN (of a fork or a thread) and ENOMEM: the limit with its value and what
// to do, as the end of a sentence; "" for others, or where nothing is limited. Opens no file.
std::string limit_behind(int error_number);

}  // namespace shoal::os
