// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Semaphore and Event: plain C types over src/sync.
// Design: docs/design/sync.md
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"
#include "sync/event.hpp"
#include "sync/semaphore.hpp"

namespace shoal::bindings {

namespace {

using sync::Event;
using sync::Semaphore;
using sync::WaitResult;

Slice slice_of(WaitResult result) { return result == WaitResult::ok ? Slice::done : Slice::again; }

PyObject* bool_or_null(Waited waited) {
  return waited == Waited::failed ? nullptr : PyBool_FromLong(waited == Waited::done ? 1 : 0);
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
  if (handle != 0) {
    return attach(type, handle,
                  [](arena::Arena& arena, arena::Handle at) { Semaphore(arena, at); });
  }
  if (limit > Semaphore::kMaxPermits || value > limit) {
    PyErr_SetString(PyExc_ValueError, "want 0 <= value <= limit < 2**31");
    return nullptr;
  }
  return new_shared(type, arena::size_before_record<sync::SemaphoreState>(),
                    [&](arena::Arena& arena, arena::Handle block) {
                      Semaphore::create(arena, block, value, limit);
                    });
}

Semaphore semaphore_of(PyObject* self) {
  return Semaphore(*current_arena(), state_of<sync::SemaphoreState>(self));
}

// 1 acquired, 0 timed out, -1 error.
int acquire(PyObject* self, int64_t deadline_ns) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  Semaphore semaphore = semaphore_of(self);
  if (semaphore.try_acquire()) return 1;
  if (deadline_ns == 0) return 0;
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) { return slice_of(semaphore.acquire(*member, slice_ns)); },
      deadline_ns);
  return waited == Waited::failed ? -1 : waited == Waited::done ? 1 : 0;
}

PyObject* semaphore_acquire(PyObject* self, PyObject* const* args, Py_ssize_t count,
                            PyObject* keywords) {
  int64_t deadline_ns = 0;
  if (!parse_block("acquire", args, count, keywords, &deadline_ns)) return nullptr;
  const int acquired = acquire(self, deadline_ns);
  return acquired < 0 ? nullptr : PyBool_FromLong(acquired);
}

PyObject* release_permits(PyObject* self, unsigned count) {
  return with_member([&](arena::Member& member) -> PyObject* {
    if (semaphore_of(self).release(member, count)) Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
    return nullptr;
  });
}

PyObject* semaphore_release(PyObject* self, PyObject* args) {
  int count = 1;  // "i" raises OverflowError; "I" would wrap around
  if (!PyArg_ParseTuple(args, "|i:release", &count)) return nullptr;
  if (count < 1) {
    PyErr_Format(PyExc_ValueError, "n must be one or more permits to release, not %d", count);
    return nullptr;
  }
  return release_permits(self, static_cast<unsigned>(count));
}

PyObject* semaphore_enter(PyObject* self) {
  return acquire(self, -1) < 0 ? nullptr : PyBool_FromLong(1);
}

PyObject* semaphore_exit(PyObject* self) { return release_permits(self, 1); }

PyObject* semaphore_permits(PyObject* self, PyObject*) {
  return PyLong_FromUnsignedLong(semaphore_of(self).permits());
}

PyObject* semaphore_locked(PyObject* self, PyObject*) {
  return PyBool_FromLong(semaphore_of(self).permits() == 0 ? 1 : 0);
}

PyObject* semaphore_get_value(PyObject* self, void*) { return semaphore_permits(self, nullptr); }
PyObject* semaphore_get_self(PyObject* self, void*) { return Py_NewRef(self); }
PyObject* semaphore_get_kind(PyObject*, void*) { return PyLong_FromLong(1); }
PyObject* semaphore_get_limit(PyObject* self, void*) {
  return PyLong_FromUnsignedLong(state_of<sync::SemaphoreState>(self).limit);
}

