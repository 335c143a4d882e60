// SPDX-License-Identifier: Apache-2.0
//
// The way of every value that is not on the fast path: the dumps and loads given to set_pickler.
// Internal to codec/python.
//
// Design: docs/design/codec.md
#pragma once

#include "codec/message.hpp"
#include "codec/python/compat.hpp"

namespace shoal::codec::python {

// Appends `object` as a pickle. False with an error set; the builder is then to be rolled back.
// May throw what allocating throws.
bool encode_pickle(PyObject* object, MessageBuilder& out);

}  // namespace shoal::codec::python
