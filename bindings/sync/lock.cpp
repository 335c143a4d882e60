// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Lock and RLock: plain C types over sync::Mutex and sync::RecursiveMutex. Besides the
// methods for users they have those of the standard library's `_multiprocessing.SemLock`
// (`_semlock` is the lock itself), which the standard library's repr and Condition use.
//
// tell_death() reports that an owner died. It runs Python code, after the lock was taken. If that
// code raises, acquire() releases the lock first, so an exception always means "not locked".
// Design: docs/design/sync.md
#include "bindings/interp/raised.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"
#include "collections/container.hpp"
#include "sync/mutex.hpp"
#include "sync/recursive_mutex.hpp"

namespace shoal::bindings {

namespace {

using sync::Locked;
using sync::Mutex;
using sync::MutexState;
using sync::RecursiveMutex;

PyTypeObject* lock_type = nullptr;
PyTypeObject* rlock_type = nullptr;

bool is_recursive(PyObject* self) { return PyObject_TypeCheck(self, rlock_type) != 0; }

MutexState& state(PyObject* self) { return state_of<MutexState>(self); }

Locked lock_until(PyObject* self, arena::Member& member, int64_t deadline_ns) {
  if (is_recursive(self)) {
    return RecursiveMutex(member.arena(), state(self)).lock(member, deadline_ns);
  }
  Mutex mutex(member.arena(), state(self));
  return deadline_ns == 0 ? mutex.try_lock(member) : mutex.lock(member, deadline_ns);
}

sync::Unlocked unlock(PyObject* self, arena::Member& member) {
  if (is_recursive(self)) return RecursiveMutex(member.arena(), state(self)).unlock(member);
  shared_object(self).thread = 0;
  return Mutex(member.arena(), state(self)).unlock(member);
}

// Warns, or raises OwnerDied, as chosen when the lock was made. False: an error is set.
bool tell_death(PyObject* self) {
  const Reference module = Reference::take(PyImport_ImportModule("shoal._shared._owner_died"));
  if (!module) return false;
  const Reference told = Reference::take(PyObject_CallMethod(
      module.get(), "tell", "OIi", self, static_cast<unsigned>(state(self).dead_pid.load()),
      shared_object(self).on_death == OnDeath::raise ? 1 : 0));
  return static_cast<bool>(told);
}

// 1 locked, 0 timed out, -1 error and not locked.
int acquire_untold(PyObject* self, int64_t deadline_ns) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  Locked locked = Locked::busy;
  try {
    locked = lock_until(self, *member, 0);
  } catch (const std::exception&) {
    set_python_error();
    return -1;
  }
  if (!sync::is_locked(locked)) [[unlikely]] {
    if (deadline_ns == 0) return 0;
    const Waited waited = wait_in_slices(
        [&](int64_t slice_ns) {
          locked = lock_until(self, *member, slice_ns);
          return sync::is_locked(locked) ? Slice::done : Slice::again;
        },
        deadline_ns);
    if (waited != Waited::done) return waited == Waited::failed ? -1 : 0;
  }
  shared_object(self).thread = PyThread_get_thread_ident();
  shared_object(self).owner_died = locked == Locked::owner_died;
  return 1;
}

int acquire(PyObject* self, int64_t deadline_ns) {
  const int acquired = acquire_untold(self, deadline_ns);
  if (acquired != 1 || !shared_object(self).owner_died || tell_death(self)) return acquired;
  arena::Member* const member = member_if_any();
  if (member == nullptr) return -1;
  try {
    unlock(self, *member);
  } catch (const std::exception&) {
    return -1;  // this process is no longer a member: a reaper unlocks
  }
  return -1;
}

// 1 unlocked, 0 it was not locked (an RLock: not by this thread), -1 error.
int release(PyObject* self) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  try {
    return unlock(self, *member) == sync::Unlocked::not_locked ? 0 : 1;
  } catch (const std::exception&) {
    set_python_error();
    return -1;
  }
}

// Whether this process holds the lock.
bool is_ours(PyObject* self) {
  arena::Member* const member = current_member();
  return member != nullptr && Mutex(member->arena(), state(self)).owner() == member->incarnation();
}

