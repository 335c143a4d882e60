// SPDX-License-Identifier: Apache-2.0
//
// Collecting outcomes: reads news from the workers and delivers it to sinks and jobs; resolves
// deaths; waits.
#include <algorithm>
#include <optional>
#include <utility>

#include "bindings/interp/raised.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/pool/client.hpp"
#include "codec/python/codec.hpp"
#include "os/clock.hpp"
#include "os/process.hpp"

namespace shoal::bindings {

namespace {

using pool::Batch;
using pool::ClientPool;
using pool::Unit;
using pool::UnitState;

constexpr size_t kSummaryChars = 4000;  // ClientHooks shortens the text further
// After this time without news a waiting thread looks for results that no worker has reported:
// results of quick tasks whose worker now runs a long task. After that it looks every kSliceNs.
constexpr int64_t kFirstSliceNs = 1'000'000;
constexpr int kTellAttempts = 100;  // each retry means that one more signal arrived in the call

// The hooks of the client or worker for which this thread encodes, or nullptr. Only encode_with()
// sets it. It is not an argument of encode(), because every step of encode() would have to pass it
// on, and only values that are pickled need it (shoal._pickling._codec turns it into an argument).
thread_local PyObject* encoding_hooks = nullptr;

Flight& flight_at(Client* client, uint32_t slot) { return (*client->flights)[slot]; }

// Stores the current error, so that collect() raises it later. False in threads where no signal
// handler runs.
bool keep_interrupt(Client* client) {
  if (!is_main_thread()) return false;
  Reference error = take_raised();
  if (client->interrupt == nullptr) client->interrupt = error.release();
  return true;
}

int raise_interrupt(Client* client) {
  if (client->interrupt == nullptr || !is_main_thread()) {
    return PyErr_Occurred() != nullptr ? -1 : 0;
  }
  put_raised(Reference::take(std::exchange(client->interrupt, nullptr)));
  return -1;
}

// Repeats the call until no signal handler interrupts it.
template <class Call>
void tell_with(Client* client, PyObject* whom, Call&& call) {
  for (int attempt = 0; attempt < kTellAttempts; ++attempt) {
    if (Reference::take(call())) return;
    if (!keep_interrupt(client)) break;
  }
  if (PyErr_Occurred() != nullptr) PyErr_WriteUnraisable(whom);
}

// The sink or job that receives a batch's outcomes. Outlives the flight, which may be abandoned
// while a result is decoded.
class Target {
 public:
  Target(Client* client, uint32_t slot)
      : client_(client),
        sink_(Reference::borrow(flight_at(client, slot).sink.get())),
        job_(ReferenceTo<Job>::borrow(flight_at(client, slot).job.get())),
        first_index_(flight_at(client, slot).first_index),
        batch_(client->pool->batch(slot)) {}

  // Delivers the outcome of the batch's item `index`. In a whole unit an error is the outcome of
  // all items.
  void deliver(uint32_t index, Reference&& value, bool error) const {
    if (job_ && error && (batch_.flags & pool::kWholeUnits) != 0) {
      return fail_chunk(index, std::move(value), true);
    }
    if (job_) return job_deliver(job_.get(), first_index_ + index, std::move(value), error);
    if (Py_TYPE(sink_.get()) == outcome_type) {
      auto* outcome = reinterpret_cast<Outcome*>(sink_.get());
      outcome->error = error;
      Py_XSETREF(outcome->value, value.release());
      return;
    }
    tell(client_, sink_.get(), value.get(), error);
  }

  // Delivers the error of an item, or of its whole unit, whose worker died or whose time limit ran
  // out.
  void deliver_loss(uint32_t index, Reference&& error) const {
    if (!job_ || (batch_.flags & pool::kWholeUnits) == 0) {
      return deliver(index, std::move(error), true);
    }
    fail_chunk(index, std::move(error), false);
  }

 private:
  void fail_chunk(uint32_t index, Reference&& error, bool ends) const {
    const uint32_t unit = index / batch_.items_per_unit;
    const uint64_t first = first_index_ + batch_.first_item(unit);
    job_fail_chunk(job_.get(), first, batch_.item_count(unit), std::move(error), ends);
  }

