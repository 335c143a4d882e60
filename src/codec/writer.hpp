// SPDX-License-Identifier: Apache-2.0
//
// Writes plain values in the wire format, without Python: for C++ members, and for the leaves of
// the Python encoder's values. A container is written as its header (write_tuple(n), ...), followed
// by its values. One thread at a time; growing throws std::bad_alloc, attaching throws what
// Member::allocate throws.
//
// Design: docs/design/codec.md
#pragma once

#include <bit>
#include <span>
#include <string_view>

#include "codec/message.hpp"

namespace shoal::codec {

static_assert(std::endian::native == std::endian::little, "the wire format is little endian");

inline void write_none(Buffer& out) { out.put_tag(Tag::kNone); }
inline void write_bool(Buffer& out, bool value) { out.put_tag(value ? Tag::kTrue : Tag::kFalse); }

template <class T>
void write_tagged(Buffer& out, Tag tag, T value) {
  std::byte* const at = out.extend(1 + sizeof(T));
  at[0] = static_cast<std::byte>(tag);
  std::memcpy(at + 1, &value, sizeof(T));
}

inline void write_int(Buffer& out, std::int64_t value) {
  if (value == static_cast<std::int8_t>(value)) {
    write_tagged(out, Tag::kInt8, static_cast<std::int8_t>(value));
  } else if (value == static_cast<std::int16_t>(value)) {
    write_tagged(out, Tag::kInt16, static_cast<std::int16_t>(value));
  } else if (value == static_cast<std::int32_t>(value)) {
    write_tagged(out, Tag::kInt32, static_cast<std::int32_t>(value));
  } else {
    write_tagged(out, Tag::kInt64, value);
  }
}

inline void write_float(Buffer& out, double value) { write_tagged(out, Tag::kFloat, value); }

inline void write_complex(Buffer& out, double real, double imaginary) {
  write_tagged(out, Tag::kComplex, real);
  out.put(imaginary);
}

// Raw data in line. For large data, call attach() first and write the attached form.
inline void write_raw(Buffer& out, Tag tag, const void* bytes, std::size_t size) {
  if (size < Cursor::kSize32) [[likely]] {
    std::byte* const at = out.extend(2 + size);
    at[0] = static_cast<std::byte>(tag);
    at[1] = static_cast<std::byte>(size);
    if (size != 0) std::memcpy(at + 2, bytes, size);
  } else {
    out.put_tag(tag);
    out.put_raw(bytes, size);
  }
}

inline void write_container(Buffer& out, Tag tag, std::uint64_t count) {
  if (count < Cursor::kSize32) [[likely]] {
    std::byte* const at = out.extend(2);
    at[0] = static_cast<std::byte>(tag);
    at[1] = static_cast<std::byte>(count);
  } else {
    out.put_tag(tag);
    out.put_size(count);
  }
}
inline void write_tuple(Buffer& out, std::uint64_t count) {
  write_container(out, Tag::kTuple, count);
}
inline void write_list(Buffer& out, std::uint64_t count) {
  write_container(out, Tag::kList, count);
}
inline void write_dict(Buffer& out, std::uint64_t pairs) {
  write_container(out, Tag::kDict, pairs);
}

inline void write_attached(Buffer& out, std::size_t attachment, std::uint64_t size) {
  out.put_size(attachment);
  out.put(size);
}

// The header of an array, without its elements. `tag` is kArray or kArrayAttached.
template <class Size>
void write_array_header(Buffer& out, Tag tag, Element element, bool first_fastest,
                        std::span<const Size> shape) {
  out.put_tag(tag);
  out.put(static_cast<std::uint8_t>(element));
  out.put(static_cast<std::uint8_t>(first_fastest ? 1 : 0));
  out.put(static_cast<std::uint8_t>(shape.size()));
  for (const Size extent : shape) out.put(static_cast<std::uint64_t>(extent));
}

// Copies `size` bytes to a new block of the builder's member and adds it to the builder's
// attachments; returns its index there.
std::size_t attach(MessageBuilder& out, const void* bytes, std::size_t size);

// Invalid UTF-8 throws std::invalid_argument. Large values are attached.
void write_text(MessageBuilder& out, std::string_view utf8);
void write_bytes(MessageBuilder& out, const void* bytes, std::size_t size);
// An array of at most kMaxDimensions dimensions, last index fastest.
void write_array(MessageBuilder& out, Element element, std::span<const std::uint64_t> shape,
                 const void* elements);

}  // namespace shoal::codec
