// SPDX-License-Identifier: Apache-2.0
#include "api/plain.hpp"

#include <cstring>
#include <map>

#include "codec/reader.hpp"
#include "codec/writer.hpp"
#include "os/copy.hpp"

namespace shoal::detail {

namespace {

using codec::Kind;

class Encoder {
 public:
  explicit Encoder(codec::MessageBuilder& out) : out_(out) {}

  void operator()(None) { codec::write_none(out_.bytes); }
  void operator()(bool value) { codec::write_bool(out_.bytes, value); }
  void operator()(std::int64_t value) { codec::write_int(out_.bytes, value); }
  void operator()(double value) { codec::write_float(out_.bytes, value); }
  void operator()(const std::string& text) { codec::write_text(out_, text); }
  void operator()(const Bytes& bytes) {
    codec::write_bytes(out_, bytes.data.data(), bytes.data.size());
  }
  void operator()(const Tuple& tuple) {
    codec::write_tuple(out_.bytes, tuple.items.size());
    write_all(tuple.items);
  }
  void operator()(const List& list) {
    codec::write_list(out_.bytes, list.items.size());
    write_all(list.items);
  }
  void operator()(const Dict& dict) {
    codec::write_dict(out_.bytes, dict.items.size());
    enter();
    for (const auto& [key, value] : dict.items) {
      std::visit(*this, key.content());
      std::visit(*this, value.content());
    }
    --depth_;
  }
  void operator()(const Array& array) {
    if (array.shape().size() > codec::kMaxDimensions) throw NotPlain("too many dimensions");
    const auto element = static_cast<codec::Element>(array.type());
    if (!array.first_index_fastest()) {
      codec::write_array(out_, element, array.shape(), array.bytes().data());
      return;
    }
    const auto bytes = array.bytes();
    const bool large = bytes.size() >= codec::kAttachFrom;
    codec::write_array_header(out_.bytes, large ? codec::Tag::kArrayAttached : codec::Tag::kArray,
                              element, true, array.shape());
    if (large) {
      codec::write_attached(out_.bytes, codec::attach(out_, bytes.data(), bytes.size()),
                            bytes.size());
    } else {
      out_.bytes.append(bytes.data(), bytes.size());
    }
  }

 private:
  void enter() {
    if (++depth_ > codec::kMaxDepth) throw NotPlain("containers are nested too deeply");
  }
  void write_all(const std::vector<Value>& items) {
    enter();
    for (const Value& item : items) std::visit(*this, item.content());
    --depth_;
  }

  codec::MessageBuilder& out_;
  int depth_ = 0;
};

class Decoder {
 public:
  Decoder(const codec::MessageView& view, const std::shared_ptr<Membership>& membership)
      : view_(view), membership_(membership), reader_(view) {}

  Value next(int depth) {
    const std::size_t offset = reader_.offset();
    codec::Item item;
    if (!reader_.next(item)) {
      const char* const why = reader_.error();
      throw Corrupt("message: " + std::string(why != nullptr ? why : "ends too early") +
                    " at offset " + std::to_string(offset));
    }
    if (item.kind == Kind::kReference) return referred(item.target);
    Value value = make(item, depth);
    if ((static_cast<std::uint8_t>(view_.bytes[offset]) & codec::kSharedBit) != 0) {
      shared_.emplace(offset, value);
    }
    return value;
  }

 private:
  Value make(const codec::Item& item, int depth) {
    switch (item.kind) {
      case Kind::kNone:
        return None{};
      case Kind::kBool:
        return item.integer != 0;
      case Kind::kInt:
        return item.integer;
      case Kind::kFloat:
        return item.real;
      case Kind::kText:
        return codec::text_utf8(item);
      case Kind::kBytes:
      case Kind::kByteArray:
        return Bytes{{reinterpret_cast<const char*>(item.data.bytes), item.data.size}};
      case Kind::kTuple:
        return Tuple{items(item.count, depth)};
      case Kind::kList:
        return List{items(item.count, depth)};
      case Kind::kDict:
        return dict(item.count, depth);
      case Kind::kArray:
        return array(item);
      case Kind::kScalar:
        return scalar(item);
      default:
        throw NotPlain("the message holds a value that has no form in C++");
    }
  }

  // Shared values become copies; arrays share their elements, as in Python.
  Value referred(std::size_t target) {
    const auto found = shared_.find(target);
    if (found == shared_.end()) throw Corrupt("message: a reference names no earlier value");
    return found->second;
  }

  std::vector<Value> items(std::uint64_t count, int depth) {
    if (depth >= codec::kMaxDepth) throw Corrupt("message: containers are nested too deeply");
    std::vector<Value> result;
    // No reserve(): `count` is only what the message claims.
    // NOLINTNEXTLINE(performance-inefficient-vector-operation)
    for (std::uint64_t i = 0; i < count; ++i) result.push_back(next(depth + 1));
    return result;
  }

  Value dict(std::uint64_t pairs, int depth) {
    if (depth >= codec::kMaxDepth) throw Corrupt("message: containers are nested too deeply");
    Dict result;
    for (std::uint64_t i = 0; i < pairs; ++i) {
      Value key = next(depth + 1);
      result.items.emplace_back(std::move(key), next(depth + 1));
    }
    return result;
  }

  Value array(const codec::Item& item) {
    if (item.array.element > codec::Element::kComplex128) {
      throw NotPlain("the message holds an array whose elements have no form in C++");
    }
    const auto type = static_cast<ElementType>(item.array.element);
    std::vector<std::uint64_t> shape(item.shape().begin(), item.shape().end());
    arena::Member& member = *membership_->member;
    const arena::Handle block = item.data.handle;
    if (block != 0 && view_.parent != 0 && member.take_from_block(block, view_.parent)) {
      auto* const elements = membership_->arena->at<std::byte>(block);
      std::shared_ptr<void> owner(
          elements, [block, keep = membership_](void*) { keep->member->free(block); });
      Array taken(type, std::move(shape), std::move(owner), elements, item.array.first_fastest);
      if (taken.bytes().size() != item.data.size) throw Corrupt("message: wrong array size");
      return taken;
    }
    Array copy(type, shape);
    if (copy.bytes().size() != item.data.size) throw Corrupt("message: wrong array size");
    os::copy(copy.bytes().data(), item.data.bytes, item.data.size);
    if (!item.array.first_fastest) return copy;
    std::byte* const elements = copy.bytes().data();
    auto owner = std::make_shared<Array>(std::move(copy));
    return Array(type, std::move(shape), std::move(owner), elements, true);
  }

  // A numpy scalar is an array without dimensions.
  static Value scalar(const codec::Item& item) {
    if (item.array.element > codec::Element::kComplex128) {
      throw NotPlain("the message holds a number that has no form in C++");
    }
    Array result(static_cast<ElementType>(item.array.element), {});
    if (result.bytes().size() != item.data.size) throw Corrupt("message: wrong number size");
    os::copy(result.bytes().data(), item.data.bytes, item.data.size);
    return result;
  }

  const codec::MessageView& view_;
  const std::shared_ptr<Membership>& membership_;
  codec::Reader reader_;
  std::map<std::size_t, Value> shared_;  // by the offset of their tag
};

}  // namespace

void encode(const Value& value, codec::MessageBuilder& out) {
  std::visit(Encoder(out), value.content());
}

Value decode(const codec::MessageView& view, const std::shared_ptr<Membership>& membership) {
  return Decoder(view, membership).next(0);
}

}  // namespace shoal::detail
