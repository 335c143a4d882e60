// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Supervisor: the pool's state for the code that watches workers
// (shoal/_workers/_watch.py). A thin layer over pool/supervisor.hpp. Used by one thread at a time;
// no method waits.
#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <memory>
#include <vector>

#include "bindings/interp/bind.hpp"
#include "os/clock.hpp"
#include "pool/supervisor.hpp"

namespace shoal::bindings {

namespace {

struct Supervisor {
  PyObject_HEAD
  std::unique_ptr<pool::Supervisor> supervisor;
};

PyObject* wants_workers(Supervisor* self, PyObject*) {
  return PyBool_FromLong(self->supervisor->wants_workers());
}

PyObject* phase(Supervisor* self, PyObject*) {
  return PyLong_FromUnsignedLong(self->supervisor->state().phase.load());
}

PyObject* missing(Supervisor* self, PyObject*) {
  const pool::PoolState& state = self->supervisor->state();
  const long wanted =
      self->supervisor->wants_workers() ? static_cast<long>(state.target.load()) : 0;
  return PyLong_FromLong(wanted - static_cast<long>(self->supervisor->seated()));
}

PyObject* failed_starts(Supervisor* self, PyObject*) {
  return PyLong_FromUnsignedLong(self->supervisor->state().failed_starts.load());
}

PyObject* take_seat(Supervisor* self, PyObject*) {
  return PyLong_FromLong(self->supervisor->take_seat());
}

PyObject* rank(Supervisor* self, PyObject* seat) {
  const unsigned long index = PyLong_AsUnsignedLong(seat);
  if (PyErr_Occurred()) return nullptr;
  return PyLong_FromUnsignedLong(
      self->supervisor->state().seat(static_cast<uint32_t>(index))->rank.load());
}

PyObject* set_pid(Supervisor* self, PyObject* arguments) {
  unsigned seat = 0, pid = 0;
  if (!PyArg_ParseTuple(arguments, "II", &seat, &pid)) return nullptr;
  self->supervisor->set_pid(seat, pid);
  Py_RETURN_NONE;
}

PyObject* free_seat(Supervisor* self, PyObject* arguments) {
  unsigned seat = 0;
  if (!PyArg_ParseTuple(arguments, "I", &seat)) return nullptr;
  self->supervisor->free_seat(seat);
  Py_RETURN_NONE;
}

PyObject* record_exit(Supervisor* self, PyObject* arguments) {
  unsigned seat = 0, status = 0;
  unsigned long long peak = 0;
  int limit = 0;
  if (!PyArg_ParseTuple(arguments, "IIKp", &seat, &status, &peak, &limit)) return nullptr;
  try {
    self->supervisor->record_exit(seat, {status, peak, limit != 0});
  } catch (...) {
    set_python_error();
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* orders(Supervisor* self, PyObject*) {
  std::vector<pool::Supervisor::Order> due;
  try {
    due = self->supervisor->orders(os::monotonic_ns());
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
  Reference result = Reference::take(PyList_New(0));
  for (const auto& order : due) {
    const Reference item = Reference::take(
        Py_BuildValue("(IIO)", order.seat, order.pid, order.kill ? Py_True : Py_False));
    if (!item || !result || PyList_Append(result.get(), item.get()) < 0) return nullptr;
  }
  return result.release();
}

PyObject* seconds_to_next_order(Supervisor* self, PyObject*) {
  const int64_t now = os::monotonic_ns();
  const int64_t wake = self->supervisor->next_wake_ns(now);
  if (wake < 0) Py_RETURN_NONE;
  return PyFloat_FromDouble(wake > now ? static_cast<double>(wake - now) * 1e-9 : 0.0);
}

PyObject* supervisor_new(PyTypeObject* type, PyObject* arguments, PyObject*) {
  unsigned long long handle = 0;
  if (!PyArg_ParseTuple(arguments, "K", &handle)) return nullptr;
  arena::Member* member = current_member();
  if (member == nullptr) return nullptr;
  auto* self = reinterpret_cast<Supervisor*>(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  try {
    new (&self->supervisor)
        std::unique_ptr<pool::Supervisor>(new pool::Supervisor(*member, handle));
  } catch (const std::exception&) {
    set_python_error();
    Py_DECREF(self);
    return nullptr;
  }
  return reinterpret_cast<PyObject*>(self);
}

void supervisor_dealloc(Supervisor* self) {
  PyTypeObject* type = Py_TYPE(self);
  self->supervisor.reset();
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef supervisor_methods[] = {
    {"wants_workers", method(wants_workers), METH_NOARGS,
     "The pool runs and has not been told to stop."},
    {"phase", method(phase), METH_NOARGS, "0 running, 1 draining, 2 stopping."},
    {"missing", method(missing), METH_NOARGS,
     "How many workers are to be started now (negative: too many)."},
    {"failed_starts", method(failed_starts), METH_NOARGS, "Weight of failed starts in a row."},
    {"take_seat", method(take_seat), METH_NOARGS,
     "An empty seat for a worker about to be forked, or -1."},
    {"rank", method(rank), METH_O,
     "rank(seat): the number of the seat's worker, from 0; reused after the worker has left."},
    {"set_pid", method(set_pid), METH_VARARGS, "set_pid(seat, pid)"},
    {"free_seat", method(free_seat), METH_VARARGS, "free_seat(seat): its fork failed."},
    {"record_exit", method(record_exit), METH_VARARGS,
     "record_exit(seat, status, peak_memory, memory_limit): the worker's process is gone."},
    {"orders", method(orders), METH_NOARGS,
     "[(seat, pid, kill)]: workers to interrupt or kill now."},
    {"seconds_to_next_order", method(seconds_to_next_order), METH_NOARGS,
     "When to call orders() next, or None."},
    {nullptr, nullptr, 0, nullptr}};

PyType_Slot supervisor_slots[] = {{Py_tp_new, reinterpret_cast<void*>(supervisor_new)},
                                  {Py_tp_dealloc, reinterpret_cast<void*>(supervisor_dealloc)},
                                  {Py_tp_methods, supervisor_methods},
                                  {0, nullptr}};

PyType_Spec supervisor_spec = {"shoal._core.Supervisor", sizeof(Supervisor), 0, Py_TPFLAGS_DEFAULT,
                               supervisor_slots};

}  // namespace

bool bind_pool_supervisor(PyObject* module) {
  PyObject* type = PyType_FromSpec(&supervisor_spec);
  if (type == nullptr || PyModule_AddObjectRef(module, "Supervisor", type) < 0) return false;
  Py_DECREF(type);
  return true;
}

}  // namespace shoal::bindings
