// SPDX-License-Identifier: Apache-2.0
//
// A short text of a value for error messages, without Python: an expression, with plain values as
// Python's repr shows them, arrays by shape and dtype, others as Type(...). Reads any bytes; never
// unpickles. Allocates the text.
//
// Design: docs/design/codec.md
#pragma once

#include <string>

#include "codec/message.hpp"

namespace shoal::codec {

// UTF-8, at most `max_chars` bytes (at least 16 are taken as given); cut off with "...".
std::string summarize(const MessageView& view, std::size_t offset, std::size_t max_chars);

}  // namespace shoal::codec
