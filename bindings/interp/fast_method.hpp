// SPDX-License-Identifier: Apache-2.0
//
// FastMethod: a method for `__enter__` and `__exit__`. Up to CPython 3.13 a `with` statement makes
// a bound method of each, which costs as much as the lock itself (an object with a collector's
// header each: 60 of 165 ns). The bound methods of a FastMethod come from a free list and have no
// such header. From 3.14 on a `with` binds nothing, and neither does this.
// Every function needs the GIL.
// Design: docs/design/bindings.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

namespace shoal::bindings {

// Gives the class the method `name`, which calls function(self) whatever else it is given. False
// with an error set.
bool add_fast_method(PyTypeObject* type, const char* name, PyObject* (*function)(PyObject*));

}  // namespace shoal::bindings
