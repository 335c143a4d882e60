// SPDX-License-Identifier: Apache-2.0
//
// How blocking calls of the core are made from Python: with the GIL released, interruptible by
// signals, and without C++ frames that cannot be unwound (a daemon thread that asks for the GIL at
// interpreter exit is ended inside that call).
//
// 1. Signal handlers run before a call acquires something, never after: when a handler raises,
//    nothing is held.
// 2. The main thread waits in slices of at most 100 ms: a signal that arrives between the check for
//    signals and the system call is handled before the next slice. Other threads need no slices.
// Design: docs/design/sync.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <exception>

#include "bindings/interp/bind.hpp"
#include "os/clock.hpp"

namespace shoal::bindings {

inline constexpr int64_t kSliceNs = 100'000'000;

// How one slice of a wait ended. again: it timed out or was interrupted, and nothing was acquired.
enum class Slice { done, again };

// True if the deadline (CLOCK_MONOTONIC; < 0 none, 0 do not wait) has passed.
inline bool passed(int64_t deadline_ns) {
  return deadline_ns == 0 || (deadline_ns > 0 && os::monotonic_ns() >= deadline_ns);
}

// Makes the call, without the GIL. The only function here that catches the call's exceptions; it
// runs no Python code.
template <class Call>
Slice run_slice(Call& call, int64_t deadline_ns, std::exception_ptr* error) {
  try {
    return call(deadline_ns);
  } catch (const std::exception&) {
    *error = std::current_exception();
    return Slice::done;
  }
}

inline void set_python_error_from(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception&) {
    set_python_error();
  }
}

enum class Waited { done, timed_out, failed };  // failed: a Python error is set

// `call(slice_ns)` waits until slice_ns at most. It is repeated until it is done or `deadline_ns`
// (CLOCK_MONOTONIC; < 0 none, 0 do not wait) has passed.
template <class Call>
Waited wait_in_slices(Call&& call, int64_t deadline_ns) {
  const bool sliced = is_main_thread();
  for (;;) {
    if (PyErr_CheckSignals() < 0) return Waited::failed;
    int64_t slice_ns = deadline_ns;
    if (sliced && deadline_ns != 0) {
      slice_ns = os::monotonic_ns() + kSliceNs;
      if (deadline_ns > 0 && deadline_ns < slice_ns) slice_ns = deadline_ns;
    }
    std::exception_ptr error;
    PyThreadState* const state = PyEval_SaveThread();
    const Slice slice = run_slice(call, slice_ns, &error);
    PyEval_RestoreThread(state);
    if (error != nullptr) {
      set_python_error_from(error);
      return Waited::failed;
    }
    if (slice == Slice::done) return Waited::done;
    if (passed(deadline_ns)) return Waited::timed_out;
  }
}

// Converts a timeout in seconds to a deadline: None waits forever, <= 0 does not wait. False with
// an error set.
inline bool deadline_from(PyObject* timeout, int64_t* deadline_ns) {
  *deadline_ns = -1;
  if (timeout == nullptr || timeout == Py_None) return true;
  const double seconds = PyFloat_AsDouble(timeout);
  if (seconds == -1.0 && PyErr_Occurred() != nullptr) return false;
  if (!(seconds > 0)) {
    *deadline_ns = 0;
  } else if (seconds < 1e9) {
    *deadline_ns = os::monotonic_ns() + static_cast<int64_t>(seconds * 1e9);
  }
  return true;
}

// The same for the arguments `block` and `timeout`: if `block` is false, the call does not wait.
inline bool deadline_from(PyObject* block, PyObject* timeout, int64_t* deadline_ns) {
  *deadline_ns = 0;
  const int blocks = block == Py_True ? 1 : PyObject_IsTrue(block);
  if (blocks < 0 || !deadline_from(timeout, deadline_ns)) return false;
  if (blocks == 0) *deadline_ns = 0;
  return true;
}

// Parses the arguments (timeout=None) of a waiting method; `format` ends in the method's name.
// False with an error set.
inline bool timeout_argument(PyObject* args, PyObject* keywords, const char* format,
                             int64_t* deadline_ns) {
  static const char* names[] = {"timeout", nullptr};
  PyObject* timeout = nullptr;
  return PyArg_ParseTupleAndKeywords(args, keywords, format, const_cast<char**>(names), &timeout) &&
         deadline_from(timeout, deadline_ns);
}

// Likewise for the arguments (block=True, timeout=None); if `block` is false, the call does not
// wait.
inline bool block_arguments(PyObject* args, PyObject* keywords, const char* format,
                            int64_t* deadline_ns) {
  static const char* names[] = {"block", "timeout", nullptr};
  int block = 1;
  PyObject* timeout = nullptr;
  *deadline_ns = 0;
  return PyArg_ParseTupleAndKeywords(args, keywords, format, const_cast<char**>(names), &block,
                                     &timeout) &&
         deadline_from(block == 0 ? Py_False : Py_True, timeout, deadline_ns);
}

}  // namespace shoal::bindings
