// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Barrier: a plain C type over sync::Barrier.
// Design: docs/design/sync.md
#include "sync/barrier.hpp"

#include "bindings/interp/raised.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"

namespace shoal::bindings {

namespace {

using sync::Barrier;
using sync::BarrierState;
using sync::WaitResult;

constexpr long kMostParties = 1 << 20;

Barrier barrier_of(PyObject* self) {
  return Barrier(*current_arena(), state_of<BarrierState>(self));
}

PyObject* barrier_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"parties", "handle", nullptr};
  long parties = 0;
  unsigned long long handle = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "l|K", const_cast<char**>(names), &parties,
                                   &handle)) {
    return nullptr;
  }
  if (handle != 0) {
    return attach(type, handle, [](arena::Arena& arena, arena::Handle at) { Barrier(arena, at); });
  }
  if (parties < 1 || parties > kMostParties) {
    PyErr_Format(PyExc_ValueError, "parties must be >= 1 and at most %ld, not %ld", kMostParties,
                 parties);
    return nullptr;
  }
  const auto count = static_cast<uint32_t>(parties);
  return new_shared(type, Barrier::size_for(count), [&](arena::Arena& arena, arena::Handle at) {
    Barrier::create(arena, at, count);
  });
}

// The result of _wait(): the index, or -1 for "broken".
PyObject* outcome(bool passed, uint32_t index) {
  return PyLong_FromLong(passed ? static_cast<long>(index) : -1);
}

// Arrives at the barrier; `*arrival` is the outcome. Only the return value says that a time-out or
// a signal ended the call.
Waited arrive(PyObject* self, arena::Member& member, bool has_action, int64_t deadline_ns,
              Barrier::Arrival* arrival) {
  return wait_in_slices(
      [&](int64_t slice_ns) {
        *arrival = barrier_of(self).arrive(member, has_action, slice_ns);
        const bool again = arrival->came == Barrier::Came::timed_out ||
                           arrival->came == Barrier::Came::interrupted;
        return again ? Slice::again : Slice::done;
      },
      deadline_ns);
}

PyObject* act(PyObject* self, arena::Member& member, const Barrier::Arrival& arrival,
              PyObject* action) {
  const Reference done = Reference::take(PyObject_CallNoArgs(action));
  Reference error = take_raised();
  Reference result = Reference::take(with_member([&](arena::Member&) {
    return outcome(barrier_of(self).finish(member, arrival, static_cast<bool>(done)),
                   arrival.index);
  }));
  if (done) return result.release();
  put_raised(std::move(error));
  return nullptr;
}

PyObject* wait_for_others(PyObject* self, arena::Member& member, const Barrier::Arrival& arrival,
                          int64_t deadline_ns) {
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        const WaitResult result = barrier_of(self).wait(member, arrival, slice_ns);
        return result == WaitResult::ok ? Slice::done : Slice::again;
      },
      deadline_ns);
  Reference error = take_raised();
  Barrier::Left left = Barrier::Left::broken;
  PyObject* const ended = with_member([&](arena::Member&) {
    const WaitResult how = waited == Waited::done        ? WaitResult::ok
                           : waited == Waited::timed_out ? WaitResult::timed_out
                                                         : WaitResult::interrupted;
    left = barrier_of(self).end_wait(member, arrival, how);
    return Py_None;
  });
  if (ended == nullptr) return nullptr;
  if (waited == Waited::failed) {
    put_raised(std::move(error));
    return nullptr;
  }
  return outcome(left == Barrier::Left::passed, arrival.index);
}

PyObject* barrier_wait(PyObject* self, PyObject* args) {
  PyObject* action = nullptr;
  PyObject* timeout = nullptr;
  int64_t deadline_ns = 0;
  if (!PyArg_ParseTuple(args, "OO:wait", &action, &timeout) ||
      !deadline_from(timeout, &deadline_ns)) {
    return nullptr;
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Barrier::Arrival arrival{};
  switch (arrive(self, *member, action != Py_None, deadline_ns, &arrival)) {
    case Waited::failed:
      return nullptr;
    case Waited::timed_out:
      return with_member([&](arena::Member&) {
        barrier_of(self).abort(*member);
        return outcome(false, 0);
      });
    case Waited::done:
      break;
  }
  if (arrival.came == Barrier::Came::last) return act(self, *member, arrival, action);
  if (arrival.came == Barrier::Came::waits) {
    return wait_for_others(self, *member, arrival, deadline_ns);
  }
  return outcome(arrival.came == Barrier::Came::passed, arrival.index);
}

PyObject* barrier_abort(PyObject* self, PyObject*) {
  return with_member([&](arena::Member& member) -> PyObject* {
    barrier_of(self).abort(member);
    Py_RETURN_NONE;
  });
}

PyObject* barrier_reset(PyObject* self, PyObject*) {
  return with_member([&](arena::Member& member) -> PyObject* {
    barrier_of(self).reset(member);
    Py_RETURN_NONE;
  });
}

PyObject* barrier_parties(PyObject* self, void*) {
  return PyLong_FromUnsignedLong(barrier_of(self).parties());
}
PyObject* barrier_n_waiting(PyObject* self, void*) {
  return PyLong_FromUnsignedLong(barrier_of(self).waiting());
}
PyObject* barrier_broken(PyObject* self, void*) {
  return PyBool_FromLong(barrier_of(self).broken() ? 1 : 0);
}

PyMethodDef barrier_methods[] = {
    {"_wait", barrier_wait, METH_VARARGS,
     "_wait(action, timeout) -> int\n\nWaits for all parties; -1 when the barrier is broken."},
    {"abort", barrier_abort, METH_NOARGS, "abort()\n\nBreaks it: all waits fail."},
    {"reset", barrier_reset, METH_NOARGS, "reset()\n\nMakes it like new; present waits fail."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef barrier_getset[] = {
    SHOAL_HANDLE_GETTERS,
    {"parties", barrier_parties, nullptr, "How many must arrive.", nullptr},
    {"n_waiting", barrier_n_waiting, nullptr, "How many have arrived.", nullptr},
    {"broken", barrier_broken, nullptr, "Whether it is broken.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot barrier_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&barrier_new)},
                               {Py_tp_dealloc, reinterpret_cast<void*>(&sync_dealloc)},
                               {Py_tp_methods, barrier_methods},
                               {Py_tp_getset, barrier_getset},
                               {0, nullptr}};
PyType_Spec barrier_spec = {"shoal._core.Barrier", sizeof(SharedObject), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, barrier_slots};

}  // namespace

bool bind_barrier(PyObject* module) { return add_type(module, barrier_spec); }

}  // namespace shoal::bindings
