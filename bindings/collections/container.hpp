// SPDX-License-Identifier: Apache-2.0
//
// Shared by the Python classes over shared containers: conversion of values to and from items, and
// running a step under the container's lock.
//
// 1. No Python runs under a container's lock, and nothing is allocated that could start the garbage
//    collector: values are encoded before the lock is taken, copied out under it, decoded after.
// 2. If the lock is busy the step runs without the GIL, so no owner of the lock waits for a GIL.
// 3. Blocks that a value refers to (further containers, values too large to be copied under the
//    lock) are held by this process from before the lock is released until the value is decoded.
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

// An item made from Python objects, MEMBER(me) until a container takes it; otherwise freed.
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

// Items and bags that were taken out of a container: freed when this ends, after the lock.
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
  void clear() noexcept;  // also lets go of the held blocks

 private:
  struct Part {
    size_t offset;  // in bytes_, if far is 0
    Handle far;     // the block of a large value, or 0
    size_t size;
    size_t attachments;  // the value's first attachment in attachments_
    size_t attached;     // number of its attachments
  };
  void add_bytes(Bytes bytes);

  arena::Member& member_;
  std::vector<Part> parts_;
  codec::Buffer bytes_;
  std::vector<Handle> attachments_;
  std::vector<Handle> held_;
};

// Runs step(container) under the lock; `step` must not touch Python. False with an error set: the
// step threw, or a signal handler raised while waiting for the lock.
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

// tp_new: makes a container that make(member, handle) fills, or attaches to the one at `handle`.
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
