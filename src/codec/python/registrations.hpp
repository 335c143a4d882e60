// SPDX-License-Identifier: Apache-2.0
//
// Whether somebody has registered a reducer of his own for a type (copyreg.pickle, or
// multiprocessing's ForkingPickler.register). Such a registration wins over the fast path, as it
// wins over pickle's own way. Needs an attached thread state; runs no user code.
//
// Not asked for the types that pickle itself never looks up (None, bool, int, float, str, bytes,
// bytearray, tuple, list, dict, set, frozenset).
//
// Design: docs/design/codec.md
#pragma once

#include "codec/python/compat.hpp"

namespace shoal::codec::python {

bool has_registered_reducer(PyTypeObject* type) noexcept;

}  // namespace shoal::codec::python
