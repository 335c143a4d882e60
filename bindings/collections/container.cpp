// SPDX-License-Identifier: Apache-2.0
#include "bindings/collections/container.hpp"

#include <cstring>

#include "bindings/channel/messages.hpp"
#include "codec/python/codec.hpp"
#include "os/copy.hpp"

namespace shoal::bindings {

namespace {

// A value larger than this lies in a block of its own: readers hold the block instead of copying
// the value under the lock.
constexpr size_t kFarFrom = size_t{32} << 10;

// Blocks that an item will refer to, held by this process until the item is made.
class References {
 public:
  explicit References(arena::Member& member) noexcept : member_(member) {}
  References(const References&) = delete;
  References& operator=(const References&) = delete;
  ~References() {
    for (const Handle handle : handles_) let_go(member_, handle);
  }
  // A block of this member.
  void add(Handle block) {
    make_room(handles_, 1);
    member_.share(block);
    handles_.push_back(block);
  }
  void add_copy(Bytes bytes) {
    const Handle block = member_.allocate_shareable(bytes.size());
    os::copy(member_.arena().address(block), bytes.data(), bytes.size());
    try {
      add(block);
    } catch (const std::exception&) {
      member_.free(block);
      throw;
    }
  }
  void add_held(Handle block) {
    make_room(handles_, 1);
    if (member_.hold_shared(block)) handles_.push_back(block);
  }
  [[nodiscard]] std::span<const Handle> all() const noexcept { return handles_; }

 private:
  arena::Member& member_;
  std::vector<Handle> handles_;
};

// The value's own blocks come first: the builder's attachments become shared blocks.
Handle item_of(arena::Member& member, codec::MessageBuilder& builder, HandleCollector& collector,
               collections::ItemParts& parts) {
  References references(member);
  parts.value = {builder.bytes.data(), builder.bytes.size()};
  const uint64_t far_size = builder.bytes.size();
  if (far_size > kFarFrom) {
    references.add_copy(parts.value);
    parts.value = std::as_bytes(std::span(&far_size, 1));
    parts.is_far = true;
  }
  parts.attached = static_cast<uint16_t>(builder.attachments.size());
  for (Handle& attachment : builder.attachments) {
    references.add(attachment);
    attachment = 0;  // the builder must not free it
  }
  builder.forget();
  for (const Handle handle : collector.handles()) references.add_held(handle);
  parts.references = references.all();
  return collections::make_item(member, parts);
}

}  // namespace

bool NewItem::make(const SharedKey* key, PyObject* value) {
  constexpr size_t kMostAttached = UINT16_MAX;
  try {
    HandleCollector collector(*member_);
    std::unique_ptr<codec::MessageBuilder> builder = take_builder(*member_);
    bool done = value == nullptr || codec::python::encode(value, *builder);
    if (done && builder->attachments.size() > kMostAttached) {
      builder->clear();
      builder->member = nullptr;  // without attachments
      done = codec::python::encode(value, *builder);
    }
    if (done) {
      collections::ItemParts parts;
      if (key != nullptr) {
        parts.key = key->key_bytes();
        parts.shown_key = key->shown_bytes();
        parts.key_kind = key->kind;
      }
      item_ = item_of(*member_, *builder, collector, parts);
    }
    return_builder(std::move(builder));
    return done;
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
  attachments_.clear();
}

void Copies::add_bytes(Bytes bytes) {
  parts_.push_back({bytes_.size(), 0, bytes.size(), 0, 0});
  bytes_.append(bytes.data(), bytes.size());
}

void Copies::add(Handle item, int what) {
  const collections::ItemParts parts = collections::open_item(member_.arena(), item);
  if ((what & key) != 0) add_bytes(parts.shown_key.empty() ? parts.key : parts.shown_key);
  if ((what & value) == 0) return;
  make_room(held_, parts.references.size());
  for (const Handle reference : parts.references) {
    if (member_.hold_shared(reference)) held_.push_back(reference);
  }
  const auto attached = parts.references.subspan(parts.is_far ? 1 : 0, parts.attached);
  const size_t first = attachments_.size();
  attachments_.insert(attachments_.end(), attached.begin(), attached.end());
  if (!parts.is_far) {
    add_bytes(parts.value);
    parts_.back().attachments = first;
    parts_.back().attached = attached.size();
    return;
  }
  uint64_t size = 0;
  if (parts.references.empty() || parts.value.size() != sizeof size) {
    throw arena::CorruptArena("an item of a container lacks its value");
  }
  std::memcpy(&size, parts.value.data(), sizeof size);
  if (size > member_.arena().block_size(parts.references[0])) {
    throw arena::CorruptArena("a value claims to be larger than its block");
  }
  parts_.push_back({0, parts.references[0], size, first, attached.size()});
}

PyObject* Copies::decode(size_t i) {
  const Part& part = parts_[i];
  if (part.size == 0) Py_RETURN_NONE;  // a set's keys have no values
  codec::MessageView view;
  view.arena = &member_.arena();
  view.member = &member_;
  view.attachments = attachments_.data() + part.attachments;
  view.n_attachments = part.attached;
  view.size = part.size;
  view.bytes =
      part.far != 0 ? member_.arena().at<std::byte>(part.far) : bytes_.data() + part.offset;
  return codec::python::decode(view, 0, nullptr, codec::python::copy_out);
}

bool bind_collections(PyObject* module) { return bind_map(module) && bind_sequence(module); }

}  // namespace shoal::bindings
