// SPDX-License-Identifier: Apache-2.0
//
// Public values to and from messages, over the codec's C++ writer and reader. Any thread.
// Design: docs/design/channel.md
#pragma once

#include <memory>

#include "api/membership.hpp"
#include "codec/message.hpp"
#include "shoal/value.hpp"

namespace shoal::detail {

// Appends the value. Throws what allocating does, std::invalid_argument for text that is not UTF-8,
// NotPlain for containers nested deeper than the format has.
void encode(const Value& value, codec::MessageBuilder& out);

// The value of the message. Arrays of a block's size take their block over, and keep `membership`.
// Throws NotPlain, or Corrupt for bytes that mean nothing.
Value decode(const codec::MessageView& view, const std::shared_ptr<Membership>& membership);

}  // namespace shoal::detail
