// SPDX-License-Identifier: Apache-2.0
#include "codec/python/decode.hpp"

#include <algorithm>

#include "arena/arena.hpp"
#include "codec/python/block.hpp"

namespace shoal::codec::python {

Decoder::~Decoder() {
  for (const Shared& shared : shared_) Py_XDECREF(shared.object);
}

PyObject* Decoder::fail(const char* why) {
  if (PyErr_Occurred() == nullptr) {
    PyErr_Format(PyExc_ValueError, "shoal: message cannot be read at offset %zu of %zu: %s",
                 in_.offset(), view_.size, why);
  }
  return nullptr;
}

PyObject* Decoder::value() {
  const std::size_t tag_offset = in_.offset();
  std::uint8_t tag;
  if (!in_.take(tag)) return fail("it ends where a value should be");
  if ((tag & kSharedBit) != 0) [[unlikely]] {
    return shared(static_cast<Tag>(tag & ~kSharedBit), tag_offset);
  }
  if (static_cast<Tag>(tag) == Tag::kReference) return reference(tag_offset);
  return tagged(static_cast<Tag>(tag));
}

PyObject* Decoder::shared(Tag tag, std::size_t tag_offset) {
  const std::size_t index = shared_.size();
  shared_.push_back(Shared{tag_offset, nullptr});
  PyObject* const object = tagged(tag);
  Py_XINCREF(object);
  shared_[index].object = object;
  return object;
}

PyObject* Decoder::reference(std::size_t tag_offset) {
  std::uint64_t distance;
  if (!in_.take_size(distance) || distance > tag_offset) return fail("bad reference");
  const std::size_t target = tag_offset - static_cast<std::size_t>(distance);
  const auto found = std::lower_bound(
      shared_.begin(), shared_.end(), target,
      [](const Shared& shared, std::size_t offset) { return shared.offset < offset; });
  if (found == shared_.end() || found->offset != target || found->object == nullptr) {
    return fail("reference to a missing value");
  }
  Py_INCREF(found->object);
  return found->object;
}

PyObject* Decoder::tagged(Tag tag) {
  switch (tag) {
    case Tag::kNone:
      Py_RETURN_NONE;
    case Tag::kFalse:
      Py_RETURN_FALSE;
    case Tag::kTrue:
      Py_RETURN_TRUE;
    case Tag::kInt8:
      return integer<std::int8_t>();
    case Tag::kInt16:
      return integer<std::int16_t>();
    case Tag::kInt32:
      return integer<std::int32_t>();
    case Tag::kInt64:
      return integer<std::int64_t>();
    case Tag::kBigInt:
      return big_int();
    case Tag::kFloat:
      return real();
    case Tag::kComplex:
      return complex();
    case Tag::kAscii:
    case Tag::kUcs1:
    case Tag::kUcs2:
    case Tag::kUcs4:
      return text(tag);
    case Tag::kTextAttached:
      return attached_text();
    case Tag::kTuple:
      return tuple();
    case Tag::kList:
      return list();
    case Tag::kDict:
      return dict();
    case Tag::kSet:
      return set(false);
    case Tag::kFrozenSet:
      return set(true);
    case Tag::kRange:
      return range();
    case Tag::kDate:
      return date();
    case Tag::kTime:
      return time();
    case Tag::kDateTime:
      return date_time();
    case Tag::kTimeDelta:
      return time_delta();
    case Tag::kArray:
      return array(false);
    case Tag::kArrayAttached:
      return array(true);
    case Tag::kScalar:
      return scalar();
    case Tag::kPickle:
      return pickle();
    case Tag::kBytes:
    case Tag::kByteArray:
    case Tag::kBytesAttached:
    case Tag::kByteArrayAttached: {
      const bool attached = tag == Tag::kBytesAttached || tag == Tag::kByteArrayAttached;
      DataPart data;
      if (!(attached ? data.take_attached(in_, view_) : data.take_raw(in_))) {
        return fail("bad bytes");
      }
      const bool array = tag == Tag::kByteArray || tag == Tag::kByteArrayAttached;
      return array ? new_byte_array(data.bytes, data.size) : new_bytes(data.bytes, data.size);
    }
    case Tag::kInvalid:
    case Tag::kReference:
      break;
  }
  return fail("unknown kind of value");
}

template <class T>
PyObject* Decoder::integer() {
  T number;
  if (!in_.take(number)) return fail("cut off inside an int");
  return PyLong_FromLongLong(number);
}

PyObject* Decoder::big_int() {
  DataPart data;
  if (!data.take_raw(in_)) return fail("cut off inside an int");
  return big_int_from_bytes(data.bytes, data.size);
}

PyObject* Decoder::real() {
  double number;
  if (!in_.take(number)) return fail("cut off inside a float");
  return PyFloat_FromDouble(number);
}

PyObject* Decoder::complex() {
  double real, imaginary;
  if (!in_.take(real) || !in_.take(imaginary)) return fail("cut off inside a complex");
  return PyComplex_FromDoubles(real, imaginary);
}

PyObject* Decoder::text(Tag kind) {
  DataPart data;
  if (!data.take_raw(in_)) return fail("cut off inside a str");
  PyObject* const text = new_text(kind, data.bytes, data.size);
  return text != nullptr ? text : fail("bad characters");
}

PyObject* Decoder::attached_text() {
  std::uint8_t kind;
  DataPart data;
  if (!in_.take(kind) || !data.take_attached(in_, view_)) return fail("bad str");
  PyObject* const text = new_text(static_cast<Tag>(kind), data.bytes, data.size);
  return text != nullptr ? text : fail("bad characters");
}

// Begins a container: reads its count, which cannot exceed the number of bytes left.
bool Decoder::enter(std::uint64_t* count, std::uint64_t values_per_item) {
  if (!in_.take_size(*count) || *count > in_.left() / values_per_item) {
    fail("more elements than bytes");
    return false;
  }
  if (++depth_ > kMaxDepth) {
    fail("nested too deeply");
    return false;
  }
  return true;
}

PyObject* Decoder::tuple() {
  std::uint64_t count;
  if (!enter(&count, 1)) return nullptr;
  PyObject* const tuple = PyTuple_New(static_cast<Py_ssize_t>(count));
  if (tuple == nullptr) return nullptr;
  for (std::uint64_t i = 0; i < count; ++i) {
    PyObject* const item = value();
    if (item == nullptr) {
      Py_DECREF(tuple);
      return nullptr;
    }
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), item);
  }
  --depth_;
  return tuple;
}

