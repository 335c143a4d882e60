// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Sequence: a plain C type over a shared sequence, with those list methods that are one
// change. Python (shoal/_shared/_collections.py) implements methods that need several steps; it
// makes them atomic by passing the count of changes that it has seen (`changes`).
// Design: docs/design/collections.md
#include "collections/sequence.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "bindings/collections/container.hpp"

namespace shoal::bindings {

namespace {

using collections::Sequence;

PyObject* sequence_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"handle", nullptr};
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|K:Sequence", const_cast<char**>(names),
                                   &handle)) {
    return nullptr;
  }
  const auto check = [](arena::Arena& arena, Handle at) { static_cast<void>(Sequence(arena, at)); };
  return new_container(type, handle, check, &Sequence::create);
}

// Words of the state that belong to this layer.
enum SequenceWord { kQuietUntil = 0 };  // on the monotonic clock; 0: no process has asked
constexpr double kPatience = 3;         // seconds

// Called before a change. Waits a moment if a process that goes through the whole list (sort(),
// remove()) has asked for quiet, because it finds the list changed each time. This is only a
// request: it expires, so a process that has died delays nobody for long.
bool leave_alone(PyObject* self) {
  const auto& word = state_of<collections::ContainerState>(self).user[kQuietUntil];
  if (word.load(os::relaxed) == 0) return true;  // order: relaxed; a request
  const int64_t limit = os::monotonic_ns() + static_cast<int64_t>(kPatience * 1e9);
  const auto attempt = [&](int64_t) {
    const auto until = std::min(static_cast<int64_t>(word.load(os::relaxed)), limit);
    if (os::monotonic_ns() >= until) return Slice::done;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    return Slice::again;
  };
  return wait_in_slices(attempt, -1) == Waited::done;
}

template <class Step>
bool run_change(PyObject* self, arena::Member& member, Step&& step) {
  return leave_alone(self) && run_locked<Sequence>(self, member, step);
}

PyObject* raise_index_error(const char* what) {
  PyErr_SetString(PyExc_IndexError, what);
  return nullptr;
}

// Converts a Python index, counted from the end when negative; false when it is out of range.
bool place_of(Py_ssize_t index, const Sequence& sequence, uint64_t* place) {
  const auto size = static_cast<Py_ssize_t>(sequence.size());
  const Py_ssize_t counted = index < 0 ? index + size : index;
  *place = static_cast<uint64_t>(counted);
  return counted >= 0 && counted < size;
}

PyObject* list_of(Copies& copies) {
  const auto count = static_cast<Py_ssize_t>(copies.count());
  PyObject* const list = PyList_New(count);
  for (Py_ssize_t i = 0; list != nullptr && i < count; ++i) {
    PyObject* const value = copies.decode(static_cast<size_t>(i));
    if (value == nullptr) {
      Py_DECREF(list);
      return nullptr;
    }
    PyList_SET_ITEM(list, i, value);
  }
  return list;
}

// Items for all objects of an iterable. False with an error set.
bool items_of(PyObject* objects, arena::Member& member, std::vector<NewItem>& items) {
  PyObject* const sequence = PySequence_Fast(objects, "can only assign an iterable");
  if (sequence == nullptr) return false;
  bool done = true;
  try {
    // By index: encoding may run code that changes a list.
    for (Py_ssize_t i = 0; done && i < PySequence_Fast_GET_SIZE(sequence); ++i) {
      PyObject* const object = Py_NewRef(PySequence_Fast_GET_ITEM(sequence, i));
      items.emplace_back(member);
      done = items.back().make(nullptr, object);
      Py_DECREF(object);
    }
  } catch (const std::exception&) {
    set_python_error();
    done = false;
  }
  Py_DECREF(sequence);
  return done;
}

std::vector<Handle> handles_of(const std::vector<NewItem>& items) {
  std::vector<Handle> handles;
  handles.reserve(items.size());
  for (const NewItem& item : items) handles.push_back(item.get());
  return handles;
}

