// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Map: a plain C type over a shared map, with those dict methods that are one change.
// Python (shoal/_shared/_collections.py) implements methods that need several steps. Sets are maps
// without values.
// Design: docs/design/collections.md
#include "bindings/collections/map_search.hpp"
#include "os/random.hpp"

namespace shoal::bindings {

namespace {

using collections::Map;

PyObject* raise_key_error(PyObject* key) {
  // As dict does: the key is the argument even when it is a tuple.
  const Reference argument = Reference::take(PyTuple_Pack(1, key));
  if (argument) PyErr_SetObject(PyExc_KeyError, argument.get());
  return nullptr;
}

PyObject* map_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"handle", nullptr};
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|K:Map", const_cast<char**>(names), &handle)) {
    return nullptr;
  }
  const auto check = [](arena::Arena& arena, Handle at) { static_cast<void>(Map(arena, at)); };
  return new_container(type, handle, check, [](arena::Member& member, Handle at) {
    Map::create(member, at);
    auto& user = member.arena().at<collections::ContainerState>(at)->user;
    user[kMapSeed].store(os::random_bits());
    user[kMapFingerprint].store(hash_fingerprint());
  });
}

PyObject* map_subscript(PyObject* self, PyObject* key) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  KeySearch search(self, *member, true);
  if (!search.prepare(key)) return nullptr;
  PyObject* const value = map_get(search, *member);
  return value != nullptr || PyErr_Occurred() != nullptr ? value : raise_key_error(key);
}

int map_ass_subscript(PyObject* self, PyObject* key, PyObject* value) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  KeySearch search(self, *member, value == nullptr);
  if (!search.prepare(key)) return -1;
  if (value != nullptr) return map_put(search, value, *member) ? 0 : -1;
  const int removed = map_remove(search, *member);
  if (removed == 0) raise_key_error(key);
  return removed == 1 ? 0 : -1;
}

int map_contains(PyObject* self, PyObject* key) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  KeySearch search(self, *member, true);
  bool found = false;
  const bool ran = search.prepare(key) &&
                   search.run([&](Map&, const Map::Entry& entry) { found = bool(entry); });
  if (!ran) return -1;
  return found ? 1 : 0;
}

Py_ssize_t map_length(PyObject* self) {
  return static_cast<Py_ssize_t>(state_of<collections::ContainerState>(self).live.load());
}

PyObject* map_get_default(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 2) {
    return PyErr_Format(PyExc_TypeError, "get expected 1 or 2 arguments, got %zd", count);
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  KeySearch search(self, *member, true);
  if (!search.prepare(args[0])) return nullptr;
  PyObject* const value = map_get(search, *member);
  if (value != nullptr || PyErr_Occurred() != nullptr) return value;
  return Py_NewRef(count == 2 ? args[1] : Py_None);
}

PyObject* map_pop(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 2) {
    return PyErr_Format(PyExc_TypeError, "pop expected 1 or 2 arguments, got %zd", count);
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  KeySearch search(self, *member, true);
  if (!search.prepare(args[0])) return nullptr;
  Copies copies(*member);
  Removed removed(*member);
  const bool ran = search.run([&](Map& map, const Map::Entry& entry) {
    if (!entry) return;
    copies.add(entry.item, Copies::value);
    removed.item(map.erase(*member, entry));
  });
  if (!ran) return nullptr;
  if (copies.count() != 0) return copies.decode(0);
  return count == 2 ? Py_NewRef(args[1]) : raise_key_error(args[0]);
}

PyObject* map_set_default(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count < 1 || count > 2) {
    return PyErr_Format(PyExc_TypeError, "setdefault expected 1 or 2 arguments, got %zd", count);
  }
  PyObject* const value = count == 2 ? args[1] : Py_None;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  KeySearch search(self, *member, false);
  if (!search.prepare(args[0])) return nullptr;
  NewItem fresh(*member);
  if (!fresh.make(&search.key(), value)) return nullptr;
  Copies copies(*member);
  const bool ran = search.run([&](Map& map, const Map::Entry& entry) {
    copies.add(entry ? entry.item : fresh.get(), Copies::value);
    if (entry) return;
    search.insert(map, fresh);
  });
  return ran ? copies.decode(0) : nullptr;
}

