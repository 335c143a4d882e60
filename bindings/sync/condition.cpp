// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Condition: a plain C type over sync::Condition and a Lock or RLock of this module.
// Design: docs/design/sync.md
#include "sync/condition.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"

namespace shoal::bindings {

namespace {

using sync::Condition;
using sync::WaitResult;

Condition condition_of(PyObject* self, arena::Member& member) {
  return Condition(member.arena(), state_of<sync::ConditionState>(self));
}

PyObject* condition_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"lock", "handle", nullptr};
  PyObject* lock = nullptr;
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|K", const_cast<char**>(names), &lock,
                                   &handle)) {
    return nullptr;
  }
  if (!is_lock(lock)) {
    PyErr_SetString(PyExc_TypeError, "a condition needs a Lock or RLock of shoal");
    return nullptr;
  }
  PyObject* const self =
      handle == 0
          ? new_shared(type, arena::size_before_record<sync::ConditionState>(), &Condition::create)
          : attach(type, handle,
                   [](arena::Arena& arena, arena::Handle at) { Condition(arena, at); });
  if (self != nullptr) shared_object(self).lock = Py_NewRef(lock);
  return self;
}

// Whether this waiter was notified. If the notification will not be used, passes it on to the next
// waiter.
bool end_wait(PyObject* self, arena::Member& member, const Condition::Ticket& ticket, bool use) {
  try {
    Condition condition = condition_of(self, member);
    const bool notified = condition.end_wait(member, ticket);
    if (notified && !use) condition.notify(member);
    return notified;
  } catch (const std::exception&) {
    return false;  // no longer a member: its reaper has ended the wait
  }
}

PyObject* condition_wait(PyObject* self, PyObject* const* args, Py_ssize_t count,
                         PyObject* keywords) {
  static const char* const names[] = {"timeout"};
  PyObject* timeout = Py_None;
  int64_t deadline_ns = 0;
  if (!parse_fast("wait", names, 1, args, count, keywords, &timeout) ||
      !deadline_from(timeout, &deadline_ns)) {
    return nullptr;
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Condition::Ticket ticket{};
  PyObject* const begun = with_member([&](arena::Member&) {
    ticket = condition_of(self, *member).begin_wait(*member);
    return Py_None;
  });
  if (begun == nullptr) return nullptr;
  PyObject* const lock = shared_object(self).lock;
  const uint32_t depth = lock_release_all(lock);
  if (depth == 0) {
    end_wait(self, *member, ticket, false);
    return nullptr;
  }
  Condition condition = condition_of(self, *member);
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        return condition.wait(ticket, slice_ns) == WaitResult::ok ? Slice::done : Slice::again;
      },
      deadline_ns);
  const bool notified = end_wait(self, *member, ticket, waited != Waited::failed);
  if (!lock_acquire_again(lock, depth) || waited == Waited::failed) return nullptr;
  return PyBool_FromLong(notified ? 1 : 0);
}

PyObject* notify(PyObject* self, uint32_t count) {
  return with_member([&](arena::Member& member) -> PyObject* {
    if (!lock_is_mine(shared_object(self).lock)) {
      if (PyErr_Occurred() == nullptr) {
        PyErr_SetString(PyExc_AssertionError, "lock is not owned");
      }
      return nullptr;
    }
    return PyLong_FromUnsignedLong(condition_of(self, member).notify(member, count));
  });
}

PyObject* condition_notify(PyObject* self, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"n", nullptr};
  unsigned int count = 1;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|I:notify", const_cast<char**>(names),
                                   &count)) {
    return nullptr;
  }
  return notify(self, count);
}

PyObject* condition_notify_all(PyObject* self, PyObject*) { return notify(self, UINT32_MAX); }

PyObject* condition_waiters(PyObject* self, void*) {
  return with_member([&](arena::Member& member) {
    return PyLong_FromUnsignedLong(condition_of(self, member).waiters());
  });
}

PyObject* condition_acquire(PyObject* self, PyObject* const* args, Py_ssize_t count,
                            PyObject* keywords) {
  return lock_acquire_fast(shared_object(self).lock, args, count, keywords);
}

PyObject* condition_release(PyObject* self, PyObject*) {
  return lock_release_call(shared_object(self).lock, nullptr);
}

PyObject* condition_enter(PyObject* self) {
  return lock_enter_call(shared_object(self).lock, nullptr);
}

PyObject* condition_exit(PyObject* self) {
  return lock_release_call(shared_object(self).lock, nullptr);
}

PyObject* condition_get_lock(PyObject* self, void*) { return Py_NewRef(shared_object(self).lock); }

PyMethodDef condition_methods[] = {
    {"wait", method(condition_wait), METH_FASTCALL | METH_KEYWORDS,
     "wait(timeout=None) -> bool\n\nUnlocks, waits for a notification, locks again; False if none "
     "comes in time. AssertionError\nwithout the lock."},
    {"notify", method(condition_notify), METH_VARARGS | METH_KEYWORDS,
     "notify(n=1) -> int\n\nWakes at most n waiters, oldest first; returns how many. "
     "AssertionError\nwithout the lock."},
    {"notify_all", condition_notify_all, METH_NOARGS,
     "notify_all() -> int\n\nWakes all present waiters; returns how many."},
    {"acquire", method(condition_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nThe lock's."},
    {"release", condition_release, METH_NOARGS, "release()\n\nThe lock's."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef condition_getset[] = {
    SHOAL_HANDLE_GETTERS,
    {"waiters", condition_waiters, nullptr, "How many wait now.", nullptr},
    {"_lock", condition_get_lock, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot condition_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&condition_new)},
                                 {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                                 {Py_tp_methods, condition_methods},
                                 {Py_tp_getset, condition_getset},
                                 {0, nullptr}};
PyType_Spec condition_spec = {"shoal._core.Condition", sizeof(SharedObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, condition_slots};

}  // namespace

bool bind_condition(PyObject* module) {
  PyTypeObject* type = nullptr;
  return add_type(module, condition_spec, &type) &&
         add_fast_method(type, "__enter__", &condition_enter) &&
         add_fast_method(type, "__exit__", &condition_exit);
}

}  // namespace shoal::bindings
