// SPDX-License-Identifier: Apache-2.0
//
// For tests of the Python package: kill points and the arena's consistency check. Empty outside
// shoal._core_testing.
#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include "arena/error.hpp"
#include "bindings/interp/bind.hpp"
#include "testing/kill_point.hpp"

namespace shoal::bindings {

#if defined(SHOAL_TESTING) && SHOAL_TESTING

namespace {

PyObject* arm_kill_point(PyObject*, PyObject* arguments) {
  const char* name = nullptr;
  unsigned nth = 1;
  if (!PyArg_ParseTuple(arguments, "s|I", &name, &nth)) return nullptr;
  testing::arm_kill_point(name, nth);
  Py_RETURN_NONE;
}

PyObject* disarm_kill_points(PyObject*, PyObject*) {
  testing::disarm_kill_points();
  Py_RETURN_NONE;
}

PyObject* kill_point_names(PyObject*, PyObject*) {
  PyObject* list = PyList_New(0);
  for (const std::string& name : testing::kill_point_names()) {
    PyObject* item = PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size()));
    if (list == nullptr || item == nullptr || PyList_Append(list, item) < 0) {
      Py_XDECREF(item);
      Py_XDECREF(list);
      return nullptr;
    }
    Py_DECREF(item);
  }
  return list;
}

// check_arena() -> number of blocks in use; raises CorruptArena. No other process or thread may use
// the arena meanwhile.
PyObject* check_arena(PyObject*, PyObject*) {
  if (current_member() == nullptr) return nullptr;
  try {
    current_arena()->check();
    return PyLong_FromUnsignedLongLong(current_arena()->statistics().blocks());
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

PyMethodDef functions[] = {
    {"arm_kill_point", arm_kill_point, METH_VARARGS, "arm_kill_point(name, nth=1): die there."},
    {"disarm_kill_points", disarm_kill_points, METH_NOARGS, "Disarm all kill points."},
    {"kill_point_names", kill_point_names, METH_NOARGS, "The names of all kill points."},
    {"check_arena", check_arena, METH_NOARGS, "Walk the arena; the number of blocks in use."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_testing(PyObject* module) { return PyModule_AddFunctions(module, functions) == 0; }

#else

bool bind_testing(PyObject*) { return true; }

#endif

}  // namespace shoal::bindings