void release_all(std::vector<NewItem>& items) noexcept {
  for (NewItem& item : items) item.release();
}

Py_ssize_t sequence_length(PyObject* self) {
  return static_cast<Py_ssize_t>(state_of<collections::ContainerState>(self).live.load());
}

PyObject* get_at(PyObject* self, Py_ssize_t index) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Copies copies(*member);
  const bool ran = run_locked<Sequence>(self, *member, [&](Sequence& sequence) {
    uint64_t place = 0;
    if (place_of(index, sequence, &place)) copies.add(sequence.at(place), Copies::value);
  });
  if (!ran) return nullptr;
  return copies.count() == 0 ? raise_index_error("list index out of range") : copies.decode(0);
}

struct Slice3 {
  Py_ssize_t start;
  Py_ssize_t stop;
  Py_ssize_t step;
};

// The places of a slice, for the sequence's present length.
std::vector<uint64_t> places_of(Slice3 slice, const Sequence& sequence) {
  const Py_ssize_t count = PySlice_AdjustIndices(static_cast<Py_ssize_t>(sequence.size()),
                                                 &slice.start, &slice.stop, slice.step);
  std::vector<uint64_t> places(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    places[static_cast<size_t>(i)] = static_cast<uint64_t>(slice.start + i * slice.step);
  }
  return places;
}

PyObject* get_slice(PyObject* self, const Slice3& slice) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Copies copies(*member);
  const bool ran = run_locked<Sequence>(self, *member, [&](Sequence& sequence) {
    for (const uint64_t place : places_of(slice, sequence)) {
      copies.add(sequence.at(place), Copies::value);
    }
  });
  return ran ? list_of(copies) : nullptr;
}

bool unpack(PyObject* slice, Slice3* out) {
  return PySlice_Unpack(slice, &out->start, &out->stop, &out->step) == 0;
}

PyObject* sequence_subscript(PyObject* self, PyObject* index) {
  if (PySlice_Check(index)) {
    Slice3 slice{};
    return unpack(index, &slice) ? get_slice(self, slice) : nullptr;
  }
  if (PyIndex_Check(index) == 0) {
    return PyErr_Format(PyExc_TypeError, "list indices must be integers or slices, not %s",
                        Py_TYPE(index)->tp_name);
  }
  const Py_ssize_t place = PyNumber_AsSsize_t(index, PyExc_IndexError);
  return place == -1 && PyErr_Occurred() != nullptr ? nullptr : get_at(self, place);
}

// Removes an item, and adds its value to `copies`, which may be null. False: no such index.
bool take_at(Sequence& sequence, arena::Member& member, Py_ssize_t index, Copies* copies,
             Removed& removed) {
  uint64_t place = 0;
  if (!place_of(index, sequence, &place)) return false;
  if (copies != nullptr) copies->add(sequence.at(place), Copies::value);
  if (place + 1 == sequence.size()) {
    removed.item(sequence.pop_back(member));
  } else if (place == 0) {
    removed.item(sequence.pop_front(member));
  } else {
    removed.bag(sequence.splice(member, place, place + 1, {}));
  }
  return true;
}

int delete_at(PyObject* self, Py_ssize_t index) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  Removed removed(*member);
  bool found = false;
  const bool ran = run_change(self, *member, [&](Sequence& sequence) {
    found = take_at(sequence, *member, index, nullptr, removed);
  });
  if (ran && !found) raise_index_error("list assignment index out of range");
  return ran && found ? 0 : -1;
}

int set_at(PyObject* self, Py_ssize_t index, PyObject* value) {
  arena::Member* const member = current_member();
  if (member == nullptr) return -1;
  NewItem fresh(*member);
  if (!fresh.make(nullptr, value)) return -1;
  Removed removed(*member);
  bool found = false;
  const bool ran = run_change(self, *member, [&](Sequence& sequence) {
    uint64_t place = 0;
    found = place_of(index, sequence, &place);
    if (!found) return;
    removed.item(sequence.replace(*member, place, fresh.get()));
    fresh.release();
  });
  if (ran && !found) raise_index_error("list assignment index out of range");
  return ran && found ? 0 : -1;
}

