// SPDX-License-Identifier: Apache-2.0
//
// Taking and putting back the exception that is set, over the C API's change in CPython 3.12.
#pragma once

#include <utility>

#include "bindings/interp/reference.hpp"

namespace shoal::bindings {

// The exception that is set, with its traceback; none is set afterwards. Null when none was.
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

// Sets an exception that was taken, or another one. It is not null.
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
