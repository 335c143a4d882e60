// SPDX-License-Identifier: Apache-2.0
//
// Encodes values that are not on the fast path, with the dumps function of set_pickler. Internal to
// codec/python.
//
// Design: docs/design/codec.md
#pragma once

#include "codec/message.hpp"
#include "codec/python/compat.hpp"

namespace shoal::codec::python {

// Appends `object` as a pickle. False with an error set: the caller must then roll back the
// builder. May throw what allocation throws.
bool encode_pickle(PyObject* object, MessageBuilder& out);

}  // namespace shoal::codec::python
