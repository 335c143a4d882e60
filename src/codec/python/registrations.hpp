// SPDX-License-Identifier: Apache-2.0
//
// Tells whether a program has registered a reducer for a type (copyreg.pickle, or multiprocessing's
// ForkingPickler.register). A registered reducer takes precedence over the fast path, as it does
// over pickle's default. Needs an attached thread state; runs no user code.
//
// The encoder does not call this for types that pickle itself never looks up (None, bool, int,
// float, str, bytes, bytearray, tuple, list, dict, set, frozenset).
//
// Design: docs/design/codec.md
#pragma once

#include "codec/python/compat.hpp"

namespace shoal::codec::python {

bool has_registered_reducer(PyTypeObject* type) noexcept;

}  // namespace shoal::codec::python
