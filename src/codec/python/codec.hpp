// SPDX-License-Identifier: Apache-2.0
//
// Python values to and from messages. Every function needs an attached thread state (the GIL), and
// reports failure as Python does: a null or false result with an exception set. No function lets a
// C++ exception escape.
//
// Promises:
// 1. A value is encoded by the fast path as a whole or pickled as a whole. The fast path takes
//    exact types only and runs no user code, so users' hooks run exactly as often as pickle runs
//    them.
// 2. A decoded value belongs to the receiver: it is writable if its type is, and shares no memory
//    with other processes.
// 3. Decoding does not trust the bytes: bad ones give ValueError("... at offset N ..."), never an
//    access out of bounds.
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

// Inline words: small immutable values that need no message. The low three bits are never 0: words
// with 0 there are free for the caller, for offsets for example. to_word returns false, without an
// exception, when the value has no inline word.
bool to_word(PyObject* object, std::uint64_t* word) noexcept;
PyObject* from_word(std::uint64_t word);  // new reference

// Appends one value. On failure `out` is unchanged.
bool encode(PyObject* object, MessageBuilder& out);

enum Ownership {
  move_out,  // large arrays take over their block: BLOCK(parent) to COUNTED by this member
  copy_out,  // everything is copied to private memory, the message stays complete (retries)
};
// Decodes the value at `offset`; `*end` (may be null) becomes the offset after it. New reference.
// With move_out, a block that was taken over no longer belongs to the message: free_child returns
// false for it.
PyObject* decode(const MessageView& view, std::size_t offset, std::size_t* end,
                 Ownership ownership);

// `translate` is called inside a catch block and sets the Python error for the current exception.
// The binding passes its table; without one every exception becomes a RuntimeError.
void set_exception_translation(void (*translate)() noexcept) noexcept;

// A short str for error messages: plain values as in their repr, type names for others. Never
// unpickles, and never fails for bad bytes ("<unreadable>").
PyObject* summarize(const MessageView& view, std::size_t offset, std::size_t max_chars);

// Sets the pickler for values that are not on the fast path: dumps(object) -> (bytes-like, or a
// list or tuple of bytes-like pieces; sequence of buffers or None), loads(data, buffers) -> object.
// Keeps references to both; null resets.
void set_pickler(PyObject* dumps, PyObject* loads);

}  // namespace shoal::codec::python
