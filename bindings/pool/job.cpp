// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Job: one map over an iterable. bindings/pool/job_feed.cpp sends the job's input as
// workers need it; the job keeps the outcomes until the caller fetches them.
#include <algorithm>
#include <utility>

#include "bindings/interp/raised.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/pool/client.hpp"
#include "os/clock.hpp"

namespace shoal::bindings {

PyTypeObject* job_type = nullptr;

namespace {

// True if the pool has ended. Then the input that was not sent gets an outcome too: the error that
// the pool is closed.
bool pool_has_ended(Job* job) {
  Client* client = job->client;
  if (!client->ended && client->pool != nullptr) return false;
  if (job->iterator != nullptr && !job->filling) {
    end_with(job, make_error(client, "closed"));
  }
  return true;
}

bool all_delivered(const Job* job) {
  return job->iterator == nullptr && job->delivered == job->pulled;
}

// ---- Methods ------------------------------------------------------------------------------------

PyObject* job_wait(Job* job, PyObject* timeout) {
  int64_t deadline = -1;
  if (!deadline_from(timeout, &deadline)) return nullptr;
  const Inside inside(job->client);
  job->eager = false;
  for (;;) {
    if (pool_has_ended(job)) Py_RETURN_TRUE;
    const uint32_t seen = job->client->pool->listen();
    if (collect(job->client) < 0) return nullptr;
    const int earlier = feed_before(job->client, job->place);
    const int filled = earlier < 0 ? -1 : fill(job, false);
    if (filled < 0) return nullptr;
    if (all_delivered(job)) Py_RETURN_TRUE;
    if (filled > 0 && !workers_fed(job)) continue;
    if (passed(deadline)) return look_after_agent(job->client) < 0 ? nullptr : Py_NewRef(Py_False);
    if (wait_for_news(job->client, seen, deadline) < 0) return nullptr;
  }
}

// JobOrder::list, after wait() has returned True: returns the results, or raises the error with the
// lowest index. Returns the same list each time: a caller that is interrupted before it has stored
// the list may call again.
PyObject* job_results(Job* job, PyObject*) {
  if (job->first_error != nullptr) {
    put_raised(Reference::borrow(job->first_error));
    return nullptr;
  }
  if (job->client->ended && !all_delivered(job)) {
    put_raised(make_error(job->client, "closed"));
    return nullptr;
  }
  if (job->list == nullptr || !all_delivered(job)) {
    PyErr_SetString(PyExc_RuntimeError, "results are not complete");
    return nullptr;
  }
  if (!PyObject_GC_IsTracked(job->list)) PyObject_GC_Track(job->list);
  // If the input gave fewer items than its len(), the list's last places are empty.
  const auto filled = static_cast<Py_ssize_t>(job->pulled);
  if (filled < PyList_GET_SIZE(job->list) &&
      PyList_SetSlice(job->list, filled, PyList_GET_SIZE(job->list), nullptr) < 0) {
    return nullptr;
  }
  return Py_NewRef(job->list);
}

bool next_is_ready(Job* job) { return !job->items->empty() && job->items->front().ready; }

// Removes the first item: returns its value, or raises its error.
PyObject* take_front(Job* job) {
  Item item = std::move(job->items->front());
  const bool in_places = job->order == JobOrder::ordered;
  for (uint32_t i = in_places ? item.stands_for : 1; i > 0; --i) job->items->pop_front();
  job->taken += item.stands_for;
  // The feeder may be asleep until the window has room.
  if (job->fed && ((job->taken & 31) == 0 || job->window < 64) && job->client->waiters > 0 &&
      job->client->pool != nullptr) {
    job->client->pool->ring_clients();
  }
  if (!item.error) return item.value.release();
  job->is_over = item.ends;
  put_raised(std::move(item.value));
  return nullptr;
}

// Returns the next outcome, in input order or in order of arrival. Raises StopIteration at the end,
// and `timeout_class` when the timeout (seconds or None) passes.
PyObject* job_next(Job* job, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "next(timeout, timeout_class)");
    return nullptr;
  }
  Client* client = job->client;
  int64_t deadline = -1;
  bool looked = false;
  const Inside inside(client);
  job->eager = false;
  for (;;) {
    if (job->is_over) {
      PyErr_SetNone(PyExc_StopIteration);
      return nullptr;
    }
    if (next_is_ready(job)) {
      if ((job->taken & 31) == 0 && !job->fed && job->pull_ns < kSlowPullNs && fill(job, true) < 0)
        return nullptr;
      return take_front(job);
    }
    if (pool_has_ended(job)) {
      if (next_is_ready(job)) continue;
      if (job->taken == job->pulled && job->iterator == nullptr) {
        PyErr_SetNone(PyExc_StopIteration);
      } else {  // another thread reads or pickles the input
        job->is_over = true;
        put_raised(make_error(client, "closed"));
      }
      return nullptr;
    }
    const uint32_t seen = client->pool->listen();
    if (collect(client) < 0) return nullptr;
    if (next_is_ready(job)) continue;
    if (job->iterator == nullptr && job->taken == job->pulled) {
      PyErr_SetNone(PyExc_StopIteration);
      return nullptr;
    }
    if (!send_gathered(job)) return nullptr;
    const int earlier = feed_before(client, job->place);
    const int filled = earlier < 0 ? -1 : job->fed ? 0 : fill(job, false);
    if (filled < 0) return nullptr;
    if (filled > 0) continue;
    if (!looked) {
      looked = true;
      if (!deadline_from(arguments[0], &deadline)) return nullptr;
    }
    if (passed(deadline)) {
      if (look_after_agent(client) == 0) PyErr_SetNone(arguments[1]);
      return nullptr;
    }
    if (wait_for_news(client, seen, deadline) < 0) return nullptr;
  }
}

