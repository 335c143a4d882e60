// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Job: one map over an iterable. It pulls items as workers need them, packs them into
// batches sized by the measured cost of an item, and keeps the outcomes until they are asked for.
//
// The pickling unit is the caller's chunk, as in the standard library: its items are encoded by one
// pickle, and decoded by one worker. Items that are immutable plain values travel on their own,
// however the chunks lie: nobody can tell.
#include <algorithm>
#include <utility>

#include "codec/python/codec.hpp"
#include "os/clock.hpp"
#include "pool_client.hpp"
#include "raised.hpp"

namespace shoal::bindings {

PyTypeObject* job_type = nullptr;

namespace {

// aim: a batch is this much work, so that 1 to 2 us around it do not count
constexpr double kBatchNs = 500'000;
constexpr double kTailNs = 40'000;  // least work in a batch while there is that much
constexpr uint32_t kMaxUnits = 1024;
constexpr uint32_t kMaxUnknownUnits = 64;  // while no item has been measured
constexpr uint64_t kBatchBytes = uint64_t{256} * 1024;
constexpr uint64_t kQueuedAhead = 12;   // batches of 0.5 ms, for all workers together
constexpr int64_t kGatherNs = 200'000;  // a slow iterator must not hold back what it has given
constexpr double kSlowPullNs = 200'000;
constexpr double kQuickPullNs = 20'000;  // items that come this fast are gathered from the start

struct Gathered {  // a batch being gathered
  std::vector<uint64_t> words;
  uint64_t first_index = 0;  // of its first item; a batch's items are consecutive
  uint32_t items = 0;
  uint32_t items_per_unit = 1;
  bool chunks = false;
};

bool is_atom(PyObject* o, int depth = 0) {
  if (o == Py_None || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyUnicode_CheckExact(o) ||
      PyBool_Check(o) || PyBytes_CheckExact(o) || PyComplex_CheckExact(o)) {
    return true;
  }
  if (!PyTuple_CheckExact(o) || depth > 4 || PyTuple_GET_SIZE(o) > 64) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) {
    if (!is_atom(PyTuple_GET_ITEM(o, i), depth + 1)) return false;
  }
  return true;
}

// Any iterator may, but for those of plain sequences.
bool may_fail(PyObject* iterator) {
  PyTypeObject* type = Py_TYPE(iterator);
  return type != &PyListIter_Type && type != &PyTupleIter_Type && type != &PyRangeIter_Type;
}

uint64_t left(const Job* job) {
  return job->total < 0 ? UINT64_MAX : static_cast<uint64_t>(job->total) - job->pulled;
}

// How many units the next batch should have.
uint32_t units_wanted(Job* job) {
  const Client* client = job->client;
  uint32_t units = job->next_units;
  if (job->fed && job->pull_ns > kQuickPullNs) {
    units = job->next_units = 1;  // what is gathered would wait with an input that waits
  } else if (client->unit_cost_ns > 0 && (!job->fed || units >= kMaxUnknownUnits)) {
    const double fit = kBatchNs / std::max(client->unit_cost_ns, 1.0);
    units = static_cast<uint32_t>(std::clamp(fit, 1.0, static_cast<double>(kMaxUnits)));
  } else {
    job->next_units = std::min(job->next_units * 2, kMaxUnknownUnits);
  }
  // The tail is cut fine, so that all workers end together; but not so fine that handing out a
  // batch costs more than they would wait for one another.
  if (job->total >= 0) {
    const uint64_t share = left(job) / (2ull * client->workers);
    const double cost_ns = std::max(client->unit_cost_ns, 1.0);
    const auto least = client->unit_cost_ns > 0 ? static_cast<uint64_t>(kTailNs / cost_ns) : 0;
    units = static_cast<uint32_t>(std::clamp<uint64_t>(std::max(share, least), 1, units));
  }
  return units;
}

bool may_pull(const Job* job) {
  if (job->iterator == nullptr || job->cancelled || job->client->ended) return false;
  if (!job->client->pool->has_room()) return false;
  if (job->bytes >= job->byte_limit) return false;
  return job->window == 0 || job->pulled - job->taken < job->window;
}

// Enough is queued to keep the workers busy while this thread waits for a processor: a thread that
// is woken on a busy machine gets one after some milliseconds only.
bool workers_fed(const Job* job) {
  return !job->eager && job->client->pool->queued() >= 2ull * job->client->workers + kQueuedAhead;
}

void end_items(Job* job) {
  Py_CLEAR(job->iterator);
  job->total = static_cast<int64_t>(job->pulled);
}

// The iterator failed: its error (stolen) is the outcome of the item it owed, and there are no
// more.
void end_with(Job* job, PyObject* error) {
  const uint64_t index = job->pulled++;
  end_items(job);
  job_deliver(job, index, error, true);
}

// The results of a map are as many as its input's len() said, as in the standard library: an input
// that then gives more is cut off.
bool is_beyond_list(const Job* job) {
  return job->order == JobOrder::list && job->pulled >= job->list_size;
}

// May a batch end here? Not in the midst of a chunk of an input that may fail: then the error
// stands at the chunk's begin, and none of its items run, as in the standard library.
bool at_boundary(const Job* job) { return !job->holds_chunks || job->pulled % job->chunk == 0; }

// The input has failed within a chunk: those of its items that are still here are not sent.
void drop_begun_chunk(Job* job, Gathered& batch) {
  const auto dropped = std::min<uint64_t>(job->pulled % job->chunk, batch.words.size());
  batch.words.resize(batch.words.size() - dropped);
  batch.items -= static_cast<uint32_t>(dropped);
  job->pulled -= dropped;
}

// Next item (new reference), or nullptr: exhausted, or failed, which is then the outcome of the
// item's place; or, with an error set, interrupted: that goes to the caller at once.
PyObject* pull(Job* job, Gathered& batch) {
  PyObject* iterator = Py_NewRef(job->iterator);
  PyObject* item = PyIter_Next(iterator);
  Py_DECREF(iterator);
  if (job->iterator == nullptr) {  // cancelled meanwhile
    Py_XDECREF(item);
    return nullptr;
  }
  if (item != nullptr && !is_beyond_list(job)) {
    job->pulled += 1;
    return item;
  }
  Py_XDECREF(item);
  if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
    if (job->holds_chunks) drop_begun_chunk(job, batch);
    end_with(job, take_raised());
  } else {
    end_items(job);
  }
  return nullptr;
}

