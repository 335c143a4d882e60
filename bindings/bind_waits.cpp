// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Semaphore, Event and Condition: plain C types over src/sync.
// Design: docs/design/sync.md
#include "sync/condition.hpp"
#include "sync/event.hpp"
#include "sync/semaphore.hpp"
#include "sync_object.hpp"
#include "wait.hpp"

namespace shoal::bindings {

namespace {

using sync::Condition;
using sync::Event;
using sync::Semaphore;
using sync::WaitResult;

Slice slice_of(WaitResult result) { return result == WaitResult::ok ? Slice::done : Slice::again; }

PyObject* bool_or_null(Waited waited) {
  return waited == Waited::failed ? nullptr : PyBool_FromLong(waited == Waited::done ? 1 : 0);
}

// A new object for the state at `handle`, or with a new state of `size` bytes that `make` fills.
template <class Make>
PyObject* new_object(PyTypeObject* type, unsigned long long handle, size_t size, Make&& make) {
  arena::Member* const member = current_member();
  PyObject* const self = member == nullptr ? nullptr : type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  sync_object(self).handle = handle;
  if (handle != 0) return self;
  const arena::Handle block = new_state(*member, size);
  if (block == 0) {
    Py_DECREF(self);
    return nullptr;
  }
  make(member->arena(), block);
  own_state(sync_object(self), *member, block);
  return self;
}

// Runs `use(member)`, which may throw, and turns what it throws into a Python error.
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

// ---- Semaphore

PyObject* semaphore_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"value", "limit", "handle", nullptr};
  unsigned int value = 1;
  unsigned int limit = Semaphore::kMaxPermits;
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|IIK", const_cast<char**>(names), &value,
                                   &limit, &handle)) {
    return nullptr;
  }
  if (limit == 0 || limit > Semaphore::kMaxPermits || value > limit) {
    PyErr_SetString(PyExc_ValueError, "want 0 <= value <= limit and 1 <= limit < 2**31");
    return nullptr;
  }
  return new_object(type, handle, sizeof(sync::SemaphoreState),
                    [&](arena::Arena& arena, arena::Handle block) {
                      Semaphore::create(arena, block, value, limit);
                    });
}

