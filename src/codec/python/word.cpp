// SPDX-License-Identifier: Apache-2.0
//
// Inline words: {payload:61 | tag:3}.
//
//   tag  payload
//   0    never made here: free for callers (offsets)
//   1    an int of 61 bits, signed
//   2    0 None, 1 False, 2 True, 3 (), 4 '', 5 b''
//   3    the upper 61 bits of a float whose lower three are zero
//   4    a str of 1 to 7 ASCII characters: the length in bits 3 to 5, the first in bits 8 to 15
//   5    1 to 7 bytes: likewise
#include <cstring>

#include "codec/python/codec.hpp"
#include "codec/python/compat.hpp"
#include "codec/python/decode.hpp"

namespace shoal::codec::python {

namespace {

enum WordTag : std::uint64_t { kInt = 1, kConstant = 2, kReal = 3, kText = 4, kRaw = 5 };
enum Constant : std::uint64_t { kNone, kFalse, kTrue, kEmptyTuple, kEmptyText, kEmptyBytes };

constexpr std::uint64_t kTagMask = 7;
constexpr std::size_t kMostBytes = 7;

constexpr std::uint64_t make(WordTag tag, std::uint64_t payload) noexcept {
  return payload << 3 | tag;
}

std::uint64_t make_short(WordTag tag, const void* bytes, std::size_t size) noexcept {
  std::uint64_t payload = 0;
  std::memcpy(&payload, bytes, size);
  return payload << 8 | size << 3 | tag;
}

bool int_word(PyObject* object, std::uint64_t* word) noexcept {
  std::int64_t number;
  if (!small_int(object, &number)) return false;
  const std::uint64_t made = make(kInt, static_cast<std::uint64_t>(number));
  if (static_cast<std::int64_t>(made) >> 3 != number) return false;
  *word = made;
  return true;
}

bool float_word(PyObject* object, std::uint64_t* word) noexcept {
  const double number = PyFloat_AS_DOUBLE(object);
  std::uint64_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  *word = bits | kReal;
  return (bits & kTagMask) == 0;
}

bool text_word(PyObject* object, std::uint64_t* word) noexcept {
  if (!text_ready(object)) {
    PyErr_Clear();
    return false;
  }
  const auto length = static_cast<std::size_t>(PyUnicode_GET_LENGTH(object));
  if (length > kMostBytes || !PyUnicode_IS_ASCII(object)) return false;
  *word =
      length == 0 ? make(kConstant, kEmptyText) : make_short(kText, PyUnicode_DATA(object), length);
  return true;
}

PyObject* from_constant(std::uint64_t payload) {
  switch (payload) {
    case kNone:
      Py_RETURN_NONE;
    case kFalse:
      Py_RETURN_FALSE;
    case kTrue:
      Py_RETURN_TRUE;
    case kEmptyTuple:
      return PyTuple_New(0);
    case kEmptyText:
      return PyUnicode_New(0, 0);
    case kEmptyBytes:
      return PyBytes_FromStringAndSize(nullptr, 0);
    default:
      break;
  }
  PyErr_SetString(PyExc_ValueError, "shoal: unknown inline word");
  return nullptr;
}

}  // namespace

bool to_word(PyObject* object, std::uint64_t* word) noexcept {
  PyTypeObject* const type = Py_TYPE(object);
  if (type == &PyLong_Type) return int_word(object, word);
  if (object == Py_None || type == &PyBool_Type) {
    *word = make(kConstant, object == Py_None ? kNone : object == Py_True ? kTrue : kFalse);
    return true;
  }
  if (type == &PyFloat_Type) return float_word(object, word);
  if (type == &PyUnicode_Type) return text_word(object, word);
  if (type == &PyTuple_Type) {
    *word = make(kConstant, kEmptyTuple);
    return PyTuple_GET_SIZE(object) == 0;
  }
  if (type != &PyBytes_Type) return false;
  const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(object));
  if (size > kMostBytes) return false;
  *word =
      size == 0 ? make(kConstant, kEmptyBytes) : make_short(kRaw, PyBytes_AS_STRING(object), size);
  return true;
}

PyObject* from_word(std::uint64_t word) {
  switch (word & kTagMask) {
    case kInt:
      return PyLong_FromLongLong(static_cast<std::int64_t>(word) >> 3);
    case kConstant:
      return from_constant(word >> 3);
    case kReal: {
      const std::uint64_t bits = word & ~kTagMask;
      double number;
      std::memcpy(&number, &bits, sizeof number);
      return PyFloat_FromDouble(number);
    }
    case kText:
    case kRaw: {
      const std::uint64_t payload = word >> 8;
      std::byte bytes[sizeof payload];
      std::memcpy(bytes, &payload, sizeof payload);
      const std::size_t size = word >> 3 & 7;
      if ((word & kTagMask) == kRaw) return new_bytes(bytes, size);
      if (PyObject* const text = new_text(Tag::kAscii, bytes, size)) return text;
      break;
    }
    default:
      break;
  }
  if (PyErr_Occurred() == nullptr) {
    PyErr_SetString(PyExc_ValueError, "shoal: unknown inline word");
  }
  return nullptr;
}

}  // namespace shoal::codec::python
