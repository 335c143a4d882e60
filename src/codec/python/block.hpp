// SPDX-License-Identifier: Apache-2.0
//
// Block: the Python object that owns a counted block of the arena, the base of a decoded array and
// the buffer that pickle's out-of-band data lies in. It holds its member's bit in the block and
// drops it when it is collected: also at interpreter exit, and in the child of a fork (where the
// member's own rules for inherited blocks apply). Needs an attached thread state.
//
// Invariants:
// 1. While a Block is alive and not handed on, its memory is readable and writable at one address.
// 2. The Member outlives every Block: the process's member object is never destroyed.
//
// Design: docs/design/codec.md
#pragma once

#include "codec/message.hpp"
#include "codec/python/compat.hpp"
#include "codec/python/numpy.hpp"

namespace shoal::codec::python {

// Takes an attachment over from its message (BLOCK(view.parent) to counted by view.member).
// New reference; null without an error if the block cannot be held and has to be copied, null
// with ValueError if it is not the message's block.
PyObject* take_block(const MessageView& view, arena::Handle handle, std::size_t size);

void* block_data(PyObject* block) noexcept;

// The Block that `array` (`size` bytes of data) shows from its first byte to its last, if nothing
// but the array refers to it; else null. Borrowed.
PyObject* whole_block_of(const Numpy& numpy, PyObject* array, std::size_t size) noexcept;

// Makes the Block's memory MEMBER(member) and returns it; the Block must not be used any more. 0:
// not possible (others hold it too, or it is another member's).
arena::Handle hand_on_block(PyObject* object, arena::Member* member) noexcept;

}  // namespace shoal::codec::python
