// SPDX-License-Identifier: Apache-2.0
//
// The C interface of the datetime module, which is imported only when a program uses it. Needs an
// attached thread state.
//
// Design: docs/design/codec.md
#pragma once

#include "codec/python/compat.hpp"
// After Python.h:
#include <datetime.h>

namespace shoal::codec::python {

// Null (no error set) when the program has not imported datetime, or has it in Python only.
PyDateTime_CAPI* dates_if_loaded() noexcept;
// Imports it if need be. Null with an error set when that fails.
PyDateTime_CAPI* dates_imported() noexcept;

}  // namespace shoal::codec::python