PyObject* Decoder::list() {
  std::uint64_t count;
  if (!enter(&count, 1)) return nullptr;
  PyObject* const list = PyList_New(static_cast<Py_ssize_t>(count));
  if (list == nullptr) return nullptr;
  for (std::uint64_t i = 0; i < count; ++i) {
    PyObject* const item = value();
    if (item == nullptr) {
      Py_DECREF(list);
      return nullptr;
    }
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), item);
  }
  --depth_;
  return list;
}

PyObject* Decoder::dict() {
  std::uint64_t count;
  if (!enter(&count, 2)) return nullptr;
  PyObject* const dict = PyDict_New();
  if (dict == nullptr) return nullptr;
  for (std::uint64_t i = 0; i < count; ++i) {
    PyObject* const key = value();
    PyObject* const item = key == nullptr ? nullptr : value();
    const bool good = item != nullptr && PyDict_SetItem(dict, key, item) == 0;
    Py_XDECREF(key);
    Py_XDECREF(item);
    if (!good) {
      Py_DECREF(dict);
      return nullptr;
    }
  }
  --depth_;
  return dict;
}

PyObject* Decoder::set(bool frozen) {
  std::uint64_t count;
  if (!enter(&count, 1)) return nullptr;
  PyObject* const set = frozen ? PyFrozenSet_New(nullptr) : PySet_New(nullptr);
  if (set == nullptr) return nullptr;
  for (std::uint64_t i = 0; i < count; ++i) {
    PyObject* const item = value();
    const bool good = item != nullptr && PySet_Add(set, item) == 0;
    Py_XDECREF(item);
    if (!good) {
      Py_DECREF(set);
      return nullptr;
    }
  }
  --depth_;
  return set;
}

// Takes over the attachment as a Block of this process. Null with an error set; or null without
// one: the caller must copy.
PyObject* Decoder::owned_block(const DataPart& data) {
  if (data.handle == 0 || ownership_ != move_out) return nullptr;
  return take_block(view_, data.handle, data.size);
}

}  // namespace shoal::codec::python
