// SPDX-License-Identifier: Apache-2.0
//
// Copies raw data to bytes, bytearray and str objects in private memory.
#include <cstring>
#include <type_traits>

#include "codec/python/decode.hpp"
#include "os/copy.hpp"
#include "os/huge_pages.hpp"

namespace shoal::codec::python {

namespace {

// Fresh memory from malloc consists of small pages, whose first touch costs four times the copy
// itself (100 MB: 43 ms, with huge pages 9.5 ms). Below 32 MB malloc returns warm memory.
constexpr std::size_t kHugeFrom = std::size_t{32} << 20;

void fill(void* to, const std::byte* from, std::size_t size) noexcept {
  if (size >= kHugeFrom) os::prefer_huge_pages(to, size);
  os::copy(to, from, size);
}

// The union of all bits in the data, computed eight bytes at a time.
std::uint64_t union_of(const void* data, std::size_t size) noexcept {
  const auto* at = static_cast<const char*>(data);
  std::uint64_t all = 0;
  std::uint64_t word = 0;
  for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
    std::memcpy(&word, at, sizeof word);
    all |= word;
  }
  word = 0;
  for (; size > 0; --size) word = word << 8 | static_cast<unsigned char>(*at++);
  return all | word;
}

std::uint32_t greatest(const void* data, std::size_t length) noexcept {
  const auto* const characters = static_cast<const std::uint32_t*>(data);
  std::uint32_t most = 0;
  for (std::size_t i = 0; i < length; ++i) most = characters[i] > most ? characters[i] : most;
  return most;
}

constexpr std::uint64_t kHighBits = 0x8080808080808080u;  // of bytes

std::uint16_t union_of_high_bytes(const void* data, std::size_t size) noexcept {
  const auto* const characters = static_cast<const std::uint16_t*>(data);
  std::uint16_t all = 0;
  for (std::size_t i = 0; i < size / 2; ++i) all = static_cast<std::uint16_t>(all | characters[i]);
  return all & 0xFF00;
}

// True if the data of a str has the characters that CPython requires of its kind.
bool is_canonical(Tag kind, const void* data, std::size_t size) noexcept {
  switch (kind) {
    case Tag::kAscii:
      return (union_of(data, size) & kHighBits) == 0;
    case Tag::kUcs1:
      return (union_of(data, size) & kHighBits) != 0;
    case Tag::kUcs2:
      return union_of_high_bytes(data, size) != 0;
    default: {
      const auto most = greatest(data, size / sizeof(Py_UCS4));
      return most >= 0x10000 && most <= 0x10FFFF;
    }
  }
}

}  // namespace

PyObject* new_bytes(const std::byte* bytes, std::size_t size) {
  if (size <= 1) {
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes),
                                     static_cast<Py_ssize_t>(size));
  }
  PyObject* const object = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (object != nullptr) fill(PyBytes_AS_STRING(object), bytes, size);
  return object;
}

PyObject* new_byte_array(const std::byte* bytes, std::size_t size) {
  PyObject* const object = PyByteArray_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (object != nullptr) fill(PyByteArray_AS_STRING(object), bytes, size);
  return object;
}

PyObject* new_text(Tag kind, const std::byte* bytes, std::size_t size) {
  std::size_t width = 1;
  Py_UCS4 limit = 0x7F;
  switch (kind) {
    case Tag::kAscii:
      break;
    case Tag::kUcs1:
      limit = 0xFF;
      break;
    case Tag::kUcs2:
      width = 2, limit = 0xFFFF;
      break;
    case Tag::kUcs4:
      width = 4, limit = 0x10FFFF;
      break;
    default:
      return nullptr;
  }
  const std::size_t length = size / width;
  if (length * width != size) return nullptr;
  if (size <= 1) {  // CPython has one object for each of these
    if (size == 0) return kind == Tag::kAscii ? PyUnicode_New(0, 0) : nullptr;
    const auto character = static_cast<Py_UCS1>(*bytes);
    return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, &character, 1);
  }
  PyObject* const text = PyUnicode_New(static_cast<Py_ssize_t>(length), limit);
  if (text == nullptr) return nullptr;
  void* const data = PyUnicode_DATA(text);
  fill(data, bytes, size);
  if (is_canonical(kind, data, size)) [[likely]]
    return text;
  Py_DECREF(text);
  return nullptr;
}

}  // namespace shoal::codec::python