  Client* client_;
  Reference sink_;
  ReferenceTo<Job> job_;
  uint64_t first_index_;
  Batch batch_;
};

// The arguments of ClientHooks.worker_died that describe the task: its function, a text of its
// unit's value, the batch's flags (how to read that text), and the item's place in the unit. The
// text is made from the message itself: nothing is unpickled for it.
PyObject* describe(Client* client, uint32_t slot, uint32_t unit, uint32_t item) {
  const Flight& flight = flight_at(client, slot);
  const Batch& batch = client->pool->batch(slot);
  const uint64_t word = batch.argument_words()[unit].load();
  Reference text;
  if (pool::word_is_offset(word)) {
    const codec::MessageView view{&client->pool->member().arena(),
                                  nullptr,
                                  batch.payload(),
                                  batch.payload_size,
                                  batch.attachment_handles(),
                                  batch.attachments,
                                  client->pool->batch_handle(slot)};
    text = Reference::take(codec::python::summarize(view, pool::word_offset(word), kSummaryChars));
  } else if (const Reference value = Reference::take(codec::python::from_word(word))) {
    text = Reference::take(PyObject_Repr(value.get()));
  }
  if (!text) {
    PyErr_Clear();
    text = Reference::take(PyUnicode_FromString("..."));
  }
  PyObject* name = flight.name ? flight.name.get() : Py_None;
  return Py_BuildValue("(ONII)", name, text.release(), batch.flags, item);
}

// Removes the loss of that item from the flight; in a whole unit, the loss of the unit. Empty if
// there is none.
std::optional<Loss> take_loss(Client* client, uint32_t slot, uint32_t unit, uint32_t item) {
  const bool whole = (client->pool->batch(slot).flags & pool::kWholeUnits) != 0;
  std::vector<Loss>& losses = flight_at(client, slot).losses;
  for (auto loss = losses.begin(); loss != losses.end(); ++loss) {
    if (loss->unit != unit || (!whole && loss->item != item)) continue;
    const Loss taken = *loss;
    losses.erase(loss);
    return taken;
  }
  return std::nullopt;
}

// Delivers the error of an item, or of a whole unit, that was lost when its worker died.
void deliver_lost(Client* client, uint32_t slot, uint32_t unit, uint32_t item,
                  const Target& target) {
  const uint32_t first = client->pool->batch(slot).first_item(unit);
  const std::optional<Loss> loss = take_loss(client, slot, unit, item);
  if (!loss) return target.deliver(first + item, make_error(client, "corrupt"), true);
  const ClientPool::Death& death = loss->death;
  PyObject* what = describe(client, slot, unit, loss->item);
  Reference arguments =
      Reference::take(Py_BuildValue("(IIKNN)", death.pid, death.status, death.peak_memory,
                                    PyBool_FromLong(death.memory_limit), what));
  Reference error = make_error(client, "worker_died", std::move(arguments));
  target.deliver_loss(first + loss->item, std::move(error));
}

void deliver_timed_out(Client* client, uint32_t slot, uint32_t unit, uint32_t item,
                       const Target& target) {
  const double seconds = static_cast<double>(client->pool->batch(slot).timeout_ns) * 1e-9;
  Reference arguments =
      Reference::take(Py_BuildValue("(dN)", seconds, describe(client, slot, unit, item)));
  const uint32_t index = client->pool->batch(slot).first_item(unit) + item;
  target.deliver_loss(index, make_error(client, "timed_out", std::move(arguments)));
}

// Where a result is: its block, its place in the block, and a copy of the record's header.
struct Found {
  pool::ResultRecord record;
  pool::ResultRecord* place = nullptr;
  arena::Handle block = 0;
};

// Finds the record that a result word names. False with an error set if no record can be there.
bool find_record(Client* client, uint64_t word, Found* found) {
  arena::Arena& arena = client->pool->member().arena();
  const uint64_t offset = pool::word_offset(word);
  if (arena.contains(offset, sizeof(pool::ResultRecord))) {
    found->block = arena.block_of(arena.address(offset));
  }
  if (found->block != 0) {
    const uint64_t room = found->block + arena.block_size(found->block) - offset;
    found->place = arena.at<pool::ResultRecord>(offset);
    found->record = *found->place;
    if (room >= sizeof(pool::ResultRecord) && found->record.fits(room)) return true;
  }
  PyErr_Format(PyExc_SystemError, "a result word names offset %llu, where no record can be",
               static_cast<unsigned long long>(offset));
  return false;
}

// Decodes a result. If a signal handler raises during the unpickling, the result is unpickled once
// more and collect() raises the exception. If the result itself raised it, the second attempt
// raises again.
Reference decode_undisturbed(Client* client, const codec::MessageView& view) {
  Reference value =
      Reference::take(codec::python::decode(view, 0, nullptr, codec::python::move_out));
  const bool taken_apart = view.n_attachments != 0;
  if (value || taken_apart || !is_main_thread() || PyErr_ExceptionMatches(PyExc_Exception)) {
    return value;
  }
  Reference first = take_raised();
  value = Reference::take(codec::python::decode(view, 0, nullptr, codec::python::move_out));
  if (value && client->interrupt == nullptr) client->interrupt = first.release();
  return value;
}

Reference tuple_of(Reference value) {
  return Reference::take(Py_BuildValue("(N)", value.release()));
}

// Decodes a result. Sets `*error` if the returned value is an exception. Never null.
Reference read_result(Client* client, uint64_t word, bool* error) {
  *error = false;
  if (!pool::word_is_offset(word)) return Reference::take(codec::python::from_word(word));
  Found found;
  Reference value;
  bool failed = false;
  if (find_record(client, word, &found)) {
    const pool::ResultRecord& record = found.record;
    failed = (record.flags & pool::kRecordError) != 0;
    arena::Member& member = client->pool->member();
    arena::Handle* attachments = found.place->attachment_handles();
    const codec::MessageView view{&member.arena(),
                                  &member,
                                  reinterpret_cast<std::byte*>(attachments + record.attachments),
                                  record.size,
                                  attachments,
                                  record.attachments,
                                  found.block};
    value = decode_undisturbed(client, view);
  }
  if (value && !failed) return value;
  *error = true;
  if (value) return make_error(client, "decode_error", tuple_of(std::move(value)));
  Reference why = take_raised();
  // Ctrl-C during the unpickling: this result is lost, and collect() raises the exception at its
  // end.
  if (PyErr_GivenExceptionMatches(why.get(), PyExc_KeyboardInterrupt) && is_main_thread() &&
      client->interrupt == nullptr) {
    client->interrupt = Py_NewRef(why.get());
  }
  return make_error(client, "undecodable", tuple_of(std::move(why)));
}

void read_item(Client* client, uint32_t slot, uint32_t unit, uint32_t item, const Target& target) {
  const Batch& batch = client->pool->batch(slot);
  const uint32_t index = batch.first_item(unit) + item;
  const uint64_t word = batch.result_words()[index].load();
  if (!pool::word_is_offset(word)) {  // a small value: the common case, and the quickest
    return target.deliver(index, Reference::take(codec::python::from_word(word)), false);
  }
  if (word == pool::kLostItem) return deliver_lost(client, slot, unit, item, target);
  if (word == pool::kTimedOutItem) return deliver_timed_out(client, slot, unit, item, target);
  if (word == pool::kUnsentItem) return target.deliver(index, make_error(client, "unsent"), true);
  bool error = false;
  Reference value = read_result(client, word, &error);
  target.deliver(index, std::move(value), error);
}

// Delivers the values of a whole unit's items, which were encoded as one list.
void deliver_all(const Target& target, const Batch& batch, uint32_t unit, PyObject* values) {
  const uint32_t first = batch.first_item(unit);
  const uint32_t items = batch.item_count(unit);
  if (!PyList_CheckExact(values) || PyList_GET_SIZE(values) != static_cast<Py_ssize_t>(items)) {
    PyErr_SetString(PyExc_SystemError, "a chunk's result is not a list of its items' results");
    return target.deliver(first, take_raised(), true);
  }
  for (uint32_t item = 0; item < items; ++item) {
    target.deliver(first + item, Reference::borrow(PyList_GET_ITEM(values, item)), false);
  }
}

// Reads a unit that is one task: nothing is read before the unit has ended.
void read_whole(Client* client, uint32_t slot, uint32_t unit, const Target& target) {
  const Batch batch = client->pool->batch(slot);
  // order: acquire; pairs with the release store in WorkerSeat::publish_whole
  const Unit state = Unit::of(batch.unit_words()[unit].load(os::acquire));
  if (!state.final()) return;
  const uint64_t ticket = flight_at(client, slot).ticket;
  flight_at(client, slot).seen[unit] = kRead;
  const uint32_t first = batch.first_item(unit);
  const uint64_t word = batch.result_words()[first].load();
  if (state.state == UnitState::cancelled) {
    target.deliver(first, make_error(client, "cancelled"), true);
  } else if (word == pool::kTimedOutItem) {
    deliver_timed_out(client, slot, unit, 0, target);
  } else if (word == pool::kUnsentItem) {
    target.deliver(first, make_error(client, "unsent"), true);
  } else if (word == pool::kLostItem) {
    deliver_lost(client, slot, unit, 0, target);
  } else {
    bool error = false;
    Reference value = read_result(client, word, &error);
    if (error) {
      target.deliver(first, std::move(value), true);
    } else {
      deliver_all(target, batch, unit, value.get());
    }
  }
  if (flight_at(client, slot).ticket == ticket) flight_at(client, slot).finished += 1;
}

void read_unit(Client* client, uint32_t slot, uint32_t unit, const Target& target) {
  if (client->pool->batch(slot).flags & pool::kWholeUnits) {
    return read_whole(client, slot, unit, target);
  }
  const Batch& batch = client->pool->batch(slot);
  const uint32_t items = batch.item_count(unit);
  // order: acquire; pairs with the release store in WorkerSeat::publish_item
  const Unit state = Unit::of(batch.unit_words()[unit].load(os::acquire));
  const uint32_t published = std::min(state.progress, items);
  const uint64_t ticket = flight_at(client, slot).ticket;
  const auto gone = [&] { return flight_at(client, slot).ticket != ticket; };
  while (!gone() && flight_at(client, slot).seen[unit] < published) {
    read_item(client, slot, unit, flight_at(client, slot).seen[unit]++, target);
  }
  if (gone() || !state.final()) return;
  const uint32_t first = batch.first_item(unit);
  flight_at(client, slot).seen[unit] = kRead;
  for (uint32_t item = published; item < items; ++item) {
    // No worker writes DONE before the last item: the word is corrupt. The items get an error, so
    // that no caller waits forever.
    const char* why = state.state == UnitState::cancelled ? "cancelled" : "corrupt";
    Reference error = make_error(client, why);
    if (gone()) return;
    target.deliver(first + item, std::move(error), true);
  }
  if (gone()) return;
  Flight& flight = flight_at(client, slot);
  flight.finished += 1;
}

// Updates the measured cost of a call with this batch's time. A batch with more items weighs more.
void sample_cost(const Flight& flight, const Batch& batch) {
  if (!flight.function && !flight.job) return;
  double& cost_ns = flight.function ? flight.function->cost_ns : flight.job->cost_ns;
  const auto items = static_cast<double>(batch.spent_items().load());
  if (items == 0) return;
  const double now = os::ns_per_tick() * static_cast<double>(batch.spent_ticks().load()) / items;
  const double weight = cost_ns == 0 ? 1 : std::max(0.25, items / (items + 64));
  cost_ns += weight * (now - cost_ns);
}

void finish_flight(Client* client, uint32_t slot) {
  const Flight flight = std::exchange(flight_at(client, slot), Flight{});
  sample_cost(flight, client->pool->batch(slot));
  client->pool->retire(slot);
  if (flight.job) flight.job->bytes -= flight.bytes;
}

void read_flight(Client* client, uint32_t slot) {
  if (flight_at(client, slot).ticket == 0) return;
  if (flight_at(client, slot).busy) {
    flight_at(client, slot).again = true;
    return;
  }
  flight_at(client, slot).busy = true;
  const uint64_t ticket = flight_at(client, slot).ticket;
  const uint32_t units = client->pool->batch(slot).units;
  const Target target(client, slot);
  do {
    flight_at(client, slot).again = false;
    bool gap = false;
    for (uint32_t unit = flight_at(client, slot).scan_from; unit < units; ++unit) {
      if (flight_at(client, slot).seen[unit] != kRead) read_unit(client, slot, unit, target);
      if (flight_at(client, slot).ticket != ticket) return;  // Python code has ended the pool
      gap = gap || flight_at(client, slot).seen[unit] != kRead;
      if (!gap) flight_at(client, slot).scan_from = unit + 1;
    }
  } while (flight_at(client, slot).again);
  flight_at(client, slot).busy = false;
  if (flight_at(client, slot).finished == units) finish_flight(client, slot);
}

// First resolves deaths without running Python code, then delivers the lost items. Each loss is
// kept in its flight until the item is read, like a result: so whichever thread reads the item, or
// ends the pool before it is read, gives it its one outcome.
void read_deaths(Client* client) {
  std::vector<uint32_t> slots;
  client->pool->resolve_deaths(
      [&](uint32_t slot, uint32_t unit, uint32_t item, const ClientPool::Death& death) {
        flight_at(client, slot).losses.push_back({unit, item, death});
        slots.push_back(slot);
      });
  for (const uint32_t slot : slots) {
    if (client->ended) return;
    read_flight(client, slot);
  }
  if (client->ended) return;
  for (const ClientPool::Death& death : client->pool->take_unforeseen()) {
    tell_with(client, client->hooks, [&] {
      return PyObject_CallMethod(client->hooks, "worker_ended", "IIKN", death.pid, death.status,
                                 static_cast<unsigned long long>(death.peak_memory),
                                 PyBool_FromLong(death.memory_limit));
    });
    if (client->ended) return;
  }
}

int call_trouble(Client* client, const char* kind) {
  return Reference::take(PyObject_CallFunction(client->trouble, "s", kind)) ? 0 : -1;
}

int check_agent(Client* client) {
  client->agent_seen_ns = os::monotonic_coarse_ns();
  if (client->agent_pidfd < 0 || !os::pidfd_dead(client->agent_pidfd)) return 0;
  if (!client->pool->bury_workers_of_dead_agent()) return 0;  // some are still dying
  return call_trouble(client, "agent");
}

// Checks whether the agent has stopped starting workers, so that no submitted task will ever run.
int check_starts(Client* client) {
  if (client->pool->state().failed_starts.load() < pool::kStartPatience) return 0;
  return client->pool->live_workers() > 0 ? 0 : call_trouble(client, "starts");
}

// True if this thread is the only one that waits, and a processor is left for it.
bool may_spin(Client* client) {
  if (client->waiters != 1) return false;
  if (client->workers < client->cpus) return true;
  pool::PoolState& state = client->pool->state();
  unsigned busy = 0;
  for (uint32_t i = 0; i < client->pool->seats() && busy < client->cpus; ++i) {
    busy += state.seat(i)->entered.load() != 0 ? 1 : 0;
  }
  return busy < client->cpus;
}

}  // namespace

void tell(Client* client, PyObject* sink, PyObject* value, bool error) {
  tell_with(client, sink, [&] {
    return PyObject_CallMethod(sink, "_deliver", "OO", error ? Py_False : Py_True, value);
  });
}

void tell_done(Client* client, PyObject* on_done) {
  tell_with(client, on_done, [&] { return PyObject_CallNoArgs(on_done); });
}

Reference make_error(Client* client, const char* name) {
  return make_error(client, name, Reference::take(PyTuple_New(0)));
}

Reference make_error(Client* client, const char* name, Reference arguments) {
  const Reference method = Reference::take(PyObject_GetAttrString(client->hooks, name));
  Reference error;
  for (int attempt = 0; method && arguments && !error; ++attempt) {
    error = Reference::take(PyObject_CallObject(method.get(), arguments.get()));
    if (error || attempt == kTellAttempts || !PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
        !keep_interrupt(client)) {
      break;
    }
  }
  return error ? std::move(error) : take_raised();
}

bool store_definitions(Client* client, uint32_t* count) {
  PyObject* log = client->definitions;
  *count = client->pool->state().definition_count.load();
  for (; static_cast<Py_ssize_t>(*count) < PyList_GET_SIZE(log); ++*count) {
    PyObject* entry = PyList_GET_ITEM(log, static_cast<Py_ssize_t>(*count));
    char* data = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(entry, &data, &size) < 0) return false;
    try {
      client->pool->append_definition(reinterpret_cast<const std::byte*>(data),
                                      static_cast<uint64_t>(size));
    } catch (...) {
      set_python_error();
      return false;
    }
  }
  return true;
}

