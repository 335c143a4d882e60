// SPDX-License-Identifier: Apache-2.0
//
// The wire format of values, shared by the C++ reader and writer and the Python encoder and
// decoder. Any thread of any member may use it; nothing here allocates, blocks or throws.
//
// Invariants:
// 1. A value is a tag byte, followed by the fields in the tag's line of the table below. Values are
//    position independent: a value may be copied to another offset, and to another machine of the
//    same byte order (little endian) with its attachments.
// 2. No field is aligned. Large data is in attachments, which are blocks and 64-byte aligned.
// 3. Readers never trust the bytes: other members can write to them at any time. A reader fetches
//    each field once, checks it, and then uses it (Cursor fetches, and checks that a field fits).
// 4. A reference points backwards, to a value that is complete and whose tag has kSharedBit.
//
// Design: docs/design/codec.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shoal::codec {

// Notation: u8 u16 u32 u64 i8.. f64 little endian; size = u8 below 254, or 254 u32, or 255 u64;
// raw = size, then that number of bytes; attached = size (index of the attachment), u64 (bytes
// used).
enum class Tag : std::uint8_t {
  kInvalid = 0,
  kNone = 1,
  kFalse = 2,
  kTrue = 3,
  kInt8 = 4,                // i8
  kInt16 = 5,               // i16
  kInt32 = 6,               // i32
  kInt64 = 7,               // i64
  kBigInt = 8,              // raw: two's complement, little endian
  kFloat = 9,               // f64
  kComplex = 10,            // f64 f64
  kAscii = 11,              // raw: characters 0 to 127
  kUcs1 = 12,               // raw: characters of one byte, one of them 128 or above
  kUcs2 = 13,               // raw: characters of two bytes
  kUcs4 = 14,               // raw: characters of four bytes
  kBytes = 15,              // raw
  kByteArray = 16,          // raw
  kTextAttached = 17,       // u8 (kAscii, kUcs1, kUcs2, kUcs4), attached
  kBytesAttached = 18,      // attached
  kByteArrayAttached = 19,  // attached
  kTuple = 20,              // size, so many values
  kList = 21,               // size, so many values
  kDict = 22,               // size, so many pairs of values: key, value
  kSet = 23,                // size, so many values
  kFrozenSet = 24,          // size, so many values
  kReference = 25,      // size: distance back from this tag to the tag of the target (invariant 4)
  kRange = 26,          // three values, integers: start, stop, step
  kDate = 27,           // u16 year, u8 month, u8 day
  kTime = 28,           // u8 hour, u8 minute, u8 second, u32 microsecond, u8 fold, u8 zone (Zone)
  kDateTime = 29,       // as kDate, then as kTime
  kTimeDelta = 30,      // i32 days, i32 seconds, i32 microseconds
  kArray = 31,          // array header, raw (the elements)
  kArrayAttached = 32,  // array header, attached
  kScalar = 33,         // u8 (Element), the element (a numpy scalar)
  kPickle = 34,         // raw (description), chunk (the pickle), size, so many chunks
};
inline constexpr std::uint8_t kTagCount = 35;

// Array header: u8 Element, u8 order (0: last index fastest, 1: first index fastest), u8 number of
// dimensions, u64 for each dimension; if the Element is kNamed, raw (dtype text) follows.
// Chunk: u8 0 and raw, or u8 1 and attached.

// Set in a tag byte when a later kReference refers to this value.
inline constexpr std::uint8_t kSharedBit = 0x80;

// Raw data of at least this many bytes goes into an attachment.
inline constexpr std::size_t kAttachFrom = std::size_t{64} * 1024;
// Containers nested deeper than this are left to pickle by encoders and refused by decoders.
inline constexpr int kMaxDepth = 100;
inline constexpr int kMaxDimensions = 32;

enum class Zone : std::uint8_t { kNaive = 0, kUtc = 1 };

enum class Element : std::uint8_t {
  kBool = 1,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUInt8,
  kUInt16,
  kUInt32,
  kUInt64,
  kFloat16,
  kFloat32,
  kFloat64,
  kLongFloat,  // the platform's long double
  kComplex64,
  kComplex128,
  kLongComplex,
  kNamed,  // a dtype given by its text (dates, fixed-width text, swapped byte order)
};
inline constexpr std::uint8_t kElementCount = 18;

// Bytes of one element; 0 for kNamed and for invalid values.
constexpr std::size_t element_size(Element element) noexcept {
  switch (element) {
    case Element::kBool:
    case Element::kInt8:
    case Element::kUInt8:
      return 1;
    case Element::kInt16:
    case Element::kUInt16:
    case Element::kFloat16:
      return 2;
    case Element::kInt32:
    case Element::kUInt32:
    case Element::kFloat32:
      return 4;
    case Element::kInt64:
    case Element::kUInt64:
    case Element::kFloat64:
    case Element::kComplex64:
      return 8;
    case Element::kLongFloat:
      return sizeof(long double);
    case Element::kComplex128:
      return 16;
    case Element::kLongComplex:
      return 2 * sizeof(long double);
    case Element::kNamed:
      return 0;
  }
  return 0;
}

// Reads fields in order and never past the end. Every take function fetches its bytes once; false
// means that the field does not fit, and the cursor does not move.
class Cursor {
 public:
  Cursor(const std::byte* bytes, std::size_t size, std::size_t offset = 0) noexcept
      : begin_(bytes), at_(bytes + (offset < size ? offset : size)), end_(bytes + size) {}

  std::size_t offset() const noexcept { return static_cast<std::size_t>(at_ - begin_); }
  std::size_t left() const noexcept { return static_cast<std::size_t>(end_ - at_); }

  template <class T>
  [[nodiscard]] bool take(T& out) noexcept {
    if (left() < sizeof(T)) return false;
    std::memcpy(&out, at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }

  [[nodiscard]] bool take_size(std::uint64_t& out) noexcept {
    const std::byte* const before = at_;
    std::uint8_t first;
    if (!take(first)) return false;
    if (first < kSize32) {
      out = first;
      return true;
    }
    if (first == kSize32) {
      std::uint32_t narrow;
      if (take(narrow)) {
        out = narrow;
        return true;
      }
    } else if (take(out)) {
      return true;
    }
    at_ = before;
    return false;
  }

  [[nodiscard]] bool take_bytes(const std::byte*& out, std::uint64_t count) noexcept {
    if (left() < count) return false;
    out = at_;
    at_ += count;
    return true;
  }

  static constexpr std::uint8_t kSize32 = 254;
  static constexpr std::uint8_t kSize64 = 255;

 private:
  const std::byte* begin_;
  const std::byte* at_;
  const std::byte* end_;
};

}  // namespace shoal::codec
