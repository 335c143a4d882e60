// SPDX-License-Identifier: Apache-2.0
//
// One side's view of a batch: the block in shared memory, and this process's own copy of its shape.
// The client keeps the shape that it wrote; a worker copies the shape from the block and checks it
// against the block's size. So no address is ever computed from a count that another process may
// change.
//
// Used by the process that made it, in any thread. Never allocates, blocks or throws.
// Invariant: extent() lies within the block while the block holds the batch.
// Design: docs/design/pool.md
#pragma once

#include <optional>

#include "pool/layout.hpp"

namespace shoal::pool {

class Batch : public BatchShape {
 public:
  Batch() = default;
  // For the client, with the shape that it has just written.
  Batch(BatchHeader* header, const BatchShape& shape) noexcept
      : BatchShape(shape), header_(header) {}

  // For a worker: empty unless the block holds the batch that was submitted as `entry`, and is as
  // large as its shape says.
  static std::optional<Batch> fetch(const arena::Arena& arena, Handle handle,
                                    Entry entry) noexcept {
    if (!arena.contains(handle, sizeof(BatchHeader))) return std::nullopt;
    auto* header = arena.at<BatchHeader>(handle);
    if (header->magic != kBatchMagic || header->entry != entry.value) return std::nullopt;
    const Batch batch(header, header->shape);
    if (!batch.is_sound(arena.block_size(handle))) return std::nullopt;
    return batch;
  }

  [[nodiscard]] explicit operator bool() const noexcept { return header_ != nullptr; }

  [[nodiscard]] os::Atomic<uint64_t>* unit_words() const noexcept {
    return reinterpret_cast<os::Atomic<uint64_t>*>(header_ + 1);
  }
  [[nodiscard]] os::Atomic<uint64_t>* argument_words() const noexcept {
    return unit_words() + units;
  }
  [[nodiscard]] os::Atomic<uint64_t>* result_words() const noexcept {
    return unit_words() + 2ull * units;
  }
  [[nodiscard]] Handle* attachment_handles() const noexcept {
    return reinterpret_cast<Handle*>(bytes() + attachments_offset());
  }
  [[nodiscard]] std::byte* payload() const noexcept { return bytes() + payload_offset(); }

  [[nodiscard]] os::Atomic<uint64_t>& results() const noexcept { return header_->results; }
  [[nodiscard]] os::Atomic<uint32_t>& front() const noexcept { return header_->front; }
  [[nodiscard]] os::Atomic<uint32_t>& back() const noexcept { return header_->back; }
  [[nodiscard]] os::Atomic<uint64_t>& spent_ticks() const noexcept { return header_->spent_ticks; }
  [[nodiscard]] os::Atomic<uint64_t>& spent_items() const noexcept { return header_->spent_items; }

 private:
  [[nodiscard]] std::byte* bytes() const noexcept { return reinterpret_cast<std::byte*>(header_); }
  [[nodiscard]] bool is_sound(uint64_t size) const noexcept {
    const uint64_t most = uint64_t{units} * items_per_unit;
    return units > 0 && items_per_unit > 0 && items_per_unit <= kMaxItemsPerUnit && items <= most &&
           items > most - items_per_unit && payload_size <= size && extent() <= size;
  }

  BatchHeader* header_ = nullptr;
};

}  // namespace shoal::pool