// The error that is set becomes the outcome of `items` items. False when it is none that a task may
// have (Ctrl-C): it is set again, for the caller.
bool fail_items(Job* job, uint64_t first, uint32_t items) {
  const bool ordinary = PyErr_ExceptionMatches(PyExc_Exception) != 0;
  PyObject* error = take_raised();
  for (uint32_t i = 0; i < items; ++i) job_deliver(job, first + i, Py_NewRef(error), true);
  if (ordinary) {
    Py_DECREF(error);
  } else {
    put_raised(error);
  }
  return ordinary;
}

// The same for a batch that cannot be sent.
bool fail_batch(Job* job, Gathered& batch, codec::MessageBuilder& message) {
  const Gathered failed = std::exchange(batch, Gathered{});
  message.clear();
  return fail_items(job, failed.first_index, failed.items);
}

// A worker that dies in the midst of a chunk leaves the items after the lost one to the next, which
// decodes the chunk again: what the first had taken out of the message would be missing.
bool may_be_decoded_again(const Gathered& batch, const codec::MessageBuilder& message) {
  return batch.chunks && batch.items_per_unit > 1 && !message.attachments.empty();
}

// Submits what was gathered; an error becomes its items' outcome. False with an error set: see
// fail_items.
bool send(Job* job, Gathered& batch, codec::MessageBuilder& message) {
  if (batch.words.empty()) return true;
  Client* client = job->client;
  pool::BatchParts parts;
  if (client->ended) {
    put_raised(make_error(client, "closed", PyTuple_New(0)));
    return fail_batch(job, batch, message);
  }
  if (!store_definitions(client, &parts.definitions)) return fail_batch(job, batch, message);
  parts.argument_words = batch.words.data();
  parts.units = static_cast<uint32_t>(batch.words.size());
  parts.items = batch.items;
  parts.items_per_unit = batch.items_per_unit;
  parts.flags =
      job->flags | (batch.chunks ? pool::kChunkUnits : 0u) |
      (job->function == nullptr ? pool::kOwnFunction : 0u) |
      (job->retries > 0 || may_be_decoded_again(batch, message) ? pool::kKeepMessage : 0u);
  parts.function = job->function != nullptr ? job->function->number : 0;
  parts.function_block = job->function != nullptr ? job->function->block : 0;
  parts.retries = job->retries;
  parts.timeout_ns = job->timeout_ns;
  Flight flight;
  flight.job = job;
  flight.function = job->function;
  flight.name = job->name;
  flight.first_index = batch.first_index;
  flight.bytes = message.bytes.size() + 24ull * parts.units;
  for (const arena::Handle block : message.attachments) {
    flight.bytes += client->pool->member().arena().block_size(block);
  }
  const uint64_t bytes = flight.bytes;
  if (launch(client, parts, message, std::move(flight)) == 0)
    return fail_batch(job, batch, message);
  job->bytes += bytes;
  batch = Gathered{};
  return true;
}

