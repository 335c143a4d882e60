// SPDX-License-Identifier: Apache-2.0
//
// What the Python classes of src/sync share: an object that names a state in the arena by its
// handle. The state has no owner (NAMED), so that any member may use it whoever dies. It is freed
// with the object that made it if no other process can know of it (the handle was never asked
// for, and this process has not forked since), else when the session ends.
// Every function needs the GIL.
// Design: docs/design/sync.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include "bind.hpp"

namespace shoal::bindings {

struct SyncObject {
  PyObject_HEAD
  arena::Handle handle;
  arena::Incarnation maker;  // 0: made elsewhere
  unsigned forks;            // of this process when it was made
  bool told;                 // the handle was asked for
  bool owner_died;           // the last acquire took the lock from the dead
  PyObject* lock;            // Condition only
};

inline SyncObject& sync_object(PyObject* self) { return *reinterpret_cast<SyncObject*>(self); }

// A block for a new state; 0 with an error set.
arena::Handle new_state(arena::Member& member, size_t size);
// Publishes the state that was made in it.
void own_state(SyncObject& object, arena::Member& member, arena::Handle handle);

void sync_dealloc(PyObject* self);
PyObject* sync_get_handle(PyObject* self, void*);

// Adds the class; false with an error set.
bool add_type(PyObject* module, PyType_Spec& spec, PyTypeObject** type = nullptr);

// Lock and RLock, for conditions.
bool is_lock(PyObject* object);
// Unlocks it however often it is locked; 0 with an error set when it is not locked by this thread.
uint32_t lock_release_all(PyObject* lock);
// Waits until it is locked again, signals or not; false with the first signal handler's error set.
bool lock_acquire_again(PyObject* lock, uint32_t depth);

bool bind_locks(PyObject* module);
bool bind_waits(PyObject* module);

}  // namespace shoal::bindings