bool is_locked_now(PyObject* self) {
  arena::Member* const member = current_member();
  return member != nullptr && Mutex(member->arena(), state(self)).owner() != 0;
}

PyObject* lock_is_mine_call(PyObject* self, PyObject*) {
  const bool mine = lock_is_mine(self);
  return PyErr_Occurred() != nullptr ? nullptr : PyBool_FromLong(mine ? 1 : 0);
}

PyObject* lock_count(PyObject* self, PyObject*) {
  const bool ours = is_ours(self);
  if (PyErr_Occurred() != nullptr) return nullptr;
  const uint32_t depth = is_recursive(self) ? state(self).depth.load() : 1;
  return PyLong_FromUnsignedLong(ours ? depth : 0);
}

PyObject* lock_locked(PyObject* self, PyObject*) {
  const bool locked = is_locked_now(self);
  return PyErr_Occurred() != nullptr ? nullptr : PyBool_FromLong(locked ? 1 : 0);
}

PyObject* lock_get_value(PyObject* self, PyObject*) {
  const bool locked = is_locked_now(self);
  return PyErr_Occurred() != nullptr ? nullptr : PyLong_FromLong(locked ? 0 : 1);
}

PyObject* lock_enter(PyObject* self) { return lock_enter_call(self, nullptr); }
PyObject* lock_exit(PyObject* self) { return lock_release_call(self, nullptr); }

PyObject* lock_get_owner_died(PyObject* self, void*) {
  return PyBool_FromLong(shared_object(self).owner_died ? 1 : 0);
}

PyObject* lock_get_raises(PyObject* self, void*) {
  return PyBool_FromLong(shared_object(self).on_death == OnDeath::raise ? 1 : 0);
}

PyObject* lock_get_owner(PyObject* self, void*) {
  return with_member([&](arena::Member& member) {
    const arena::Incarnation owner = Mutex(member.arena(), state(self)).owner();
    return PyLong_FromLong(owner == 0 ? 0 : arena::member_pid(member.arena(), owner));
  });
}

PyObject* lock_get_self(PyObject* self, void*) { return Py_NewRef(self); }
PyObject* lock_get_kind(PyObject* self, void*) {
  return PyLong_FromLong(is_recursive(self) ? 0 : 1);  // as `_multiprocessing` numbers them
}
PyObject* lock_get_maxvalue(PyObject*, void*) { return PyLong_FromLong(1); }

PyObject* lock_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"handle", "raises", nullptr};
  unsigned long long handle = 0;
  int raises = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|Kp", const_cast<char**>(names), &handle,
                                   &raises)) {
    return nullptr;
  }
  PyObject* const self =
      handle == 0
          ? new_shared(type, arena::size_before_record<MutexState>(), &Mutex::create)
          : attach(type, handle, [](arena::Arena& arena, arena::Handle at) { Mutex(arena, at); });
  if (self != nullptr && raises != 0) shared_object(self).on_death = OnDeath::raise;
  return self;
}

