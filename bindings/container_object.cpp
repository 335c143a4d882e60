// SPDX-License-Identifier: Apache-2.0
#include "container_object.hpp"

#include <cstring>

#include "codec/python/codec.hpp"
#include "messages.hpp"
#include "os/copy.hpp"

namespace shoal::bindings {

namespace {

// Values larger than this lie in a block of their own, which readers hold instead of copying it
// under the lock.
constexpr size_t kFarFrom = size_t{32} << 10;

// A shared block with these bytes, held by this process and by the collector.
Handle far_block(arena::Member& member, Bytes bytes, HandleCollector& collector) {
  const Handle block = member.allocate(bytes.size());
  os::copy(member.arena().address(block), bytes.data(), bytes.size());
  try {
    member.share(block);
  } catch (const std::exception&) {
    member.free(block);
    throw;
  }
  const bool added = collector.add(block);
  if (!added) throw arena::CorruptArena("a block of this process is not its own any more");
  let_go(member, block);  // the collector holds it
  return block;
}

}  // namespace

bool NewItem::make(const SharedKey* key, PyObject* value) {
  try {
    HandleCollector collector(*member_);
    std::unique_ptr<codec::MessageBuilder> builder = take_builder(*member_);
    builder->member = nullptr;  // all in line
    if (value != nullptr && !codec::python::encode(value, *builder)) {
      return_builder(std::move(builder));
      return false;
    }
    collections::ItemParts parts;
    if (key != nullptr) {
      parts.key = key->key_bytes();
      parts.shown_key = key->shown_bytes();
      parts.key_kind = key->kind;
    }
    parts.value = {builder->bytes.data(), builder->bytes.size()};
    const uint64_t far_size = builder->bytes.size();
    if (far_size > kFarFrom) {
      std::vector<Handle>& handles = collector.handles();
      const Handle block = far_block(*member_, parts.value, collector);
      handles.pop_back();
      handles.insert(handles.begin(), block);
      parts.value = std::as_bytes(std::span(&far_size, 1));
      parts.is_far = true;
    }
    parts.references = collector.handles();
    item_ = collections::make_item(*member_, parts);
    return_builder(std::move(builder));
    return true;
  } catch (const std::exception&) {
    set_python_error();
    return false;
  }
}

Removed::~Removed() {
  if (item_ != 0) collections::free_item(member_, item_);
  if (bag_ != 0) collections::free_bag(member_, bag_);
}

Copies::~Copies() { clear(); }

void Copies::clear() noexcept {
  for (const Handle handle : held_) let_go(member_, handle);
  held_.clear();
  parts_.clear();
  bytes_.clear();
}

void Copies::add_bytes(Bytes bytes) {
  parts_.push_back({bytes_.size(), 0, bytes.size()});
  bytes_.append(bytes.data(), bytes.size());
}

void Copies::add(Handle item, int what) {
  const collections::ItemParts parts = collections::open_item(member_.arena(), item);
  if ((what & key) != 0) add_bytes(parts.shown_key.empty() ? parts.key : parts.shown_key);
  if ((what & value) == 0) return;
  held_.reserve(held_.size() + parts.references.size());
  for (const Handle reference : parts.references) {
    if (member_.hold_shared(reference)) held_.push_back(reference);
  }
  if (!parts.is_far) return add_bytes(parts.value);
  uint64_t size = 0;
  if (parts.references.empty() || parts.value.size() != sizeof size) {
    throw arena::CorruptArena("an item of a container lacks its value");
  }
  std::memcpy(&size, parts.value.data(), sizeof size);
  if (size > member_.arena().block_size(parts.references[0])) {
    throw arena::CorruptArena("a value is said to be larger than its block");
  }
  parts_.push_back({0, parts.references[0], size});
}

PyObject* Copies::decode(size_t i) {
  const Part& part = parts_[i];
  if (part.size == 0) Py_RETURN_NONE;  // the value of a set's key
  codec::MessageView view;
  view.size = part.size;
  view.bytes =
      part.far != 0 ? member_.arena().at<std::byte>(part.far) : bytes_.data() + part.offset;
  return codec::python::decode(view, 0, nullptr, codec::python::copy_out);
}

bool bind_collections(PyObject* module) { return bind_map(module) && bind_sequence(module); }

}  // namespace shoal::bindings
