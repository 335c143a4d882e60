// SPDX-License-Identifier: Apache-2.0
//
// How objects go through a pipe: as a pickle that any reader understands, or as a message of the
// arena. Every function needs the GIL; failures are Python errors.
// Design: docs/design/pipe.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <cstddef>
#include <span>

#include "arena/arena.hpp"

namespace shoal::bindings {

// `size` bytes of a pickle in the given room; or a message of the member, if the room is too small
// or the object contains large buffers.
struct Packed {
  size_t size = 0;
  arena::Handle message = 0;
};
// False with an error set.
bool pack(PyObject* object, arena::Member& member, std::span<std::byte> room, Packed* packed);

// pickle.loads(bytes); steals the reference. New reference.
PyObject* load_pickle(PyObject* bytes);

}  // namespace shoal::bindings