PyMethodDef lock_methods[] = {
    {"acquire", method(lock_acquire_fast), METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nLocks; False when it is not free in time. No "
     "system call when it is free.\nRaises OwnerDied if the lock was made to do so."},
    {"release", lock_release_call, METH_NOARGS,
     "release()\n\nUnlocks. ValueError when it is not locked, AssertionError when it is an RLock "
     "of another\nthread. A system call only when there are waiters."},
    {"locked", lock_locked, METH_NOARGS, "locked() -> bool\n\nWhether it is locked now."},
    {"_is_mine", lock_is_mine_call, METH_NOARGS, nullptr},
    {"_count", lock_count, METH_NOARGS, nullptr},
    {"_is_zero", lock_locked, METH_NOARGS, nullptr},
    {"_get_value", lock_get_value, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef lock_getset[] = {
    SHOAL_HANDLE_GETTERS,
    {"owner_died", lock_get_owner_died, nullptr,
     "Whether the last acquire() took the lock over from a process that died.", nullptr},
    {"owner", lock_get_owner, nullptr, "The pid of the process that holds it, 0 when it is free.",
     nullptr},
    {"_raises", lock_get_raises, nullptr, nullptr, nullptr},
    {"_semlock", lock_get_self, nullptr, nullptr, nullptr},
    {"kind", lock_get_kind, nullptr, nullptr, nullptr},
    {"maxvalue", lock_get_maxvalue, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot lock_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&lock_new)},
                            {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                            {Py_tp_methods, lock_methods},
                            {Py_tp_getset, lock_getset},
                            {0, nullptr}};

PyType_Spec lock_spec = {"shoal._core.Lock", sizeof(SharedObject), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, lock_slots};
PyType_Spec rlock_spec = {"shoal._core.RLock", sizeof(SharedObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, lock_slots};

}  // namespace

bool is_lock(PyObject* object) {
  return PyObject_TypeCheck(object, lock_type) != 0 || PyObject_TypeCheck(object, rlock_type) != 0;
}

bool lock_is_mine(PyObject* lock) {
  arena::Member* const member = current_member();
  if (member == nullptr) return false;
  if (is_recursive(lock)) return RecursiveMutex(member->arena(), state(lock)).is_mine(*member);
  return is_ours(lock) && shared_object(lock).thread == PyThread_get_thread_ident();
}

PyObject* lock_acquire_fast(PyObject* self, PyObject* const* args, Py_ssize_t count,
                            PyObject* keywords) {
  int64_t deadline_ns = 0;
  if (!parse_block("acquire", args, count, keywords, &deadline_ns)) return nullptr;
  const int acquired = acquire(self, deadline_ns);
  return acquired < 0 ? nullptr : PyBool_FromLong(acquired);
}

PyObject* lock_release_call(PyObject* self, PyObject*) {
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

PyObject* lock_enter_call(PyObject* self, PyObject*) {
  return acquire(self, -1) < 0 ? nullptr : PyBool_FromLong(1);
}

bool lock_take(PyObject* lock) { return acquire(lock, -1) == 1; }

uint32_t lock_release_all(PyObject* lock) {
  if (!lock_is_mine(lock)) {
    if (PyErr_Occurred() == nullptr) {
      PyErr_SetString(PyExc_AssertionError, "must acquire() condition before using wait()");
    }
    return 0;
  }
  if (!is_recursive(lock)) return release(lock) == 1 ? 1 : 0;
  arena::Member* const member = current_member();
  if (member == nullptr) return 0;
  try {
    return RecursiveMutex(member->arena(), state(lock)).unlock_all(*member);
  } catch (const std::exception&) {
    set_python_error();
    return 0;
  }
}

bool lock_acquire_again(PyObject* lock, uint32_t depth) {
  Reference error = take_raised();
  while (acquire_untold(lock, -1) < 0) {
    // A signal handler raised: lock anyway, and report the first error afterwards. A process that
    // is no member has nothing to lock.
    if (current_member() == nullptr) return false;
    if (error) {
      PyErr_Clear();
    } else {
      error = take_raised();
    }
  }
  arena::Member* const member = depth > 1 ? current_member() : nullptr;
  if (member != nullptr) {
    RecursiveMutex(member->arena(), state(lock)).set_depth(*member, depth);
  }
  if (error) {
    put_raised(std::move(error));
    return false;
  }
  // The caller's `with` unlocks, so this error is raised with the lock held.
  return !shared_object(lock).owner_died || tell_death(lock);
}

bool bind_sync(PyObject* module) {
  collections::register_end_hooks();
  sync::register_reap_hooks();
  return add_type(module, lock_spec, &lock_type) && add_type(module, rlock_spec, &rlock_type) &&
         add_fast_method(lock_type, "__enter__", &lock_enter) &&
         add_fast_method(lock_type, "__exit__", &lock_exit) &&
         add_fast_method(rlock_type, "__enter__", &lock_enter) &&
         add_fast_method(rlock_type, "__exit__", &lock_exit) && bind_waits(module) &&
         bind_condition(module) && bind_values(module) && bind_atomic(module) &&
         bind_barrier(module);
}

}  // namespace shoal::bindings
