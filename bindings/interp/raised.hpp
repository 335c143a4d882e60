// SPDX-License-Identifier: Apache-2.0
//
// Takes and restores the current exception, for both C APIs (before and since CPython 3.12).
#pragma once

#include <utility>

#include "bindings/interp/reference.hpp"

namespace shoal::bindings {

// Takes the current exception, with its traceback, and clears it. Null if there is none.
inline Reference take_raised() noexcept {
#if PY_VERSION_HEX >= 0x030C0000
  return Reference::take(PyErr_GetRaisedException());
#else
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return Reference::take(value);
#endif
}

// Sets the current exception. `exception` must not be null.
inline void put_raised(Reference exception) noexcept {
  PyObject* const value = exception.release();
#if PY_VERSION_HEX >= 0x030C0000
  PyErr_SetRaisedException(value);
#else
  PyObject* const type = Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value)));
  PyErr_Restore(type, value, PyException_GetTraceback(value));
#endif
}

}  // namespace shoal::bindings
