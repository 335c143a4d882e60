// SPDX-License-Identifier: Apache-2.0
//
// A map from addresses to 64-bit numbers that can be emptied in constant time: an encoder's memo
// of the objects it has met. One thread at a time. Growing throws std::bad_alloc.
//
// Invariants:
// 1. A slot is in use if and only if its epoch equals the map's. clear() increments the map's
//    epoch.
// 2. At most half of the slots are in use, so a search terminates.
//
// Design: docs/design/codec.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace shoal::codec {

class PointerMap {
 public:
  void clear() noexcept {
    count_ = 0;
    if (++epoch_ == 0) {
      slots_.assign(slots_.size(), Slot{});
      epoch_ = 1;
    }
  }

  // The number stored for `key`. A new key is inserted with the number `fresh`, and `inserted` is
  // set. The pointer is valid until the next call.
  std::uint64_t* find_or_insert(const void* key, std::uint64_t fresh, bool& inserted) {
    if ((count_ + 1) * 2 > slots_.size()) [[unlikely]]
      grow();
    Slot& slot = probe(key);
    inserted = slot.epoch != epoch_;
    if (inserted) {
      slot = Slot{key, fresh, epoch_};
      ++count_;
    }
    return &slot.number;
  }
  // Null when the map does not contain the key.
  std::uint64_t* find(const void* key) noexcept {
    if (count_ == 0) return nullptr;
    Slot& slot = probe(key);
    return slot.epoch == epoch_ ? &slot.number : nullptr;
  }

 private:
  struct Slot {
    const void* key = nullptr;
    std::uint64_t number = 0;
    std::uint64_t epoch = 0;
  };

  Slot& probe(const void* key) noexcept {
    const std::uint64_t hash = reinterpret_cast<std::uintptr_t>(key) * 0x9E3779B97F4A7C15u;
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = static_cast<std::size_t>(hash >> 32) & mask;
    while (slots_[i].epoch == epoch_ && slots_[i].key != key) i = (i + 1) & mask;
    return slots_[i];
  }

  void grow() {
    std::vector<Slot> old(slots_.empty() ? 64 : slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.epoch == epoch_) probe(slot.key) = slot;
    }
  }

  std::vector<Slot> slots_;
  std::size_t count_ = 0;
  std::uint64_t epoch_ = 1;
};

}  // namespace shoal::codec
