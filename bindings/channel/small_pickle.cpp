// SPDX-License-Identifier: Apache-2.0
#include "bindings/channel/small_pickle.hpp"

#include <cstdint>
#include <cstring>

namespace shoal::bindings {

namespace {

// Opcodes of the pickle protocol.
constexpr uint8_t kProto = 0x80;
constexpr uint8_t kFrame = 0x95;
constexpr uint8_t kMemoize = 0x94;
constexpr uint8_t kNone = 'N';
constexpr uint8_t kTrue = 0x88;
constexpr uint8_t kFalse = 0x89;
constexpr uint8_t kInt8 = 'K';   // unsigned
constexpr uint8_t kInt16 = 'M';  // unsigned
constexpr uint8_t kInt32 = 'J';
constexpr uint8_t kFloat = 'G';  // big endian
constexpr uint8_t kText = 0x8c;  // one byte of length, UTF-8
constexpr uint8_t kBytes = 'C';  // one byte of length
constexpr uint8_t kStop = '.';

constexpr Py_ssize_t kLongest = 255;
constexpr size_t kMostAround = 16;

// Writes opcode and operand. Returns the position after them; nullptr: not an int of 32 bits.
uint8_t* write_int(PyObject* object, uint8_t* to) noexcept {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (overflow != 0 || value < INT32_MIN || value > INT32_MAX) return nullptr;
  size_t bytes = 4;
  if (value >= 0 && value <= 0xFFFF) bytes = value <= 0xFF ? 1 : 2;
  *to++ = bytes == 1 ? kInt8 : bytes == 2 ? kInt16 : kInt32;
  const auto bits = static_cast<uint32_t>(value);  // little endian, like the machine
  std::memcpy(to, &bits, bytes);
  return to + bytes;
}

uint8_t* write_float(PyObject* object, uint8_t* to) noexcept {
  const double value = PyFloat_AS_DOUBLE(object);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  bits = __builtin_bswap64(bits);
  *to++ = kFloat;
  std::memcpy(to, &bits, sizeof bits);
  return to + sizeof bits;
}

uint8_t* write_counted(uint8_t opcode, const void* data, Py_ssize_t size, uint8_t* to) noexcept {
  *to++ = opcode;
  *to++ = static_cast<uint8_t>(size);
  std::memcpy(to, data, static_cast<size_t>(size));
  to += size;
  *to++ = kMemoize;  // as pickle does; some readers expect it
  return to;
}

uint8_t* write_value(PyObject* object, uint8_t* to) noexcept {
  if (PyLong_CheckExact(object)) return write_int(object, to);
  if (object == Py_None || PyBool_Check(object)) {
    *to++ = object == Py_None ? kNone : object == Py_True ? kTrue : kFalse;
    return to;
  }
  if (PyFloat_CheckExact(object)) return write_float(object, to);
  if (PyUnicode_CheckExact(object) && PyUnicode_IS_COMPACT_ASCII(object) &&
      PyUnicode_GET_LENGTH(object) <= kLongest) {
    return write_counted(kText, PyUnicode_1BYTE_DATA(object), PyUnicode_GET_LENGTH(object), to);
  }
  if (PyBytes_CheckExact(object) && PyBytes_GET_SIZE(object) <= kLongest) {
    return write_counted(kBytes, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object), to);
  }
  return nullptr;
}

PyObject* read_value(const uint8_t* at, size_t left) {
  if (left < 1) return nullptr;
  const uint8_t opcode = *at++;
  --left;
  uint16_t half = 0;
  int32_t word = 0;
  switch (opcode) {
    case kNone:
    case kTrue:
    case kFalse:
      if (left != 0) return nullptr;
      return Py_NewRef(opcode == kNone ? Py_None : opcode == kTrue ? Py_True : Py_False);
    case kInt8:
      return left != 1 ? nullptr : PyLong_FromLong(*at);
    case kInt16:
      if (left != sizeof half) return nullptr;
      std::memcpy(&half, at, sizeof half);
      return PyLong_FromLong(half);
    case kInt32:
      if (left != sizeof word) return nullptr;
      std::memcpy(&word, at, sizeof word);
      return PyLong_FromLong(word);
    case kFloat: {
      uint64_t bits = 0;
      double value = 0;
      if (left != sizeof bits) return nullptr;
      std::memcpy(&bits, at, sizeof bits);
      bits = __builtin_bswap64(bits);
      std::memcpy(&value, &bits, sizeof value);
      return PyFloat_FromDouble(value);
    }
    case kText:
    case kBytes: {
      if (left < 1) return nullptr;
      const Py_ssize_t size = *at++;
      --left;
      if (left == static_cast<size_t>(size) + 1 && at[size] == kMemoize) --left;
      if (left != static_cast<size_t>(size)) return nullptr;
      const char* const data = reinterpret_cast<const char*>(at);
      return opcode == kText ? PyUnicode_DecodeUTF8(data, size, "surrogatepass")
                             : PyBytes_FromStringAndSize(data, size);
    }
    default:
      return nullptr;
  }
}

}  // namespace

size_t write_small_pickle(PyObject* object, std::span<std::byte> room) noexcept {
  if (room.size() < static_cast<size_t>(kLongest) + kMostAround) return 0;
  auto* const begin = reinterpret_cast<uint8_t*>(room.data());
  uint8_t* to = begin;
  *to++ = kProto;
  *to++ = 4;
  to = write_value(object, to);
  if (to == nullptr) return 0;
  *to++ = kStop;
  return static_cast<size_t>(to - begin);
}

PyObject* read_small_pickle(std::span<const std::byte> pickle) {
  const auto* at = reinterpret_cast<const uint8_t*>(pickle.data());
  size_t left = pickle.size();
  if (left < 4 || at[0] != kProto || at[1] > 5 || at[left - 1] != kStop) return nullptr;
  at += 2;
  left -= 3;
  if (left > 9 && *at == kFrame) {
    at += 9;
    left -= 9;
  }
  return read_value(at, left);
}

}  // namespace shoal::bindings
