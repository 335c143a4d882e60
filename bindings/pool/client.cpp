// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Client: the client side of one pool. The Python classes Pool and Executor are thin
// layers over it.
//
// The outcome of a call is delivered to its `sink`: sink._deliver(ok, value_or_exception), once, or
// again if a signal handler raised in it. A call that had to wait in the client gets its new ticket
// by sink._launched(ticket) when it is submitted. submit() writes the first ticket to sink._ticket.
// Methods that wait release the GIL, run signal handlers, and notice the agent's death.
#include <algorithm>
#include <string>
#include <utility>

#include "bindings/interp/raised.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/pool/client.hpp"
#include "codec/python/codec.hpp"
#include "os/clock.hpp"
#include "os/cpus.hpp"

namespace shoal::bindings {

PyTypeObject* function_type = nullptr;
PyObject* current_encoding_hooks();

namespace {

constexpr uint64_t kPendingTicket = 1ull << 63;
PyObject* ticket_name = nullptr;  // "_ticket"

bool open_or_raise(Client* client) {
  if (client->pool != nullptr && !client->released) return true;
  PyErr_SetString(PyExc_ValueError, "the pool has ended");
  return false;
}

bool running_or_raise(Client* client) {
  if (!client->ended) return open_or_raise(client);
  put_raised(make_error(client, "closed"));
  return false;
}

// ---- Function -----------------------------------------------------------------------------------

int function_traverse(Function* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->client);
  return 0;
}

void function_dealloc(Function* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  // Every batch that refers to this function keeps it alive, so no worker reads the block any more.
  if (self->client != nullptr && self->client->pool != nullptr)
    self->client->pool->free_function(self->block);
  Py_XDECREF(reinterpret_cast<PyObject*>(self->client));
  type->tp_free(self);
  Py_DECREF(type);
}

PyType_Slot function_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(function_dealloc)},
                                {Py_tp_traverse, reinterpret_cast<void*>(function_traverse)},
                                {0, nullptr}};
PyType_Spec function_spec = {
    "shoal._core.Function", sizeof(Function), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, function_slots};

PyObject* client_add_function(Client* self, PyObject* bytes) {
  if (!open_or_raise(self)) return nullptr;
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes, &data, &size) < 0) return nullptr;
  auto* function = reinterpret_cast<Function*>(function_type->tp_alloc(function_type, 0));
  if (function == nullptr) return nullptr;
  try {
    function->block = self->pool->store_function(reinterpret_cast<const std::byte*>(data),
                                                 static_cast<uint64_t>(size));
  } catch (...) {
    set_python_error();
    Py_DECREF(function);
    return nullptr;
  }
  function->client = reinterpret_cast<Client*>(Py_NewRef(self));
  function->number = ++self->next_function;
  return reinterpret_cast<PyObject*>(function);
}

// ---- Calls --------------------------------------------------------------------------------------

struct CallOptions {
  PyObject* sink;
  Function* function;
  PyObject* callable;
  PyObject* name;
  PyObject* arguments;
  PyObject* keywords;
  int64_t timeout_ns;
  uint32_t retries;
};

// submit(sink, function|None, callable, name, args, kwargs|None, timeout_ns, retries)
bool parse_call(PyObject* const* arguments, Py_ssize_t count, CallOptions* call) {
  if (count != 8 || !PyTuple_Check(arguments[4])) {
    PyErr_SetString(PyExc_TypeError,
                    "submit(sink, function, callable, name, args, kwargs, timeout_ns, retries)");
    return false;
  }
  call->sink = arguments[0];
  call->function = arguments[1] == Py_None ? nullptr : reinterpret_cast<Function*>(arguments[1]);
  call->callable = arguments[2];
  call->name = arguments[3];
  call->arguments = arguments[4];
  const bool keywords = arguments[5] != Py_None && PyObject_IsTrue(arguments[5]) == 1;
  call->keywords = keywords ? arguments[5] : nullptr;
  call->timeout_ns = PyLong_AsLongLong(arguments[6]);
  call->retries = static_cast<uint32_t>(PyLong_AsUnsignedLong(arguments[7]));
  return !PyErr_Occurred();
}

