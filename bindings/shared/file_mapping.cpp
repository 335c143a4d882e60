// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.FileMapping: a file's contents as a writable buffer, shared by all processes that map
// the file. It keeps no descriptor, and is unmapped when the last memoryview or array over it is
// gone: there is no close().
// reserve_file() and memory_headroom() make sure that a file has memory before it is written
// through a mapping.
// Design: docs/design/shared_memory.md
#include <cerrno>

#include "bindings/interp/bind.hpp"
#include "os/cgroup.hpp"
#include "os/memory.hpp"

namespace shoal::bindings {

namespace {

struct MappingObject {
  PyObject_HEAD
  std::byte* data;
  Py_ssize_t size;
};

MappingObject& mapping(PyObject* self) { return *reinterpret_cast<MappingObject*>(self); }

PyObject* mapping_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"fd", "size", nullptr};
  int fd = -1;
  Py_ssize_t size = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "in", const_cast<char**>(names), &fd, &size)) {
    return nullptr;
  }
  if (size <= 0) {
    PyErr_Format(PyExc_ValueError, "can't map %zd bytes of a file", size);
    return nullptr;
  }
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  mapping(self).data = os::map_file(fd, 0, static_cast<uint64_t>(size), true);
  if (mapping(self).data == nullptr) {
    PyErr_SetFromErrno(PyExc_OSError);
    Py_DECREF(self);
    return nullptr;
  }
  mapping(self).size = size;
  return self;
}

void mapping_dealloc(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  if (mapping(self).data != nullptr) {
    os::unmap(mapping(self).data, static_cast<uint64_t>(mapping(self).size));
  }
  type->tp_free(self);
  Py_DECREF(reinterpret_cast<PyObject*>(type));
}

int mapping_get_buffer(PyObject* self, Py_buffer* view, int flags) {
  return PyBuffer_FillInfo(view, self, mapping(self).data, mapping(self).size, 0, flags);
}

Py_ssize_t mapping_length(PyObject* self) { return mapping(self).size; }

PyType_Slot mapping_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&mapping_new)},
                               {Py_tp_dealloc, reinterpret_cast<void*>(&mapping_dealloc)},
                               {Py_bf_getbuffer, reinterpret_cast<void*>(&mapping_get_buffer)},
                               {Py_mp_length, reinterpret_cast<void*>(&mapping_length)},
                               {0, nullptr}};
PyType_Spec mapping_spec = {"shoal._core.FileMapping", sizeof(MappingObject), 0, Py_TPFLAGS_DEFAULT,
                            mapping_slots};

// Reserves in steps, so that a Ctrl-C is noticed between them. After an error the file keeps what
// was reserved so far.
PyObject* reserve_file(PyObject*, PyObject* arguments) {
  int fd = -1;
  unsigned long long size = 0;
  if (!PyArg_ParseTuple(arguments, "iK", &fd, &size)) return nullptr;
  for (uint64_t done = 0; done < size; done += os::kFileStep) {
    const uint64_t step = size - done < os::kFileStep ? size - done : os::kFileStep;
    bool reserved = false;
    int error = 0;
    Py_BEGIN_ALLOW_THREADS;
    reserved = os::reserve_file_range(fd, done, step);
    error = errno;
    Py_END_ALLOW_THREADS;
    if (!reserved) {
      errno = error;
      return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_CheckSignals() != 0) return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* memory_headroom(PyObject*, PyObject*) {
  try {
    const os::MemoryLimit now = os::memory_limit(os::find_cgroup("memory"));
    return Py_BuildValue("Ks", static_cast<unsigned long long>(now.headroom), now.which.c_str());
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
}

PyMethodDef functions[] = {
    {"reserve_file", reserve_file, METH_VARARGS,
     "reserve_file(fd, size): allocate the file's memory; OSError when there is not enough."},
    {"memory_headroom", memory_headroom, METH_NOARGS,
     "(bytes that can still be allocated, name of the limit)."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_file_mapping(PyObject* module) {
  PyObject* const type = PyType_FromSpec(&mapping_spec);
  if (type == nullptr) return false;
  const int added = PyModule_AddObjectRef(module, "FileMapping", type);
  Py_DECREF(type);
  return added == 0 && PyModule_AddFunctions(module, functions) == 0;
}

}  // namespace shoal::bindings
