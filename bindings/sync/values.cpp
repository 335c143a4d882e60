// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Block: plain shared memory, zeroed, 64-byte aligned, with the buffer protocol.
// shoal._core.ValueCell: the standard library's Synchronized over a ctypes object: `value` is read
// and written under its lock, but without a Python frame.
//
// A read takes the lock only when the lock is not free. If the lock is free before and after the
// read, and was not taken between, the read saw no half-done change. (`locks` counts how often it
// was taken. A reader that sees a change made under the lock must also see the changed count. That
// needs stores to become visible in order, so this is done on x86-64 only.)
// Design: docs/design/sync.md
#include <cstring>

#include "bindings/interp/raised.hpp"
#include "bindings/shared/shared_object.hpp"
#include "sync/mutex.hpp"
#include "sync/recursive_mutex.hpp"

#include <structmember.h>

namespace shoal::bindings {

namespace {

#if defined(__x86_64__)
constexpr bool kStoresInOrder = true;
#else
constexpr bool kStoresInOrder = false;
#endif

// ---- Block

struct BlockObject {
  SharedObject shared;
  Py_ssize_t size;
};

BlockObject& block_object(PyObject* self) { return *reinterpret_cast<BlockObject*>(self); }

PyObject* block_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"size", "handle", nullptr};
  Py_ssize_t size = 0;
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "n|K", const_cast<char**>(names), &size,
                                   &handle)) {
    return nullptr;
  }
  if (size < 0) {
    PyErr_Format(PyExc_ValueError, "Size %zd out of range", size);
    return nullptr;
  }
  const auto bytes = static_cast<size_t>(size);
  PyObject* const self =
      handle == 0 ? new_shared(type, bytes,
                               [&](arena::Arena& arena, arena::Handle at) {
                                 std::memset(arena.address(at), 0, bytes);
                               })
                  : attach(type, handle, [&](arena::Arena& arena, arena::Handle at) {
                      if (arena.block_size(at) >= bytes) return;
                      throw arena::CorruptArena("no block of " + std::to_string(bytes) +
                                                " bytes at offset " + std::to_string(at));
                    });
  if (self != nullptr) block_object(self).size = size;
  return self;
}

int block_get_buffer(PyObject* self, Py_buffer* view, int flags) {
  return PyBuffer_FillInfo(view, self, shared_object(self).state, block_object(self).size, 0,
                           flags);
}

PyObject* block_create_memoryview(PyObject* self, PyObject*) {
  return PyMemoryView_FromObject(self);
}

PyObject* block_get_size(PyObject* self, void*) {
  return PyLong_FromSsize_t(block_object(self).size);
}

PyMethodDef block_methods[] = {{"create_memoryview", block_create_memoryview, METH_NOARGS, nullptr},
                               {nullptr, nullptr, 0, nullptr}};
PyGetSetDef block_getset[] = {SHOAL_HANDLE_GETTERS,
                              {"size", block_get_size, nullptr, "Bytes.", nullptr},
                              {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot block_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&block_new)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                             {Py_bf_getbuffer, reinterpret_cast<void*>(&block_get_buffer)},
                             {Py_tp_methods, block_methods},
                             {Py_tp_getset, block_getset},
                             {0, nullptr}};
