// SPDX-License-Identifier: Apache-2.0
#include "shoal/value.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "codec/format.hpp"

namespace shoal {

static_assert(static_cast<int>(ElementType::complex128) ==
              static_cast<int>(codec::Element::kComplex128));
static_assert(static_cast<int>(ElementType::float16) == static_cast<int>(codec::Element::kFloat16));

namespace {

constexpr std::align_val_t kAlignment{64};

std::uint64_t count_of(ElementType type, const std::vector<std::uint64_t>& shape) {
  std::uint64_t count = 1;
  for (const std::uint64_t extent : shape) {
    if (__builtin_mul_overflow(count, extent, &count)) throw std::length_error("array too large");
  }
  if (count > (std::uint64_t{1} << 62) / size_of(type)) throw std::length_error("array too large");
  return count;
}

}  // namespace

std::size_t size_of(ElementType type) noexcept {
  return codec::element_size(static_cast<codec::Element>(type));
}

Array::Array(ElementType type, std::vector<std::uint64_t> shape)
    : type_(type), count_(count_of(type, shape)), shape_(std::move(shape)) {
  const std::size_t size = std::max<std::size_t>(count_ * size_of(type), 1);
  elements_ = static_cast<std::byte*>(::operator new(size, kAlignment));
  owner_ = {elements_, [](void* memory) { ::operator delete(memory, kAlignment); }};
  std::memset(elements_, 0, size);
}

Array::Array(ElementType type, std::vector<std::uint64_t> shape, std::shared_ptr<void> owner,
             std::byte* elements, bool first_index_fastest)
    : type_(type),
      first_index_fastest_(first_index_fastest),
      count_(count_of(type, shape)),
      elements_(elements),
      shape_(std::move(shape)),
      owner_(std::move(owner)) {}

const char* Value::type_name() const noexcept {
  static constexpr const char* kNames[] = {"NoneType", "bool",  "int",  "float", "str",
                                           "bytes",    "tuple", "list", "dict",  "ndarray"};
  return kNames[content_.index()];
}

const Value& Value::at(std::size_t index) const {
  if (const auto* tuple = std::get_if<Tuple>(&content_)) return tuple->items.at(index);
  return get<List>().items.at(index);
}

const Value& Value::at(std::string_view key) const {
  for (const auto& [name, value] : get<Dict>().items) {
    if (name.is<std::string>() && name.get<std::string>() == key) return value;
  }
  throw std::out_of_range("no key \"" + std::string(key) + "\"");
}

std::size_t Value::size() const {
  if (const auto* tuple = std::get_if<Tuple>(&content_)) return tuple->items.size();
  if (const auto* list = std::get_if<List>(&content_)) return list->items.size();
  return get<Dict>().items.size();
}

bool operator==(const Value& a, const Value& b) {
  if (a.content_.index() != b.content_.index()) return false;
  const auto same = [&](const auto& left) {
    using T = std::decay_t<decltype(left)>;
    const T& right = std::get<T>(b.content_);
    if constexpr (std::is_same_v<T, Array>) {
      return left.type() == right.type() && std::ranges::equal(left.shape(), right.shape()) &&
             left.first_index_fastest() == right.first_index_fastest() &&
             std::ranges::equal(left.bytes(), right.bytes());
    } else if constexpr (std::is_same_v<T, Tuple> || std::is_same_v<T, List> ||
                         std::is_same_v<T, Dict>) {
      return left.items == right.items;
    } else {
      return left == right;
    }
  };
  return std::visit(same, a.content_);
}

}  // namespace shoal
