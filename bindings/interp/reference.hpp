// SPDX-License-Identifier: Apache-2.0
//
// The type that owns a reference to a Python object. It is defined in the codec, a lower layer;
// this header gives it a name in the bindings.
#pragma once

#include "codec/python/reference.hpp"

namespace shoal::bindings {

using codec::python::Reference;
using codec::python::ReferenceTo;

}  // namespace shoal::bindings
