// SPDX-License-Identifier: Apache-2.0
//
// shoal._core: the binding module. Only registers the types and functions of the other files.
#include "bindings/interp/bind.hpp"
#include "codec/python/codec.hpp"
#include "codec/python/compat.hpp"

#ifndef SHOAL_MODULE_NAME
#define SHOAL_MODULE_NAME _core
#endif
#define SHOAL_TEXT_OF(name) #name
#define SHOAL_TEXT(name) SHOAL_TEXT_OF(name)
#define SHOAL_JOINED(a, b) a##b
#define SHOAL_INIT_OF(name) SHOAL_JOINED(PyInit_, name)

namespace {

#if PY_VERSION_HEX < 0x030E0000
PyObject* note_end(PyObject*, PyObject*) {
  shoal::codec::python::interpreter_may_end = true;
  Py_RETURN_NONE;
}

PyMethodDef note_end_method = {"note_end", note_end, METH_NOARGS,
                               "From now on threads may be unwound without the GIL."};

// Has note_end() called at exit (see is_attached()).
bool follow_end() {
  using shoal::bindings::Reference;
  const Reference atexit = Reference::take(PyImport_ImportModule("atexit"));
  const Reference function = Reference::take(PyCFunction_New(&note_end_method, nullptr));
  if (!atexit || !function) return false;
  return static_cast<bool>(
      Reference::take(PyObject_CallMethod(atexit.get(), "register", "O", function.get())));
}
#else
bool follow_end() { return true; }
#endif

bool bind_all(PyObject* module) {
  using namespace shoal::bindings;
  shoal::codec::python::set_exception_translation(set_python_error);
  return follow_end() && bind_process(module) && bind_fork_hook(module) &&
         bind_pool_client(module) && bind_pool_worker(module) && bind_pool_supervisor(module) &&
         bind_channel(module) && bind_sync(module) && bind_queue(module) && bind_pipe(module) &&
         bind_collections(module) && bind_file_mapping(module) && bind_opcodes(module) &&
         bind_codec_for_test(module) && bind_constants(module) && bind_testing(module);
}

// Single-phase initialization: a process has one member and one session, however many interpreters
// it has. So subinterpreters cannot import the module (from 3.12 on the interpreter refuses it).
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    SHOAL_TEXT(SHOAL_MODULE_NAME),
    "The C++ core of shoal. Private: use the shoal package.",
    -1,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC SHOAL_INIT_OF(SHOAL_MODULE_NAME)() {
  PyObject* const module = PyModule_Create(&definition);
  if (module != nullptr && bind_all(module)) return module;
  Py_XDECREF(module);
  return nullptr;
}
