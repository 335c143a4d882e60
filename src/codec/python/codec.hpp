// SPDX-License-Identifier: Apache-2.0
//
// Python values to and from messages. Every function needs an attached thread state (the GIL),
// and reports failure as Python does: a null or false result with an exception set. No C++
// exception leaves any of them.
//
// Promises:
// 1. A value is encoded by the fast path as a whole or pickled as a whole. The fast path takes
//    exact types only and runs no user code; so users' hooks run exactly as often as pickle runs
//    them.
// 2. What is decoded belongs to the receiver: it is writable where its type is, and shares no
//    memory with anybody.
// 3. Decoding trusts nothing: bad bytes give ValueError("... at offset N ..."), never an access
//    out of bounds.
//
// Design: docs/design/codec.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <cstddef>
#include <cstdint>

#include "codec/message.hpp"

namespace shoal::codec::python {

// Inline words: small immutable values that need no message. The low three bits are never 0 (a
// word with 0 there is whatever else the caller keeps, such as an offset). to_word is false when
// the value has no such form; no exception is set then.
bool to_word(PyObject* object, std::uint64_t* word) noexcept;
PyObject* from_word(std::uint64_t word);  // new reference

// Appends one value. On failure `out` is as it was before.
bool encode(PyObject* object, MessageBuilder& out);

enum Ownership {
  move_out,  // large arrays take their block from the message: BLOCK(parent) to counted by me
  copy_out,  // everything is copied to private memory, the message stays whole (retries)
};
// Decodes the value at `offset`; `*end` (may be null) becomes the offset after it. New reference.
// With move_out, a block that was taken no longer belongs to the message: free_child is false.
PyObject* decode(const MessageView& view, std::size_t offset, std::size_t* end,
                 Ownership ownership);

// Called inside a catch block: sets the Python error for the exception in flight. The binding gives
// its table; without one everything is a RuntimeError.
void set_exception_translation(void (*translate)() noexcept) noexcept;

// A short str for error messages, like repr for plain values, type names for the others. Never
// unpickles, and never fails for bad bytes ("<unreadable>").
PyObject* summarize(const MessageView& view, std::size_t offset, std::size_t max_chars);

// The path for everything else: dumps(object) -> (bytes-like, sequence of buffers or None),
// loads(data, buffers) -> object. References are kept; null resets.
void set_pickler(PyObject* dumps, PyObject* loads);

}  // namespace shoal::codec::python
