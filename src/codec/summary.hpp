// SPDX-License-Identifier: Apache-2.0
//
// A short description of a value for error messages, without Python: an expression, with plain
// values as Python's repr shows them, arrays by shape and dtype, other values as Type(...). Accepts
// any bytes; never unpickles. Allocates the text.
//
// Design: docs/design/codec.md
#pragma once

#include <string>

#include "codec/message.hpp"

namespace shoal::codec {

// UTF-8, at most `max_chars` bytes (values below 16 count as 16); longer texts end in "...".
// "<unreadable>" is appended for bad bytes.
std::string summarize(const MessageView& view, std::size_t offset, std::size_t max_chars);

}  // namespace shoal::codec
