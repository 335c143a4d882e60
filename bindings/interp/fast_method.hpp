// SPDX-License-Identifier: Apache-2.0
//
// FastMethod: a method type for `__enter__` and `__exit__`. Up to CPython 3.13 a `with` statement
// creates a bound method for each of the two, which costs as much as the lock itself (each is an
// object with a GC header: 60 of 165 ns). The bound methods of a FastMethod come from a free list
// and have no GC header. From 3.14 on a `with` statement creates no bound methods, and FastMethod
// neither.
// Every function needs the GIL.
// Design: docs/design/bindings.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

namespace shoal::bindings {

// Adds the method `name` to the class. It calls function(self) and ignores other arguments. False
// with an error set.
bool add_fast_method(PyTypeObject* type, const char* name, PyObject* (*function)(PyObject*));

}  // namespace shoal::bindings
