// SPDX-License-Identifier: Apache-2.0
//
// Pickles of single small values, written and read without the pickle module: None, bools, ints of
// 32 bits, floats, ASCII text and bytes of at most 255. It writes protocol 4, which every unpickler
// reads; it reads such values from any pickler. A round trip saves about 1 us.
// Design: docs/design/pipe.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <cstddef>
#include <span>

namespace shoal::bindings {

// Returns the bytes written; 0: another kind of value, or no room. Sets no error.
size_t write_small_pickle(PyObject* object, std::span<std::byte> room) noexcept;

// New reference; nullptr without an error: not a pickle of such a value.
PyObject* read_small_pickle(std::span<const std::byte> pickle);

}  // namespace shoal::bindings
