// SPDX-License-Identifier: Apache-2.0
//
// Keys of shared maps: the same key gives the same hash and is found in every process.
//
// A key is canonical when its bytes decide equality: None, bools, ints, floats, str, bytes, and
// tuples of these; also instances of derived classes that keep hash and equality (IntEnum, named
// tuples). Equal canonical keys have equal bytes (1 == 1.0 == True). All other keys are opaque: the
// program's own __eq__ compares those of the same hash. Hashes of common opaque types (dates,
// enumerations, other numbers, frozensets) are portable too. The hash of any other type is the
// program's __hash__, which is the same only in processes with the same hash seed (a fork has its
// parent's; a fresh interpreter draws its own).
// Every function needs the GIL.
// Design: docs/design/collections.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <cstdint>

#include "codec/buffer.hpp"
#include "collections/item.hpp"

namespace shoal::bindings {

struct SharedKey {
  PyObject* object = nullptr;  // borrowed
  collections::KeyKind kind = collections::KeyKind::none;
  uint64_t hash = 0;
  bool is_portable = true;  // the hash is the same in every process
  codec::Buffer bytes;      // the canonical form, or the encoded key
  codec::Buffer shown;      // the key as given, if the canonical form is another value

  [[nodiscard]] collections::Bytes key_bytes() const { return {bytes.data(), bytes.size()}; }
  [[nodiscard]] collections::Bytes shown_bytes() const { return {shown.data(), shown.size()}; }
};

// False with an error set: the key cannot be hashed or pickled. `to_find`: an opaque key is not
// encoded.
bool make_key(PyObject* object, uint64_t seed, bool to_find, SharedKey& out);

// Differs between processes with different hash seeds; never 0.
uint64_t hash_fingerprint();

}  // namespace shoal::bindings
