// SPDX-License-Identifier: Apache-2.0
//
// What the Python classes over shared containers have in common: values to and from items, and
// running a step under the container's lock.
//
// 1. No Python runs under a container's lock, and nothing is allocated that could start the
//    collector: values are encoded before, copied out, and decoded after.
// 2. If the lock is busy the step runs without the GIL, so nobody who has the lock waits for a GIL.
// 3. What a value refers to (further containers, values too large to be copied under the lock) is
//    held by this process from before the lock is let go until it is decoded.
// Every function needs the GIL; failures are Python errors.
// Design: docs/design/collections.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <memory>
#include <utility>
#include <vector>

#include "bindings/collections/shared_key.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"
#include "collections/container.hpp"
#include "collections/item.hpp"

namespace shoal::bindings {

using collections::Bytes;
using collections::Handle;

// An item made from Python objects, MEMBER(me) until a container has it; else freed.
class NewItem {
 public:
  explicit NewItem(arena::Member& member) noexcept : member_(&member) {}
  NewItem(NewItem&& other) noexcept
      : member_(other.member_), item_(std::exchange(other.item_, 0)) {}
  NewItem& operator=(NewItem&&) = delete;
  ~NewItem() {
    if (item_ != 0) collections::free_item(*member_, item_);
  }
  // key or value may be null. False with an error set.
  bool make(const SharedKey* key, PyObject* value);
  [[nodiscard]] Handle get() const noexcept { return item_; }
  Handle release() noexcept { return std::exchange(item_, 0); }
  void reset(Handle item) noexcept { item_ = item; }
  void swap(NewItem& other) noexcept { std::swap(item_, other.item_); }

 private:
  arena::Member* member_;
  Handle item_ = 0;
};

// Items and bags that were taken out of a container: freed at the end, after the lock.
class Removed {
 public:
  explicit Removed(arena::Member& member) noexcept : member_(member) {}
  Removed(const Removed&) = delete;
  Removed& operator=(const Removed&) = delete;
  ~Removed();
  void item(Handle item) noexcept { item_ = item; }
  void bag(Handle bag) noexcept { bag_ = bag; }
  [[nodiscard]] Handle item() const noexcept { return item_; }

 private:
  arena::Member& member_;
  Handle item_ = 0;
  Handle bag_ = 0;
};

// Copies of keys and values, taken under the lock and decoded after it.
class Copies {
 public:
  enum What { key = 1, value = 2 };

  explicit Copies(arena::Member& member) noexcept : member_(member) {}
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;
  ~Copies();

  // Under the lock; throws CorruptArena, std::bad_alloc.
  void add(Handle item, int what);
  [[nodiscard]] size_t count() const noexcept { return parts_.size(); }
  // The i-th part that was added (an item gives its key first). New reference or error.
  PyObject* decode(size_t i);
  void clear() noexcept;  // drops what is held

 private:
  struct Part {
    size_t offset;  // in bytes_; or
    Handle far;     // the block of a large value
    size_t size;
    size_t attachments;  // where the value's begin in attachments_
    size_t attached;     // and how many they are
  };
  void add_bytes(Bytes bytes);

  arena::Member& member_;
  std::vector<Part> parts_;
  codec::Buffer bytes_;
  std::vector<Handle> attachments_;
  std::vector<Handle> held_;
};

// Runs step(container) under the lock; it must not touch Python. False with an error set: it threw,
// or a signal handler raised while the lock was waited for.
template <class Kind, class Step>
bool run_locked(PyObject* self, arena::Member& member, Step&& step) {
  std::exception_ptr error;
  bool done = false;
  const auto attempt = [&](int64_t deadline_ns) {
    Kind container(member.arena(), shared_object(self).handle);
    if (!sync::is_locked(container.lock(member, deadline_ns))) return Slice::again;
    try {
      step(container);
    } catch (const std::exception&) {
      error = std::current_exception();
    }
    container.unlock(member);
    done = true;
    return Slice::done;
  };
  try {
    attempt(0);
  } catch (const std::exception&) {
    set_python_error();
    return false;
  }
  if (!done && wait_in_slices(attempt, sync::kForever) != Waited::done) return false;
  if (error == nullptr) return true;
  set_python_error_from(error);
  return false;
}

// tp_new: a new container that make(member, handle) fills, or the one that others hold at `handle`.
template <class Check, class Make>
PyObject* new_container(PyTypeObject* type, Handle handle, Check&& check, Make&& make) {
  if (handle != 0) return attach(type, handle, check);
  arena::Member* const member = current_member();
  const Handle block =
      member == nullptr ? 0 : new_state(*member, sizeof(collections::ContainerState));
  if (block == 0) return nullptr;
  PyObject* self = nullptr;
  try {
    make(*member, block);
    self = type->tp_alloc(type, 0);
  } catch (const std::exception&) {
    set_python_error();
    member->free(block);
    return nullptr;
  }
  if (self == nullptr) {
    arena::end_block(*member, block);
    return nullptr;
  }
  if (share_state(self, *member, block)) return self;
  Py_DECREF(self);
  return nullptr;
}

// One per file; each adds its types to the module.
bool bind_map(PyObject* module);
bool bind_sequence(PyObject* module);

}  // namespace shoal::bindings
