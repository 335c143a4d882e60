// SPDX-License-Identifier: Apache-2.0
//
// The common base of the Python classes over shared states: an object that holds a shared block of
// the arena (arena/member.hpp) and uses the state in it. The block exists while any process holds
// it: through this object, through objects of other processes, or through objects that a fork's
// child inherited. The last holder frees it; the death of a process drops its holds. Every function
// needs the GIL.
//
// A class has a PyType_Spec whose tp_new calls new_shared() or attach(), whose dealloc is
// sync_dealloc, and whose getset has the entries of SHOAL_HANDLE_GETTERS.
// Design: docs/design/sync.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "arena/record.hpp"
#include "bindings/interp/bind.hpp"
#include "bindings/interp/fast_method.hpp"

namespace shoal::bindings {

// What Lock does when the previous owner has died.
enum class OnDeath : uint8_t { warn, raise };

struct SharedObject {
  PyObject_HEAD
  arena::Handle handle;  // 0: holds nothing (its constructor failed)
  void* state;           // address of the state here; stays mapped while the block is held
  unsigned long thread;  // Lock: the thread of this process that took it, 0: none
  OnDeath on_death;      // Lock, RLock
  bool owner_died;       // the last acquire took the lock from a dead owner
  bool sent;             // the handle was passed on: see sync_get_handle
  PyObject* lock;        // Condition only
};

inline SharedObject& shared_object(PyObject* self) {
  return *reinterpret_cast<SharedObject*>(self);
}

template <class State>
State& state_of(PyObject* self) {
  return *static_cast<State*>(shared_object(self).state);
}

// An object with a new state of `size` bytes that make(arena, handle) initializes; nullptr with an
// error set.
template <class Make>
PyObject* new_shared(PyTypeObject* type, size_t size, Make&& make);
// An object for the state at `handle`, which another object holds. check(arena, handle) throws
// CorruptArena if there is no such state.
template <class Check>
PyObject* attach(PyTypeObject* type, arena::Handle handle, Check&& check);

// Runs `use(member)`, and turns a C++ exception that it throws into a Python error.
template <class Use>
PyObject* with_member(Use&& use) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  try {
    return use(*member);
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
}

// Parses the arguments of acquire(block=True, timeout=None) and wait(timeout=None) by hand:
// CPython's parser would cost more than the lock. False with an error set. Borrowed references.
bool parse_fast(const char* function, const char* const* names, int most, PyObject* const* args,
                Py_ssize_t count, PyObject* keywords, PyObject** given);
// Parses (block=True, timeout=None) to a deadline.
bool parse_block(const char* function, PyObject* const* args, Py_ssize_t count, PyObject* keywords,
                 int64_t* deadline_ns);

void sync_dealloc(PyObject* self);
// Drops a hold of a shared block; if it was the last hold, ends the state and frees the block.
void let_go(arena::Member& member, arena::Handle handle) noexcept;

// Reserves room for `more` handles, so that adding them does not allocate; at least doubles the
// capacity.
inline void make_room(std::vector<arena::Handle>& handles, size_t more) {
  if (handles.capacity() - handles.size() >= more) return;
  handles.reserve(std::max(handles.size() + more, 2 * handles.capacity()));
}

// While a HandleCollector exists, it collects the handles that objects of this thread pass on, and
// holds them for this process. That shows which shared objects a value refers to while it is being
// put into a container.
class HandleCollector {
 public:
  explicit HandleCollector(arena::Member& member) noexcept;
  ~HandleCollector();
  HandleCollector(const HandleCollector&) = delete;
  HandleCollector& operator=(const HandleCollector&) = delete;
  bool add(arena::Handle handle);
  std::vector<arena::Handle>& handles() noexcept { return handles_; }

 private:
  arena::Member& member_;
  HandleCollector* before_;
  std::vector<arena::Handle> handles_;
};

// The handle that names the state in other processes of the session. Since the handle may then be
// anywhere, this process holds the block until it ends, unless a HandleCollector holds it.
PyObject* sync_get_handle(PyObject* self, void*);
PyObject* sync_peek_handle(PyObject* self, void*);  // the same, for callers that keep the object
#define SHOAL_HANDLE_GETTERS                                                                    \
  {"handle", sync_get_handle, nullptr, "Names it in other processes of the session.", nullptr}, \
      SHOAL_PRIVATE_HANDLE_GETTERS
// For classes whose public attribute names all belong to the program.
#define SHOAL_PRIVATE_HANDLE_GETTERS                               \
  {"_given_handle", sync_get_handle, nullptr, nullptr, nullptr}, { \
    "_handle", sync_peek_handle, nullptr, nullptr, nullptr         \
  }

// Adds the class; false with an error set.
bool add_type(PyObject* module, PyType_Spec& spec, PyTypeObject** type = nullptr);

// Functions of Lock and RLock, for conditions.
bool is_lock(PyObject* object);
bool lock_is_mine(PyObject* lock);  // false with or without an error set
PyObject* lock_acquire_fast(PyObject* self, PyObject* const* args, Py_ssize_t count,
                            PyObject* keywords);
PyObject* lock_release_call(PyObject* self, PyObject*);
PyObject* lock_enter_call(PyObject* self, PyObject*);
// Unlocks the lock completely and returns how often it was locked; 0 with an error set if this
// thread does not hold it.
uint32_t lock_release_all(PyObject* lock);
// Locks the lock again, however long that takes and whatever signals arrive; false with the error
// of the first signal handler that raised.
bool lock_acquire_again(PyObject* lock, uint32_t depth);
// Locks the lock as acquire() does; false with an error set, and not locked.
bool lock_take(PyObject* lock);

bool bind_waits(PyObject* module);
bool bind_condition(PyObject* module);
bool bind_values(PyObject* module);
bool bind_atomic(PyObject* module);
bool bind_barrier(PyObject* module);

// ---- implementation of the templates

arena::Handle new_state(arena::Member& member, size_t size);  // 0 with an error set
bool share_state(PyObject* self, arena::Member& member, arena::Handle handle);
bool hold_state(PyObject* self, arena::Member& member, arena::Handle handle);

template <class Make>
PyObject* new_shared(PyTypeObject* type, size_t size, Make&& make) {
  arena::Member* const member = current_member();
  const arena::Handle block = member == nullptr ? 0 : new_state(*member, size);
  if (block == 0) return nullptr;
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) {
    member->free(block);
    return nullptr;
  }
  make(member->arena(), block);
  if (share_state(self, *member, block)) return self;
  Py_DECREF(self);
  return nullptr;
}

template <class Check>
PyObject* attach(PyTypeObject* type, arena::Handle handle, Check&& check) {
  arena::Member* const member = current_member();
  PyObject* const self = member == nullptr ? nullptr : type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  try {
    if (hold_state(self, *member, handle)) {
      check(member->arena(), handle);
      return self;
    }
  } catch (const std::exception&) {
    set_python_error();
  }
  Py_DECREF(self);
  return nullptr;
}

}  // namespace shoal::bindings
