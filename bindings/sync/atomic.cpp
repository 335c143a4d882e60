// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Atomic: a plain C type over sync::AtomicValue. A value that does not fit the kind
// raises before anything is changed: OverflowError for an int, TypeError for another type.
// Design: docs/design/sync.md
#include <bit>

#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"
#include "sync/atomic_value.hpp"

namespace shoal::bindings {

namespace {

using sync::AtomicState;
using sync::AtomicValue;
using sync::ValueKind;

constexpr const char* kKinds[] = {"int64", "uint64", "float64", "bool"};

AtomicValue atomic_of(PyObject* self) { return AtomicValue(state_of<AtomicState>(self)); }

PyObject* to_python(ValueKind kind, uint64_t bits) {
  switch (kind) {
    case ValueKind::int64:
      return PyLong_FromLongLong(static_cast<long long>(bits));
    case ValueKind::uint64:
      return PyLong_FromUnsignedLongLong(bits);
    case ValueKind::float64:
      return PyFloat_FromDouble(std::bit_cast<double>(bits));
    default:
      return PyBool_FromLong(bits != 0 ? 1 : 0);
  }
}

bool wrong_type(ValueKind kind, PyObject* value) {
  PyErr_Format(PyExc_TypeError, "an Atomic of kind %s cannot take a %s",
               kKinds[static_cast<int>(kind) & 3], Py_TYPE(value)->tp_name);
  return false;
}

// False with an error set.
bool from_python(ValueKind kind, PyObject* value, uint64_t* bits) {
  if (kind == ValueKind::boolean) {
    if (!PyBool_Check(value)) return wrong_type(kind, value);
    *bits = value == Py_True ? 1 : 0;
    return true;
  }
  if (kind == ValueKind::float64) {
    if (!PyFloat_Check(value) && !PyLong_Check(value)) return wrong_type(kind, value);
    const double number = PyFloat_AsDouble(value);
    *bits = std::bit_cast<uint64_t>(number);
    return number != -1.0 || PyErr_Occurred() == nullptr;
  }
  if (!PyLong_Check(value)) return wrong_type(kind, value);
  if (kind == ValueKind::int64) {
    *bits = static_cast<uint64_t>(PyLong_AsLongLong(value));
  } else {
    *bits = PyLong_AsUnsignedLongLong(value);
  }
  return *bits != UINT64_MAX || PyErr_Occurred() == nullptr;
}

int kind_by_name(const char* name) {
  for (int i = 0; i < 4; ++i) {
    if (std::string_view(kKinds[i]) == name) return i;
  }
  PyErr_Format(PyExc_ValueError, "kind is int64, uint64, float64 or bool, not %s", name);
  return -1;
}

PyObject* atomic_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"value", "kind", "handle", nullptr};
  PyObject* value = nullptr;
  const char* name = "int64";
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|sK", const_cast<char**>(names), &value, &name,
                                   &handle)) {
    return nullptr;
  }
  if (handle != 0) {
    return attach(type, handle,
                  [](arena::Arena& arena, arena::Handle at) { AtomicValue(arena, at); });
  }
  const int kind = kind_by_name(name);
  uint64_t bits = 0;
  if (kind < 0 || !from_python(static_cast<ValueKind>(kind), value, &bits)) return nullptr;
  return new_shared(type, arena::size_before_record<AtomicState>(),
                    [&](arena::Arena& arena, arena::Handle at) {
                      AtomicValue::create(arena, at, static_cast<ValueKind>(kind), bits);
                    });
}

PyObject* atomic_load(PyObject* self, PyObject*) {
  const AtomicValue atomic = atomic_of(self);
  return to_python(atomic.kind(), atomic.load());
}

PyObject* atomic_get_value(PyObject* self, void*) { return atomic_load(self, nullptr); }

int atomic_set_value(PyObject* self, PyObject* value, void*) {
  AtomicValue atomic = atomic_of(self);
  uint64_t bits = 0;
  if (value == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "can't delete attribute 'value'");
    return -1;
  }
  if (!from_python(atomic.kind(), value, &bits)) return -1;
  atomic.exchange(bits);
  return 0;
}

PyObject* atomic_store(PyObject* self, PyObject* value) {
  if (atomic_set_value(self, value, nullptr) < 0) return nullptr;
  Py_RETURN_NONE;
}

PyObject* atomic_exchange(PyObject* self, PyObject* value) {
  AtomicValue atomic = atomic_of(self);
  uint64_t bits = 0;
  if (!from_python(atomic.kind(), value, &bits)) return nullptr;
  return to_python(atomic.kind(), atomic.exchange(bits));
}

PyObject* add(PyObject* self, PyObject* value, bool negate) {
  AtomicValue atomic = atomic_of(self);
  const ValueKind kind = atomic.kind();
  uint64_t bits = 1;
  if (kind == ValueKind::boolean) {
    PyErr_SetString(PyExc_TypeError, "an Atomic of kind bool cannot be added to: use exchange()");
    return nullptr;
  }
  if (value == nullptr) {
    if (kind == ValueKind::float64) bits = std::bit_cast<uint64_t>(1.0);
  } else if (!from_python(kind, value, &bits)) {
    return nullptr;
  }
  if (kind == ValueKind::float64) {
    if (negate) bits = std::bit_cast<uint64_t>(-std::bit_cast<double>(bits));
    return to_python(kind, atomic.add_double(bits));
  }
  return to_python(kind, atomic.add(negate ? uint64_t{0} - bits : bits));
}

