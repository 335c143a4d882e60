// SPDX-License-Identifier: Apache-2.0
#include "codec/message.hpp"

#include "arena/arena.hpp"

namespace shoal::codec {

void MessageBuilder::clear() noexcept { roll_back(0, 0); }

void MessageBuilder::forget() noexcept {
  attachments.clear();
  bytes.clear();
}

void MessageBuilder::roll_back(std::size_t bytes_size, std::size_t attachment_count) noexcept {
  while (attachments.size() > attachment_count) {
    if (attachments.back() != 0) member->free(attachments.back());
    attachments.pop_back();
  }
  if (bytes.size() > bytes_size) bytes.resize(bytes_size);
}

}  // namespace shoal::codec
