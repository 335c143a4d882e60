// SPDX-License-Identifier: Apache-2.0
//
// Lifetime of the objects over shared states, and the arguments of their hot methods.
// Design: docs/design/sync.md
#include "bindings/shared/shared_object.hpp"

#include "bindings/interp/wait.hpp"

namespace shoal::bindings {

namespace {

// Dead members are reaped once for this many new objects: their blocks must not pile up in a
// program in which nothing else reaps.
constexpr uint32_t kReapEvery = 4096;

thread_local HandleCollector* collecting = nullptr;

}  // namespace

arena::Handle new_state(arena::Member& member, size_t size) {
  static uint32_t made = 0;
  try {
    if (++made % kReapEvery == 0) arena::reap_all_dead(member.arena(), member);
    return member.allocate_shareable(size);
  } catch (const std::exception&) {
    set_python_error();
    return 0;
  }
}

void let_go(arena::Member& member, arena::Handle handle) noexcept {
  if (member.drop_shared(handle)) arena::end_block(member, handle);
}

HandleCollector::HandleCollector(arena::Member& member) noexcept
    : member_(member), before_(collecting) {
  collecting = this;
}

HandleCollector::~HandleCollector() {
  collecting = before_;
  for (const arena::Handle handle : handles_) let_go(member_, handle);
}

bool HandleCollector::add(arena::Handle handle) {
  make_room(handles_, 1);
  if (!member_.hold_shared(handle)) return false;
  handles_.push_back(handle);
  return true;
}

bool share_state(PyObject* self, arena::Member& member, arena::Handle handle) {
  try {
    member.share(handle);
  } catch (const std::exception&) {
    arena::end_block(member, handle);  // ends the state as well: a container owns a table
    set_python_error();
    return false;
  }
  shared_object(self).handle = handle;
  shared_object(self).state = member.arena().address(handle);
  return true;
}

bool hold_state(PyObject* self, arena::Member& member, arena::Handle handle) {
  if (!member.hold_shared(handle)) {
    PyErr_Format(PyExc_RuntimeError,
                 "no process holds this %s any more: the sender must keep it until it has "
                 "arrived",
                 Py_TYPE(self)->tp_name);
    return false;
  }
  shared_object(self).handle = handle;
  shared_object(self).state = member.arena().address(handle);
  return true;
}

void sync_dealloc(PyObject* self) {
  SharedObject& object = shared_object(self);
  arena::Member* const member = object.handle == 0 ? nullptr : member_if_any();
  if (member != nullptr) let_go(*member, object.handle);
  Py_XDECREF(object.lock);
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* sync_get_handle(PyObject* self, void*) {
  SharedObject& object = shared_object(self);
  if (!object.sent || collecting != nullptr) {
    arena::Member* const member = current_member();
    if (member == nullptr) return nullptr;
    try {
      if (collecting != nullptr) {
        collecting->add(object.handle);
      } else {
        object.sent = member->hold_shared(object.handle);
      }
    } catch (const std::exception&) {
      set_python_error();
      return nullptr;
    }
  }
  return PyLong_FromUnsignedLongLong(object.handle);
}

PyObject* sync_peek_handle(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong(shared_object(self).handle);
}

bool add_type(PyObject* module, PyType_Spec& spec, PyTypeObject** type) {
  PyObject* const made = PyType_FromSpec(&spec);
  if (made == nullptr) return false;
  if (type != nullptr) *type = reinterpret_cast<PyTypeObject*>(made);
  const int added = PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(made));
  if (type == nullptr) Py_DECREF(made);
  return added == 0;
}

bool parse_fast(const char* function, const char* const* names, int most, PyObject* const* args,
                Py_ssize_t count, PyObject* keywords, PyObject** given) {
  if (count > most) {
    PyErr_Format(PyExc_TypeError, "%s() takes at most %d arguments (%zd given)", function, most,
                 count);
    return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) given[i] = args[i];
  const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject* const name = PyTuple_GET_ITEM(keywords, i);
    int place = 0;
    while (place < most && PyUnicode_CompareWithASCIIString(name, names[place]) != 0) ++place;
    if (place == most || place < count) {
      PyErr_Format(PyExc_TypeError, "%s() got an unexpected argument '%U'", function, name);
      return false;
    }
    given[place] = args[count + i];
  }
  return true;
}

bool parse_block(const char* function, PyObject* const* args, Py_ssize_t count, PyObject* keywords,
                 int64_t* deadline_ns) {
  static const char* const names[] = {"block", "timeout"};
  PyObject* given[2] = {Py_True, Py_None};
  return parse_fast(function, names, 2, args, count, keywords, given) &&
         deadline_from(given[0], given[1], deadline_ns);
}

}  // namespace shoal::bindings
