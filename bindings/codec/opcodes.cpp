// SPDX-License-Identifier: Apache-2.0
//
// The numbers of the instructions that read global names, for the interpreter that this module is
// built for. Python's module `opcode` has them too, but takes longer to import than this whole
// module.
#include "bindings/interp/bind.hpp"
// After Python.h, which the header above includes.
#include <opcode.h>

namespace shoal::bindings {

namespace {

struct Opcode {
  const char* name;
  int number;
};

constexpr Opcode kOpcodes[] = {
    {"EXTENDED_ARG", EXTENDED_ARG},
    {"LOAD_GLOBAL", LOAD_GLOBAL},
    {"LOAD_NAME", LOAD_NAME},
#ifdef LOAD_FROM_DICT_OR_GLOBALS  // from CPython 3.12 on
    {"LOAD_FROM_DICT_OR_GLOBALS", LOAD_FROM_DICT_OR_GLOBALS},
#endif
};

PyObject* opcodes(PyObject*, PyObject*) {
  PyObject* found = PyDict_New();
  for (const Opcode& opcode : kOpcodes) {
    PyObject* number = found == nullptr ? nullptr : PyLong_FromLong(opcode.number);
    if (number == nullptr || PyDict_SetItemString(found, opcode.name, number) < 0) {
      Py_CLEAR(found);
    }
    Py_XDECREF(number);
  }
  return found;
}

PyMethodDef functions[] = {
    {"opcodes", opcodes, METH_NOARGS, "Instructions that read global names: their numbers."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool bind_opcodes(PyObject* module) { return PyModule_AddFunctions(module, functions) == 0; }

}  // namespace shoal::bindings
