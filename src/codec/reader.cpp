// SPDX-License-Identifier: Apache-2.0
#include "codec/reader.hpp"

#include "arena/arena.hpp"

namespace shoal::codec {

bool ArrayParts::take(Cursor& in) noexcept {
  std::uint8_t code, order;
  if (!in.take(code) || !in.take(order) || !in.take(dimensions)) return false;
  if (code == 0 || code >= kElementCount || order > 1 || dimensions > kMaxDimensions) return false;
  element = static_cast<Element>(code);
  first_fastest = order == 1;
  for (std::size_t i = 0; i < dimensions; ++i) {
    if (!in.take(shape[i]) || shape[i] > PTRDIFF_MAX) return false;
  }
  DataPart text{};
  if (element == Element::kNamed && !text.take_raw(in)) return false;
  dtype_text = text.bytes;
  dtype_size = text.size;
  return true;
}

bool ArrayParts::total(std::size_t item_size, std::size_t* out) const noexcept {
  std::size_t size = item_size;
  for (std::size_t i = 0; i < dimensions; ++i) {
    if (__builtin_mul_overflow(size, shape[i], &size) || size > PTRDIFF_MAX) return false;
  }
  *out = size;
  return true;
}

bool DataPart::take_raw(Cursor& in) noexcept {
  std::uint64_t count;
  handle = 0;
  if (!in.take_size(count) || !in.take_bytes(bytes, count)) return false;
  size = static_cast<std::size_t>(count);
  return true;
}

// Other members can write the memory that holds the handle: fetch it once, and check that it names
// a block.
bool DataPart::take_attached(Cursor& in, const MessageView& view) noexcept {
  std::uint64_t index, count;
  if (!in.take_size(index) || !in.take(count) || index >= view.n_attachments) return false;
  handle = *static_cast<const volatile arena::Handle*>(view.attachments + index);
  if (view.arena == nullptr || count > view.arena->block_size(handle)) return false;
  size = static_cast<std::size_t>(count);
  bytes = static_cast<const std::byte*>(view.arena->address(handle));
  return true;
}

bool DataPart::take_chunk(Cursor& in, const MessageView& view) noexcept {
  std::uint8_t attached;
  if (!in.take(attached) || attached > 1) return false;
  return attached == 1 ? take_attached(in, view) : take_raw(in);
}

bool Reader::fail(const char* why) noexcept {
  if (error_ == nullptr) error_ = why;
  return false;
}

bool Reader::next(Item& out) noexcept {
  const std::size_t tag_offset = in_.offset();
  std::uint8_t tag;
  if (error_ != nullptr) return false;
  if (!in_.take(tag)) return fail("it ends where a value should be");
  return read(static_cast<Tag>(tag & ~kSharedBit), tag_offset, out);
}

bool Reader::skip() noexcept {
  // Each count is at most the number of bytes left, and each value takes a byte, so `values` cannot
  // overflow.
  std::uint64_t values = 1;
  Item item;
  while (values > 0) {
    if (!next(item)) return false;
    --values;
    values += item.kind == Kind::kDict ? 2 * item.count : item.count;
  }
  return true;
}

bool Reader::read(Tag tag, std::size_t tag_offset, Item& out) noexcept {
  out.count = 0;
  switch (tag) {
    case Tag::kInvalid:
      break;
    case Tag::kNone:
      out.kind = Kind::kNone;
      return true;
    case Tag::kFalse:
    case Tag::kTrue:
      out.kind = Kind::kBool;
      out.integer = tag == Tag::kTrue ? 1 : 0;
      return true;
    case Tag::kInt8:
    case Tag::kInt16:
    case Tag::kInt32:
    case Tag::kInt64:
    case Tag::kFloat:
    case Tag::kComplex:
      return read_number(tag, out);
    case Tag::kTuple:
    case Tag::kList:
    case Tag::kDict:
    case Tag::kSet:
    case Tag::kFrozenSet:
    case Tag::kRange:
      return read_container(tag, out);
    case Tag::kDate:
    case Tag::kTime:
    case Tag::kDateTime:
    case Tag::kTimeDelta:
      return read_date(tag, out);
    case Tag::kArray:
    case Tag::kArrayAttached:
    case Tag::kScalar:
      return read_array(tag, out);
    case Tag::kPickle:
      return read_pickle(out);
    case Tag::kReference: {
      std::uint64_t distance;
      out.kind = Kind::kReference;
      if (!in_.take_size(distance) || distance == 0 || distance > tag_offset) break;
      out.target = tag_offset - static_cast<std::size_t>(distance);
      return true;
    }
    default:
      return read_data(tag, out);
  }
  return fail("unknown kind of value");
}

bool Reader::read_number(Tag tag, Item& out) noexcept {
  const auto take_int = [&](auto number) {
    if (!in_.take(number)) return fail("cut off inside an int");
    out.integer = number;  // NOLINT(bugprone-signed-char-misuse): the sign is meant
    return true;
  };
  out.kind = Kind::kInt;
  switch (tag) {
    case Tag::kInt8:
      return take_int(std::int8_t{});
    case Tag::kInt16:
      return take_int(std::int16_t{});
    case Tag::kInt32:
      return take_int(std::int32_t{});
    case Tag::kInt64:
      return take_int(std::int64_t{});
    default:
      break;
  }
  out.kind = tag == Tag::kFloat ? Kind::kFloat : Kind::kComplex;
  if (!in_.take(out.real)) return fail("cut off inside a float");
  if (tag == Tag::kComplex && !in_.take(out.imaginary)) return fail("cut off inside a complex");
  return true;
}

bool Reader::read_data(Tag tag, Item& out) noexcept {
  bool attached = false;
  out.text_tag = tag;
  switch (tag) {
    case Tag::kBigInt:
      out.kind = Kind::kBigInt;
      break;
    case Tag::kAscii:
    case Tag::kUcs1:
    case Tag::kUcs2:
    case Tag::kUcs4:
      out.kind = Kind::kText;
      break;
    case Tag::kTextAttached:
      out.kind = Kind::kText;
      attached = true;
      if (!in_.take(out.text_tag) || out.text_tag < Tag::kAscii || out.text_tag > Tag::kUcs4) {
        return fail("bad str");
      }
      break;
    case Tag::kBytes:
    case Tag::kBytesAttached:
      out.kind = Kind::kBytes;
      attached = tag == Tag::kBytesAttached;
      break;
    case Tag::kByteArray:
    case Tag::kByteArrayAttached:
      out.kind = Kind::kByteArray;
      attached = tag == Tag::kByteArrayAttached;
      break;
    default:
      return fail("unknown kind of value");
  }
  if (attached ? out.data.take_attached(in_, view_) : out.data.take_raw(in_)) return true;
  return fail("bad data");
}

bool Reader::read_container(Tag tag, Item& out) noexcept {
  std::uint64_t values_per_item = 1;
  switch (tag) {
    case Tag::kTuple:
      out.kind = Kind::kTuple;
      break;
    case Tag::kList:
      out.kind = Kind::kList;
      break;
    case Tag::kSet:
      out.kind = Kind::kSet;
      break;
    case Tag::kFrozenSet:
      out.kind = Kind::kFrozenSet;
      break;
    case Tag::kDict:
      out.kind = Kind::kDict;
      values_per_item = 2;
      break;
    default:
      out.kind = Kind::kRange;
      out.count = 3;
      return true;
  }
  if (in_.take_size(out.count) && out.count <= in_.left() / values_per_item) return true;
  return fail("more elements than bytes");
}

bool Reader::read_date(Tag tag, Item& out) noexcept {
  bool good = true;
  switch (tag) {
    case Tag::kDate:
      out.kind = Kind::kDate;
      good = out.date.take(in_);
      break;
    case Tag::kTime:
      out.kind = Kind::kTime;
      good = out.time.take(in_);
      break;
    case Tag::kDateTime:
      out.kind = Kind::kDateTime;
      good = out.date.take(in_) && out.time.take(in_);
      break;
    default:
      out.kind = Kind::kTimeDelta;
      good = out.delta.take(in_);
      break;
  }
  return good || fail("bad date");
}

bool Reader::read_array(Tag tag, Item& out) noexcept {
  if (tag == Tag::kScalar) {
    out.kind = Kind::kScalar;
    out.array.dimensions = 0;
    out.data.handle = 0;
    if (!in_.take(out.array.element)) return fail("bad scalar");
    out.data.size = element_size(out.array.element);
    if (out.data.size != 0 && in_.take_bytes(out.data.bytes, out.data.size)) return true;
    return fail("bad scalar");
  }
  out.kind = Kind::kArray;
  if (!out.array.take(in_)) return fail("bad array header");
  const std::size_t item_size = element_size(out.array.element);
  std::size_t total = 0;
  if (item_size != 0 && !out.array.total(item_size, &total)) return fail("bad array shape");
  bool good;
  if (tag == Tag::kArrayAttached) {
    good = out.data.take_attached(in_, view_);
  } else {
    good = out.data.take_raw(in_);
  }
  // Only Python knows the element size of a named dtype.
  if (good && (item_size == 0 || out.data.size == total)) return true;
  return fail("bad array data");
}

bool Reader::read_pickle(Item& out) noexcept {
  out.kind = Kind::kPickle;
  DataPart chunk;
  std::uint64_t buffers;
  bool good = out.data.take_raw(in_) && chunk.take_chunk(in_, view_) && in_.take_size(buffers);
  for (std::uint64_t i = 0; good && i < buffers; ++i) good = chunk.take_chunk(in_, view_);
  return good || fail("bad pickle");
}

namespace {

void append_utf8(std::string& out, std::uint32_t c) {
  const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18 & 7));
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

template <class Character>
std::string from_characters(std::span<const std::byte> bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (std::size_t i = 0; i + sizeof(Character) <= bytes.size(); i += sizeof(Character)) {
    Character c;
    std::memcpy(&c, bytes.data() + i, sizeof c);
    append_utf8(out, c);
  }
  return out;
}

}  // namespace

std::string text_utf8(const Item& item) {
  switch (item.text_tag) {
    case Tag::kUcs2:
      return from_characters<std::uint16_t>(item.bytes());
    case Tag::kUcs4:
      return from_characters<std::uint32_t>(item.bytes());
    default:
      return from_characters<std::uint8_t>(item.bytes());
  }
}

}  // namespace shoal::codec
