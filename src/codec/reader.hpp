// SPDX-License-Identifier: Apache-2.0
//
// Reads values without Python: one item after the other, containers before their contents. Any
// thread; allocates nothing, never throws, and never trusts the bytes (format.hpp, invariant 3). A
// pickled value is one item with its description.
//
//   Reader reader(view);
//   Item item;
//   if (!reader.next(item) || item.kind != Kind::kTuple) ...
//   for (std::uint64_t i = 0; i < item.count; ++i) reader.next(...);
//
// Design: docs/design/codec.md
#pragma once

#include <array>
#include <span>
#include <string>

#include "codec/message.hpp"

namespace shoal::codec {

enum class Kind : std::uint8_t {
  kNone,
  kBool,       // integer
  kInt,        // integer
  kBigInt,     // bytes: two's complement, little endian
  kFloat,      // real
  kComplex,    // real, imaginary
  kText,       // text_tag, bytes; see text_utf8
  kBytes,      // bytes
  kByteArray,  // bytes
  kTuple,      // count values follow
  kList,       // count values follow
  kDict,       // count pairs of values follow
  kSet,        // count values follow
  kFrozenSet,  // count values follow
  kReference,  // target: offset of an earlier value
  kRange,      // three values follow: start, stop, step
  kDate,       // date
  kTime,       // time
  kDateTime,   // date, time
  kTimeDelta,  // delta
  kArray,      // element, shape, first_fastest, bytes
  kScalar,     // element, bytes
  kPickle,     // bytes: a description of the value
};

struct DateParts {
  std::uint16_t year;
  std::uint8_t month, day;

  bool take(Cursor& in) noexcept { return in.take(year) && in.take(month) && in.take(day); }
};

struct TimeParts {
  std::uint8_t hour, minute, second;
  std::uint32_t microsecond;
  std::uint8_t fold, zone;  // zone: a Zone

  bool take(Cursor& in) noexcept {
    return in.take(hour) && in.take(minute) && in.take(second) && in.take(microsecond) &&
           in.take(fold) && in.take(zone) && microsecond < 1000000 && fold <= 1 && zone <= 1;
  }
};

struct DeltaParts {
  std::int32_t days, seconds, microseconds;

  bool take(Cursor& in) noexcept {
    return in.take(days) && in.take(seconds) && in.take(microseconds);
  }
};

// The fields of an array before its elements.
struct ArrayParts {
  Element element = Element::kBool;
  bool first_fastest;
  std::uint8_t dimensions;
  std::array<std::uint64_t, kMaxDimensions> shape;
  const std::byte* dtype_text;  // if element is kNamed
  std::size_t dtype_size;

  bool take(Cursor& in) noexcept;
  // Computes the bytes of all elements, of `item_size` bytes each; false if that overflows.
  bool total(std::size_t item_size, std::size_t* out) const noexcept;
};

// `size` bytes at `bytes`, inside the message or inside the arena; `handle` is the attachment's
// block, 0 for data in line.
struct DataPart {
  const std::byte* bytes;
  std::size_t size;
  arena::Handle handle;

  bool take_raw(Cursor& in) noexcept;
  bool take_attached(Cursor& in, const MessageView& view) noexcept;
  bool take_chunk(Cursor& in, const MessageView& view) noexcept;
};

// Which fields are valid depends on `kind`: see Kind. Bytes are not copied: they point into the
// message (unaligned) or an attachment (64-byte aligned).
struct Item {
  Kind kind = Kind::kNone;
  Tag text_tag = Tag::kInvalid;
  std::int64_t integer = 0;
  double real = 0;
  double imaginary = 0;
  std::uint64_t count = 0;
  std::size_t target = 0;
  DataPart data{};
  ArrayParts array{};
  DateParts date{};
  TimeParts time{};
  DeltaParts delta{};

  std::span<const std::byte> bytes() const noexcept { return {data.bytes, data.size}; }
  std::span<const std::uint64_t> shape() const noexcept {
    return {array.shape.data(), array.dimensions};
  }
};

class Reader {
 public:
  explicit Reader(const MessageView& view, std::size_t offset = 0) noexcept
      : view_(view), in_(view.bytes, view.size, offset) {}

  // Reads the next item. False, with error() set, at the end or for invalid bytes.
  [[nodiscard]] bool next(Item& out) noexcept;
  // Skips one whole value, including its contents.
  [[nodiscard]] bool skip() noexcept;

  std::size_t offset() const noexcept { return in_.offset(); }
  bool at_end() const noexcept { return in_.left() == 0; }
  const char* error() const noexcept { return error_; }  // null: none

 private:
  bool fail(const char* why) noexcept;
  bool read(Tag tag, std::size_t tag_offset, Item& out) noexcept;
  bool read_number(Tag tag, Item& out) noexcept;
  bool read_data(Tag tag, Item& out) noexcept;
  bool read_container(Tag tag, Item& out) noexcept;
  bool read_date(Tag tag, Item& out) noexcept;
  bool read_array(Tag tag, Item& out) noexcept;
  bool read_pickle(Item& out) noexcept;

  const MessageView& view_;
  Cursor in_;
  const char* error_ = nullptr;
};

// Contents of a kText item as UTF-8. Lone surrogates are encoded like characters, in three bytes
// each.
std::string text_utf8(const Item& item);

}  // namespace shoal::codec
