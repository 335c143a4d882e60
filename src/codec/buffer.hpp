// SPDX-License-Identifier: Apache-2.0
//
// A growable array of bytes for encoders, without initialization of new bytes. One thread at a
// time. Growing throws std::bad_alloc.
//
// Design: docs/design/codec.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "codec/format.hpp"

namespace shoal::codec {

class Buffer {
 public:
  Buffer() noexcept = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::size_t capacity() const noexcept { return capacity_; }
  bool empty() const noexcept { return size_ == 0; }

  // The content of new bytes is undefined.
  void resize(std::size_t size) {
    if (size > capacity_) grow(size - size_);
    size_ = size;
  }
  void clear() noexcept { size_ = 0; }

  // Adds `count` bytes at the end and returns their address.
  std::byte* extend(std::size_t count) {
    if (capacity_ - size_ < count) [[unlikely]]
      grow(count);
    std::byte* const at = data_ + size_;
    size_ += count;
    return at;
  }
  void append(const void* bytes, std::size_t count) {
    std::byte* const at = extend(count);
    if (count != 0) std::memcpy(at, bytes, count);
  }
  template <class T>
  void put(T value) {
    std::memcpy(extend(sizeof(T)), &value, sizeof(T));
  }
  void put_tag(Tag tag) { put(static_cast<std::uint8_t>(tag)); }
  void put_size(std::uint64_t size) {
    if (size < Cursor::kSize32) {
      put(static_cast<std::uint8_t>(size));
    } else if (size <= UINT32_MAX) {
      put(Cursor::kSize32);
      put(static_cast<std::uint32_t>(size));
    } else {
      put(Cursor::kSize64);
      put(size);
    }
  }
  void put_raw(const void* bytes, std::size_t count) {
    put_size(count);
    append(bytes, count);
  }

 private:
  void grow(std::size_t more) {
    std::size_t capacity = capacity_ < 256 ? 512 : capacity_ * 2;
    if (capacity - size_ < more) capacity = size_ + more;
    void* const data = std::realloc(data_, capacity);
    if (data == nullptr) throw std::bad_alloc();
    data_ = static_cast<std::byte*>(data);
    capacity_ = capacity;
  }

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace shoal::codec
