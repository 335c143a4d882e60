// SPDX-License-Identifier: Apache-2.0
//
// The decoder of one value. Internal to codec/python.
//
// Invariants:
// 1. Every field is fetched once and checked before use; a count is checked against the bytes left
//    (each value takes at least one) before anything is allocated for it.
// 2. shared_ holds the values with kSharedBit, ordered by offset: counted references, null while
//    the value is being built.
// 3. The characters of a str are checked in private memory, after copying.
//
// Design: docs/design/codec.md
#pragma once

#include <vector>

#include "codec/python/codec.hpp"
#include "codec/python/compat.hpp"
#include "codec/python/numpy.hpp"
#include "codec/reader.hpp"

namespace shoal::codec::python {

class Decoder {
 public:
  Decoder(const MessageView& view, std::size_t offset, Ownership ownership) noexcept
      : view_(view), in_(view.bytes, view.size, offset), ownership_(ownership) {}
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder();

  PyObject* value();  // new reference, or null with an error set
  std::size_t offset() const noexcept { return in_.offset(); }

 private:
  struct Shared {
    std::size_t offset;
    PyObject* object;
  };

  PyObject* tagged(Tag tag);
  PyObject* shared(Tag tag, std::size_t tag_offset);
  PyObject* reference(std::size_t tag_offset);
  template <class T>
  PyObject* integer();
  PyObject* big_int();
  PyObject* real();
  PyObject* complex();
  PyObject* text(Tag kind);
  PyObject* attached_text();
  PyObject* tuple();
  PyObject* list();
  PyObject* dict();
  PyObject* set(bool frozen);
  PyObject* range();
  PyObject* date();
  PyObject* time();
  PyObject* date_time();
  PyObject* time_delta();
  PyObject* array(bool attached);
  PyObject* scalar();
  PyObject* pickle();
  PyObject* pickle_buffers();

  bool enter(std::uint64_t* count, std::uint64_t values_per_item);
  PyObject* array_from(const Numpy& numpy, PyObject* dtype, const ArrayParts& parts,
                       const DataPart& data);
  PyObject* owned_block(const DataPart& data);
  PyObject* fail(const char* why);

  const MessageView& view_;
  Cursor in_;
  const Ownership ownership_;
  int depth_ = 0;
  std::vector<Shared> shared_;
};

// A private copy of the data as bytes or bytearray; large ones on huge pages.
PyObject* new_bytes(const std::byte* bytes, std::size_t size);
PyObject* new_byte_array(const std::byte* bytes, std::size_t size);
// A str of characters of one, two or four bytes, as `kind` says. Null without an error if the data
// has characters outside the range that CPython requires of that kind.
PyObject* new_text(Tag kind, const std::byte* bytes, std::size_t size);

// Calls the loads function of set_pickler. Borrows its arguments.
PyObject* unpickle(PyObject* data, PyObject* buffers);

}  // namespace shoal::codec::python
