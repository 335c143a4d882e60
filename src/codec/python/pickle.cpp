// SPDX-License-Identifier: Apache-2.0
#include "codec/python/pickle.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "arena/arena.hpp"
#include "codec/python/codec.hpp"
#include "codec/python/decode.hpp"
#include "codec/python/reference.hpp"
#include "codec/writer.hpp"
#include "os/copy.hpp"

namespace shoal::codec::python {

namespace {

PyObject* dumps_function = nullptr;
PyObject* loads_function = nullptr;

constexpr std::size_t kLongestName = 120;

// Contiguous memory of Python objects, held while it is copied.
class Views {
 public:
  Views() = default;
  Views(const Views&) = delete;
  Views& operator=(const Views&) = delete;
  ~Views() {
    for (Py_buffer& view : views_) PyBuffer_Release(&view);
  }
  // Accepts Fortran order as well: a PickleBuffer of such an array stands for its memory in memory
  // order.
  bool add(PyObject* object) {
    views_.reserve(views_.size() + 1);
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_ANY_CONTIGUOUS) != 0) return false;
    views_.push_back(view);
    size_ += static_cast<std::size_t>(view.len);
    return true;
  }
  std::size_t size() const noexcept { return size_; }
  void copy_to(std::byte* to) const noexcept {
    for (const Py_buffer& view : views_) {
      const auto size = static_cast<std::size_t>(view.len);
      os::copy(to, view.buf, size);
      to += size;
    }
  }

 private:
  std::vector<Py_buffer> views_;
  std::size_t size_ = 0;
};

// Writes the concatenated views as one chunk: directly into a block if it is large.
void write_chunk(MessageBuilder& out, const Views& views) {
  const std::size_t size = views.size();
  if (size < kAttachFrom || out.member == nullptr) {
    out.bytes.put(std::uint8_t{0});
    out.bytes.put_size(size);
    views.copy_to(out.bytes.extend(size));
    return;
  }
  out.attachments.reserve(out.attachments.size() + 1);
  const arena::Handle handle = out.member->allocate(size);
  out.attachments.push_back(handle);
  views.copy_to(static_cast<std::byte*>(out.member->arena().address(handle)));
  out.bytes.put(std::uint8_t{1});
  write_attached(out.bytes, out.attachments.size() - 1, size);
}

// The pickle: bytes-like, or a list or tuple of bytes-like pieces.
bool write_data(MessageBuilder& out, PyObject* data) {
  Views views;
  if (!PyList_CheckExact(data) && !PyTuple_CheckExact(data)) {
    if (!views.add(data)) return false;
  } else {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(data); ++i) {
      if (!views.add(PySequence_Fast_GET_ITEM(data, i))) return false;
    }
  }
  write_chunk(out, views);
  return true;
}

bool write_buffers(MessageBuilder& out, PyObject* buffers) {
  if (buffers == Py_None) {
    out.bytes.put_size(0);
    return true;
  }
  const Reference list =
      Reference::take(PySequence_Fast(buffers, "dumps must return (data, sequence of buffers)"));
  if (!list) return false;
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(list.get());
  out.bytes.put_size(static_cast<std::uint64_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    Views views;
    if (!views.add(PySequence_Fast_GET_ITEM(list.get(), i))) return false;
    write_chunk(out, views);
  }
  return true;
}

// The description of a pickled value for error messages, as an expression: plain values, and a name
// with `(...)` for others. After about kLongestName characters, "..." stands for the rest.
class Description {
 public:
  std::string take() { return std::move(text_); }

  void add(PyObject* object, int depth = 0) {
    if (full()) {
      text_ += "...";
    } else if (PyLong_CheckExact(object) || PyFloat_CheckExact(object)) {
      number(object);
    } else if (object == Py_None || PyBool_Check(object)) {
      text_ += object == Py_None ? "None" : object == Py_True ? "True" : "False";
    } else if (PyUnicode_CheckExact(object) && PyUnicode_IS_COMPACT_ASCII(object)) {
      ascii(object);
    } else if ((PyTuple_CheckExact(object) || PyList_CheckExact(object)) && depth < kDeepest) {
      sequence(object, depth);
    } else if (PyDict_CheckExact(object) && depth < kDeepest) {
      dictionary(object, depth);
    } else {
      type_of(object);
    }
  }

 private:
  static constexpr int kDeepest = 4;
  static constexpr Py_ssize_t kLongestText = 24;