bool encode_with(PyObject* hooks, PyObject* value, codec::MessageBuilder& out) {
  PyObject* outer = std::exchange(encoding_hooks, hooks);
  const bool ok = codec::python::encode(value, out);
  encoding_hooks = outer;
  return ok;
}

bool encode_for(Client* client, PyObject* value, codec::MessageBuilder& out) {
  return encode_with(client->hooks, value, out);
}

PyObject* current_encoding_hooks() {
  return Py_NewRef(encoding_hooks != nullptr ? encoding_hooks : Py_None);
}

uint64_t launch(Client* client, pool::BatchParts& parts, codec::MessageBuilder& message,
                Flight&& flight) {
  parts.payload = message.bytes.data();
  parts.payload_size = message.bytes.size();
  parts.attachments = message.attachments.data();
  parts.attachment_count = static_cast<uint32_t>(message.attachments.size());
  pool::Entry entry;
  try {
    flight.seen.assign(parts.units, 0);
    entry = client->pool->submit(parts);
  } catch (...) {
    set_python_error();
    return 0;
  }
  message.forget();
  flight.ticket = entry.value;
  flight_at(client, entry.slot()) = std::move(flight);
  return entry.value;
}

void flush_pending(Client* client) {
  while (!client->ended && !client->pending->empty() && client->pool->has_room() &&
         !must_wait(client, client->pending->front().place)) {
    const PendingCall call = std::move(client->pending->front());
    client->pending->pop_front();
    pool::BatchParts parts;
    parts.argument_words = &call.word;
    parts.units = parts.items = 1;
    parts.flags = call.flags;
    parts.function = call.function ? call.function->number : 0;
    parts.function_block = call.function ? call.function->block : 0;
    parts.definitions = call.definitions;
    parts.retries = call.retries;
    parts.timeout_ns = call.timeout_ns;
    Flight flight;
    flight.sink = Reference::borrow(call.sink.get());
    flight.function = ReferenceTo<Function>::borrow(call.function.get());
    flight.name = Reference::borrow(call.name.get());
    const uint64_t ticket = launch(client, parts, *call.message, std::move(flight));
    if (ticket != 0) {
      tell_with(client, call.sink.get(),
                [&] { return PyObject_CallMethod(call.sink.get(), "_launched", "K", ticket); });
    } else {
      tell(client, call.sink.get(), take_raised().get(), true);
    }
  }
}