// Appends ([callable,] args[, kwargs]) to the message.
bool encode_call(Client* client, const CallOptions& call, codec::MessageBuilder& out) {
  PyObject* parts[3];
  Py_ssize_t size = 0;
  if (call.function == nullptr) parts[size++] = call.callable;
  parts[size++] = call.arguments;
  if (call.keywords != nullptr) parts[size++] = call.keywords;
  const Reference value = Reference::take(PyTuple_New(size));
  if (!value) return false;
  for (Py_ssize_t i = 0; i < size; ++i) PyTuple_SET_ITEM(value.get(), i, Py_NewRef(parts[i]));
  return encode_for(client, value.get(), out);
}

uint32_t call_flags(const CallOptions& call) {
  return pool::kCallUnits | (call.function == nullptr ? pool::kOwnFunction : 0u) |
         (call.retries > 0 ? pool::kKeepMessage : 0u);
}

uint64_t enqueue(Client* client, const CallOptions& call,
                 std::unique_ptr<codec::MessageBuilder> message, uint32_t definitions) {
  const uint64_t ticket = kPendingTicket | ++client->next_pending;
  client->pending->push_back({ticket, std::move(message), pool::offset_word(0), call_flags(call),
                              definitions, call.retries, call.timeout_ns,
                              Reference::borrow(call.sink),
                              ReferenceTo<Function>::borrow(call.function),
                              Reference::borrow(call.name), ++client->next_place});
  return ticket;
}

uint64_t send_call(Client* client, const CallOptions& call, codec::MessageBuilder& message,
                   uint32_t definitions) {
  const uint64_t word = pool::offset_word(0);
  pool::BatchParts parts;
  parts.argument_words = &word;
  parts.units = parts.items = 1;
  parts.flags = call_flags(call);
  parts.function = call.function != nullptr ? call.function->number : 0;
  parts.function_block = call.function != nullptr ? call.function->block : 0;
  parts.definitions = definitions;
  parts.retries = call.retries;
  parts.timeout_ns = call.timeout_ns;
  Flight flight;
  flight.sink = Reference::borrow(call.sink);
  flight.function = ReferenceTo<Function>::borrow(call.function);
  flight.name = Reference::borrow(call.name);
  return launch(client, parts, message, std::move(flight));
}

// True if a new call can be submitted now, without waiting in `pending`.
bool may_send(const Client* client) {
  return client->pool->has_room() && client->pending->empty() && !must_wait(client, UINT64_MAX);
}

// Returns the call's ticket, or 0 with an error set: a call that cannot be encoded or stored raises
// here.
uint64_t submit_call(Client* client, const CallOptions& call) {
  const bool own_builder = client->builder_busy || !may_send(client);
  std::unique_ptr<codec::MessageBuilder> fresh;
  if (own_builder) fresh = std::make_unique<codec::MessageBuilder>(&client->pool->member());
  codec::MessageBuilder& message = own_builder ? *fresh : *client->builder;
  if (!own_builder) client->builder_busy = true;
  message.clear();
  uint32_t definitions = 0;
  const bool ok = encode_call(client, call, message) && running_or_raise(client) &&
                  store_definitions(client, &definitions);
  if (!own_builder) client->builder_busy = false;
  if (!ok) return 0;
  if (may_send(client)) {
    return send_call(client, call, message, definitions);
  }
  if (!own_builder) {  // the last slot was taken while Python code ran
    fresh = std::exchange(client->builder,
                          std::make_unique<codec::MessageBuilder>(&client->pool->member()));
  }
  return enqueue(client, call, std::move(fresh), definitions);
}

PyObject* client_submit(Client* self, PyObject* const* arguments, Py_ssize_t count) {
  const Inside inside(self);
  CallOptions call;
  if (!running_or_raise(self) || !parse_call(arguments, count, &call)) return nullptr;
  const uint64_t number = submit_call(self, call);
  Reference ticket = Reference::take(number == 0 ? nullptr : PyLong_FromUnsignedLongLong(number));
  // Set here, before another thread can give a pending call its next ticket.
  if (!ticket || PyObject_SetAttr(call.sink, ticket_name, ticket.get()) < 0) return nullptr;
  return ticket.release();
}