bool at_most_one(const char* name, Py_ssize_t count) {
  if (count <= 1) return true;
  PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument (%zd given)", name, count);
  return false;
}

PyObject* atomic_add(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!at_most_one("add", count)) return nullptr;
  return add(self, count == 1 ? args[0] : nullptr, false);
}

PyObject* atomic_sub(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (!at_most_one("sub", count)) return nullptr;
  return add(self, count == 1 ? args[0] : nullptr, true);
}

PyObject* limit_by(PyObject* self, PyObject* value, uint64_t (AtomicValue::*change)(uint64_t)) {
  AtomicValue atomic = atomic_of(self);
  uint64_t bits = 0;
  if (!from_python(atomic.kind(), value, &bits)) return nullptr;
  return to_python(atomic.kind(), (atomic.*change)(bits));
}

PyObject* atomic_max(PyObject* self, PyObject* value) {
  return limit_by(self, value, &AtomicValue::raise_to);
}
PyObject* atomic_min(PyObject* self, PyObject* value) {
  return limit_by(self, value, &AtomicValue::lower_to);
}

PyObject* atomic_compare_exchange(PyObject* self, PyObject* args) {
  PyObject* expected = nullptr;
  PyObject* desired = nullptr;
  if (!PyArg_ParseTuple(args, "OO:compare_exchange", &expected, &desired)) return nullptr;
  AtomicValue atomic = atomic_of(self);
  uint64_t seen = 0;
  uint64_t bits = 0;
  if (!from_python(atomic.kind(), expected, &seen) || !from_python(atomic.kind(), desired, &bits)) {
    return nullptr;
  }
  return PyBool_FromLong(atomic.compare_exchange(seen, bits) ? 1 : 0);
}

PyObject* atomic_wait(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static const char* const names[] = {"seen", "timeout"};
  PyObject* given[2] = {nullptr, Py_None};
  int64_t deadline_ns = 0;
  if (!parse_fast("wait", names, 2, args, count, keywords, given) ||
      !deadline_from(given[1], &deadline_ns)) {
    return nullptr;
  }
  if (given[0] == nullptr) {
    PyErr_SetString(PyExc_TypeError, "wait() needs the value that was last seen");
    return nullptr;
  }
  const AtomicValue atomic = atomic_of(self);
  uint64_t seen = 0;
  if (!from_python(atomic.kind(), given[0], &seen)) return nullptr;
  if (atomic.load() != seen) Py_RETURN_TRUE;
  if (deadline_ns == 0) Py_RETURN_FALSE;
  const uint32_t first = atomic.listen();  // once: changes may come between two slices
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        const sync::WaitResult result = atomic.wait(seen, first, slice_ns);
        return result == sync::WaitResult::ok ? Slice::done : Slice::again;
      },
      deadline_ns);
  return waited == Waited::failed ? nullptr : PyBool_FromLong(waited == Waited::done ? 1 : 0);
}

PyObject* atomic_notify(PyObject* self, PyObject*) {
  atomic_of(self).notify();
  Py_RETURN_NONE;
}

PyObject* atomic_get_kind(PyObject* self, void*) {
  return PyUnicode_FromString(kKinds[state_of<AtomicState>(self).kind & 3]);
}

PyMethodDef atomic_methods[] = {
    {"load", atomic_load, METH_NOARGS, "load()\n\nThe value."},
    {"store", atomic_store, METH_O,
     "store(value)\n\nSets the value; TypeError or OverflowError if it does not fit the kind."},
    {"exchange", atomic_exchange, METH_O, "exchange(value)\n\nReturns the previous value."},
    {"add", method(atomic_add), METH_FASTCALL, "add(n=1)\n\nReturns the previous value."},
    {"sub", method(atomic_sub), METH_FASTCALL, "sub(n=1)\n\nReturns the previous value."},
    {"max", atomic_max, METH_O,
     "max(value)\n\nKeeps the larger of the two; returns the previous value."},
    {"min", atomic_min, METH_O,
     "min(value)\n\nKeeps the smaller of the two; returns the previous value."},
    {"compare_exchange", atomic_compare_exchange, METH_VARARGS,
     "compare_exchange(expected, desired) -> bool\n\nStores `desired` if the value is `expected`."},
    {"wait", method(atomic_wait), METH_FASTCALL | METH_KEYWORDS,
     "wait(seen, timeout=None) -> bool\n\nWaits until the value differs from `seen`, or notify() "
     "is called. False: timed out."},
    {"notify", atomic_notify, METH_NOARGS, "notify()\n\nEnds all waits now."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef atomic_getset[] = {
    SHOAL_HANDLE_GETTERS,
    {"value", atomic_get_value, atomic_set_value, "The value.", nullptr},
    {"kind", atomic_get_kind, nullptr, "int64, uint64, float64 or bool.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot atomic_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&atomic_new)},
                              {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                              {Py_tp_methods, atomic_methods},
                              {Py_tp_getset, atomic_getset},
                              {0, nullptr}};
PyType_Spec atomic_spec = {"shoal._core.Atomic", sizeof(SharedObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, atomic_slots};

}  // namespace

bool bind_atomic(PyObject* module) { return add_type(module, atomic_spec); }

}  // namespace shoal::bindings