  [[nodiscard]] bool full() const noexcept { return text_.size() >= kLongestName; }

  void number(PyObject* object) {
    if (PyFloat_CheckExact(object)) {
      char* const digits =
          PyOS_double_to_string(PyFloat_AS_DOUBLE(object), 'r', 0, Py_DTSF_ADD_DOT_0, nullptr);
      text_ += digits == nullptr ? "..." : digits;
      PyMem_Free(digits);
      return;
    }
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    text_ += overflow != 0 ? "int(...)" : std::to_string(value);
  }

  void ascii(PyObject* object) {
    const auto* const characters = PyUnicode_1BYTE_DATA(object);
    const Py_ssize_t length = PyUnicode_GET_LENGTH(object);
    text_ += '\'';
    for (Py_ssize_t i = 0; i < std::min(length, kLongestText); ++i) {
      const auto c = static_cast<char>(characters[i]);
      if (c == '\'' || c == '\\') text_ += '\\';
      text_ += c < 0x20 || c == 0x7F ? '?' : c;
    }
    text_ += length > kLongestText ? "...'" : "'";
  }

  void sequence(PyObject* object, int depth) {
    const bool tuple = PyTuple_CheckExact(object);
    text_ += tuple ? '(' : '[';
    Py_ssize_t i = 0;
    for (; i < PySequence_Fast_GET_SIZE(object); ++i) {
      if (i > 0) text_ += ", ";
      add(PySequence_Fast_GET_ITEM(object, i), depth + 1);
      if (full()) break;
    }
    if (i < PySequence_Fast_GET_SIZE(object)) text_ += ", ...";
    text_ += !tuple ? "]" : PyTuple_GET_SIZE(object) == 1 ? ",)" : ")";
  }

  void dictionary(PyObject* object, int depth) {
    Py_ssize_t at = 0;
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    text_ += '{';
    for (bool first = true; !full() && PyDict_Next(object, &at, &key, &value); first = false) {
      if (!first) text_ += ", ";
      add(key, depth + 1);
      text_ += ": ";
      add(value, depth + 1);
    }
    text_ += '}';
  }

  // A class may have any name: only names that are identifiers are shown.
  void type_of(PyObject* object) {
    const char* const full_name = Py_TYPE(object)->tp_name;
    const char* const dot = std::strrchr(full_name, '.');
    const std::string name(dot == nullptr ? full_name : dot + 1, 0, kLongestName);
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto is_part = [&](char c) {
      return c == '_' || is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    };
    const bool plain =
        !name.empty() && !is_digit(name.front()) && std::all_of(name.begin(), name.end(), is_part);
    text_ += plain ? name : "object";
    text_ += "(...)";
  }

  std::string text_;
};

}  // namespace

void set_pickler(PyObject* dumps, PyObject* loads) {
  Py_XINCREF(dumps);
  Py_XINCREF(loads);
  Py_XSETREF(dumps_function, dumps);
  Py_XSETREF(loads_function, loads);
}

bool encode_pickle(PyObject* object, MessageBuilder& out) {
  if (dumps_function == nullptr) {
    PyErr_Format(PyExc_TypeError, "shoal: no pickler is set for objects of type %.100s",
                 Py_TYPE(object)->tp_name);
    return false;
  }
  const Reference dumps = Reference::borrow(dumps_function);  // the call may set another pickler
  const Reference pickled = Reference::take(PyObject_CallOneArg(dumps.get(), object));
  if (!pickled) return false;
  if (!PyTuple_CheckExact(pickled.get()) || PyTuple_GET_SIZE(pickled.get()) != 2) {
    PyErr_SetString(PyExc_TypeError, "shoal: dumps must return a tuple (data, buffers)");
    return false;
  }
  Description description;
  description.add(object);
  const std::string text = description.take();
  out.bytes.put_tag(Tag::kPickle);
  out.bytes.put_raw(text.data(), text.size());
  return write_data(out, PyTuple_GET_ITEM(pickled.get(), 0)) &&
         write_buffers(out, PyTuple_GET_ITEM(pickled.get(), 1));
}

PyObject* unpickle(PyObject* data, PyObject* buffers) {
  if (loads_function == nullptr) {
    PyErr_SetString(PyExc_TypeError, "shoal: no unpickler is set");
    return nullptr;
  }
  const Reference loads = Reference::borrow(loads_function);
  return PyObject_CallFunctionObjArgs(loads.get(), data, buffers, nullptr);
}

}  // namespace shoal::codec::python
