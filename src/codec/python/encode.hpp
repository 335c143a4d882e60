// SPDX-License-Identifier: Apache-2.0
//
// The encoder of one value: walks the value, writes it, and copies large data into blocks at the
// end, when it is certain that the whole value is on the fast path. Internal to codec/python.
//
// Invariants:
// 1. During the walk no user code runs, the GIL is not released, and for builtin values nothing is
//    allocated that could start the garbage collector. So the objects that the walk meets stay
//    alive and unchanged.
// 2. The memo has every object that was met and may be met again: number = offset of its tag times
//    two, plus one while its contents are being written. To meet an object while its contents are
//    being written means a cycle.
// 3. `pending_` has one entry for each attachment index that this encoder has made; the handle in
//    the builder is 0 until copy_pending() has filled it. numpy, which may release the GIL, copies
//    its arrays after the encoder has made all its own copies.
//
// Design: docs/design/codec.md
#pragma once

#include <vector>

#include "codec/python/compat.hpp"
#include "codec/python/numpy.hpp"
#include "codec/writer.hpp"

namespace shoal::codec::python {

// From 3.14 on, a local variable may hold a reference that is not counted. So for the root, which
// the caller passes from its stack, a count of 1 does not prove that nothing inside the root refers
// to it.
inline constexpr bool kRootCountIsExact = PY_VERSION_HEX < 0x030E0000;

class Encoder {
 public:
  Encoder(MessageBuilder& out, PyObject* root) noexcept;
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
  ~Encoder();

  // False: the value is not on the fast path, or a Python error is set. The caller must then roll
  // back the builder. May throw what allocation throws.
  bool run();

 private:
  enum class Met { kNew, kKept, kReferenced, kRefused };
  struct Pending {
    std::size_t place;  // index of the attachment, or offset in the builder's bytes
    bool in_line;
    const void* bytes;  // null: the owner is an array whose elements must be gathered
    std::size_t size;
    PyObject* owner;  // a counted reference
    PyObject* block;  // the Block to move instead of copying (borrowed from owner), or null
  };

  bool value(PyObject* object, bool sole);
  bool integer(PyObject* object);
  bool text(PyObject* object);
  bool raw(PyObject* object, Tag tag, Tag attached, const char* bytes, Py_ssize_t count);
  bool tuple(PyObject* object, bool sole);
  bool list(PyObject* object, bool sole);
  bool dict(PyObject* object, bool sole);
  bool set(PyObject* object, Tag tag);
  bool other(PyObject* object, bool sole);
  bool complex(PyObject* object);
  bool range(PyObject* object);
  bool date_like(PyObject* object, bool* done);
  bool array(const Numpy& numpy, PyObject* object, bool sole);
  bool array_elements(const Numpy& numpy, PyObject* object, bool sole);
  bool scalar(const Numpy& numpy, PyObject* object, Element element);

  // Writes a reference if the object was met before; otherwise notes the offset at which it is
  // about to be written.
  Met meet(PyObject* object, bool container = false) {
    if (is_unique(object) && (kRootCountIsExact || object != root_)) return Met::kNew;
    return meet_shared(object, container);
  }
  Met meet_shared(PyObject* object, bool container);
  bool open(PyObject* object, Tag tag, Py_ssize_t count, Met* met);
  void close(PyObject* object, Met met);
  void put_off(const void* bytes, std::size_t size, PyObject* owner, PyObject* block = nullptr);
  bool copy_pending();
  void* room_for(const Pending& pending);
  bool gather(const Pending& pending);
  bool has_no_registration(PyTypeObject* type);
  void keep(PyObject* stolen);

  MessageBuilder& out_;
  Buffer& bytes_;
  PyObject* const root_;
  int depth_ = 0;
  PyTypeObject* unregistered_ = nullptr;  // the last type found to have no registered reducer
  std::vector<Pending> pending_;
  std::vector<PyObject*> kept_;  // without the GIL: counted references to the objects met
};

}  // namespace shoal::codec::python
