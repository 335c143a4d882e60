// SPDX-License-Identifier: Apache-2.0
//
// Converts public values to and from messages, with the codec's C++ writer and reader. Any thread.
// Design: docs/design/channel.md
#pragma once

#include <memory>

#include "api/membership.hpp"
#include "codec/message.hpp"
#include "shoal/value.hpp"

namespace shoal::detail {

// Appends the value. Throws what allocating throws, std::invalid_argument for text that is not
// UTF-8, NotPlain for containers nested more deeply than the format allows.
void encode(const Value& value, codec::MessageBuilder& out);

// The value of the message. An array whose elements lie in a block of their own takes the block
// over, and keeps `membership`. Throws NotPlain, or Corrupt for malformed bytes.
Value decode(const codec::MessageView& view, const std::shared_ptr<Membership>& membership);

}  // namespace shoal::detail
