// SPDX-License-Identifier: Apache-2.0
#include "codec/python/encode.hpp"

#include "arena/arena.hpp"
#include "codec/python/block.hpp"
#include "codec/python/reference.hpp"
#include "codec/python/registrations.hpp"
#include "os/copy.hpp"

namespace shoal::codec::python {

namespace {

constexpr std::size_t kSharedText = 2;  // CPython has one object for each shorter str

}  // namespace

Encoder::Encoder(MessageBuilder& out, PyObject* root) noexcept
    : out_(out), bytes_(out.bytes), root_(root) {
  out.memo.clear();
}

Encoder::~Encoder() {
  for (const Pending& pending : pending_) Py_DECREF(pending.owner);
  for (PyObject* const object : kept_) Py_DECREF(object);
}

bool Encoder::run() {
  return value(root_, out_.move_arrays && is_unique(root_)) && (pending_.empty() || copy_pending());
}

bool Encoder::value(PyObject* object, bool sole) {
  PyTypeObject* const type = Py_TYPE(object);
  if (type == &PyUnicode_Type) return text(object);
  if (type == &PyLong_Type) return integer(object);
  if (type == &PyFloat_Type) {
    write_float(bytes_, PyFloat_AS_DOUBLE(object));
    return true;
  }
  if (type == &PyTuple_Type) return tuple(object, sole);
  if (object == Py_None) {
    write_none(bytes_);
    return true;
  }
  if (type == &PyBool_Type) {
    write_bool(bytes_, object == Py_True);
    return true;
  }
  if (type == &PyList_Type) return list(object, sole);
  if (type == &PyDict_Type) return dict(object, sole);
  if (type == &PyBytes_Type) {
    return raw(object, Tag::kBytes, Tag::kBytesAttached, PyBytes_AS_STRING(object),
               PyBytes_GET_SIZE(object));
  }
  return other(object, sole);
}

bool Encoder::integer(PyObject* object) {
  std::int64_t number;
  if (small_int(object, &number)) [[likely]] {
    write_int(bytes_, number);
    return true;
  }
  const std::size_t size = big_int_size(object);
  bytes_.put_tag(Tag::kBigInt);
  bytes_.put_size(size);
  return big_int_bytes(object, bytes_.extend(size), size);
}

bool Encoder::text(PyObject* object) {
  if (!text_ready(object)) return false;
  const auto length = static_cast<std::size_t>(PyUnicode_GET_LENGTH(object));
  const auto kind = static_cast<std::size_t>(PyUnicode_KIND(object));
  const std::size_t size = length * kind;
  if (size >= kSharedText) {
    const Met met = meet(object);
    if (met == Met::kReferenced) return true;
  }
  const Tag tag = PyUnicode_IS_ASCII(object) ? Tag::kAscii
                  : kind == 1                ? Tag::kUcs1
                  : kind == 2                ? Tag::kUcs2
                                             : Tag::kUcs4;
  if (size < kAttachFrom || out_.member == nullptr) [[likely]] {
    write_raw(bytes_, tag, PyUnicode_DATA(object), size);
    return true;
  }
  bytes_.put_tag(Tag::kTextAttached);
  bytes_.put_tag(tag);
  put_off(PyUnicode_DATA(object), size, object);
  return true;
}

bool Encoder::raw(PyObject* object, Tag tag, Tag attached, const char* bytes, Py_ssize_t count) {
  const auto size = static_cast<std::size_t>(count);
  if (meet(object) == Met::kReferenced) return true;
  if (size < kAttachFrom || out_.member == nullptr) {
    write_raw(bytes_, tag, bytes, size);
    return true;
  }
  bytes_.put_tag(attached);
  put_off(bytes, size, object);
  return true;
}

// Begins a container. False: the caller returns `*met == kReferenced`.
bool Encoder::open(PyObject* object, Tag tag, Py_ssize_t count, Met* met) {
  *met = meet(object, true);
  if (*met == Met::kReferenced) return false;
  if (*met == Met::kRefused || ++depth_ > kMaxDepth) {
    *met = Met::kRefused;
    return false;
  }
  write_container(bytes_, tag, static_cast<std::uint64_t>(count));
  return true;
}

void Encoder::close(PyObject* object, Met met) {
  --depth_;
  if (met == Met::kKept) *out_.memo.find(object) &= ~std::uint64_t{1};
}

bool Encoder::tuple(PyObject* object, bool sole) {
  const Py_ssize_t count = PyTuple_GET_SIZE(object);
  if (count == 0) {  // CPython has one empty tuple
    write_tuple(bytes_, 0);
    return true;
  }
  Met met;
  if (!open(object, Tag::kTuple, count, &met)) return met == Met::kReferenced;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const item = PyTuple_GET_ITEM(object, i);
    if (!value(item, sole && is_unique(item))) return false;
  }
  close(object, met);
  return true;
}

bool Encoder::list(PyObject* object, bool sole) {
  const Py_ssize_t count = PyList_GET_SIZE(object);
  Met met;
  if (!open(object, Tag::kList, count, &met)) return met == Met::kReferenced;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (i >= PyList_GET_SIZE(object)) return false;
#ifdef Py_GIL_DISABLED
    PyObject* const item = PyList_GetItemRef(object, i);
    if (item == nullptr) {
      PyErr_Clear();
      return false;
    }
    keep(item);
#else
    PyObject* const item = PyList_GET_ITEM(object, i);
#endif
    if (!value(item, sole && is_unique(item))) return false;
  }
  close(object, met);
  return true;
}

