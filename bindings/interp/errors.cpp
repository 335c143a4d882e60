// SPDX-License-Identifier: Apache-2.0
//
// The table from C++ errors to Python exceptions. The Python classes are in shoal.errors, which is
// imported only when an error occurs.
#include <new>
#include <stdexcept>

#include "arena/error.hpp"
#include "bindings/interp/bind.hpp"
#include "os/error.hpp"

namespace shoal::bindings {

namespace {

void raise_shoal_error(const char* class_name, const char* message) noexcept {
  PyObject* module = PyImport_ImportModule("shoal.errors");
  PyObject* type = module == nullptr ? nullptr : PyObject_GetAttrString(module, class_name);
  if (type != nullptr) PyErr_SetString(type, message);
  Py_XDECREF(type);
  Py_XDECREF(module);
}

}  // namespace

void set_python_error() noexcept {
  try {
    throw;
  } catch (const arena::MemoryExhausted& error) {
    raise_shoal_error("MemoryExhausted", error.what());
  } catch (const arena::CorruptArena& error) {
    raise_shoal_error("CorruptArena", error.what());
  } catch (const os::OsError& error) {
    PyObject* arguments = Py_BuildValue("(is)", error.error, error.what());
    if (arguments != nullptr) PyErr_SetObject(PyExc_OSError, arguments);
    Py_XDECREF(arguments);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

}  // namespace shoal::bindings
