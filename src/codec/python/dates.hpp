// SPDX-License-Identifier: Apache-2.0
//
// The C API of the datetime module, which is imported only when a program uses it. Needs an
// attached thread state.
//
// Design: docs/design/codec.md
#pragma once

#include "codec/python/compat.hpp"
// After Python.h:
#include <datetime.h>

namespace shoal::codec::python {

// Null (no error set) when the program has not imported datetime, or only its pure Python version
// exists.
PyDateTime_CAPI* dates_if_loaded() noexcept;
// Imports datetime if necessary. Null with an error set when that fails.
PyDateTime_CAPI* dates_imported() noexcept;

}  // namespace shoal::codec::python