// Appends the value of a unit whose first item is `index`. False with an error set when it cannot
// be encoded.
bool add_unit(Job* job, Gathered& batch, codec::MessageBuilder& message, PyObject* value,
              uint64_t index, uint32_t items) {
  uint64_t word = 0;
  if (batch.chunks || !codec::python::to_word(value, &word)) {
    word = pool::offset_word(message.bytes.size());
    if (!encode_for(job->client, value, message)) return false;
  }
  if (batch.words.empty()) batch.first_index = index;
  batch.words.push_back(word);
  batch.items += items;
  return true;
}

// The rest of a chunk, `first` (stolen) in front, as one tuple; led by the function when that
// travels along. `*broken` is the error with which the iterator ended, if it did.
PyObject* gather_chunk(Job* job, PyObject* first, uint32_t size, uint32_t* items,
                       PyObject** broken) {
  PyObject* gathered = PyList_New(0);
  bool ok = gathered != nullptr;
  if (ok && job->function == nullptr) ok = PyList_Append(gathered, job->callable) == 0;
  ok = ok && PyList_Append(gathered, first) == 0;
  Py_DECREF(first);
  *items = 1;
  while (ok && *items < size && job->iterator != nullptr) {  // null: cancelled
    PyObject* iterator = Py_NewRef(job->iterator);
    PyObject* item = PyIter_Next(iterator);
    Py_DECREF(iterator);
    if (item == nullptr) {
      *broken = PyErr_Occurred() ? take_raised() : nullptr;
      break;  // pull() meets the end again
    }
    if (job->iterator == nullptr) {  // cancelled meanwhile
      Py_DECREF(item);
      break;
    }
    job->pulled += 1;
    *items += 1;
    ok = PyList_Append(gathered, item) == 0;
    Py_DECREF(item);
  }
  PyObject* chunk = ok ? PyList_AsTuple(gathered) : nullptr;
  Py_XDECREF(gathered);
  return chunk;
}

// One item that travels on its own (stolen).
bool add_single(Job* job, Gathered& batch, codec::MessageBuilder& message, PyObject* item) {
  const uint64_t index = job->pulled - 1;
  if (job->function == nullptr) {
    PyObject* pair = PyTuple_Pack(2, job->callable, item);
    Py_DECREF(item);
    if (pair == nullptr) return false;
    item = pair;
  }
  const bool ok = add_unit(job, batch, message, item, index, 1);
  Py_DECREF(item);
  if (ok) return true;
  const bool ordinary = fail_items(job, index, 1);
  PyObject* interrupt = ordinary ? nullptr : take_raised();
  const bool sent = send(job, batch, message);  // so that the batch's items stay consecutive
  if (interrupt != nullptr) put_raised(interrupt);
  return ordinary && sent;
}

// A chunk of items that must be pickled together, as a batch of its own.
bool send_chunk(Job* job, Gathered& batch, codec::MessageBuilder& message, PyObject* first,
                uint32_t size) {
  const uint64_t index = job->pulled - 1;
  if (!send(job, batch, message)) {
    Py_DECREF(first);
    return false;
  }
  if (job->order == JobOrder::list) {
    size = static_cast<uint32_t>(std::min<uint64_t>(size, job->list_size - index));
  }
  uint32_t items = 0;
  PyObject* broken = nullptr;
  PyObject* chunk = gather_chunk(job, first, size, &items, &broken);
  if (broken != nullptr && job->holds_chunks && job->iterator != nullptr &&
      PyErr_GivenExceptionMatches(broken, PyExc_Exception)) {
    Py_XDECREF(chunk);
    job->pulled -= items;
    end_with(job, broken);
    return true;
  }
  batch.chunks = true;
  batch.items_per_unit = items;
  bool fine = true;
  if (chunk != nullptr && add_unit(job, batch, message, chunk, index, items)) {
    fine = send(job, batch, message);
  } else {
    fine = fail_items(job, index, items);
  }
  Py_XDECREF(chunk);
  if (broken == nullptr) return fine;
  if (fine && !PyErr_GivenExceptionMatches(broken, PyExc_Exception)) {
    put_raised(broken);  // Ctrl-C: for the caller, at once, as pull() has it
    return false;
  }
  if (fine && job->iterator != nullptr) {
    end_with(job, broken);
  } else {
    Py_DECREF(broken);
  }
  return fine;
}

}  // namespace

