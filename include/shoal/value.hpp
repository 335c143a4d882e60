// SPDX-License-Identifier: Apache-2.0
//
// Value: a plain Python value in C++, and Array: numbers in n dimensions, as numpy has them.
//
//   Python   None  bool  int (64 bits)  float   str          bytes  tuple  list  dict  ndarray
//   C++      None  bool  int64_t        double  std::string  Bytes  Tuple  List  Dict  Array
//
// Everything has value semantics, except an Array's elements: copies of an Array share them, like
// assigned numpy arrays. A received array keeps the session's memory in which it lies until the
// last copy of the array is gone. Like any value, not thread safe.
#pragma once

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "shoal/error.hpp"

namespace shoal {

enum class ElementType : std::uint8_t {
  boolean = 1,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  float16,
  float32,
  float64,
  long_double,
  complex64,
  complex128,
};

[[nodiscard]] std::size_t size_of(ElementType type) noexcept;  // bytes of one element

namespace detail {
template <class T>
struct ElementTypeOf;
#define SHOAL_ELEMENT(T, E)                              \
  template <>                                            \
  struct ElementTypeOf<T> {                              \
    static constexpr ElementType value = ElementType::E; \
  }
SHOAL_ELEMENT(bool, boolean);
SHOAL_ELEMENT(std::int8_t, int8);
SHOAL_ELEMENT(std::int16_t, int16);
SHOAL_ELEMENT(std::int32_t, int32);
SHOAL_ELEMENT(std::int64_t, int64);
SHOAL_ELEMENT(std::uint8_t, uint8);
SHOAL_ELEMENT(std::uint16_t, uint16);
SHOAL_ELEMENT(std::uint32_t, uint32);
SHOAL_ELEMENT(std::uint64_t, uint64);
SHOAL_ELEMENT(float, float32);
SHOAL_ELEMENT(double, float64);
SHOAL_ELEMENT(std::complex<float>, complex64);
SHOAL_ELEMENT(std::complex<double>, complex128);
#undef SHOAL_ELEMENT
}  // namespace detail

// The element type that goes with the C++ type T.
template <class T>
inline constexpr ElementType element_type_of = detail::ElementTypeOf<T>::value;

// Elements in contiguous memory, the last index fastest (numpy's C order) or the first.
class Array {
 public:
  Array() = default;
  // New elements, all zero. Throws std::length_error when there are too many.
  Array(ElementType type, std::vector<std::uint64_t> shape);
  // Elements that `owner` keeps alive.
  Array(ElementType type, std::vector<std::uint64_t> shape, std::shared_ptr<void> owner,
        std::byte* elements, bool first_index_fastest = false);
  // A one-dimensional copy of the elements.
  template <class T>
  static Array of(std::span<const T> elements) {
    Array array(element_type_of<T>, {elements.size()});
    std::copy(elements.begin(), elements.end(), array.as<T>().begin());
    return array;
  }

  [[nodiscard]] ElementType type() const noexcept { return type_; }
  [[nodiscard]] std::span<const std::uint64_t> shape() const noexcept { return shape_; }
  [[nodiscard]] bool first_index_fastest() const noexcept { return first_index_fastest_; }
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept {
    return {elements_, count_ * size_of(type_)};
  }
  // All elements in memory order. Throws NotPlain when they are not of type T.
  template <class T>
  [[nodiscard]] std::span<T> as() const {
    if (type_ != element_type_of<T>) throw NotPlain("the array's elements are of another type");
    return {reinterpret_cast<T*>(elements_), count_};
  }

 private:
  ElementType type_ = ElementType::float64;
  bool first_index_fastest_ = false;
  std::uint64_t count_ = 0;
  std::byte* elements_ = nullptr;
  std::vector<std::uint64_t> shape_;
  std::shared_ptr<void> owner_;
};

class Value;

struct None {
  friend bool operator==(None, None) noexcept = default;
};
struct Bytes {
  std::string data;
  friend bool operator==(const Bytes&, const Bytes&) = default;
};
struct Tuple {
  std::vector<Value> items;
};
struct List {
  std::vector<Value> items;
};
struct Dict {  // in the Python dict's order
  std::vector<std::pair<Value, Value>> items;
};

class Value {
 public:
  using Content =
      std::variant<None, bool, std::int64_t, double, std::string, Bytes, Tuple, List, Dict, Array>;

  Value() = default;
  // Implicit conversions, so that one can write `Value::list({1, "two", 3.0})`.
  // NOLINTBEGIN(google-explicit-constructor)
  Value(None) {}
  Value(bool value) : content_(value) {}
  Value(int value) : content_(std::int64_t{value}) {}
  Value(std::int64_t value) : content_(value) {}
  Value(double value) : content_(value) {}
  Value(const char* text) : content_(std::string(text)) {}
  Value(std::string_view text) : content_(std::string(text)) {}
  Value(std::string text) : content_(std::move(text)) {}
  Value(Bytes bytes) : content_(std::move(bytes)) {}
  Value(Tuple tuple) : content_(std::move(tuple)) {}
  Value(List list) : content_(std::move(list)) {}
  Value(Dict dict) : content_(std::move(dict)) {}
  Value(Array array) : content_(std::move(array)) {}
  // NOLINTEND(google-explicit-constructor)
  static Value tuple(std::vector<Value> items) { return Tuple{std::move(items)}; }
  static Value list(std::vector<Value> items) { return List{std::move(items)}; }
  static Value dict(std::vector<std::pair<Value, Value>> items) { return Dict{std::move(items)}; }

  template <class T>
  [[nodiscard]] bool is() const noexcept {
    return std::holds_alternative<T>(content_);
  }
  // Throws NotPlain when the content is of another type.
  template <class T>
  [[nodiscard]] const T& get() const {
    if (const T* found = std::get_if<T>(&content_)) return *found;
    throw NotPlain(std::string("the value is of another type: ") + type_name());
  }
  template <class T>
  [[nodiscard]] T& get() {
    return const_cast<T&>(std::as_const(*this).get<T>());
  }
  // An element of a tuple or list; std::out_of_range when there is none.
  [[nodiscard]] const Value& at(std::size_t index) const;
  // A dict's value under this text; std::out_of_range when there is none.
  [[nodiscard]] const Value& at(std::string_view key) const;
  [[nodiscard]] std::size_t size() const;  // of a tuple, list or dict

  [[nodiscard]] const Content& content() const noexcept { return content_; }
  [[nodiscard]] const char* type_name() const noexcept;  // Python's name of the type

  // Arrays are equal when type, shape and all bytes are.
  friend bool operator==(const Value& a, const Value& b);

 private:
  Content content_;
};

}  // namespace shoal
