// SPDX-License-Identifier: Apache-2.0
#include "bindings/interp/fast_method.hpp"

#include <structmember.h>

#include <cstddef>

namespace shoal::bindings {

namespace {

struct FastMethod {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* (*function)(PyObject*);
  PyTypeObject* owner;
  const char* name;
};

struct Bound {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* self;  // on the free list: the next free object
  FastMethod* method;
};

constexpr int kMostFree = 32;
Bound* free_list = nullptr;
int free_count = 0;
PyTypeObject* method_type = nullptr;
PyTypeObject* bound_type = nullptr;

FastMethod* method_of(PyObject* object) { return reinterpret_cast<FastMethod*>(object); }
Bound* bound_of(PyObject* object) { return reinterpret_cast<Bound*>(object); }

bool check_self(const FastMethod* method, PyObject* self) {
  if (self != nullptr && PyObject_TypeCheck(self, method->owner) != 0) return true;
  PyErr_Format(PyExc_TypeError, "%s() needs a %s", method->name, method->owner->tp_name);
  return false;
}

PyObject* call_unbound(PyObject* method, PyObject* const* args, size_t count, PyObject*) {
  PyObject* const self = PyVectorcall_NARGS(count) > 0 ? args[0] : nullptr;
  return check_self(method_of(method), self) ? method_of(method)->function(self) : nullptr;
}

PyObject* call_bound(PyObject* bound, PyObject* const*, size_t, PyObject*) {
  return bound_of(bound)->method->function(bound_of(bound)->self);
}

PyObject* bind_method(PyObject* method, PyObject* self, PyObject*) {
  if (self == nullptr) return Py_NewRef(method);
  if (!check_self(method_of(method), self)) return nullptr;
  Bound* bound = free_list;
  if (bound != nullptr) {
    free_list = reinterpret_cast<Bound*>(bound->self);
    --free_count;
    PyObject_Init(reinterpret_cast<PyObject*>(bound), bound_type);
  } else {
    bound = PyObject_New(Bound, bound_type);
    if (bound == nullptr) return nullptr;
    bound->vectorcall = &call_bound;
  }
  bound->self = Py_NewRef(self);
  bound->method = method_of(Py_NewRef(method));
  return reinterpret_cast<PyObject*>(bound);
}

void bound_dealloc(PyObject* object) {
  Bound* const bound = bound_of(object);
  PyObject* const self = bound->self;
  PyObject* const method = reinterpret_cast<PyObject*>(bound->method);
  if (free_count < kMostFree) {
    bound->self = reinterpret_cast<PyObject*>(free_list);
    free_list = bound;
    ++free_count;
  } else {
    PyObject_Free(object);
  }
  Py_DECREF(bound_type);
  Py_DECREF(method);
  Py_DECREF(self);  // last, since this may run any code
}

void method_dealloc(PyObject* method) {
  PyObject_Free(method);
  Py_DECREF(method_type);
}

PyObject* method_name(PyObject* method, void*) {
  return PyUnicode_FromString(method_of(method)->name);
}
PyObject* bound_name(PyObject* bound, void*) {
  return PyUnicode_FromString(bound_of(bound)->method->name);
}

PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(FastMethod, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};
PyMemberDef bound_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Bound, vectorcall), READONLY, nullptr},
    {"__self__", T_OBJECT_EX, offsetof(Bound, self), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};
PyGetSetDef method_getset[] = {{"__name__", method_name, nullptr, nullptr, nullptr},
                               {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyGetSetDef bound_getset[] = {{"__name__", bound_name, nullptr, nullptr, nullptr},
                              {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot method_slots[] = {{Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                              {Py_tp_descr_get, reinterpret_cast<void*>(&bind_method)},
                              {Py_tp_dealloc, reinterpret_cast<void*>(&method_dealloc)},
                              {Py_tp_members, method_members},
                              {Py_tp_getset, method_getset},
                              {0, nullptr}};
PyType_Slot bound_slots[] = {{Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(&bound_dealloc)},
                             {Py_tp_members, bound_members},
                             {Py_tp_getset, bound_getset},
                             {0, nullptr}};
constexpr unsigned kFlags =
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION;
PyType_Spec method_spec = {"shoal._core.method", sizeof(FastMethod), 0,
                           kFlags | Py_TPFLAGS_METHOD_DESCRIPTOR, method_slots};
PyType_Spec bound_spec = {"shoal._core.bound_method", sizeof(Bound), 0, kFlags, bound_slots};

bool make_types() {
  if (method_type != nullptr) return true;
  method_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&method_spec));
  bound_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&bound_spec));
  return method_type != nullptr && bound_type != nullptr;
}

}  // namespace

bool add_fast_method(PyTypeObject* type, const char* name, PyObject* (*function)(PyObject*)) {
  if (!make_types()) return false;
  FastMethod* const method = PyObject_New(FastMethod, method_type);
  if (method == nullptr) return false;
  method->vectorcall = &call_unbound;
  method->function = function;
  method->owner = type;  // lives as long as the module
  method->name = name;
  PyObject* const object = reinterpret_cast<PyObject*>(method);
  const int added = PyObject_SetAttrString(reinterpret_cast<PyObject*>(type), name, object);
  Py_DECREF(object);
  return added == 0;
}

}  // namespace shoal::bindings
