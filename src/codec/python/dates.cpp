// SPDX-License-Identifier: Apache-2.0
#include "codec/python/dates.hpp"

namespace shoal::codec::python {

namespace {
PyDateTime_CAPI* interface = nullptr;  // once found, for the life of the process
}

PyDateTime_CAPI* dates_imported() noexcept {
  if (interface == nullptr) {
    interface = static_cast<PyDateTime_CAPI*>(PyCapsule_Import(PyDateTime_CAPSULE_NAME, 0));
  }
  return interface;
}

PyDateTime_CAPI* dates_if_loaded() noexcept {
  if (interface != nullptr) return interface;
  if (PyDict_GetItemString(PyImport_GetModuleDict(), "datetime") == nullptr) return nullptr;
  if (dates_imported() == nullptr) PyErr_Clear();
  return interface;
}

}  // namespace shoal::codec::python
