// SPDX-License-Identifier: Apache-2.0
#include "codec/writer.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "arena/arena.hpp"
#include "os/copy.hpp"

namespace shoal::codec {

std::size_t attach(MessageBuilder& out, const void* bytes, std::size_t size) {
  out.attachments.push_back(0);
  arena::Handle& handle = out.attachments.back();
  handle = out.member->allocate(size);
  os::copy(out.member->arena().address(handle), bytes, size);
  return out.attachments.size() - 1;
}

namespace {

bool is_large(const MessageBuilder& out, std::size_t size) noexcept {
  return size >= kAttachFrom && out.member != nullptr;
}

[[noreturn]] void refuse_text() { throw std::invalid_argument("shoal: text is not valid UTF-8"); }

// Decodes the character at `*at` and moves `*at` behind it.
std::uint32_t take_character(std::string_view utf8, std::size_t* at) {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return i < utf8.size() ? static_cast<unsigned char>(utf8[i]) : 0;
  };
  const std::uint32_t first = byte((*at)++);
  if (first < 0x80) return first;
  const int more = first >= 0xF0 && first < 0xF8 ? 3 : first >= 0xE0 ? 2 : first >= 0xC2 ? 1 : 0;
  if (more == 0 || first >= 0xF8) refuse_text();
  std::uint32_t character = first & (0x3Fu >> more);
  for (int i = 0; i < more; ++i) {
    const std::uint32_t next = byte((*at)++);
    if ((next & 0xC0) != 0x80) refuse_text();
    character = character << 6 | (next & 0x3F);
  }
  constexpr std::uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  if (character < kLeast[more] || character > 0x10FFFF) refuse_text();
  return character;
}

template <class Character>
void put_characters(MessageBuilder& out, Tag tag, const std::u32string& characters) {
  const std::basic_string<Character> narrow(characters.begin(), characters.end());
  const std::size_t size = narrow.size() * sizeof(Character);
  if (!is_large(out, size)) {
    write_raw(out.bytes, tag, narrow.data(), size);
    return;
  }
  const std::size_t attachment = attach(out, narrow.data(), size);
  out.bytes.put_tag(Tag::kTextAttached);
  out.bytes.put_tag(tag);
  write_attached(out.bytes, attachment, size);
}

}  // namespace

void write_text(MessageBuilder& out, std::string_view utf8) {
  std::u32string characters;
  characters.reserve(utf8.size());
  for (std::size_t at = 0; at < utf8.size();) characters.push_back(take_character(utf8, &at));
  char32_t most = 0;
  for (const char32_t character : characters) most = std::max(most, character);
  if (most < 0x80) {
    put_characters<char>(out, Tag::kAscii, characters);
  } else if (most < 0x100) {
    put_characters<char>(out, Tag::kUcs1, characters);
  } else if (most < 0x10000) {
    put_characters<char16_t>(out, Tag::kUcs2, characters);
  } else {
    put_characters<char32_t>(out, Tag::kUcs4, characters);
  }
}

void write_bytes(MessageBuilder& out, const void* bytes, std::size_t size) {
  if (!is_large(out, size)) {
    write_raw(out.bytes, Tag::kBytes, bytes, size);
    return;
  }
  const std::size_t attachment = attach(out, bytes, size);
  out.bytes.put_tag(Tag::kBytesAttached);
  write_attached(out.bytes, attachment, size);
}

void write_array(MessageBuilder& out, Element element, std::span<const std::uint64_t> shape,
                 const void* elements) {
  if (element_size(element) == 0 || shape.size() > kMaxDimensions) {
    throw std::invalid_argument("shoal: array with an unknown element type or too many dimensions");
  }
  std::size_t size = element_size(element);
  for (const std::uint64_t extent : shape) size *= extent;
  if (!is_large(out, size)) {
    write_array_header(out.bytes, Tag::kArray, element, false, shape);
    out.bytes.put_raw(elements, size);
    return;
  }
  const std::size_t attachment = attach(out, elements, size);
  write_array_header(out.bytes, Tag::kArrayAttached, element, false, shape);
  write_attached(out.bytes, attachment, size);
}

}  // namespace shoal::codec