// Removes the first or the last entry and returns it; None when the map is empty.
PyObject* map_take(PyObject* self, PyObject* last) {
  const int from_end = PyObject_IsTrue(last);
  arena::Member* const member = from_end < 0 ? nullptr : current_member();
  if (member == nullptr) return nullptr;
  Copies copies(*member);
  Removed removed(*member);
  const bool ran = run_locked<Map>(self, *member, [&](Map& map) {
    const uint64_t begin = map.begin();
    for (uint64_t left = map.end() - begin, i = 0; i < left; ++i) {
      const uint64_t position = from_end != 0 ? begin + left - 1 - i : begin + i;
      const Handle item = map.at(position);
      if (item == 0) continue;
      copies.add(item, Copies::key | Copies::value);
      removed.item(map.erase(*member, map.entry_at(position)));
      return;
    }
  });
  if (!ran) return nullptr;
  if (copies.count() == 0) Py_RETURN_NONE;
  const Reference key = Reference::take(copies.decode(0));
  const Reference value = Reference::take(key ? copies.decode(1) : nullptr);
  return value ? PyTuple_Pack(2, key.get(), value.get()) : nullptr;
}

// (count of changes to the keys, list of all keys, values or pairs)
PyObject* map_snapshot(PyObject* self, PyObject* wanted) {
  const long what = PyLong_AsLong(wanted);
  if (what == -1 && PyErr_Occurred() != nullptr) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Copies copies(*member);
  uint64_t shape = 0;
  const bool ran = run_locked<Map>(self, *member, [&](Map& map) {
    shape = map.shape();
    for (uint64_t i = map.begin(); i < map.end(); ++i) {
      if (const Handle item = map.at(i); item != 0) copies.add(item, static_cast<int>(what));
    }
  });
  if (!ran) return nullptr;
  const size_t each = what == (Copies::key | Copies::value) ? 2 : 1;
  const size_t count = copies.count() / each;
  Reference list = Reference::take(PyList_New(static_cast<Py_ssize_t>(count)));
  for (size_t i = 0; list && i < count; ++i) {
    Reference entry = Reference::take(copies.decode(i * each));
    if (entry && each == 2) {
      const Reference value = Reference::take(copies.decode(i * 2 + 1));
      entry = Reference::take(value ? PyTuple_Pack(2, entry.get(), value.get()) : nullptr);
    }
    if (!entry) return nullptr;
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), entry.release());
  }
  return list ? Py_BuildValue("KN", shape, list.release()) : nullptr;
}

PyObject* map_clear(PyObject* self, PyObject*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Removed removed(*member);
  const bool ran =
      run_locked<Map>(self, *member, [&](Map& map) { removed.bag(map.clear(*member)); });
  if (!ran) return nullptr;
  Py_RETURN_NONE;
}

// For sets: adds a key without a value. False: the key is in the set already.
PyObject* map_add(PyObject* self, PyObject* key) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  KeySearch search(self, *member, false);
  NewItem fresh(*member);
  if (!search.prepare(key) || !fresh.make(&search.key(), nullptr)) return nullptr;
  bool added = false;
  const bool ran = search.run([&](Map& map, const Map::Entry& entry) {
    if (entry) return;
    search.insert(map, fresh);
    added = true;
  });
  return ran ? PyBool_FromLong(added ? 1 : 0) : nullptr;
}

PyObject* map_discard(PyObject* self, PyObject* key) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  KeySearch search(self, *member, true);
  const int removed = search.prepare(key) ? map_remove(search, *member) : -1;
  return removed < 0 ? nullptr : PyBool_FromLong(removed);
}

PyObject* map_get_shape(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong(state_of<collections::ContainerState>(self).shape.load());
}

#define SHOAL_KEY_METHODS                                                                   \
  {"clear", map_clear, METH_NOARGS, "clear()\n\nTakes all keys out, in one step."},         \
      {"_take", map_take, METH_O, nullptr}, {"_snapshot", map_snapshot, METH_O, nullptr}, { \
    nullptr, nullptr, 0, nullptr                                                            \
  }

PyMethodDef map_methods[] = {
    {"get", method(map_get_default), METH_FASTCALL,
     "get(key, default=None)\n\nThe value of the key, or the default."},
    {"pop", method(map_pop), METH_FASTCALL,
     "pop(key[, default])\n\nRemoves the key and returns its value; KeyError when there is no such"
     " key and\nno default is given. One step: only one process gets the value."},
    {"setdefault", method(map_set_default), METH_FASTCALL,
     "setdefault(key, default=None)\n\nThe value of the key, which is set to the default if there"
     " is none. One step."},
    SHOAL_KEY_METHODS};

