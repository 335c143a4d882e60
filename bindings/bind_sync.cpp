// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Lock and RLock: plain C types over sync::Mutex and sync::RecursiveMutex, and what
// all classes over src/sync share.
// Design: docs/design/sync.md
#include <pthread.h>

#include "sync/mutex.hpp"
#include "sync/recursive_mutex.hpp"
#include "sync_object.hpp"
#include "wait.hpp"

namespace shoal::bindings {

namespace {

using sync::Locked;
using sync::Mutex;
using sync::RecursiveMutex;

unsigned forks_so_far = 0;
PyTypeObject* lock_type = nullptr;
PyTypeObject* rlock_type = nullptr;

bool is_recursive(PyObject* self) { return PyObject_TypeCheck(self, rlock_type) != 0; }

Locked lock_until(PyObject* self, arena::Member& member, int64_t deadline_ns) {
  const arena::Handle handle = sync_object(self).handle;
  if (is_recursive(self)) return RecursiveMutex(member.arena(), handle).lock(member, deadline_ns);
  Mutex mutex(member.arena(), handle);
  return deadline_ns == 0 ? mutex.try_lock(member) : mutex.lock(member, deadline_ns);
}

// 1 locked, 0 timed out, -1 error.
int acquire(PyObject* self, int64_t deadline_ns) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  Locked locked = Locked::busy;
  try {
    locked = lock_until(self, *member, 0);
  } catch (const std::exception&) {
    set_python_error();
    return -1;
  }
  if (!sync::is_locked(locked)) {
    if (deadline_ns == 0) return 0;
    const Waited waited = wait_in_slices(
        [&](int64_t slice_ns) {
          locked = lock_until(self, *member, slice_ns);
          return sync::is_locked(locked) ? Slice::done : Slice::again;
        },
        deadline_ns);
    if (waited != Waited::done) return waited == Waited::failed ? -1 : 0;
  }
  sync_object(self).owner_died = locked == Locked::owner_died;
  return 1;
}

// 1 unlocked, 0 it was not locked (by this thread), -1 error.
int release(PyObject* self) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  const arena::Handle handle = sync_object(self).handle;
  try {
    const sync::Unlocked unlocked = is_recursive(self)
                                        ? RecursiveMutex(member->arena(), handle).unlock(*member)
                                        : Mutex(member->arena(), handle).unlock(*member);
    return unlocked == sync::Unlocked::not_locked ? 0 : 1;
  } catch (const std::exception&) {
    set_python_error();
    return -1;
  }
}

// acquire(block=True, timeout=None), taken apart by hand: the parser would cost more than the lock.
PyObject* lock_acquire(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  PyObject* given[2] = {Py_True, Py_None};
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  if (count > 2) {
    return PyErr_Format(PyExc_TypeError, "acquire() takes at most 2 arguments (%zd given)", count);
  }
  for (Py_ssize_t i = 0; i < count; ++i) given[i] = args[i];
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject* const name = PyTuple_GET_ITEM(names, i);
    const int place = PyUnicode_CompareWithASCIIString(name, "block") == 0     ? 0
                      : PyUnicode_CompareWithASCIIString(name, "timeout") == 0 ? 1
                                                                               : 2;
    if (place == 2 || place < count) {
      return PyErr_Format(PyExc_TypeError, "acquire() got an unexpected argument '%U'", name);
    }
    given[place] = args[count + i];
  }
  const int block = PyObject_IsTrue(given[0]);
  int64_t deadline_ns = 0;
  if (block < 0 || (block != 0 && !deadline_from(given[1], &deadline_ns))) return nullptr;
  const int acquired = acquire(self, deadline_ns);
  return acquired < 0 ? nullptr : PyBool_FromLong(acquired);
}

PyObject* lock_release(PyObject* self, PyObject*) {
  const int released = release(self);
  if (released < 0) return nullptr;
  if (released == 1) Py_RETURN_NONE;
  if (is_recursive(self)) {
    PyErr_SetString(PyExc_AssertionError, "attempt to release recursive lock not owned by thread");
  } else {
    PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
  }
  return nullptr;
}

PyObject* lock_enter(PyObject* self, PyObject*) {
  return acquire(self, -1) < 0 ? nullptr : PyBool_FromLong(1);
}

PyObject* lock_exit(PyObject* self, PyObject*) { return lock_release(self, nullptr); }

PyObject* lock_get_owner_died(PyObject* self, void*) {
  return PyBool_FromLong(sync_object(self).owner_died ? 1 : 0);
}

PyObject* lock_get_owner(PyObject* self, void*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  try {
    return PyLong_FromUnsignedLong(Mutex(member->arena(), sync_object(self).handle).owner());
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
}

PyObject* lock_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"handle", nullptr};
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|K", const_cast<char**>(names), &handle)) {
    return nullptr;
  }
  arena::Member* const member = current_member();
  PyObject* const self = member == nullptr ? nullptr : type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  SyncObject& object = sync_object(self);
  object.handle = handle;
  if (handle == 0) {
    const arena::Handle block = new_state(*member, sizeof(sync::MutexState));
    if (block == 0) {
      Py_DECREF(self);
      return nullptr;
    }
    Mutex::create(member->arena(), block);
    own_state(object, *member, block);
  }
  return self;
}

