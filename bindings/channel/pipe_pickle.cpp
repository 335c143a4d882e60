// SPDX-License-Identifier: Apache-2.0
#include "bindings/channel/pipe_pickle.hpp"

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string_view>

#include "bindings/channel/messages.hpp"
#include "bindings/channel/small_pickle.hpp"
#include "bindings/interp/bind.hpp"
#include "channel/message.hpp"
#include "codec/format.hpp"
#include "codec/python/codec.hpp"

namespace shoal::bindings {

namespace {

// Calls a function of pickle's C module, looked up once, with one argument. New reference.
PyObject* call_pickle(const char* name, PyObject** function, PyObject* argument) {
  if (*function == nullptr) {
    PyObject* const module = PyImport_ImportModule("_pickle");
    *function = module == nullptr ? nullptr : PyObject_GetAttrString(module, name);
    Py_XDECREF(module);
    if (*function == nullptr) return nullptr;
  }
  return PyObject_CallOneArg(*function, argument);
}

PyObject* plain_pickle(PyObject* object) {
  static PyObject* dumps = nullptr;
  return call_pickle("dumps", &dumps, object);
}

bool fits(PyObject* pickle, std::span<std::byte> room, Packed* packed) {
  const auto size = static_cast<size_t>(PyBytes_GET_SIZE(pickle));
  if (size > room.size()) return false;
  std::memcpy(room.data(), PyBytes_AS_STRING(pickle), size);
  packed->size = size;
  return true;
}

// None, bools, ints, floats, short str and bytes: pickled the same whatever is registered.
bool is_small_and_plain(PyObject* object, size_t most) {
  if (PyLong_CheckExact(object) || PyFloat_CheckExact(object) || object == Py_None ||
      PyBool_Check(object)) {
    return true;
  }
  if (PyBytes_CheckExact(object)) return static_cast<size_t>(PyBytes_GET_SIZE(object)) < most;
  return PyUnicode_CheckExact(object) && static_cast<size_t>(PyUnicode_GET_LENGTH(object)) < most;
}

// If the encoding is a single pickle without buffers, and it fits: copies it.
bool copy_pickle(const codec::MessageBuilder& builder, std::span<std::byte> room, Packed* packed) {
  constexpr std::string_view kBefore =
      "\x80\x04"
      "cshoal._pickling._pickler\nloads\nB";
  constexpr std::string_view kAfter = "\x85R.";
  codec::Cursor in(builder.bytes.data(), builder.bytes.size());
  std::uint8_t tag = 0;
  std::uint8_t attached = 1;
  std::uint64_t size = 0;
  std::uint64_t buffers = 1;
  const std::byte* data = nullptr;
  if (!in.take(tag) || tag != static_cast<std::uint8_t>(codec::Tag::kPickle) ||
      !in.take_size(size) || !in.take_bytes(data, size) || !in.take(attached) || attached != 0 ||
      !in.take_size(size) || size == 0 || !in.take_bytes(data, size) || !in.take_size(buffers) ||
      buffers != 0) {
    return false;
  }
  std::byte* to = room.data();
  if (data[0] == std::byte{0x80}) {
    if (size > room.size()) return false;
    std::memcpy(to, data, size);
    packed->size = size;
    return true;
  }
  // Not a plain pickle, but data for shoal's loads(): writes a pickle that calls loads() with it.
  if (kBefore.size() + 4 + size + kAfter.size() > room.size()) return false;
  const auto length = static_cast<std::uint32_t>(size);
  std::memcpy(to, kBefore.data(), kBefore.size());
  std::memcpy(to += kBefore.size(), &length, 4);
  std::memcpy(to += 4, data, size);
  std::memcpy(to += size, kAfter.data(), kAfter.size());
  packed->size = kBefore.size() + 4 + size + kAfter.size();
  return true;
}

}  // namespace

bool pack(PyObject* object, arena::Member& member, std::span<std::byte> room, Packed* packed) {
  packed->size = write_small_pickle(object, room);
  if (packed->size != 0) return true;
  if (is_small_and_plain(object, room.size())) {
    PyObject* const pickle = plain_pickle(object);
    if (pickle == nullptr) return false;
    const bool done = fits(pickle, room, packed);
    Py_DECREF(pickle);
    if (done) return true;
  }
  bool good = false;
  try {
    std::unique_ptr<codec::MessageBuilder> builder = take_builder(member);
    good = codec::python::encode(object, *builder);
    const bool small = good && builder->attachments.empty() && builder->bytes.size() <= room.size();
    bool done = false;
    if (small && static_cast<codec::Tag>(builder->bytes.data()[0]) == codec::Tag::kPickle) {
      done = copy_pickle(*builder, room, packed);
    } else if (small) {
      PyObject* const pickle = plain_pickle(object);
      good = pickle != nullptr;
      done = good && fits(pickle, room, packed);
      Py_XDECREF(pickle);
    }
    if (good && !done) {
      packed->message = channel::make_message(
          member, std::span(builder->bytes.data(), builder->bytes.size()), builder->attachments);
      builder->forget();
    }
    return_builder(std::move(builder));
  } catch (const std::exception&) {
    set_python_error();
    good = false;
  }
  return good;
}

PyObject* load_pickle(PyObject* bytes) {
  static PyObject* loads = nullptr;
  if (bytes == nullptr) return nullptr;
  PyObject* const object = call_pickle("loads", &loads, bytes);
  Py_DECREF(bytes);
  return object;
}

}  // namespace shoal::bindings
