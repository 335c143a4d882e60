// SPDX-License-Identifier: Apache-2.0
#include "codec/python/registrations.hpp"

namespace shoal::codec::python {

namespace {

PyObject* loaded_module(const char* name) noexcept {  // borrowed, null if it is not loaded
  return PyDict_GetItemString(PyImport_GetModuleDict(), name);
}

// `module.name`, a new reference, or null without an error.
PyObject* attribute(PyObject* module, const char* name) noexcept {
  PyObject* const value = module == nullptr ? nullptr : PyObject_GetAttrString(module, name);
  if (value == nullptr) PyErr_Clear();
  return value;
}

PyObject* copyreg_table() noexcept {
  static PyObject* table = nullptr;
  if (table == nullptr) table = attribute(loaded_module("copyreg"), "dispatch_table");
  return table;
}

// The entry that copyreg itself registers, for complex.
PyObject* copyreg_own() noexcept {
  static PyObject* own = nullptr;
  if (own == nullptr) own = attribute(loaded_module("copyreg"), "pickle_complex");
  return own;
}

PyObject* forking_table() noexcept {
  static PyObject* table = nullptr;
  if (table == nullptr) {
    PyObject* const pickler =
        attribute(loaded_module("multiprocessing.reduction"), "ForkingPickler");
    table = attribute(pickler, "_extra_reducers");
    Py_XDECREF(pickler);
  }
  return table;
}

PyObject* lookup(PyObject* table, PyTypeObject* type) noexcept {  // borrowed
  if (table == nullptr || !PyDict_Check(table)) return nullptr;
  PyObject* const entry = PyDict_GetItemWithError(table, reinterpret_cast<PyObject*>(type));
  if (entry == nullptr) PyErr_Clear();
  return entry;
}

}  // namespace

bool has_registered_reducer(PyTypeObject* type) noexcept {
  PyObject* const entry = lookup(copyreg_table(), type);
  if (entry != nullptr && entry != copyreg_own()) return true;
  return lookup(forking_table(), type) != nullptr;
}

}  // namespace shoal::codec::python
