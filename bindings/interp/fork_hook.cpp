// SPDX-License-Identifier: Apache-2.0
//
// Wraps functions for os.register_at_fork() so that no exception of a signal handler is lost.
//
// CPython prints and drops an exception that a fork hook raises. Signals that arrive while fork()
// copies the page tables (milliseconds for a large program) are handled at the first instruction of
// the next Python function, which is a fork hook: the exception of a Ctrl-C, or of a time limit by
// SIGALRM, would be dropped. The wrapper stores a handler's exception, and the main thread raises
// it after the hooks.
#include <unistd.h>

#include <memory>

#include "bindings/interp/bind.hpp"
#include "bindings/interp/raised.hpp"

namespace shoal::bindings {

namespace {

struct Late {
  Reference exception;
  pid_t pid;  // the process that got the signal: a forked child inherits the pending call
};

int raise_now(void* pending) {
  const std::unique_ptr<Late> late(static_cast<Late*>(pending));
  if (late->pid != getpid()) {
    (void)late->exception.release();  // leaked: its frames belong to the parent
    return 0;
  }
  put_raised(std::move(late->exception));
  return -1;
}

// Takes the current exception, to be raised after the hooks.
void raise_after_the_hooks(PyObject* hook) {
  auto late = std::make_unique<Late>(Late{take_raised(), getpid()});
  if (is_main_thread()) {
    if (Py_AddPendingCall(raise_now, late.get()) == 0) {
      (void)late.release();  // raise_now owns it
      return;
    }
  }
  put_raised(std::move(late->exception));
  PyErr_WriteUnraisable(hook);
}

PyObject* run(PyObject* hook, PyObject*) {
  // Two attempts: a signal may also arrive inside the hook, and the hook's work must be done.
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
     "fork_hook(function): wraps it for os.register_at_fork(); no Ctrl-C is lost. It may be\n"
     "called twice."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_fork_hook(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace shoal::bindings