PyMethodDef lock_methods[] = {
    {"acquire", method(lock_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nLocks; False when it is not free in time."},
    {"release", lock_release, METH_NOARGS, "release()\n\nUnlocks."},
    {"__enter__", lock_enter, METH_NOARGS, nullptr},
    {"__exit__", lock_exit, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef lock_getset[] = {
    {"handle", sync_get_handle, nullptr, "Names the lock in other processes of the session.",
     nullptr},
    {"owner_died", lock_get_owner_died, nullptr,
     "Did the last acquire() take the lock over from a process that died?", nullptr},
    {"owner", lock_get_owner, nullptr, "The member that has it, 0 when it is free.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot lock_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&lock_new)},
                            {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                            {Py_tp_methods, lock_methods},
                            {Py_tp_getset, lock_getset},
                            {0, nullptr}};

PyType_Spec lock_spec = {"shoal._core.Lock", sizeof(SyncObject), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, lock_slots};
PyType_Spec rlock_spec = {"shoal._core.RLock", sizeof(SyncObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, lock_slots};

}  // namespace

arena::Handle new_state(arena::Member& member, size_t size) {
  try {
    return member.allocate(size);
  } catch (const std::exception&) {
    set_python_error();
    return 0;
  }
}

void own_state(SyncObject& object, arena::Member& member, arena::Handle handle) {
  object.handle = handle;
  object.maker = member.incarnation();
  object.forks = forks_so_far;
  member.arena().owner_word(handle).store(arena::owner_named(0));
}

void sync_dealloc(PyObject* self) {
  SyncObject& object = sync_object(self);
  const bool only_mine = object.maker != 0 && !object.told && object.forks == forks_so_far;
  arena::Member* const member = only_mine ? current_member() : nullptr;
  if (member != nullptr && member->incarnation() == object.maker) {
    member->arena().owner_word(object.handle).store(arena::owner_member(object.maker));
    member->free(object.handle);
  }
  Py_XDECREF(object.lock);
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* sync_get_handle(PyObject* self, void*) {
  sync_object(self).told = true;
  return PyLong_FromUnsignedLongLong(sync_object(self).handle);
}

bool add_type(PyObject* module, PyType_Spec& spec, PyTypeObject** type) {
  PyObject* const made = PyType_FromSpec(&spec);
  if (made == nullptr) return false;
  if (type != nullptr) *type = reinterpret_cast<PyTypeObject*>(made);
  const int added = PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(made));
  if (type == nullptr) Py_DECREF(made);
  return added == 0;
}

bool is_lock(PyObject* object) {
  return PyObject_TypeCheck(object, lock_type) != 0 || PyObject_TypeCheck(object, rlock_type) != 0;
}

uint32_t lock_release_all(PyObject* lock) {
  uint32_t depth = 0;
  if (is_recursive(lock)) {
    arena::Member* const member = current_member();
    if (member == nullptr) return 0;
    try {
      depth = RecursiveMutex(member->arena(), sync_object(lock).handle).unlock_all(*member);
    } catch (const std::exception&) {
      set_python_error();
    }
  } else {
    depth = release(lock) == 1 ? 1 : 0;
  }
  if (depth == 0 && PyErr_Occurred() == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "the condition's lock must be locked to wait");
  }
  return depth;
}

bool lock_acquire_again(PyObject* lock, uint32_t depth) {
  PyObject* error[3] = {nullptr, nullptr, nullptr};
  PyErr_Fetch(&error[0], &error[1], &error[2]);
  while (acquire(lock, -1) < 0) {
    // A signal handler raised: lock all the same, then report the first error. Without a
    // membership there is nothing to lock.
    if (current_member() == nullptr) return false;
    if (error[0] != nullptr) {
      PyErr_Clear();
    } else {
      PyErr_Fetch(&error[0], &error[1], &error[2]);
    }
  }
  arena::Member* const member = depth > 1 ? current_member() : nullptr;
  if (member != nullptr) {
    RecursiveMutex(member->arena(), sync_object(lock).handle).set_depth(*member, depth);
  }
  if (error[0] == nullptr) return true;
  PyErr_Restore(error[0], error[1], error[2]);
  return false;
}

bool bind_sync(PyObject* module) {
  sync::register_reap_hooks();
  static const int watched = pthread_atfork(nullptr, [] { ++forks_so_far; }, nullptr);
  static_cast<void>(watched);
  return add_type(module, lock_spec, &lock_type) && add_type(module, rlock_spec, &rlock_type) &&
         bind_waits(module);
}

}  // namespace shoal::bindings
