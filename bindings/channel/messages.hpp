// SPDX-License-Identifier: Apache-2.0
//
// Conversion of Python objects to and from messages of the arena, for channels and queues; and the
// exceptions of the module `queue`. Every function needs the GIL; failures are Python errors.
// Design: docs/design/codec.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <memory>

#include "arena/arena.hpp"
#include "codec/writer.hpp"

namespace shoal::bindings {

// The ends of a queue that can be closed in one process, as bits.
enum QueueEnd : int { kGetEnd = 1, kPutEnd = 2, kBothEnds = 3 };

// This thread's builder, or a new one while that is in use: encoding may run code that encodes.
std::unique_ptr<codec::MessageBuilder> take_builder(arena::Member& member);
void return_builder(std::unique_ptr<codec::MessageBuilder> builder);

// The encoded object as a message of the member; 0 with an error set.
arena::Handle encode_message(PyObject* object, arena::Member& member);

// Decodes the member's message, and frees it in any case. New reference.
PyObject* decode_message(arena::Handle message, arena::Member& member);

// Set queue.Empty or queue.Full and return nullptr.
PyObject* raise_empty();
PyObject* raise_full();

}  // namespace shoal::bindings
