// SPDX-License-Identifier: Apache-2.0
//
// Reference: the type that owns a reference to a Python object, in the codec and in the bindings.
// Its destructor drops the reference at the end of the scope, also when a C++ exception leaves the
// scope. Every function needs an attached thread state (the GIL).
//
// Dropping the last reference to an object runs Python code: finalizers, callbacks of weak
// references, and code of other threads while the GIL is released. So:
// 1. Assignment and reset() change the Reference first and drop the old object afterwards: code
//    that runs at that point sees the new state.
// 2. A place that other code can reach (a slot of a table, a queue's front) is emptied by a move
//    into a local Reference, which drops the object at the end of its scope.
// 3. The destructor is not noexcept. Before CPython 3.14, a daemon thread that asks for the GIL
//    while the interpreter is finalizing is unwound immediately, possibly inside a finalizer.
// 4. A thread that is being unwound does not have the GIL, so the destructor leaves its reference
//    alone.
//
// Members of Python objects that the garbage collector visits are plain pointers, since Py_VISIT
// and Py_CLEAR need them.
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
  // Owns a reference that the caller owned, such as most functions of the C API return. May be
  // null.
  static ReferenceTo take(T* owned) noexcept { return ReferenceTo(owned); }
  // Owns an additional reference to an object. May be null.
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
  // Passes the reference to the caller, who must drop it.
  [[nodiscard]] T* release() noexcept { return std::exchange(object_, nullptr); }
  void reset() { *this = ReferenceTo(); }

 private:
  explicit ReferenceTo(T* owned) noexcept : object_(owned) {}

  T* object_ = nullptr;
};

using Reference = ReferenceTo<PyObject>;

}  // namespace shoal::codec::python
