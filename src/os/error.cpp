// SPDX-License-Identifier: Apache-2.0
#include "os/error.hpp"

#include <system_error>

namespace shoal::os {

namespace {
std::string describe(const char* call, int error, const std::string& detail) {
  std::string text = std::string(call) + ": " + std::generic_category().message(error) +
                     " (errno " + std::to_string(error) + ")";
  if (!detail.empty()) text += ": " + detail;
  return text;
}
}  // namespace

OsError::OsError(const char* call_, int error_, const std::string& detail)
    : std::runtime_error(describe(call_, error_, detail)), call(call_), error(error_) {}

}  // namespace shoal::os