PyObject* semaphore_acquire(PyObject* self, PyObject* args, PyObject* keywords) {
  int64_t deadline_ns = 0;
  if (!block_arguments(args, keywords, "|pO:acquire", &deadline_ns)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  return bool_or_null(wait_in_slices(
      [&](int64_t slice_ns) {
        Semaphore semaphore(member->arena(), sync_object(self).handle);
        return slice_of(semaphore.acquire(*member, slice_ns));
      },
      deadline_ns));
}

PyObject* semaphore_release(PyObject* self, PyObject* args) {
  unsigned int count = 1;
  if (!PyArg_ParseTuple(args, "|I:release", &count)) return nullptr;
  return with_member([&](arena::Member& member) -> PyObject* {
    Semaphore semaphore(member.arena(), sync_object(self).handle);
    if (semaphore.release(member, count)) Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
    return nullptr;
  });
}

PyObject* semaphore_get_value(PyObject* self, void*) {
  return with_member([&](arena::Member& member) {
    return PyLong_FromUnsignedLong(Semaphore(member.arena(), sync_object(self).handle).permits());
  });
}

PyMethodDef semaphore_methods[] = {
    {"acquire", method(semaphore_acquire), METH_VARARGS | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nTakes a permit; False if none comes in time."},
    {"release", semaphore_release, METH_VARARGS, "release(n=1)\n\nGives n permits back."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef semaphore_getset[] = {
    {"handle", sync_get_handle, nullptr, "Names it in other processes of the session.", nullptr},
    {"value", semaphore_get_value, nullptr, "Permits that are free now.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot semaphore_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&semaphore_new)},
                                 {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                                 {Py_tp_methods, semaphore_methods},
                                 {Py_tp_getset, semaphore_getset},
                                 {0, nullptr}};
PyType_Spec semaphore_spec = {"shoal._core.Semaphore", sizeof(SyncObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, semaphore_slots};

// ---- Event

PyObject* event_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"handle", nullptr};
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|K", const_cast<char**>(names), &handle)) {
    return nullptr;
  }
  return new_object(type, handle, sizeof(sync::EventState), &Event::create);
}

PyObject* event_wait(PyObject* self, PyObject* args, PyObject* keywords) {
  int64_t deadline_ns = -1;
  if (!timeout_argument(args, keywords, "|O:wait", &deadline_ns)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  return bool_or_null(wait_in_slices(
      [&](int64_t slice_ns) {
        return slice_of(Event(member->arena(), sync_object(self).handle).wait(slice_ns));
      },
      deadline_ns));
}

PyObject* event_set(PyObject* self, PyObject*) {
  return with_member([&](arena::Member& member) -> PyObject* {
    Event(member.arena(), sync_object(self).handle).set(member);
    Py_RETURN_NONE;
  });
}

PyObject* event_clear(PyObject* self, PyObject*) {
  return with_member([&](arena::Member& member) -> PyObject* {
    Event(member.arena(), sync_object(self).handle).clear();
    Py_RETURN_NONE;
  });
}

PyObject* event_is_set(PyObject* self, PyObject*) {
  return with_member([&](arena::Member& member) {
    return PyBool_FromLong(Event(member.arena(), sync_object(self).handle).is_set() ? 1 : 0);
  });
}

PyMethodDef event_methods[] = {
    {"wait", method(event_wait), METH_VARARGS | METH_KEYWORDS,
     "wait(timeout=None) -> bool\n\nWaits until it is set; False if it is not in time."},
    {"set", event_set, METH_NOARGS, "set()"},
    {"clear", event_clear, METH_NOARGS, "clear()"},
    {"is_set", event_is_set, METH_NOARGS, "is_set() -> bool"},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef event_getset[] = {
    {"handle", sync_get_handle, nullptr, "Names it in other processes of the session.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot event_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&event_new)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                             {Py_tp_methods, event_methods},
                             {Py_tp_getset, event_getset},
                             {0, nullptr}};
PyType_Spec event_spec = {"shoal._core.Event", sizeof(SyncObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, event_slots};

// ---- Condition

PyObject* condition_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"lock", "handle", nullptr};
  PyObject* lock = nullptr;
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|K", const_cast<char**>(names), &lock,
                                   &handle)) {
    return nullptr;
  }
  if (!is_lock(lock)) {
    PyErr_SetString(PyExc_TypeError, "a condition wants a Lock or RLock of this module");
    return nullptr;
  }
  PyObject* const self = new_object(type, handle, sizeof(sync::ConditionState), &Condition::create);
  if (self != nullptr) sync_object(self).lock = Py_NewRef(lock);
  return self;
}

// Was it notified? Passes a notification that is not used on to the next waiter.
bool end_wait(PyObject* self, arena::Member& member, const Condition::Ticket& ticket, bool use) {
  try {
    Condition condition(member.arena(), sync_object(self).handle);
    const bool notified = condition.end_wait(member, ticket);
    if (notified && !use) condition.notify(member);
    return notified;
  } catch (const std::exception&) {
    return false;  // no member any more: its reaper has ended the wait
  }
}

PyObject* condition_wait(PyObject* self, PyObject* args, PyObject* keywords) {
  int64_t deadline_ns = -1;
  if (!timeout_argument(args, keywords, "|O:wait", &deadline_ns)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Condition::Ticket ticket{};
  PyObject* const begun = with_member([&](arena::Member&) {
    ticket = Condition(member->arena(), sync_object(self).handle).begin_wait(*member);
    return Py_None;
  });
  if (begun == nullptr) return nullptr;
  PyObject* const lock = sync_object(self).lock;
  const uint32_t depth = lock_release_all(lock);
  if (depth == 0) {
    end_wait(self, *member, ticket, false);
    return nullptr;
  }
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        Condition condition(member->arena(), sync_object(self).handle);
        return slice_of(condition.wait(ticket, slice_ns));
      },
      deadline_ns);
  const bool notified = end_wait(self, *member, ticket, waited != Waited::failed);
  if (!lock_acquire_again(lock, depth) || waited == Waited::failed) return nullptr;
  return PyBool_FromLong(notified ? 1 : 0);
}

PyObject* condition_notify(PyObject* self, PyObject* args) {
  unsigned int count = 1;
  if (!PyArg_ParseTuple(args, "|I:notify", &count)) return nullptr;
  return with_member([&](arena::Member& member) {
    return PyLong_FromUnsignedLong(
        Condition(member.arena(), sync_object(self).handle).notify(member, count));
  });
}

PyObject* condition_notify_all(PyObject* self, PyObject*) {
  return with_member([&](arena::Member& member) {
    return PyLong_FromUnsignedLong(
        Condition(member.arena(), sync_object(self).handle).notify_all(member));
  });
}

PyMethodDef condition_methods[] = {
    {"wait", method(condition_wait), METH_VARARGS | METH_KEYWORDS,
     "wait(timeout=None) -> bool\n\nUnlocks, waits to be notified, locks again."},
    {"notify", condition_notify, METH_VARARGS, "notify(n=1) -> int\n\nHow many were notified."},
    {"notify_all", condition_notify_all, METH_NOARGS, "notify_all() -> int"},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef condition_getset[] = {
    {"handle", sync_get_handle, nullptr, "Names it in other processes of the session.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot condition_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&condition_new)},
                                 {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                                 {Py_tp_methods, condition_methods},
                                 {Py_tp_getset, condition_getset},
                                 {0, nullptr}};
PyType_Spec condition_spec = {"shoal._core.Condition", sizeof(SyncObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, condition_slots};

}  // namespace

bool bind_waits(PyObject* module) {
  return add_type(module, semaphore_spec) && add_type(module, event_spec) &&
         add_type(module, condition_spec);
}

}  // namespace shoal::bindings