bool is_open(Client* self, uint64_t ticket) {
  if (ticket & kPendingTicket) {
    return std::any_of(self->pending->begin(), self->pending->end(),
                       [ticket](const PendingCall& call) { return call.ticket == ticket; });
  }
  return (*self->flights)[pool::Entry{ticket}.slot()].ticket == ticket;
}

// wait(ticket, timeout): waits until the outcome of that call has been delivered. False on timeout.
PyObject* client_wait(Client* self, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "wait(ticket, timeout)");
    return nullptr;
  }
  const uint64_t ticket = PyLong_AsUnsignedLongLong(arguments[0]);
  if (PyErr_Occurred()) return nullptr;
  const Inside inside(self);
  int64_t deadline = -1;
  if (!deadline_from(arguments[1], &deadline)) return nullptr;
  for (;;) {
    if (self->ended || self->pool == nullptr) Py_RETURN_TRUE;
    const uint32_t seen = self->pool->listen();
    if (collect(self) < 0) return nullptr;
    if (!is_open(self, ticket)) Py_RETURN_TRUE;
    if (passed(deadline)) return look_after_agent(self) < 0 ? nullptr : Py_NewRef(Py_False);
    if (wait_for_news(self, seen, deadline) < 0) return nullptr;
  }
}

// collect(timeout): reads news; if there is none, waits for news up to the timeout (0: does not
// wait).
PyObject* client_collect(Client* self, PyObject* timeout) {
  if (self->ended || self->pool == nullptr) Py_RETURN_NONE;
  const Inside inside(self);
  int64_t deadline = -1;
  if (!deadline_from(timeout, &deadline)) return nullptr;
  const uint32_t seen = self->pool->listen();
  if (collect(self) < 0) return nullptr;
  if (self->pool == nullptr) Py_RETURN_NONE;  // the child of a fork in a callback
  if (passed(deadline)) return look_after_agent(self) < 0 ? nullptr : Py_NewRef(Py_None);
  const bool quiet = self->pool->listen() == seen;
  if (quiet && (wait_for_news(self, seen, deadline) < 0 || collect(self) < 0)) return nullptr;
  Py_RETURN_NONE;
}

// wake(): makes the waiting threads check their conditions.
PyObject* client_wake(Client* self, PyObject*) {
  if (self->pool != nullptr) {
    self->pool->ring_clients();
    self->pool->ring_feeders();
  }
  Py_RETURN_NONE;
}