// What a feeder has gathered while it waits for its input, for whoever fetches to send off.
struct Sendable {
  Gathered* batch;
  codec::MessageBuilder* message;
};

namespace {

// pull(), during which others may send what is gathered so far.
PyObject* pull_while_sendable(Job* job, Gathered& batch, codec::MessageBuilder& message) {
  Sendable sendable{&batch, &message};
  if (job->fed && at_boundary(job)) job->sendable = &sendable;
  PyObject* item = pull(job, batch);
  job->sendable = nullptr;
  return item;
}

// Sends what the feeder has gathered before its input made it wait. False with an error set.
bool send_gathered(Job* job) {
  if (job->sendable == nullptr) return true;
  return send(job, *job->sendable->batch, *job->sendable->message);
}

// Gathers and submits one batch. False with an error set when it cannot be submitted.
bool fill_one(Job* job, codec::MessageBuilder& message) {
  Gathered batch;
  const uint32_t wanted = units_wanted(job);
  const uint64_t begin = os::ticks();
  const auto patience = static_cast<uint64_t>(kGatherNs / os::ns_per_tick());
  // A limit of tasks per worker counts chunks.
  const bool whole_chunks =
      job->chunk > 1 &&
      (job->function == nullptr || job->client->pool->state().units_per_worker.load() != 0);
  const auto is_full = [&] {
    return batch.words.size() >= wanted || message.bytes.size() >= kBatchBytes;
  };
  while (message.attachments.empty() && may_pull(job) && !(is_full() && at_boundary(job))) {
    PyObject* item = pull_while_sendable(job, batch, message);
    if (item == nullptr) break;
    const uint64_t place = (job->pulled - 1) % job->chunk;
    if (job->chunk > 1 && (whole_chunks || !is_atom(item))) {
      return send_chunk(job, batch, message, item, job->chunk - static_cast<uint32_t>(place));
    }
    if (!add_single(job, batch, message, item)) return false;
    if (os::ticks() - begin > patience && at_boundary(job)) break;
  }
  const double taken = os::ns_per_tick() * static_cast<double>(os::ticks() - begin);
  job->pull_ns = 0.5 * (job->pull_ns + taken / std::max<double>(1.0, batch.items));
  PyObject* interrupt = PyErr_Occurred() ? take_raised() : nullptr;  // pull() met Ctrl-C
  const bool sent = send(job, batch, message);
  if (interrupt == nullptr) return sent;
  put_raised(interrupt);
  return false;
}

// Submits batches until the workers are fed or a bound is reached. 1: something was submitted, 0:
// nothing, -1: error.
int fill(Job* job, bool once) {
  if (job->filling || !may_pull(job) || workers_fed(job)) return 0;
  job->filling = true;
  codec::MessageBuilder message(&job->client->pool->member());
  int result = 0;
  do {
    const uint64_t before = job->pulled;
    if (!fill_one(job, message)) {
      result = -1;
      break;
    }
    if (job->pulled != before) result = 1;
  } while (!once && may_pull(job) && !workers_fed(job));
  job->filling = false;
  return result;
}

// Is the pool gone? Then what was not sent has an outcome too: that.
bool pool_has_ended(Job* job) {
  Client* client = job->client;
  if (!client->ended && client->pool != nullptr) return false;
  if (job->iterator != nullptr && !job->filling) {
    end_with(job, make_error(client, "closed", PyTuple_New(0)));
  }
  return true;
}

bool all_delivered(const Job* job) {
  return job->iterator == nullptr && job->delivered == job->pulled;
}

void deadline_from(PyObject* timeout, int64_t* deadline_ns) {
  *deadline_ns = -1;
  if (timeout == Py_None) return;
  const double seconds = PyFloat_AsDouble(timeout);
  if (seconds == -1.0 && PyErr_Occurred()) return;
  *deadline_ns = os::monotonic_ns() + static_cast<int64_t>(std::clamp(seconds, 0.0, 1e9) * 1e9);
}

bool passed(int64_t deadline_ns) { return deadline_ns >= 0 && os::monotonic_ns() >= deadline_ns; }

// ---- Methods ------------------------------------------------------------------------------------

PyObject* job_wait(Job* job, PyObject* timeout) {
  int64_t deadline = -1;
  deadline_from(timeout, &deadline);
  if (PyErr_Occurred()) return nullptr;
  const Inside inside(job->client);
  job->eager = false;
  for (;;) {
    if (pool_has_ended(job)) Py_RETURN_TRUE;
    const uint32_t seen = job->client->pool->listen();
    if (collect(job->client) < 0) return nullptr;
    const int filled = fill(job, false);
    if (filled < 0) return nullptr;
    if (all_delivered(job)) Py_RETURN_TRUE;
    if (filled > 0 && !workers_fed(job)) continue;
    if (passed(deadline)) Py_RETURN_FALSE;
    if (wait_for_news(job->client, seen, deadline) < 0) return nullptr;
  }
}

// JobOrder::list, after wait() was true: the results, or raises the error of the lowest index. The
// same list each time: whoever asked may be interrupted before it has kept it.
PyObject* job_results(Job* job, PyObject*) {
  if (job->first_error != nullptr) {
    put_raised(Py_NewRef(job->first_error));
    return nullptr;
  }
  if (job->client->ended && !all_delivered(job)) {
    put_raised(make_error(job->client, "closed", PyTuple_New(0)));
    return nullptr;
  }
  if (job->list == nullptr || !all_delivered(job)) {
    PyErr_SetString(PyExc_RuntimeError, "results are not complete");
    return nullptr;
  }
  if (!PyObject_GC_IsTracked(job->list)) PyObject_GC_Track(job->list);
  // An input that gave less than its len() said leaves places empty.
  const auto filled = static_cast<Py_ssize_t>(job->pulled);
  if (filled < PyList_GET_SIZE(job->list) &&
      PyList_SetSlice(job->list, filled, PyList_GET_SIZE(job->list), nullptr) < 0) {
    return nullptr;
  }
  return Py_NewRef(job->list);
}

bool next_is_ready(Job* job) { return !job->items->empty() && job->items->front().ready; }

// Takes the item in front: its value, or raises its error.
PyObject* take_front(Job* job) {
  const Item item = job->items->front();
  job->items->pop_front();
  job->taken += 1;
  // The feeder may sleep until there is room in the window.
  if (job->fed && ((job->taken & 31) == 0 || job->window < 64) && job->client->waiters > 0 &&
      job->client->pool != nullptr) {
    job->client->pool->ring_clients();
  }
  if (!item.error) return item.value;
  put_raised(item.value);
  return nullptr;
}

// The next outcome, in order or as they come. Raises StopIteration at the end, and the class given
// as `timeout_class` when the timeout (seconds or None) passes.
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
    if (next_is_ready(job)) {
      if ((job->taken & 31) == 0 && !job->fed && job->pull_ns < kSlowPullNs && fill(job, true) < 0)
        return nullptr;
      return take_front(job);
    }
    if (pool_has_ended(job)) {
      if (next_is_ready(job)) continue;
      if (job->taken == job->pulled && job->iterator == nullptr) {
        PyErr_SetNone(PyExc_StopIteration);
      } else {  // being read or pickled in another thread
        job->taken = job->pulled;
        put_raised(make_error(client, "closed", PyTuple_New(0)));
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
    const int filled = job->fed ? 0 : fill(job, false);
    if (filled < 0) return nullptr;
    if (filled > 0) continue;
    if (!looked) {
      looked = true;
      deadline_from(arguments[0], &deadline);
      if (PyErr_Occurred()) return nullptr;
    }
    if (passed(deadline)) {
      PyErr_SetNone(arguments[1]);
      return nullptr;
    }
    if (wait_for_news(client, seen, deadline) < 0) return nullptr;
  }
}

// The body of a feeder: the thread that reads an input which may wait, so that what is there
// already can be fetched meanwhile. Returns when the input is used up, has failed or is not wanted
// any more. It collects nothing: who fetches does, and rings when there is room again.
PyObject* job_feed(Job* job, PyObject*) {
  const Inside inside(job->client);
  int filled = 1;
  while (filled >= 0 && job->iterator != nullptr && !pool_has_ended(job)) {
    const uint32_t seen = job->client->pool->listen();
    filled = fill(job, false);
    if (filled == 0) filled = wait_for_news(job->client, seen, -1);
  }
  if (filled >= 0) Py_RETURN_NONE;
  PyObject* error = take_raised();  // a BaseException of the input: its outcome, as of any other
  if (job->cancelled) {
    Py_DECREF(error);
  } else {
    end_with(job, error);
  }
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
  if (job->fed) return send_gathered(job) ? Py_NewRef(Py_False) : nullptr;
  const int filled = fill(job, false);
  return filled < 0 ? nullptr : PyBool_FromLong(filled);
}

// The pool is to end when all is done, and maybe nobody fetches any more. An input that the caller
// bounded is not read further (what is asked for beyond it is an error), any other is read whole.
PyObject* job_drain(Job* job, PyObject*) {
  if (job->iterator == nullptr || job->window == 0) Py_RETURN_NONE;
  if (!job->bounded) {
    job->window = 0;
  } else if (job->pulled - job->taken >= job->window) {
    end_with(job, make_error(job->client, "closed", PyTuple_New(0)));
  }
  if (job->fed && !job->client->ended && job->client->pool != nullptr) {
    job->client->pool->ring_clients();
  }
  Py_RETURN_NONE;
}

// No more items; queued ones are withdrawn, running ones stopped.
PyObject* job_cancel(Job* job, PyObject*) {
  job->cancelled = true;
  if (job->iterator != nullptr) end_items(job);
  Client* client = job->client;
  if (client->ended || client->pool == nullptr) Py_RETURN_NONE;
  const Inside inside(client);
  for (uint32_t slot = 0; slot < pool::kBatchSlots; ++slot) {
    if ((*client->flights)[slot].job != job) continue;
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
PyObject* job_count(Job* job, void*) { return PyLong_FromUnsignedLongLong(job->delivered); }

// Job(client, function|None, callable, name, iterator, *, order, flags, chunk, total, window,
// byte_limit, timeout_ns,
//     retries, eager, on_done, bounded)
PyObject* job_new(PyTypeObject* type, PyObject* arguments, PyObject*) {
  PyObject *client, *function, *callable, *name, *iterator, *on_done;
  int order = 0, eager = 0, bounded = 0;
  unsigned flags = 0, chunk = 1, retries = 0;
  long long total = -1, timeout_ns = 0;
  unsigned long long window = 0, byte_limit = 0;
  if (!PyArg_ParseTuple(arguments, "OOOUOiIILKKLIpOp", &client, &function, &callable, &name,
                        &iterator, &order, &flags, &chunk, &total, &window, &byte_limit,
                        &timeout_ns, &retries, &eager, &on_done, &bounded)) {
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
  job->retries = retries;
  job->timeout_ns = timeout_ns;
  job->total = total;
  job->window = window;
  job->bounded = bounded != 0;
  job->byte_limit = byte_limit;
  job->next_units = 1;
  job->eager = eager != 0;
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

// An error's traceback leads to the frames that know the job: see client_traverse. Each of these
// owns what it names at every moment; `items` change hands while Python code runs.
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
  if (job->items != nullptr) {
    for (const Item& item : *job->items) Py_XDECREF(item.value);
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
    {"delivered", reinterpret_cast<getter>(job_count), nullptr, "Outcomes so far.", nullptr},
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

void job_deliver(Job* job, uint64_t index, PyObject* value, bool error) {
  job->delivered += 1;
  if (job->order == JobOrder::list) {
    if (!error && job->list != nullptr &&
        index < static_cast<uint64_t>(PyList_GET_SIZE(job->list))) {
      PyList_SET_ITEM(job->list, static_cast<Py_ssize_t>(index), value);
    } else if (error && (job->first_error == nullptr || index < job->first_error_index)) {
      Py_XSETREF(job->first_error, value);
      job->first_error_index = index;
    } else {
      Py_DECREF(value);
    }
  } else if (job->order == JobOrder::unordered) {
    job->items->push_back({value, error, true});
  } else {
    const uint64_t place = index - job->taken;
    if (place >= job->items->size()) job->items->resize(place + 1);
    (*job->items)[place] = {value, error, true};
  }
  if (job->on_done == nullptr || !all_delivered(job)) return;
  PyObject* on_done = std::exchange(job->on_done, nullptr);
  tell_done(job->client, on_done);
  Py_DECREF(on_done);
}

bool bind_pool_job(PyObject* module) {
  job_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&job_spec));
  return job_type != nullptr &&
         PyModule_AddObjectRef(module, "Job", reinterpret_cast<PyObject*>(job_type)) == 0;
}

}  // namespace shoal::bindings
