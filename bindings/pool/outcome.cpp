// SPDX-License-Identifier: Apache-2.0
//
// The sink of a call whose caller waits for it (Client.call).
#include "bindings/pool/client.hpp"

namespace shoal::bindings {

PyTypeObject* outcome_type = nullptr;

namespace {

PyObject* outcome_deliver(Outcome* self, PyObject* arguments) {
  int ok = 0;
  PyObject* value = nullptr;
  if (!PyArg_ParseTuple(arguments, "pO", &ok, &value)) return nullptr;
  self->error = ok == 0;
  Py_XSETREF(self->value, Py_NewRef(value));
  Py_RETURN_NONE;
}

PyObject* outcome_launched(Outcome*, PyObject*) { Py_RETURN_NONE; }

void outcome_dealloc(Outcome* self) {
  PyTypeObject* type = Py_TYPE(self);
  Py_XDECREF(self->value);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef outcome_methods[] = {
    {"_deliver", method(outcome_deliver), METH_VARARGS, "Told by the core."},
    {"_launched", method(outcome_launched), METH_O, "Told by the core."},
    {nullptr, nullptr, 0, nullptr}};
PyType_Slot outcome_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(outcome_dealloc)},
                               {Py_tp_methods, outcome_methods},
                               {0, nullptr}};
PyType_Spec outcome_spec = {"shoal._core.Outcome", sizeof(Outcome), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, outcome_slots};

}  // namespace

bool bind_pool_outcome() {
  outcome_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&outcome_spec));
  return outcome_type != nullptr;
}

}  // namespace shoal::bindings