PyType_Spec block_spec = {"shoal._core.Block", sizeof(BlockObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, block_slots};

// ---- ValueCell

struct CellObject {
  PyObject_HEAD
  PyObject* object;  // the ctypes object, whose memory is at `data`
  PyObject* lock;    // a Lock or RLock of this module
  void* data;
  char code;  // the ctypes type code if this file converts the type, else 0: ctypes converts
};

CellObject& cell(PyObject* self) { return *reinterpret_cast<CellObject*>(self); }

template <class T>
T read_as(const void* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

template <class T>
void write_as(void* data, T value) {
  std::memcpy(data, &value, sizeof value);
}

PyObject* to_python(char code, const void* data) {
  switch (code) {
    case 'b':
      return PyLong_FromLong(read_as<signed char>(data));
    case 'B':
      return PyLong_FromLong(read_as<unsigned char>(data));
    case 'h':
      return PyLong_FromLong(read_as<short>(data));
    case 'H':
      return PyLong_FromLong(read_as<unsigned short>(data));
    case 'i':
      return PyLong_FromLong(read_as<int>(data));
    case 'I':
      return PyLong_FromUnsignedLong(read_as<unsigned>(data));
    case 'l':
    case 'q':
      return PyLong_FromLong(read_as<long>(data));
    case 'L':
    case 'Q':
      return PyLong_FromUnsignedLong(read_as<unsigned long>(data));
    case 'f':
      return PyFloat_FromDouble(static_cast<double>(read_as<float>(data)));
    default:
      return PyFloat_FromDouble(read_as<double>(data));
  }
}

// Writes what ctypes would write. False: this file does not convert the value; nothing is written.
bool from_python(char code, void* data, PyObject* value) {
  if (code == 'f' || code == 'd') {
    if (!PyFloat_CheckExact(value)) return false;
    const double number = PyFloat_AS_DOUBLE(value);
    if (code == 'f') {
      write_as(data, static_cast<float>(number));
    } else {
      write_as(data, number);
    }
    return true;
  }
  if (!PyLong_CheckExact(value)) return false;
  const unsigned long bits = PyLong_AsUnsignedLongMask(value);  // an exact int: cannot fail
  switch (code) {
    case 'b':
    case 'B':
      write_as(data, static_cast<unsigned char>(bits));
      return true;
    case 'h':
    case 'H':
      write_as(data, static_cast<unsigned short>(bits));
      return true;
    case 'i':
    case 'I':
      write_as(data, static_cast<unsigned>(bits));
      return true;
    default:
      write_as(data, bits);
      return true;
  }
}

bool is_known_code(const char* code) {
  return code[0] != 0 && code[1] == 0 && std::strchr("bBhHiIlLqQfd", code[0]) != nullptr;
}

PyObject* cell_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* object = nullptr;
  PyObject* lock = nullptr;
  unsigned long long address = 0;
  const char* code = nullptr;
  if (!PyArg_ParseTuple(args, "OOKs", &object, &lock, &address, &code)) return nullptr;
  if (!is_lock(lock)) {
    PyErr_SetString(PyExc_TypeError, "a value's lock must be a Lock or RLock of shoal");
    return nullptr;
  }
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  cell(self).object = Py_NewRef(object);
  cell(self).lock = Py_NewRef(lock);
  cell(self).data = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  cell(self).code = is_known_code(code) ? code[0] : '\0';
  return self;
}

void cell_dealloc(PyObject* self) {
  Py_XDECREF(cell(self).object);
  Py_XDECREF(cell(self).lock);
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

bool let_go(PyObject* lock) {
  PyObject* const released = lock_release_call(lock, nullptr);
  Py_XDECREF(released);
  return released != nullptr;
}

PyObject* read_locked(CellObject& self) {
  if (!lock_take(self.lock)) return nullptr;
  PyObject* const value = self.code != '\0' ? to_python(self.code, self.data)
                                            : PyObject_GetAttrString(self.object, "value");
  if (let_go(self.lock)) return value;
  Py_XDECREF(value);
  return nullptr;
}

PyObject* cell_get_value(PyObject* object, void*) {
  CellObject& self = cell(object);
  if (!kStoresInOrder || self.code == '\0') return read_locked(self);
  sync::MutexState& state = state_of<sync::MutexState>(self.lock);
  const uint32_t locks = state.locks.load();
  if (state.word.load() != 0) return read_locked(self);
  PyObject* const value = to_python(self.code, self.data);
  if (state.word.load() == 0 && state.locks.load() == locks) return value;
  Py_XDECREF(value);
  return read_locked(self);
}

// A class that does not override `value`: no attribute lookup is needed for it (46 -> 34 ns).
PyTypeObject* direct_type = nullptr;
PyObject* value_name = nullptr;

PyObject* cell_getattro(PyObject* self, PyObject* name) {
  if (name == value_name && Py_TYPE(self) == direct_type) return cell_get_value(self, nullptr);
  return PyObject_GenericGetAttr(self, name);
}

PyObject* cell_read_directly(PyObject*, PyObject* type) {
  if (PyType_Check(type) == 0) {
    PyErr_SetString(PyExc_TypeError, "_read_directly() needs a class");
    return nullptr;
  }
  Py_XSETREF(direct_type, reinterpret_cast<PyTypeObject*>(Py_NewRef(type)));
  return Py_NewRef(type);
}

int cell_set_value(PyObject* object, PyObject* value, void*) {
  CellObject& self = cell(object);
  if (value == nullptr) {
    PyErr_SetString(PyExc_AttributeError, "can't delete attribute 'value'");
    return -1;
  }
  if (!lock_take(self.lock)) return -1;
  const bool written = self.code != '\0' && from_python(self.code, self.data, value);
  const int set = written ? 0 : PyObject_SetAttrString(self.object, "value", value);
  if (set == 0) return let_go(self.lock) ? 0 : -1;
  Reference error = take_raised();
  if (!let_go(self.lock)) PyErr_Clear();
  put_raised(std::move(error));
  return -1;
}

PyObject* cell_acquire(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  return lock_acquire_fast(cell(self).lock, args, count, names);
}
PyObject* cell_release(PyObject* self, PyObject*) {
  return lock_release_call(cell(self).lock, nullptr);
}
PyObject* cell_get_object(PyObject* self, PyObject*) { return Py_NewRef(cell(self).object); }
PyObject* cell_get_lock(PyObject* self, PyObject*) { return Py_NewRef(cell(self).lock); }
PyObject* cell_enter(PyObject* self) { return lock_enter_call(cell(self).lock, nullptr); }
PyObject* cell_exit(PyObject* self) { return lock_release_call(cell(self).lock, nullptr); }

PyMethodDef cell_methods[] = {
    {"acquire", method(cell_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nThe lock's."},
    {"release", cell_release, METH_NOARGS, "release()\n\nThe lock's."},
    {"get_obj", cell_get_object, METH_NOARGS, "The ctypes object, to be used with the lock taken."},
    {"get_lock", cell_get_lock, METH_NOARGS, "The lock."},
    {"_read_directly", cell_read_directly, METH_O | METH_STATIC,
     "_read_directly(cls)\n\nDeclares that `cls` does not override `value`."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef cell_getset[] = {
    {"value", cell_get_value, cell_set_value, "The value, read or written with the lock.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMemberDef cell_members[] = {{"_obj", T_OBJECT, offsetof(CellObject, object), READONLY, nullptr},
                              {"_lock", T_OBJECT, offsetof(CellObject, lock), READONLY, nullptr},
                              {nullptr, 0, 0, 0, nullptr}};
PyType_Slot cell_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&cell_new)},
                            {Py_tp_dealloc, reinterpret_cast<void*>(&cell_dealloc)},
                            {Py_tp_getattro, reinterpret_cast<void*>(&cell_getattro)},
                            {Py_tp_methods, cell_methods},
                            {Py_tp_getset, cell_getset},
                            {Py_tp_members, cell_members},
                            {0, nullptr}};
PyType_Spec cell_spec = {"shoal._core.ValueCell", sizeof(CellObject), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, cell_slots};

}  // namespace

bool bind_values(PyObject* module) {
  PyTypeObject* cell_type = nullptr;
  value_name = PyUnicode_InternFromString("value");
  return value_name != nullptr && add_type(module, block_spec) &&
         add_type(module, cell_spec, &cell_type) &&
         add_fast_method(cell_type, "__enter__", &cell_enter) &&
         add_fast_method(cell_type, "__exit__", &cell_exit);
}

}  // namespace shoal::bindings