// The body of a feeder: the thread that reads an input which may block, so that other threads can
// fetch outcomes meanwhile. Returns when the input is exhausted, has failed, or the job or pool has
// ended. The feeder collects no outcomes: the threads that fetch outcomes do, and ring when there
// is room again.
PyObject* job_feed(Job* job, PyObject*) {
  const Inside inside(job->client);
  int filled = 1;
  while (filled >= 0 && job->iterator != nullptr && !pool_has_ended(job)) {
    const uint32_t seen = job->client->pool->listen();
    filled = fill(job, false);
    if (filled == 0) filled = wait_for_news(job->client, seen, -1);
  }
  if (filled >= 0) Py_RETURN_NONE;
  Reference error = take_raised();  // a BaseException of the input: an outcome too
  if (!job->cancelled) end_with(job, std::move(error));
  if (!job->client->ended) job->client->pool->ring_clients();
  Py_RETURN_NONE;
}

PyObject* job_hand_over(Job* job, PyObject*) {
  job->fed = true;
  Py_RETURN_NONE;
}

PyObject* job_fill(Job* job, PyObject*) {
  const Inside inside(job->client);
  if (pool_has_ended(job)) Py_RETURN_FALSE;
  if (feed_before(job->client, job->place) < 0) return nullptr;
  if (job->fed) return send_gathered(job) ? Py_NewRef(Py_False) : nullptr;
  const int filled = fill(job, false);
  return filled < 0 ? nullptr : PyBool_FromLong(filled);
}

// The pool will end when all tasks are done, and the caller may fetch no further outcomes. An input
// whose window the caller bounded is not read beyond that window (fetching beyond it raises an
// error); any other input is read to its end.
PyObject* job_drain(Job* job, PyObject*) {
  if (job->iterator == nullptr || job->window == 0) Py_RETURN_NONE;
  if (!job->bounded) {
    job->window = 0;
  } else if (job->pulled - job->taken >= job->window) {
    end_with(job, make_error(job->client, "closed"));
  }
  if (job->fed && !job->client->ended && job->client->pool != nullptr) {
    job->client->pool->ring_clients();
  }
  Py_RETURN_NONE;
}

// Sends no more items, withdraws queued ones and stops running ones.
PyObject* job_cancel(Job* job, PyObject*) {
  job->cancelled = true;
  if (job->iterator != nullptr) end_items(job);
  Client* client = job->client;
  if (client->ended || client->pool == nullptr) Py_RETURN_NONE;
  const Inside inside(client);
  for (uint32_t slot = 0; slot < client->flights->size(); ++slot) {
    if ((*client->flights)[slot].job.get() != job) continue;
    const uint32_t units = client->pool->batch(slot).units;
    bool changed = false;
    for (uint32_t unit = 0; unit < units; ++unit) {
      if (client->pool->cancel_queued(slot, unit)) {
        changed = true;
      } else {
        client->pool->request_stop(slot, unit, pool::StopReason::cancel);
      }
    }
    if (changed) client->pool->mark_dirty(slot);
  }
  if (collect(client) < 0) return nullptr;
  Py_RETURN_NONE;
}

