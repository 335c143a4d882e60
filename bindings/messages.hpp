// SPDX-License-Identifier: Apache-2.0
//
// Python objects to and from messages of the arena, for channels and queues, and the exceptions of
// the module `queue`. Every function needs the GIL; failures are Python errors.
// Design: docs/design/codec.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <cstddef>
#include <span>

#include "arena/arena.hpp"

namespace shoal::bindings {

// The encoded object as a message of the member; 0 with an error set.
arena::Handle encode_message(PyObject* object, arena::Member& member);

// The object in the member's message, which is freed in any case. New reference.
PyObject* decode_message(arena::Handle message, arena::Member& member);

// An object as it goes through a pipe: `size` bytes of a pickle that any reader understands, in
// the room given, or a message of the member where that is too small or large data is in it.
struct Packed {
  size_t size = 0;
  arena::Handle message = 0;
};
// False with an error set.
bool pack(PyObject* object, arena::Member& member, std::span<std::byte> room, Packed* packed);

// Sets queue.Empty or queue.Full; nullptr.
PyObject* raise_empty();
PyObject* raise_full();

}  // namespace shoal::bindings