// Replaces [first, last) of a slice with step 1 by these items. Does nothing (`*done` = false) if
// the sequence's count of changes is not `*changes`.
bool splice(PyObject* self, arena::Member& member, Slice3 slice, std::vector<NewItem>& items,
            const uint64_t* changes, bool* done) {
  Removed removed(member);
  *done = false;
  if (changes == nullptr && !leave_alone(self)) return false;
  const bool ran = run_locked<Sequence>(self, member, [&](Sequence& sequence) {
    if (changes != nullptr && *changes != sequence.changes()) return;
    PySlice_AdjustIndices(static_cast<Py_ssize_t>(sequence.size()), &slice.start, &slice.stop, 1);
    slice.stop = std::max(slice.stop, slice.start);
    removed.bag(sequence.splice(member, static_cast<uint64_t>(slice.start),
                                static_cast<uint64_t>(slice.stop), handles_of(items)));
    release_all(items);
    *done = true;
  });
  return ran;
}

// A slice with a step: needs as many items as places, and replaces them one by one.
bool assign_stepped(PyObject* self, arena::Member& member, const Slice3& slice,
                    std::vector<NewItem>& items) {
  std::vector<Handle> old;
  size_t places = items.size();
  const bool ran = run_change(self, member, [&](Sequence& sequence) {
    const std::vector<uint64_t> at = places_of(slice, sequence);
    places = at.size();
    if (places != items.size()) return;
    old.reserve(places);
    for (size_t i = 0; i < places; ++i) {
      old.push_back(sequence.replace(member, at[i], items[i].get()));
      items[i].release();
    }
  });
  for (const Handle item : old) collections::free_item(member, item);
  if (ran && places != items.size()) {
    PyErr_Format(PyExc_ValueError,
                 "attempt to assign sequence of size %zu to extended slice of size %zu",
                 items.size(), places);
    return false;
  }
  return ran;
}

bool delete_stepped(PyObject* self, arena::Member& member, const Slice3& slice) {
  Removed removed(member);
  return run_change(self, member, [&](Sequence& sequence) {
    std::vector<bool> goes(sequence.size());
    for (const uint64_t place : places_of(slice, sequence)) goes[place] = true;
    std::vector<uint64_t> stay;
    for (uint64_t i = 0; i < goes.size(); ++i) {
      if (!goes[i]) stay.push_back(i);
    }
    if (stay.size() != goes.size()) removed.bag(sequence.rearrange(member, stay));
  });
}

int sequence_ass_subscript(PyObject* self, PyObject* index, PyObject* value) {
  if (!PySlice_Check(index)) {
    if (PyIndex_Check(index) == 0) {
      PyErr_Format(PyExc_TypeError, "list indices must be integers or slices, not %s",
                   Py_TYPE(index)->tp_name);
      return -1;
    }
    const Py_ssize_t place = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (place == -1 && PyErr_Occurred() != nullptr) return -1;
    return value == nullptr ? delete_at(self, place) : set_at(self, place, value);
  }
  Slice3 slice{};
  arena::Member* const member = unpack(index, &slice) ? current_member() : nullptr;
  if (member == nullptr) return -1;
  std::vector<NewItem> items;
  if (value != nullptr && !items_of(value, *member, items)) return -1;
  if (slice.step == 1) {
    bool done = false;
    return splice(self, *member, slice, items, nullptr, &done) ? 0 : -1;
  }
  const bool ran = value == nullptr ? delete_stepped(self, *member, slice)
                                    : assign_stepped(self, *member, slice, items);
  return ran ? 0 : -1;
}