PyObject* job_done(Job* job, void*) { return PyBool_FromLong(all_delivered(job)); }
PyObject* job_exhausted(Job* job, void*) { return PyBool_FromLong(job->iterator == nullptr); }
PyObject* job_error(Job* job, void*) {
  return Py_NewRef(job->first_error != nullptr ? job->first_error : Py_None);
}

// True unless the iterator is one over a list, tuple or range, which cannot fail.
bool may_fail(PyObject* iterator) {
  PyTypeObject* type = Py_TYPE(iterator);
  return type != &PyListIter_Type && type != &PyTupleIter_Type && type != &PyRangeIter_Type;
}

// Job(client, iterator, *, ...): all other arguments are keyword arguments without defaults.
PyObject* job_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  static const char* const kNames[] = {"",        "",           "function",   "callable", "name",
                                       "order",   "flags",      "chunk",      "total",    "window",
                                       "bounded", "byte_limit", "timeout_ns", "retries",  "eager",
                                       "on_done", "chunk_is",   nullptr};
  PyObject *client, *iterator, *function, *callable, *name, *on_done;
  int order = 0, eager = 0, bounded = 0, chunk_is = 0;
  unsigned flags = 0, chunk = 1, retries = 0;
  long long total = -1, timeout_ns = 0;
  unsigned long long window = 0, byte_limit = 0;
  if (!PyArg_ParseTupleAndKeywords(
          arguments, keywords, "OO$OOUiIILKpKLIpOi", const_cast<char**>(kNames), &client, &iterator,
          &function, &callable, &name, &order, &flags, &chunk, &total, &window, &bounded,
          &byte_limit, &timeout_ns, &retries, &eager, &on_done, &chunk_is)) {
    return nullptr;
  }
  auto* job = reinterpret_cast<Job*>(type->tp_alloc(type, 0));
  if (job == nullptr) return nullptr;
  job->client = reinterpret_cast<Client*>(Py_NewRef(client));
  job->function = function == Py_None ? nullptr : reinterpret_cast<Function*>(Py_NewRef(function));
  job->callable = Py_NewRef(callable);
  job->name = Py_NewRef(name);
  job->iterator = Py_NewRef(iterator);
  job->on_done = on_done == Py_None ? nullptr : Py_NewRef(on_done);
  job->items = new std::deque<Item>;
  job->order = static_cast<JobOrder>(order);
  job->flags = flags;
  job->chunk = chunk == 0 ? 1 : chunk;
  job->holds_chunks = job->chunk > 1 && job->order != JobOrder::list && may_fail(iterator);
  job->chunk_is = job->chunk == 1 ? ChunkIs::packing : static_cast<ChunkIs>(chunk_is);
  const bool limited = job->client->pool != nullptr &&  // maxtasksperchild counts chunks
                       job->client->pool->state().units_per_worker.load() != 0;
  job->whole_chunks =
      job->chunk > 1 && (job->chunk_is == ChunkIs::tasks || limited || job->function == nullptr);
  job->ends_at_error = job->chunk_is == ChunkIs::tasks && job->order != JobOrder::list;
  job->retries = retries;
  job->timeout_ns = timeout_ns;
  job->total = total;
  job->window = window;
  job->bounded = bounded != 0;
  job->byte_limit = byte_limit;
  job->next_units = 1;
  job->eager = eager != 0;
  join_line(job);
  if (job->order == JobOrder::list) {
    job->list_size = static_cast<uint64_t>(total);
    job->list = PyList_New(static_cast<Py_ssize_t>(total));
    if (job->list == nullptr) {
      Py_DECREF(job);
      return nullptr;
    }
    PyObject_GC_UnTrack(job->list);  // its places are empty until the job is done
  }
  return reinterpret_cast<PyObject*>(job);
}

// An error's traceback refers to frames that refer to the job: see client_traverse. The members
// visited here own their objects at every moment. `items` is not visited, since its objects change
// hands while Python code runs.
int job_traverse(Job* job, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(job));
  Py_VISIT(job->client);
  Py_VISIT(job->function);
  Py_VISIT(job->callable);
  Py_VISIT(job->iterator);
  Py_VISIT(job->list);
  Py_VISIT(job->first_error);
  Py_VISIT(job->on_done);
  return 0;
}

