// SPDX-License-Identifier: Apache-2.0
//
// The type that owns a reference to a Python object, under the name that the bindings use: it is
// the codec's, which is below them.
#pragma once

#include "codec/python/reference.hpp"

namespace shoal::bindings {

using codec::python::Reference;
using codec::python::ReferenceTo;

}  // namespace shoal::bindings