bool Encoder::dict(PyObject* object, bool sole) {
  PyObject* source = object;
  if constexpr (kFreeThreaded) {
    source = PyDict_Copy(object);
    if (source == nullptr) return false;
    keep(source);
  }
  const Py_ssize_t count = PyDict_GET_SIZE(source);
  Met met;
  if (!open(object, Tag::kDict, count, &met)) return met == Met::kReferenced;
  Py_ssize_t position = 0;
  Py_ssize_t seen = 0;
  PyObject *key, *item;
  while (PyDict_Next(source, &position, &key, &item) != 0) {
    if (++seen > count || !value(key, false) || !value(item, sole && is_unique(item))) return false;
  }
  close(object, met);
  return seen == count;
}

// No argument `sole`: a set contains no arrays that could be moved.
bool Encoder::set(PyObject* object, Tag tag) {
  PyObject* source = object;
  if constexpr (kFreeThreaded) {
    source = PyFrozenSet_New(object);
    if (source == nullptr) return false;
    keep(source);
  }
  const Py_ssize_t count = PySet_GET_SIZE(source);
  Met met;
  if (!open(object, tag, count, &met)) return met == Met::kReferenced;
  Py_ssize_t seen = 0;
#if PY_VERSION_HEX < 0x030D0000
  Py_ssize_t position = 0;
  Py_hash_t hash;
  PyObject* item;
  while (_PySet_NextEntry(source, &position, &item, &hash) != 0) {
    if (++seen > count || !value(item, false)) return false;
  }
#else
  PyObject* const items = PyObject_GetIter(source);
  if (items == nullptr) return false;
  bool good = true;
  while (good) {
    PyObject* const item = PyIter_Next(items);
    if (item == nullptr) break;
    good = ++seen <= count && value(item, false);
    Py_DECREF(item);  // the set still holds a reference
  }
  Py_DECREF(items);
  if (!good || seen != count || PyErr_Occurred() != nullptr) return false;
#endif
  close(object, met);
  return seen == count;
}

Encoder::Met Encoder::meet_shared(PyObject* object, bool container) {
  const std::size_t here = bytes_.size();
  bool inserted;
  const std::uint64_t number =
      *out_.memo.find_or_insert(object, here * 2 + (container ? 1 : 0), inserted);
  if (inserted) {
    if constexpr (kFreeThreaded) {
      Py_INCREF(object);
      keep(object);
    }
    return Met::kKept;
  }
  if ((number & 1) != 0) return Met::kRefused;
  const std::size_t there = number >> 1;
  bytes_.data()[there] |= static_cast<std::byte>(kSharedBit);
  write_container(bytes_, Tag::kReference, here - there);
  return Met::kReferenced;
}

void Encoder::keep(PyObject* stolen) { kept_.push_back(stolen); }

void Encoder::put_off(const void* bytes, std::size_t size, PyObject* owner, PyObject* block) {
  const std::size_t attachment = out_.attachments.size();
  write_attached(bytes_, attachment, size);
  out_.attachments.push_back(0);
  pending_.push_back(Pending{attachment, false, bytes, size, owner, block});
  Py_INCREF(owner);
}

void* Encoder::room_for(const Pending& pending) {
  arena::Handle& handle = out_.attachments[pending.place];
  handle = out_.member->allocate(pending.size);
  return out_.member->arena().address(handle);
}

bool Encoder::gather(const Pending& pending) {
  const Numpy& numpy = *Numpy::if_loaded();
  if (!pending.in_line) return numpy.copy_elements(pending.owner, room_for(pending));
  // In-line data is not aligned, and numpy needs aligned memory: gather into a private copy first.
  const ArrayFields* const fields = array_fields(pending.owner);
  const Reference copy = Reference::take(
      numpy.new_array(fields->dtype, fields->dimensions, fields->shape, false, nullptr));
  if (!copy || !numpy.copy_elements(pending.owner, array_fields(copy.get())->data)) return false;
  std::memcpy(bytes_.data() + pending.place, array_fields(copy.get())->data, pending.size);
  return true;
}

bool Encoder::copy_pending() {
  for (const Pending& pending : pending_) {
    if (pending.bytes != nullptr && pending.block == nullptr) {
      os::copy(room_for(pending), pending.bytes, pending.size);
    }
  }
  for (const Pending& pending : pending_) {
    if (pending.bytes == nullptr && !gather(pending)) return false;
  }
  // Last, since it cannot be undone: these arrays lose their memory.
  for (const Pending& pending : pending_) {
    if (pending.block == nullptr) continue;
    const arena::Handle handle = hand_on_block(pending.block, out_.member);
    if (handle != 0) {
      out_.attachments[pending.place] = handle;
    } else {
      os::copy(room_for(pending), pending.bytes, pending.size);
    }
  }
  return true;
}

bool Encoder::has_no_registration(PyTypeObject* type) {
  if (type == unregistered_) return true;
  if (has_registered_reducer(type)) return false;
  unregistered_ = type;
  return true;
}

}  // namespace shoal::codec::python
