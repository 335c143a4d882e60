// SPDX-License-Identifier: Apache-2.0
//
// Reference: the one type that owns a reference to a Python object, in the codec and in the
// bindings. It gives the reference up when its scope ends, also when a C++ exception leaves that.
// Every function needs an attached thread state (the GIL).
//
// Giving up the last reference to an object runs Python code: finalizers, callbacks of weak
// references, and whatever other threads do while the GIL is let go of. So:
// 1. Assignment and reset() change the Reference first and give up the old object afterwards: code
//    that runs then finds the new state.
// 2. What others can reach (a slot of a table, a queue's front) is emptied by a move into a local
//    Reference; the object is given up where that one ends.
// 3. The destructor is not noexcept. Before CPython 3.14, a daemon thread that asks for the GIL
//    when the interpreter is ending is unwound there and then, maybe out of a finalizer.
// 4. While a thread is unwound so, it does not have the GIL: its references are left alone.
//
// Members of Python objects that the garbage collector visits stay plain pointers: Py_VISIT and
// Py_CLEAR want those.
// Design: docs/design/bindings.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <utility>

#include "codec/python/compat.hpp"

namespace shoal::codec::python {

// T is PyObject or a struct that begins as one does (PyObject_HEAD).
template <class T>
class ReferenceTo {
 public:
  ReferenceTo() noexcept = default;
  // Owns a reference that the caller has got: what most functions of the C API return. May be null.
  static ReferenceTo take(T* owned) noexcept { return ReferenceTo(owned); }
  // Owns one more reference to an object that somebody else keeps. May be null.
  static ReferenceTo borrow(T* object) noexcept {
    Py_XINCREF(reinterpret_cast<PyObject*>(object));
    return ReferenceTo(object);
  }

  ReferenceTo(ReferenceTo&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  ReferenceTo& operator=(ReferenceTo&& other) {  // NOLINT(*-noexcept-move*): see 3
    ReferenceTo old = std::move(other);
    std::swap(object_, old.object_);
    return *this;
  }
  ReferenceTo(const ReferenceTo&) = delete;
  ReferenceTo& operator=(const ReferenceTo&) = delete;
  // NOLINTNEXTLINE(*-noexcept-destructor, *-unsafe-to-allow-exceptions): see 3
  ~ReferenceTo() noexcept(false) {
    if (object_ != nullptr && is_attached()) Py_DECREF(reinterpret_cast<PyObject*>(object_));
  }

  [[nodiscard]] T* get() const noexcept { return object_; }
  T* operator->() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }
  // Hands the reference to the caller, who must give it up.
  [[nodiscard]] T* release() noexcept { return std::exchange(object_, nullptr); }
  void reset() { *this = ReferenceTo(); }

 private:
  explicit ReferenceTo(T* owned) noexcept : object_(owned) {}

  T* object_ = nullptr;
};

using Reference = ReferenceTo<PyObject>;

}  // namespace shoal::codec::python
