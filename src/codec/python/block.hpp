// SPDX-License-Identifier: Apache-2.0
//
// Block: the Python object that owns a counted block of the arena. It is the base of a decoded
// array and the buffer for pickle's out-of-band data. A Block holds its member's bit in the arena
// block and drops it when the Block is deallocated: also at interpreter exit, and in the child of a
// fork (where the member's own rules for inherited blocks apply). Needs an attached thread state.
//
// Invariants:
// 1. While a Block is alive and has not been moved, its memory is readable and writable at one
//    address.
// 2. The Member outlives every Block: the process's member object is never destroyed.
//
// Design: docs/design/codec.md
#pragma once

#include "codec/message.hpp"
#include "codec/python/compat.hpp"
#include "codec/python/numpy.hpp"

namespace shoal::codec::python {

// Takes over an attachment from its message (owner BLOCK(view.parent) to COUNTED by view.member).
// New reference; null without an error if the member cannot hold the block, so that the caller must
// copy; null with ValueError if the block does not belong to the message.
PyObject* take_block(const MessageView& view, arena::Handle handle, std::size_t size);

void* block_data(PyObject* block) noexcept;

// The Block whose memory is exactly the `size` bytes of `array`'s data, if only the array refers to
// it; otherwise null. Borrowed.
PyObject* whole_block_of(const Numpy& numpy, PyObject* array, std::size_t size) noexcept;

// Changes the owner of the Block's memory to MEMBER(member) and returns its handle; the Block must
// not be used afterwards. Returns 0 if that is impossible (other members hold the memory, or it
// belongs to another member).
arena::Handle hand_on_block(PyObject* object, arena::Member* member) noexcept;

}  // namespace shoal::codec::python