int collect(Client* client) {
  if (client->ended) return raise_interrupt(client);  // all outcomes are abandoned, or about to be
  std::vector<uint32_t> slots;
  if (client->pool->has_deaths()) {
    read_deaths(client);
    if (client->ended) return raise_interrupt(client);
    if (check_starts(client) < 0) return -1;
  }
  client->pool->take_dirty(slots);
  std::deque<uint32_t>& news = *client->news;
  if (slots.empty() && news.empty() && client->pending->empty()) return raise_interrupt(client);
  const bool any = !slots.empty() || !news.empty();
  news.insert(news.end(), slots.begin(), slots.end());
  while (!news.empty() && !client->ended) {
    const uint32_t slot = news.front();
    news.pop_front();
    read_flight(client, slot);
  }
  if (client->ended) return raise_interrupt(client);
  if (!client->pending->empty() && feed_before(client, client->pending->front().place) < 0) {
    return -1;
  }
  if (client->ended) return raise_interrupt(client);
  flush_pending(client);
  if (client->ended) return raise_interrupt(client);
  // Other threads may wait for an outcome that this thread has just delivered.
  if (any && client->waiters > 0) client->pool->ring_clients();
  return raise_interrupt(client);
}

int wait_for_news(Client* client, uint32_t seen, int64_t deadline_ns) {
  if (PyErr_CheckSignals() < 0) return -1;
  if (client->pool == nullptr) return 0;  // the child of a fork in Python code
  const int64_t slice = os::monotonic_ns() + (client->quiet ? kSliceNs : kFirstSliceNs);
  const int64_t until = deadline_ns >= 0 && deadline_ns < slice ? deadline_ns : slice;
  client->waiters += 1;
  const bool spin = may_spin(client);
  os::Wake wake;
  Py_BEGIN_ALLOW_THREADS
  wake = client->pool->wait(seen, until, spin);
  Py_END_ALLOW_THREADS
  client->waiters -= 1;
  client->quiet = wake == os::Wake::timed_out;
  if (wake == os::Wake::interrupted || wake == os::Wake::timed_out) {
    if (PyErr_CheckSignals() < 0) return -1;
    if (!client->ended) return check_agent(client);
  }
  return 0;
}

int look_after_agent(Client* client) {
  const bool recent = os::monotonic_coarse_ns() - client->agent_seen_ns < kSliceNs;
  return recent || client->ended ? 0 : check_agent(client);
}

}  // namespace shoal::bindings