PyMethodDef semaphore_methods[] = {
    {"acquire", method(semaphore_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nTakes a permit; False if none is free in time."},
    {"release", semaphore_release, METH_VARARGS, "release(n=1)\n\nGives n permits back."},
    {"get_value", semaphore_permits, METH_NOARGS, "get_value() -> int\n\nPermits free now."},
    {"locked", semaphore_locked, METH_NOARGS, "locked() -> bool\n\nWhether no permit is free now."},
    {"_get_value", semaphore_permits, METH_NOARGS, nullptr},
    {"_is_zero", semaphore_locked, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef semaphore_getset[] = {
    SHOAL_HANDLE_GETTERS,
    {"value", semaphore_get_value, nullptr, "Permits that are free now.", nullptr},
    {"_semlock", semaphore_get_self, nullptr, nullptr, nullptr},
    {"kind", semaphore_get_kind, nullptr, nullptr, nullptr},
    {"maxvalue", semaphore_get_limit, nullptr, "The most permits that can be free.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot semaphore_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&semaphore_new)},
                                 {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                                 {Py_tp_methods, semaphore_methods},
                                 {Py_tp_getset, semaphore_getset},
                                 {0, nullptr}};
PyType_Spec semaphore_spec = {"shoal._core.Semaphore", sizeof(SharedObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, semaphore_slots};

// ---- Event

PyObject* event_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"handle", nullptr};
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|K", const_cast<char**>(names), &handle)) {
    return nullptr;
  }
  if (handle == 0)
    return new_shared(type, arena::size_before_record<sync::EventState>(), &Event::create);
  return attach(type, handle, [](arena::Arena& arena, arena::Handle at) { Event(arena, at); });
}

Event event_of(PyObject* self) { return Event(*current_arena(), state_of<sync::EventState>(self)); }

PyObject* event_wait(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static const char* const names[] = {"timeout"};
  PyObject* timeout = Py_None;
  int64_t deadline_ns = 0;
  if (!parse_fast("wait", names, 1, args, count, keywords, &timeout) ||
      !deadline_from(timeout, &deadline_ns)) {
    return nullptr;
  }
  Event event = event_of(self);
  const uint32_t first = event.listen();  // once: set() and clear() may come between two slices
  if (event.is_set()) Py_RETURN_TRUE;
  return bool_or_null(wait_in_slices(
      [&](int64_t slice_ns) { return slice_of(event.wait(first, slice_ns)); }, deadline_ns));
}

PyObject* event_set(PyObject* self, PyObject*) {
  return with_member([&](arena::Member& member) -> PyObject* {
    event_of(self).set(member);
    Py_RETURN_NONE;
  });
}

PyObject* event_clear(PyObject* self, PyObject*) {
  event_of(self).clear();
  Py_RETURN_NONE;
}

PyObject* event_is_set(PyObject* self, PyObject*) {
  return PyBool_FromLong(event_of(self).is_set() ? 1 : 0);
}

PyMethodDef event_methods[] = {
    {"wait", method(event_wait), METH_FASTCALL | METH_KEYWORDS,
     "wait(timeout=None) -> bool\n\nWaits until it is set; False if that does not happen in time."},
    {"set", event_set, METH_NOARGS, "set()\n\nSets it, and wakes all waiters."},
    {"clear", event_clear, METH_NOARGS, "clear()\n\nMakes it unset."},
    {"is_set", event_is_set, METH_NOARGS,
     "is_set() -> bool\n\nWhether it is set: one read of memory."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef event_getset[] = {SHOAL_HANDLE_GETTERS, {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot event_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&event_new)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                             {Py_tp_methods, event_methods},
                             {Py_tp_getset, event_getset},
                             {0, nullptr}};
PyType_Spec event_spec = {"shoal._core.Event", sizeof(SharedObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, event_slots};

}  // namespace

bool bind_waits(PyObject* module) {
  PyTypeObject* semaphore_type = nullptr;
  return add_type(module, semaphore_spec, &semaphore_type) && add_type(module, event_spec) &&
         add_fast_method(semaphore_type, "__enter__", &semaphore_enter) &&
         add_fast_method(semaphore_type, "__exit__", &semaphore_exit);
}

}  // namespace shoal::bindings