// wait_for_hunger(at_once): waits until the workers are about to run out of batches, at most a
// second.
PyObject* client_wait_for_hunger(Client* self, PyObject* at_once) {
  if (self->ended || self->pool == nullptr) Py_RETURN_NONE;
  const Inside inside(self);
  const bool now = PyObject_IsTrue(at_once) == 1;
  const int64_t deadline = os::monotonic_ns() + 1'000'000'000;
  Py_BEGIN_ALLOW_THREADS
  self->pool->wait_for_hunger(now, deadline);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

PyObject* answer_of(CancelAnswer answer) { return PyLong_FromLong(static_cast<long>(answer)); }

// Cancels a call. With `stops`, a running task is asked to stop. Returns a CancelAnswer, or nullptr
// with an error set.
PyObject* cancel_call(Client* self, PyObject* argument, bool stops) {
  const uint64_t ticket = PyLong_AsUnsignedLongLong(argument);
  const Inside inside(self);
  if (PyErr_Occurred() || !open_or_raise(self) || collect(self) < 0) return nullptr;
  if (self->ended) return answer_of(CancelAnswer::too_late);
  if (ticket & kPendingTicket) {
    auto& pending = *self->pending;
    for (auto call = pending.begin(); call != pending.end(); ++call) {
      if (call->ticket != ticket) continue;
      const PendingCall gone = std::move(*call);
      pending.erase(call);
      tell(self, gone.sink.get(), make_error(self, "cancelled").get(), true);
      return answer_of(CancelAnswer::withdrawn);
    }
    return answer_of(CancelAnswer::too_late);
  }
  if (!is_open(self, ticket)) return answer_of(CancelAnswer::too_late);
  const uint32_t slot = pool::Entry{ticket}.slot();
  if (self->pool->cancel_queued(slot, 0)) {
    self->pool->mark_dirty(slot);
    return collect(self) < 0 ? nullptr : answer_of(CancelAnswer::withdrawn);
  }
  const bool runs = stops ? self->pool->request_stop(slot, 0, pool::StopReason::cancel)
                          : self->pool->is_claimed(slot, 0);
  return answer_of(runs ? CancelAnswer::running : CancelAnswer::too_late);
}

PyObject* client_cancel(Client* self, PyObject* ticket) { return cancel_call(self, ticket, true); }

PyObject* client_withdraw(Client* self, PyObject* ticket) {
  return cancel_call(self, ticket, false);
}

// ---- Client.call --------------------------------------------------------------------------------

// Waits until the outcome has been delivered. False with an error set (usually Ctrl-C).
bool await_outcome(Client* self, const Outcome* outcome) {
  while (outcome->value == nullptr) {
    if (!open_or_raise(self)) return false;
    const uint32_t seen = self->pool->listen();
    if (collect(self) < 0) return false;
    if (outcome->value == nullptr && wait_for_news(self, seen, -1) < 0) return false;
  }
  return true;
}

// The caller no longer waits: withdraws the call or asks for it to be stopped. Keeps the error that
// is set.
void give_up(Client* self, uint64_t open_ticket) {
  Reference reason = take_raised();
  const Reference ticket = Reference::take(PyLong_FromUnsignedLongLong(open_ticket));
  const Reference answer = Reference::take(ticket ? client_cancel(self, ticket.get()) : nullptr);
  if (!answer) PyErr_Clear();
  put_raised(std::move(reason));
}

// call(function, callable, name, args, kwargs, timeout_ns, retries): submits, waits, and returns
// the result or raises the task's exception.
PyObject* client_call(Client* self, PyObject* const* arguments, Py_ssize_t count) {
  const Inside inside(self);
  const auto outcome = ReferenceTo<Outcome>::take(
      reinterpret_cast<Outcome*>(outcome_type->tp_alloc(outcome_type, 0)));
  if (!outcome) return nullptr;
  PyObject* all[8] = {reinterpret_cast<PyObject*>(outcome.get())};
  std::copy_n(arguments, std::min<Py_ssize_t>(count, 7), all + 1);
  CallOptions call;
  if (!running_or_raise(self) || !parse_call(all, count + 1, &call)) return nullptr;
  const uint64_t ticket = submit_call(self, call);
  if (ticket == 0) return nullptr;
  if (!await_outcome(self, outcome.get())) {
    give_up(self, ticket);
    return nullptr;
  }
  if (!outcome->error) return Py_NewRef(outcome->value);
  put_raised(Reference::borrow(outcome->value));
  return nullptr;
}

// cancel_all(running): withdraws every unit that has not begun; if `running`, stops the others.
PyObject* client_cancel_all(Client* self, PyObject* running) {
  const Inside inside(self);
  if (!open_or_raise(self)) return nullptr;
  while (!self->pending->empty()) {
    const Reference ticket =
        Reference::take(PyLong_FromUnsignedLongLong(self->pending->front().ticket));
    const Reference done = Reference::take(ticket ? client_cancel(self, ticket.get()) : nullptr);
    if (!done) return nullptr;
  }
  for (uint32_t slot = 0; slot < self->flights->size(); ++slot) {
    if ((*self->flights)[slot].ticket == 0) continue;
    const uint32_t units = self->pool->batch(slot).units;
    for (uint32_t unit = 0; unit < units; ++unit) {
      if (self->pool->cancel_queued(slot, unit)) {
        self->pool->mark_dirty(slot);
      } else if (running == Py_True) {
        self->pool->request_stop(slot, unit, pool::StopReason::cancel);
      }
    }
  }
  if (collect(self) < 0) return nullptr;
  Py_RETURN_NONE;
}

// state(ticket): "pending", "running" or "finished".
PyObject* client_state(Client* self, PyObject* argument) {
  const uint64_t ticket = PyLong_AsUnsignedLongLong(argument);
  if (PyErr_Occurred() || !open_or_raise(self)) return nullptr;
  if (!is_open(self, ticket)) return PyUnicode_FromString("finished");
  if (ticket & kPendingTicket) return PyUnicode_FromString("pending");
  const pool::Batch& batch = self->pool->batch(pool::Entry{ticket}.slot());
  const pool::Unit unit = pool::Unit::of(batch.unit_words()[0].load());
  return PyUnicode_FromString(unit.state == pool::UnitState::queued ? "pending" : "running");
}

// ---- The pool as a whole ------------------------------------------------------------------------

PyObject* client_set_phase(Client* self, PyObject* argument) {
  const long phase = PyLong_AsLong(argument);
  if (PyErr_Occurred() || !open_or_raise(self)) return nullptr;
  self->pool->set_phase(static_cast<pool::Phase>(phase));
  Py_RETURN_NONE;
}

PyObject* client_set_startup(Client* self, PyObject* bytes) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (!open_or_raise(self) || PyBytes_AsStringAndSize(bytes, &data, &size) < 0) return nullptr;
  try {
    uint32_t definitions = 0;
    if (!store_definitions(self, &definitions)) return nullptr;
    const arena::Handle block = self->pool->store_function(reinterpret_cast<const std::byte*>(data),
                                                           static_cast<uint64_t>(size));
    self->pool->state().startup.store(block);
  } catch (...) {
    set_python_error();
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* client_set_agent(Client* self, PyObject* pidfd) {
  const long fd = PyLong_AsLong(pidfd);
  if (PyErr_Occurred()) return nullptr;
  self->agent_pidfd = static_cast<int>(fd);
  Py_RETURN_NONE;
}

// True if outcomes are outstanding.
bool is_busy(const Client* self) {
  return !self->ended && self->pool != nullptr &&
         (self->pool->anything_in_flight() || !self->pending->empty());
}

PyObject* client_busy(Client* self, void*) { return PyBool_FromLong(is_busy(self)); }

PyObject* client_ended(Client* self, void*) { return PyBool_FromLong(self->ended); }

// The pool's memory is free, so no thread is delivering an outcome.
PyObject* client_gone(Client* self, void*) { return PyBool_FromLong(self->pool == nullptr); }

PyObject* client_open_calls(Client* self, void*) {
  const uint32_t in_flight = self->pool == nullptr ? 0 : self->pool->in_flight();
  return PyLong_FromSize_t(in_flight + self->pending->size());
}

PyObject* client_wanted(Client* self, void*) {
  if (!open_or_raise(self)) return nullptr;
  return PyLong_FromUnsignedLong(self->pool->state().target.load());
}

// want(workers): sets how many workers the agent keeps. The agent reads it the next time it is
// rung.
PyObject* client_want(Client* self, PyObject* argument) {
  const unsigned long wanted = PyLong_AsUnsignedLong(argument);
  if (PyErr_Occurred() || !open_or_raise(self)) return nullptr;
  self->pool->state().target.store(
      static_cast<uint32_t>(std::min<unsigned long>(wanted, self->workers)));
  Py_RETURN_NONE;
}

PyObject* client_handle(Client* self, void*) {
  return self->pool == nullptr ? PyLong_FromLong(0)
                               : PyLong_FromUnsignedLongLong(self->pool->handle());
}

// take_failure(): the decoded error of a failed start, or None.
PyObject* client_take_failure(Client* self, PyObject*) {
  if (!open_or_raise(self)) return nullptr;
  const arena::Handle handle = self->pool->state().failure.exchange(0);
  if (handle == 0) Py_RETURN_NONE;
  arena::Member& member = self->pool->member();
  auto* block = member.arena().at<pool::FunctionBlock>(handle);
  const codec::MessageView view{&member.arena(), &member, block->bytes(), block->size,
                                nullptr,         0,       handle};
  PyObject* value = codec::python::decode(view, 0, nullptr, codec::python::copy_out);
  member.free_child(handle, self->pool->handle());
  return value;
}

PyObject* seat_summary(pool::Seat& seat) {
  const double ns = os::ns_per_tick() * 1e-9;
  const auto seconds = [ns](const os::Atomic<uint64_t>& ticks) {
    return ns * static_cast<double>(ticks.load());
  };
  return Py_BuildValue(
      "{s:I,s:I,s:O,s:O,s:K,s:K,s:K,s:K,s:K,s:K,s:d,s:d,s:d,s:d,s:K,s:K}", "pid", seat.pid.load(),
      "rank", seat.rank.load(), "ready",
      pool::life_of(seat.life.load()) == pool::Life::ready ? Py_True : Py_False, "running",
      (seat.serial.load() & 1) != 0 ? Py_True : Py_False, "units", seat.units_done.load(), "tasks",
      seat.items_done.load(), "errors", seat.errors.load(), "batches", seat.batches.load(),
      "steals", seat.steals.load(), "sleeps", seat.sleeps.load(), "run_seconds",
      seconds(seat.busy_ticks), "decode_seconds", seconds(seat.decode_ticks), "encode_seconds",
      seconds(seat.encode_ticks), "wait_seconds", seconds(seat.wait_ticks), "bytes_in",
      seat.bytes_in.load(), "bytes_out", seat.bytes_out.load());
}

PyObject* client_seats(Client* self, PyObject*) {
  const Inside inside(self);
  if (!open_or_raise(self)) return nullptr;
  Reference result = Reference::take(PyList_New(0));
  pool::PoolState& state = self->pool->state();
  for (uint32_t i = 0; i < self->pool->seats() && result; ++i) {
    pool::Seat& seat = *state.seat(i);
    const pool::Life life = pool::life_of(seat.life.load());
    if (life == pool::Life::empty && seat.items_done.load() == 0) continue;
    const Reference summary = Reference::take(seat_summary(seat));
    if (!summary || PyList_Append(result.get(), summary.get()) < 0) return nullptr;
  }
  return result.release();
}

PyObject* client_bury(Client* self, PyObject*) {
  if (!open_or_raise(self)) return nullptr;
  return PyBool_FromLong(self->pool->bury_workers_of_dead_agent());
}

void drop_flights(Client* self) {
  for (uint32_t slot = 0; slot < self->flights->size(); ++slot) {
    const Flight dropped = std::exchange((*self->flights)[slot], Flight{});
  }
  while (!self->pending->empty()) {
    const PendingCall dropped = std::move(self->pending->front());
    self->pending->pop_front();
  }
}

// The object that make() returns, or the exception that it raises.
Reference result_or_error(PyObject* make) {
  Reference made = Reference::take(PyObject_CallNoArgs(make));
  return made ? std::move(made) : take_raised();
}

// abandon(make_error): the pool was terminated: every open outcome becomes the exception that
// make_error() returns.
PyObject* client_abandon(Client* self, PyObject* make) {
  const Inside inside(self);
  if (!open_or_raise(self)) return nullptr;
  while (!self->pending->empty()) {
    const PendingCall call = std::move(self->pending->front());
    self->pending->pop_front();
    tell(self, call.sink.get(), result_or_error(make).get(), true);
  }
  for (uint32_t slot = 0; slot < self->flights->size(); ++slot) {
    const Flight flight = std::exchange((*self->flights)[slot], Flight{});
    if (flight.ticket == 0) continue;
    const pool::Batch& batch = self->pool->batch(slot);
    std::vector<uint32_t> missing;
    for (uint32_t unit = 0; unit < batch.units; ++unit) {
      const uint32_t from = flight.seen[unit] == kRead ? batch.item_count(unit) : flight.seen[unit];
      for (uint32_t item = from; item < batch.item_count(unit); ++item) {
        missing.push_back(batch.first_item(unit) + item);
      }
    }
    // if busy, another thread decodes from the batch: it is freed with the pool
    if (!flight.busy) self->pool->retire(slot);
    for (const uint32_t index : missing) {
      Reference error = result_or_error(make);
      if (flight.job) {
        job_deliver(flight.job.get(), flight.first_index + index, std::move(error), true);
      } else {
        tell(self, flight.sink.get(), error.get(), true);
      }
    }
  }
  if (self->pool != nullptr) {  // null: the child of a fork in a callback
    self->pool->ring_clients();
    self->pool->ring_feeders();
  }
  if (collect(self) < 0) return nullptr;  // a signal handler raised during delivery
  Py_RETURN_NONE;
}

// end(): from now on nothing can be submitted.
PyObject* client_end(Client* self, PyObject*) {
  self->ended = true;
  Py_RETURN_NONE;
}

// end_when_idle(): calls end() if no outcome is outstanding; returns whether it did. Atomic under
// the GIL.
PyObject* client_end_when_idle(Client* self, PyObject*) {
  if (is_busy(self)) Py_RETURN_FALSE;
  self->ended = true;
  Py_RETURN_TRUE;
}

// release(): frees the pool's memory. All processes of the pool must be gone.
PyObject* client_release(Client* self, PyObject*) {
  if (self->pool == nullptr || self->released) Py_RETURN_NONE;
  const Inside inside(self);
  self->ended = self->released = true;
  drop_flights(self);
  self->pool->ring_clients();
  self->pool->ring_feeders();
  Py_RETURN_NONE;
}

// forget(): called in the child of a fork. The pool belongs to the parent, so none of its memory is
// touched.
PyObject* client_forget(Client* self, PyObject*) {
  static_cast<void>(self->pool.release());  // the parent frees it
  self->ended = true;
  // Python code that a thread called while it read or submitted may have forked. When it returns,
  // in the child, that thread finds that all has ended.
  for (Flight& flight : *self->flights) flight.ticket = 0;
  Py_RETURN_NONE;
}

// Client(workers, units_per_worker, grace_ns, hooks, definitions, trouble)
PyObject* client_new(PyTypeObject* type, PyObject* arguments, PyObject*) {
  unsigned workers = 0, limit = 0;
  long long grace_ns = 0;
  PyObject *hooks, *definitions, *trouble;
  if (!PyArg_ParseTuple(arguments, "IILOO!O", &workers, &limit, &grace_ns, &hooks, &PyList_Type,
                        &definitions, &trouble)) {
    return nullptr;
  }
  arena::Member* member = current_member();
  if (member == nullptr) return nullptr;
  auto* self = reinterpret_cast<Client*>(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  self->flights = new Flights;
  self->pending = new std::deque<PendingCall>;
  self->news = new std::deque<uint32_t>;
  self->feeding = new std::vector<Job*>;
  self->agent_pidfd = -1;
  self->cpus = static_cast<unsigned>(os::usable_cpus());
  (void)os::ns_per_tick();  // measured before the fork, so that no worker has to measure it
  self->workers = workers;
  new (&self->pool) std::unique_ptr<pool::ClientPool>;
  new (&self->builder) std::unique_ptr<codec::MessageBuilder>(new codec::MessageBuilder(member));
  try {
    self->pool = std::make_unique<pool::ClientPool>(
        *member, pool::PoolOptions{workers, limit, grace_ns, self->cpus - 1});
  } catch (...) {
    set_python_error();
    Py_DECREF(self);
    return nullptr;
  }
  self->hooks = Py_NewRef(hooks);
  self->definitions = Py_NewRef(definitions);
  self->trouble = Py_NewRef(trouble);
  return reinterpret_cast<PyObject*>(self);
}

// The definitions refer to the program's globals, and one of those refers to the pool. Without
// tp_traverse the garbage collector could not free any of them when the interpreter ends, and open
// files among them would not be flushed. It visits only members that never change, since a Flight
// may be half moved at this moment. No tp_clear is needed: each of the three objects has one.
int client_traverse(Client* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->hooks);
  Py_VISIT(self->definitions);
  Py_VISIT(self->trouble);
  return 0;
}

void client_dealloc(Client* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  drop_flights(self);
  self->pool.reset();
  self->builder.reset();
  delete self->flights;
  delete self->pending;
  delete self->news;
  delete self->feeding;
  Py_XDECREF(self->interrupt);
  Py_XDECREF(self->hooks);
  Py_XDECREF(self->definitions);
  Py_XDECREF(self->trouble);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef client_methods[] = {
    {"add_function", method(client_add_function), METH_O,
     "add_function(bytes): stores an encoded function; workers decode it once."},
    {"submit", method(client_submit), METH_FASTCALL,
     "submit(sink, function, callable, name, args, kwargs, timeout_ns, retries) -> ticket, which "
     "is sink._ticket then"},
    {"call", method(client_call), METH_FASTCALL,
     "call(function, callable, name, args, kwargs, timeout_ns, retries) -> result"},
    {"wait", method(client_wait), METH_FASTCALL, "wait(ticket, timeout) -> bool"},
    {"collect", method(client_collect), METH_O, "collect(timeout): read news, wait for some."},
    {"wake", method(client_wake), METH_NOARGS, "Make waiting threads check their conditions."},
    {"wait_for_hunger", method(client_wait_for_hunger), METH_O,
     "wait_for_hunger(at_once): waits until workers may run out of batches, at most a second."},
    {"cancel", method(client_cancel), METH_O,
     "cancel(ticket): CANCEL_TOO_LATE, CANCEL_WITHDRAWN, or CANCEL_RUNNING: asked to stop."},
    {"withdraw", method(client_withdraw), METH_O,
     "withdraw(ticket): as cancel, but a task that a worker runs is left alone."},
    {"cancel_all", method(client_cancel_all), METH_O,
     "cancel_all(running): withdraw what has not begun, and stop the rest too if running."},
    {"state", method(client_state), METH_O, "state(ticket): pending, running or finished."},
    {"want", method(client_want), METH_O,
     "want(workers): how many workers the agent keeps; it reads this when it is rung."},
    {"set_phase", method(client_set_phase), METH_O, "0 running, 1 draining, 2 stopping"},
    {"set_startup", method(client_set_startup), METH_O,
     "set_startup(bytes): what workers need to start."},
    {"set_agent", method(client_set_agent), METH_O,
     "set_agent(pidfd): the agent whose death to watch."},
    {"take_failure", method(client_take_failure), METH_NOARGS,
     "The encoded error of a failed start, or None."},
    {"seats", method(client_seats), METH_NOARGS, "Counters of every worker."},
    {"bury", method(client_bury), METH_NOARGS,
     "The agent is dead: mark its workers dead; True when none is left alive."},
    {"open_outcomes", method(client_open_outcomes), METH_NOARGS,
     "[(sink or job, units without an outcome, units not begun)]"},
    {"abandon", method(client_abandon), METH_O,
     "abandon(make_error): every open outcome becomes an error."},
    {"end", method(client_end), METH_NOARGS, "Let nothing more be submitted."},
    {"end_when_idle", method(client_end_when_idle), METH_NOARGS,
     "Calls end() if no outcome is outstanding; returns whether it did."},
    {"release", method(client_release), METH_NOARGS, "Free the pool's memory."},
    {"forget", method(client_forget), METH_NOARGS, "In the child of a fork: leave the pool alone."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef client_getset[] = {
    {"handle", reinterpret_cast<getter>(client_handle), nullptr, "The pool's state.", nullptr},
    {"busy", reinterpret_cast<getter>(client_busy), nullptr, "Outcomes are outstanding.", nullptr},
    {"ended", reinterpret_cast<getter>(client_ended), nullptr, "Nothing more is sent.", nullptr},
    {"gone", reinterpret_cast<getter>(client_gone), nullptr, "No outcome will come.", nullptr},
    {"open_calls", reinterpret_cast<getter>(client_open_calls), nullptr,
     "Calls and batches of maps whose outcomes are not all read.", nullptr},
    {"wanted", reinterpret_cast<getter>(client_wanted), nullptr, "Workers wanted now.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot client_slots[] = {{Py_tp_new, reinterpret_cast<void*>(client_new)},
                              {Py_tp_dealloc, reinterpret_cast<void*>(client_dealloc)},
                              {Py_tp_traverse, reinterpret_cast<void*>(client_traverse)},
                              {Py_tp_methods, client_methods},
                              {Py_tp_getset, client_getset},
                              {0, nullptr}};

PyType_Spec client_spec = {"shoal._core.Client", sizeof(Client), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, client_slots};

PyObject* encoding_hooks(PyObject*, PyObject*) { return current_encoding_hooks(); }

PyMethodDef functions[] = {
    {"encoding_hooks", encoding_hooks, METH_NOARGS,
     "The hooks of the client for which this thread encodes just now, or None."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_pool_client(PyObject* module) {
  function_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&function_spec));
  ticket_name = PyUnicode_InternFromString("_ticket");
  if (ticket_name == nullptr || !bind_pool_outcome()) return false;
  const Reference client = Reference::take(PyType_FromSpec(&client_spec));
  if (function_type == nullptr || !client ||
      PyModule_AddObjectRef(module, "Client", client.get()) < 0) {
    return false;
  }
  return bind_pool_job(module) && PyModule_AddFunctions(module, functions) == 0;
}

}  // namespace shoal::bindings