PyObject* sequence_append(PyObject* self, PyObject* value) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  NewItem fresh(*member);
  if (!fresh.make(nullptr, value)) return nullptr;
  const bool ran = run_change(self, *member, [&](Sequence& sequence) {
    sequence.append(*member, fresh.get());
    fresh.release();
  });
  if (!ran) return nullptr;
  Py_RETURN_NONE;
}

PyObject* sequence_extend(PyObject* self, PyObject* values) {
  arena::Member* const member = current_member();
  std::vector<NewItem> items;
  if (member == nullptr || !items_of(values, *member, items)) return nullptr;
  const bool ran = run_change(self, *member, [&](Sequence& sequence) {
    for (NewItem& item : items) {
      sequence.append(*member, item.get());
      item.release();
    }
  });
  if (!ran) return nullptr;
  Py_RETURN_NONE;
}

PyObject* sequence_insert(PyObject* self, PyObject* args) {
  Py_ssize_t index = 0;
  PyObject* value = nullptr;
  if (!PyArg_ParseTuple(args, "nO:insert", &index, &value)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  std::vector<NewItem> items;
  items.emplace_back(*member);
  bool done = false;
  if (!items.back().make(nullptr, value) ||
      !splice(self, *member, {index, index, 1}, items, nullptr, &done)) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* sequence_pop(PyObject* self, PyObject* args) {
  Py_ssize_t index = -1;
  if (!PyArg_ParseTuple(args, "|n:pop", &index)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Copies copies(*member);
  Removed removed(*member);
  bool is_empty = false;
  const bool ran = run_change(self, *member, [&](Sequence& sequence) {
    is_empty = sequence.size() == 0;
    take_at(sequence, *member, index, &copies, removed);
  });
  if (!ran) return nullptr;
  if (copies.count() != 0) return copies.decode(0);
  return raise_index_error(is_empty ? "pop from empty list" : "pop index out of range");
}

PyObject* sequence_clear(PyObject* self, PyObject*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Removed removed(*member);
  const bool ran =
      run_change(self, *member, [&](Sequence& sequence) { removed.bag(sequence.clear(*member)); });
  if (!ran) return nullptr;
  Py_RETURN_NONE;
}

PyObject* sequence_reverse(PyObject* self, PyObject*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  const bool ran = run_change(self, *member, [&](Sequence& sequence) {
    std::vector<uint64_t> places(sequence.size());
    for (uint64_t i = 0; i < places.size(); ++i) places[i] = places.size() - 1 - i;
    static_cast<void>(sequence.rearrange(*member, places));
  });
  if (!ran) return nullptr;
  Py_RETURN_NONE;
}

// (count of changes, list of the values)
PyObject* sequence_snapshot(PyObject* self, PyObject*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Copies copies(*member);
  uint64_t changes = 0;
  const bool ran = run_locked<Sequence>(self, *member, [&](Sequence& sequence) {
    changes = sequence.changes();
    // order: relaxed; under the lock
    for (auto& item : sequence.items()) copies.add(item.load(os::relaxed), Copies::value);
  });
  PyObject* const list = ran ? list_of(copies) : nullptr;
  return list == nullptr ? nullptr : Py_BuildValue("KN", changes, list);
}

// (first, last, values, changes) -> whether it was done
PyObject* sequence_splice_if(PyObject* self, PyObject* args) {
  Slice3 slice{0, 0, 1};
  PyObject* values = nullptr;
  unsigned long long changes = 0;
  if (!PyArg_ParseTuple(args, "nnOK:_splice_if", &slice.start, &slice.stop, &values, &changes)) {
    return nullptr;
  }
  arena::Member* const member = current_member();
  std::vector<NewItem> items;
  if (member == nullptr || !items_of(values, *member, items)) return nullptr;
  const uint64_t wanted = changes;
  bool done = false;
  if (!splice(self, *member, slice, items, &wanted, &done)) return nullptr;
  return PyBool_FromLong(done ? 1 : 0);
}

// (places in their new order, changes) -> whether it was done
PyObject* sequence_rearrange_if(PyObject* self, PyObject* args) {
  PyObject* order = nullptr;
  unsigned long long changes = 0;
  if (!PyArg_ParseTuple(args, "O!K:_rearrange_if", &PyList_Type, &order, &changes)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  std::vector<uint64_t> places(static_cast<size_t>(PyList_GET_SIZE(order)));
  for (size_t i = 0; i < places.size(); ++i) {
    places[i] = PyLong_AsUnsignedLongLong(PyList_GET_ITEM(order, static_cast<Py_ssize_t>(i)));
  }
  if (PyErr_Occurred() != nullptr) return nullptr;
  Removed removed(*member);
  bool done = false;
  const bool ran = run_locked<Sequence>(self, *member, [&](Sequence& sequence) {
    if (sequence.changes() != changes) return;
    removed.bag(sequence.rearrange(*member, places));
    done = true;
  });
  return ran ? PyBool_FromLong(done ? 1 : 0) : nullptr;
}

// Asks others not to change the list for so many seconds; 0: takes the request back.
PyObject* sequence_ask_for_quiet(PyObject* self, PyObject* seconds) {
  const double wanted = PyFloat_AsDouble(seconds);
  if (wanted == -1.0 && PyErr_Occurred() != nullptr) return nullptr;
  const int64_t until =
      wanted > 0 ? os::monotonic_ns() + static_cast<int64_t>(std::min(wanted, kPatience) * 1e9) : 0;
  state_of<collections::ContainerState>(self).user[kQuietUntil].store(
      static_cast<uint64_t>(until), os::relaxed);  // order: relaxed; a request
  Py_RETURN_NONE;
}

PyMethodDef sequence_methods[] = {
    {"append", sequence_append, METH_O, "append(value)\n\nAdds the value at the end."},
    {"extend", sequence_extend, METH_O,
     "extend(iterable)\n\nAdds the values at the end; no other process's values come between."},
    {"insert", sequence_insert, METH_VARARGS,
     "insert(index, value)\n\nAdds the value before the one at the index, in one step."},
    {"pop", sequence_pop, METH_VARARGS,
     "pop(index=-1)\n\nRemoves a value and returns it; IndexError when there is none. Cheap at"
     " both ends."},
    {"clear", sequence_clear, METH_NOARGS, "clear()\n\nRemoves all values, in one step."},
    {"reverse", sequence_reverse, METH_NOARGS, "reverse()\n\nReverses in place, in one step."},
    {"_snapshot", sequence_snapshot, METH_NOARGS, nullptr},
    {"_splice_if", sequence_splice_if, METH_VARARGS, nullptr},
    {"_rearrange_if", sequence_rearrange_if, METH_VARARGS, nullptr},
    {"_ask_for_quiet", sequence_ask_for_quiet, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef sequence_getset[] = {SHOAL_HANDLE_GETTERS,
                                 {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot sequence_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(&sequence_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
    {Py_mp_subscript, reinterpret_cast<void*>(&sequence_subscript)},
    {Py_mp_ass_subscript, reinterpret_cast<void*>(&sequence_ass_subscript)},
    {Py_mp_length, reinterpret_cast<void*>(&sequence_length)},
    {Py_sq_length, reinterpret_cast<void*>(&sequence_length)},
    {Py_sq_item, reinterpret_cast<void*>(&get_at)},
    {Py_tp_iter, reinterpret_cast<void*>(&PySeqIter_New)},  // by index: sees changes, as a list's
    {Py_tp_methods, sequence_methods},
    {Py_tp_getset, sequence_getset},
    {0, nullptr}};
PyType_Spec sequence_spec = {"shoal._core.Sequence", sizeof(SharedObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, sequence_slots};

}  // namespace

bool bind_sequence(PyObject* module) { return add_type(module, sequence_spec); }

}  // namespace shoal::bindings
