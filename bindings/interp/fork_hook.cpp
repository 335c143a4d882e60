// SPDX-License-Identifier: Apache-2.0
//
// Functions for os.register_at_fork() that lose no exception of a signal handler.
//
// CPython prints and drops what a fork hook raises. Signals that came while fork() copied the page
// tables, milliseconds for a large program, are looked for at the first instruction of the next
// Python function, and that is a hook: a Ctrl-C, or a time limit by SIGALRM, was gone. Here a
// handler's exception is put aside and raised by the main thread when the hooks are over.
#include <unistd.h>

#include <memory>

#include "bindings/interp/bind.hpp"
#include "bindings/interp/raised.hpp"

namespace shoal::bindings {

namespace {

struct Late {
  Reference exception;
  pid_t pid;  // the signal was this process's: a child has a copy of what is pending
};

int raise_now(void* pending) {
  const std::unique_ptr<Late> late(static_cast<Late*>(pending));
  if (late->pid != getpid()) {
    (void)late->exception.release();  // its frames are the parent's to end
    return 0;
  }
  put_raised(std::move(late->exception));
  return -1;
}

// Takes the exception that is set.
void raise_after_the_hooks(PyObject* hook) {
  auto late = std::make_unique<Late>(Late{take_raised(), getpid()});
  if (is_main_thread()) {
    if (Py_AddPendingCall(raise_now, late.get()) == 0) {
      (void)late.release();  // raise_now has it
      return;
    }
  }
  put_raised(std::move(late->exception));
  PyErr_WriteUnraisable(hook);
}

PyObject* run(PyObject* hook, PyObject*) {
  // Twice: a signal may come inside the hook as well, and what a hook does must be done.
  for (int tries = 0; tries < 2; ++tries) {
    if (PyErr_CheckSignals() < 0) raise_after_the_hooks(hook);
    PyObject* const result = PyObject_CallNoArgs(hook);
    if (result != nullptr) return result;
    raise_after_the_hooks(hook);
  }
  Py_RETURN_NONE;
}

PyMethodDef run_method = {"fork_hook", run, METH_NOARGS, nullptr};

PyObject* fork_hook(PyObject*, PyObject* function) {
  return PyCFunction_New(&run_method, function);
}

PyMethodDef methods[] = {
    {"fork_hook", fork_hook, METH_O,
     "fork_hook(function): the same for os.register_at_fork(), where no Ctrl-C is lost. It may be\n"
     "called twice."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_fork_hook(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace shoal::bindings