void job_dealloc(Job* job) {
  PyTypeObject* type = Py_TYPE(job);
  PyObject_GC_UnTrack(job);
  leave_line(job);
  if (job->items != nullptr) {
    while (!job->items->empty()) {
      const Item dropped = std::move(job->items->front());
      job->items->pop_front();
    }
    delete job->items;
  }
  if (job->list != nullptr && !PyObject_GC_IsTracked(job->list)) PyObject_GC_Track(job->list);
  Py_XDECREF(job->list);
  Py_XDECREF(job->first_error);
  Py_XDECREF(job->iterator);
  Py_XDECREF(job->on_done);
  Py_XDECREF(reinterpret_cast<PyObject*>(job->function));
  Py_XDECREF(job->callable);
  Py_XDECREF(job->name);
  Py_XDECREF(reinterpret_cast<PyObject*>(job->client));
  type->tp_free(job);
  Py_DECREF(type);
}

PyMethodDef job_methods[] = {
    {"wait", method(job_wait), METH_O,
     "wait(timeout): feed the workers and collect until all outcomes are in; False on timeout."},
    {"results", method(job_results), METH_NOARGS,
     "The results in order; raises the error with the lowest index."},
    {"next", method(job_next), METH_FASTCALL, "next(timeout, timeout_class): the next outcome."},
    {"fill", method(job_fill), METH_NOARGS,
     "Submit what the bounds allow now; True if anything was."},
    {"hand_over", method(job_hand_over), METH_NOARGS, "From now on only feed() reads the input."},
    {"feed", method(job_feed), METH_NOARGS,
     "Read the input and submit it until it ends: for a thread of its own."},
    {"drain", method(job_drain), METH_NOARGS,
     "The pool ends when all is done: read the input whole, or no further if it is bounded."},
    {"cancel", method(job_cancel), METH_NOARGS, "Withdraw what is queued and stop what runs."},
    {"so_far", method(job_so_far), METH_NOARGS, "Results of a list job, None where none is yet."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef job_getset[] = {
    {"done", reinterpret_cast<getter>(job_done), nullptr, "All outcomes are in.", nullptr},
    {"exhausted", reinterpret_cast<getter>(job_exhausted), nullptr, "No more items to send.",
     nullptr},
    {"error", reinterpret_cast<getter>(job_error), nullptr, "Error of the lowest index or None.",
     nullptr},
    {"counts", reinterpret_cast<getter>(job_counts), nullptr,
     "(total or -1, pulled, delivered, taken, ready, chunk)", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot job_slots[] = {{Py_tp_new, reinterpret_cast<void*>(job_new)},
                           {Py_tp_dealloc, reinterpret_cast<void*>(job_dealloc)},
                           {Py_tp_traverse, reinterpret_cast<void*>(job_traverse)},
                           {Py_tp_methods, job_methods},
                           {Py_tp_getset, job_getset},
                           {0, nullptr}};

PyType_Spec job_spec = {"shoal._core.Job", sizeof(Job), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                        job_slots};

}  // namespace

namespace {

// Stores the outcome of `items` items from `index` on: the value of one item, or one error for all
// of them.
void deliver(Job* job, uint64_t index, uint32_t items, Reference&& value, bool error, bool ends) {
  job->delivered += items;
  if (job->order == JobOrder::list) {
    if (!error && job->list != nullptr &&
        index < static_cast<uint64_t>(PyList_GET_SIZE(job->list))) {
      PyList_SET_ITEM(job->list, static_cast<Py_ssize_t>(index), value.release());
    } else if (error && (job->first_error == nullptr || index < job->first_error_index)) {
      Py_XSETREF(job->first_error, value.release());
      job->first_error_index = index;
    }
  } else if (job->order == JobOrder::unordered) {
    job->items->push_back({std::move(value), error, true, items, ends});
  } else {
    const uint64_t place = index - job->taken;
    if (place + items > job->items->size()) job->items->resize(place + items);
    (*job->items)[place] = {std::move(value), error, true, items, ends};
  }
  if (job->on_done == nullptr || !all_delivered(job)) return;
  const Reference on_done = Reference::take(std::exchange(job->on_done, nullptr));
  tell_done(job->client, on_done.get());
}

}  // namespace

void job_deliver(Job* job, uint64_t index, Reference&& value, bool error) {
  deliver(job, index, 1, std::move(value), error, error && job->ends_at_error);
}

void job_fail_chunk(Job* job, uint64_t index, uint32_t items, Reference&& error, bool ends) {
  deliver(job, index, items, std::move(error), true, ends && job->ends_at_error);
}

bool bind_pool_job(PyObject* module) {
  job_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&job_spec));
  return job_type != nullptr &&
         PyModule_AddObjectRef(module, "Job", reinterpret_cast<PyObject*>(job_type)) == 0;
}

}  // namespace shoal::bindings
