// SPDX-License-Identifier: Apache-2.0
#include "codec/python/block.hpp"

#include "arena/arena.hpp"

namespace shoal::codec::python {

namespace {

struct Block {
  PyObject_HEAD
  arena::Member* member;
  arena::Handle handle;  // 0 after it was moved
  void* data;
  Py_ssize_t size;
};

Block* as_block(PyObject* object) noexcept { return reinterpret_cast<Block*>(object); }

void block_dealloc(PyObject* self) {
  const Block* const block = as_block(self);
  if (block->handle != 0) block->member->drop(block->handle);
  Py_TYPE(self)->tp_free(self);
}

PyObject* block_repr(PyObject* self) {
  return PyUnicode_FromFormat("<shoal block of %zd bytes>", as_block(self)->size);
}

int block_getbuffer(PyObject* self, Py_buffer* view, int flags) {
  const Block* const block = as_block(self);
  return PyBuffer_FillInfo(view, self, block->data, block->size, 0, flags);
}

PyBufferProcs block_as_buffer = {block_getbuffer, nullptr};

PyTypeObject make_type() noexcept {
  struct {
    PyVarObject object;
    int end;  // the macro ends with a comma
  } const head = {PyVarObject_HEAD_INIT(nullptr, 0) 0};
  PyTypeObject type{};
  type.ob_base = head.object;
  type.tp_name = "shoal._core.Block";
  type.tp_doc = "Owner of shared memory that a decoded array or buffer lies in.";
  type.tp_basicsize = sizeof(Block);
  type.tp_dealloc = block_dealloc;
  type.tp_repr = block_repr;
  type.tp_as_buffer = &block_as_buffer;
  type.tp_flags = Py_TPFLAGS_DEFAULT;
  type.tp_free = PyObject_Free;
  return type;
}

PyTypeObject block_type = make_type();

// Changes the owner from COUNTED (held once, and only by this process) to MEMBER(member). False if
// the arena does not support that.
template <class Member>
bool take_counted(Member& member, arena::Handle handle) noexcept {
  if constexpr (requires { member.take_counted(handle); }) {
    return member.take_counted(handle);
  } else {
    return false;
  }
}

PyTypeObject* ready_type() noexcept {
  static const bool ready = PyType_Ready(&block_type) == 0;
  return ready ? &block_type : nullptr;
}

}  // namespace

PyObject* take_block(const MessageView& view, arena::Handle handle, std::size_t size) {
  arena::Member* const member = view.member;
  if (member == nullptr || !member->can_count(handle)) return nullptr;
  PyTypeObject* const type = ready_type();
  Block* const block = type == nullptr ? nullptr : PyObject_New(Block, type);
  if (block == nullptr) return nullptr;
  *block = Block{{block->ob_base}, member, 0, nullptr, 0};
  auto* const object = reinterpret_cast<PyObject*>(block);
  if (!member->take_from_block(handle, view.parent)) {
    Py_DECREF(object);
    PyErr_SetString(PyExc_ValueError, "shoal: an attachment does not belong to its message");
    return nullptr;
  }
  try {
    member->make_counted(handle);
  } catch (...) {
    member->free(handle);
    Py_DECREF(object);
    throw;
  }
  block->handle = handle;
  block->data = member->arena().address(handle);
  block->size = static_cast<Py_ssize_t>(size);
  return object;
}

void* block_data(PyObject* block) noexcept { return as_block(block)->data; }

PyObject* whole_block_of(const Numpy& numpy, PyObject* array, std::size_t size) noexcept {
  const ArrayFields* fields = array_fields(array);
  const void* const data = fields->data;
  // Follows views of views (reshape, transpose), each of which only the previous one refers to.
  while (fields->weak_references == nullptr && fields->base != nullptr && is_unique(fields->base)) {
    PyObject* const base = fields->base;
    if (Py_TYPE(base) == &block_type) {
      const Block* const block = as_block(base);
      const bool whole = block->data == data && static_cast<std::size_t>(block->size) == size;
      return whole ? base : nullptr;
    }
    if (Py_TYPE(base) != numpy.array_type()) return nullptr;
    fields = array_fields(base);
  }
  return nullptr;
}

arena::Handle hand_on_block(PyObject* object, arena::Member* member) noexcept {
  Block* const block = as_block(object);
  const arena::Handle handle = block->handle;
  if (handle == 0 || block->member != member || !take_counted(*member, handle)) return 0;
  block->handle = 0;
  return handle;
}

}  // namespace shoal::codec::python
