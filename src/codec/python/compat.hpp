// SPDX-License-Identifier: Apache-2.0
//
// Differences between the CPython versions (3.10 to 3.15, with and without the GIL) in the API that
// the codec uses.
//
// Design: docs/design/codec.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <cstddef>
#include <cstdint>

namespace shoal::codec::python {

#ifdef Py_GIL_DISABLED
inline constexpr bool kFreeThreaded = true;
#else
inline constexpr bool kFreeThreaded = false;
#endif

// Set by an atexit function, that is before the interpreter begins to end. From 3.14 on no code
// reads it.
inline bool interpreter_may_end = false;

// Does this thread have the GIL (without one: an attached thread state)? False in a thread that the
// interpreter unwinds, because the thread asked for the GIL after the interpreter had begun to end.
// From 3.14 on such a thread sleeps for ever instead.
inline bool is_attached() noexcept {
#if PY_VERSION_HEX >= 0x030E0000
  return true;
#else
  if (!interpreter_may_end) [[likely]] {
    return true;
  }
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked() != nullptr;
#elif PY_VERSION_HEX >= 0x030C0000
  return _PyThreadState_UncheckedGet() != nullptr;
#else
  return PyGILState_Check() != 0;
#endif
#endif
}

// True if the reference through which `object` was reached (a counted one, from a container) is the
// only one. Always false without the GIL, where a count read by another thread means nothing.
inline bool is_unique(PyObject* object) noexcept {
  return !kFreeThreaded && Py_REFCNT(object) == 1;
}

// Returns true and sets `*value` if the int fits 64 bits. `object` is an exact int.
inline bool small_int(PyObject* object, std::int64_t* value) noexcept {
#if PY_VERSION_HEX >= 0x030C0000
  auto* const number = reinterpret_cast<PyLongObject*>(object);
  if (PyUnstable_Long_IsCompact(number)) [[likely]] {
    *value = PyUnstable_Long_CompactValue(number);
    return true;
  }
#endif
  int overflow;
  *value = PyLong_AsLongLongAndOverflow(object, &overflow);
  return overflow == 0;
}

// Size of the two's complement of an exact int in bytes, at least 1.
inline std::size_t big_int_size(PyObject* object) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return static_cast<std::size_t>(
      PyLong_AsNativeBytes(object, nullptr, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN));
#else
  return _PyLong_NumBits(object) / 8 + 1;
#endif
}

inline bool big_int_bytes(PyObject* object, std::byte* out, std::size_t size) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyLong_AsNativeBytes(object, out, static_cast<Py_ssize_t>(size),
                              Py_ASNATIVEBYTES_LITTLE_ENDIAN) >= 0;
#else
  return _PyLong_AsByteArray(reinterpret_cast<PyLongObject*>(object),
                             reinterpret_cast<unsigned char*>(out), size, 1, 1) == 0;
#endif
}

inline PyObject* big_int_from_bytes(const std::byte* bytes, std::size_t size) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyLong_FromNativeBytes(bytes, size, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
  return _PyLong_FromByteArray(reinterpret_cast<const unsigned char*>(bytes), size, 1, 1);
#endif
}

// Brings a str into its canonical form (before 3.12, a str made by the legacy C API may not have it
// yet).
inline bool text_ready(PyObject* object) noexcept {
#if PY_VERSION_HEX < 0x030C0000
  return PyUnicode_READY(object) == 0;
#else
  (void)object;
  return true;
#endif
}

}  // namespace shoal::codec::python
