// SPDX-License-Identifier: Apache-2.0
//
// numpy's arrays and scalars without numpy's headers: the part of its binary interface that every
// compiled extension relies on (the first fields of an array, and numbered entries of the function
// table), checked against numpy's own answers when numpy is first found. Needs an attached thread
// state. If the check fails, arrays are pickled.
//
// Design: docs/design/codec.md
#pragma once

#include "codec/format.hpp"
#include "codec/python/compat.hpp"

namespace shoal::codec::python {

// The first fields of PyArrayObject: the same in numpy 1 and 2, since PyArray_DATA and others
// compile to these offsets.
struct ArrayFields {
  PyObject_HEAD
  char* data;
  int dimensions;
  Py_ssize_t* shape;
  Py_ssize_t* strides;
  PyObject* base;
  PyObject* dtype;
  int flags;
  PyObject* weak_references;
};
inline constexpr int kArrayCContiguous = 0x0001;
inline constexpr int kArrayFContiguous = 0x0002;
inline constexpr int kArrayAligned = 0x0100;
inline constexpr int kArrayWritable = 0x0400;

inline ArrayFields* array_fields(PyObject* array) noexcept {
  return reinterpret_cast<ArrayFields*>(array);
}

class Numpy {
 public:
  // Null (no error set) when the program has not imported numpy, or its version is unknown.
  static const Numpy* if_loaded() noexcept { return usable_ != nullptr ? usable_ : find(); }
  // Imports numpy if necessary. Null with an error set when that fails.
  static const Numpy* imported() noexcept { return usable_ != nullptr ? usable_ : import(); }

  PyTypeObject* array_type() const noexcept { return array_type_; }

  // The Element of a dtype, or of a scalar's type. False if the type is not a plain Element.
  bool element_of_dtype(PyObject* dtype, Element* out) const noexcept {
    for (std::uint8_t i = 1; i < kPlain; ++i) {
      if (dtypes_[kSearchOrder[i]] == dtype) {
        *out = static_cast<Element>(kSearchOrder[i]);
        return true;
      }
    }
    return false;
  }
  bool element_of_scalar(PyTypeObject* type, Element* out) const noexcept {
    for (std::uint8_t i = 1; i < kPlain; ++i) {
      if (scalar_types_[kSearchOrder[i]] == type) {
        *out = static_cast<Element>(kSearchOrder[i]);
        return true;
      }
    }
    return false;
  }

  PyObject* dtype_of_element(Element element) const noexcept {  // borrowed
    return dtypes_[static_cast<std::uint8_t>(element)];
  }
  // The dtype that a text such as "<M8[ns]" names: new reference, or null without an error unless
  // its elements have a fixed size and no fields.
  PyObject* dtype_from_text(const std::byte* text, std::size_t size, std::size_t* item_size) const;
  // The text of such a dtype (bytes): new reference, or null without an error.
  PyObject* text_of_dtype(PyObject* dtype, std::size_t* item_size) const;

  // A new array. If `data` is null, the array has its own, uninitialized memory; otherwise it is a
  // view of `data`, and the caller sets a base. Does not steal `dtype`.
  PyObject* new_array(PyObject* dtype, int dimensions, const Py_ssize_t* shape, bool first_fastest,
                      void* data) const noexcept;
  // Copies the elements of any array to `to`, last index fastest.
  bool copy_elements(PyObject* array, void* to) const noexcept;
  // Steals `base`, also on failure.
  bool set_base(PyObject* array, PyObject* base) const noexcept;
  PyObject* new_scalar(PyObject* dtype, void* element) const noexcept;
  void scalar_bytes(PyObject* scalar, void* out) const noexcept;

 private:
  static const Numpy* find() noexcept;
  static const Numpy* import() noexcept;
  bool bind(PyObject* module) noexcept;
  bool bind_table(PyObject* module) noexcept;
  bool probe() noexcept;
  static const Numpy* state(PyObject* module) noexcept;

  static constexpr std::uint8_t kPlain = static_cast<std::uint8_t>(Element::kNamed);
  // Most common first; index 0 is not used.
  static constexpr std::uint8_t kSearchOrder[kPlain] = {
      0,
      static_cast<std::uint8_t>(Element::kFloat64),
      static_cast<std::uint8_t>(Element::kInt64),
      static_cast<std::uint8_t>(Element::kFloat32),
      static_cast<std::uint8_t>(Element::kUInt8),
      static_cast<std::uint8_t>(Element::kInt32),
      static_cast<std::uint8_t>(Element::kBool),
      static_cast<std::uint8_t>(Element::kComplex128),
      static_cast<std::uint8_t>(Element::kInt8),
      static_cast<std::uint8_t>(Element::kInt16),
      static_cast<std::uint8_t>(Element::kUInt16),
      static_cast<std::uint8_t>(Element::kUInt32),
      static_cast<std::uint8_t>(Element::kUInt64),
      static_cast<std::uint8_t>(Element::kFloat16),
      static_cast<std::uint8_t>(Element::kComplex64),
      static_cast<std::uint8_t>(Element::kLongFloat),
      static_cast<std::uint8_t>(Element::kLongComplex),
  };

  // Bound once for the life of the process: numpy cannot be loaded twice.
  static const Numpy* usable_;

  void** table_ = nullptr;
  PyTypeObject* array_type_ = nullptr;
  PyObject* dtype_type_ = nullptr;
  PyObject* dtypes_[kPlain] = {};
  PyTypeObject* scalar_types_[kPlain] = {};
};

}  // namespace shoal::codec::python