PyGetSetDef map_getset[] = {SHOAL_HANDLE_GETTERS,
                            {"_shape", map_get_shape, nullptr, nullptr, nullptr},
                            {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot map_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&map_new)},
                           {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                           {Py_mp_subscript, reinterpret_cast<void*>(&map_subscript)},
                           {Py_mp_ass_subscript, reinterpret_cast<void*>(&map_ass_subscript)},
                           {Py_mp_length, reinterpret_cast<void*>(&map_length)},
                           {Py_sq_contains, reinterpret_cast<void*>(&map_contains)},
                           {Py_tp_methods, map_methods},
                           {Py_tp_getset, map_getset},
                           {0, nullptr}};
PyType_Spec map_spec = {"shoal._core.Map", sizeof(SharedObject), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, map_slots};

// ---- KeySet: a map whose entries have no values

PyMethodDef set_methods[] = {{"_add", map_add, METH_O, nullptr},
                             {"_discard", map_discard, METH_O, nullptr},
                             SHOAL_KEY_METHODS};
PyType_Slot set_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&map_new)},
                           {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                           {Py_mp_length, reinterpret_cast<void*>(&map_length)},
                           {Py_sq_contains, reinterpret_cast<void*>(&map_contains)},
                           {Py_tp_methods, set_methods},
                           {Py_tp_getset, map_getset},
                           {0, nullptr}};
PyType_Spec set_spec = {"shoal._core.KeySet", sizeof(SharedObject), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, set_slots};

// ---- Namespace: attributes without a leading underscore are the map's keys

// For a name that is not a key: a method or a constant of a program's subclass.
PyObject* class_attribute(PyObject* self, PyObject* name) {
  if (PyObject_HasAttr(reinterpret_cast<PyObject*>(Py_TYPE(self)), name) != 0) {
    return PyObject_GenericGetAttr(self, name);
  }
  return PyErr_Format(PyExc_AttributeError, "'Namespace' object has no attribute '%U'", name);
}

PyObject* namespace_get(PyObject* self, PyObject* name) {
  if (!PyUnicode_Check(name) || PyUnicode_GET_LENGTH(name) == 0 ||
      PyUnicode_READ_CHAR(name, 0) == '_') {
    return PyObject_GenericGetAttr(self, name);
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  KeySearch search(self, *member, true);
  if (!search.prepare(name)) return nullptr;
  PyObject* const value = map_get(search, *member);
  if (value != nullptr || PyErr_Occurred() != nullptr) return value;
  return class_attribute(self, name);
}

int namespace_set(PyObject* self, PyObject* name, PyObject* value) {
  if (!PyUnicode_Check(name) || PyUnicode_GET_LENGTH(name) == 0 ||
      PyUnicode_READ_CHAR(name, 0) == '_') {
    return PyObject_GenericSetAttr(self, name, value);
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  KeySearch search(self, *member, value == nullptr);
  if (!search.prepare(name)) return -1;
  if (value != nullptr) return map_put(search, value, *member) ? 0 : -1;
  const int removed = map_remove(search, *member);
  if (removed == 0) {
    PyErr_Format(PyExc_AttributeError, "'Namespace' object has no attribute '%U'", name);
  }
  return removed == 1 ? 0 : -1;
}

PyMethodDef namespace_methods[] = {{"_snapshot", map_snapshot, METH_O, nullptr},
                                   {nullptr, nullptr, 0, nullptr}};
PyGetSetDef namespace_getset[] = {SHOAL_PRIVATE_HANDLE_GETTERS,
                                  {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot namespace_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&map_new)},
                                 {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                                 {Py_tp_getattro, reinterpret_cast<void*>(&namespace_get)},
                                 {Py_tp_setattro, reinterpret_cast<void*>(&namespace_set)},
                                 {Py_tp_methods, namespace_methods},
                                 {Py_tp_getset, namespace_getset},
                                 {0, nullptr}};
PyType_Spec namespace_spec = {"shoal._core.Namespace", sizeof(SharedObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, namespace_slots};

}  // namespace

bool bind_map(PyObject* module) {
  return add_type(module, map_spec) && add_type(module, set_spec) &&
         add_type(module, namespace_spec);
}

}  // namespace shoal::bindings
