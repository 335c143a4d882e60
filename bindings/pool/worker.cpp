// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Worker: the loop of a worker process. It takes batches, decodes, calls, encodes and
// publishes without returning to Python between tasks.
//
// Worker(pool, seat, agent_bell, hooks, stop_class): `hooks` is an object with the methods
//   decode_function(bytes) -> callable          a function the pool sends once
//   apply_definition(bytes) -> None             one entry of the definitions log, in order
//   encode_error(exception, during, result) -> tuple
//       Plain values; `during` is "run", "encode" or "decode". It runs users' code (a result's
//       __repr__), so the stop signal may raise in it.
//
// run() returns when the pool ends, or after `units_per_worker` units. It is used by one thread.
//
// The GIL is released only while waiting for work, and every 5 ms for the task's own threads.
#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>

#include "bindings/interp/bind.hpp"
#include "bindings/interp/raised.hpp"
#include "codec/python/codec.hpp"
#include "os/clock.hpp"
#include "os/cpus.hpp"
#include "pool/worker.hpp"
#include "trace/record.hpp"

namespace shoal::bindings {

namespace {

using codec::MessageBuilder;
using codec::MessageView;
using pool::Batch;
using pool::WorkerSeat;

// decoded functions to keep; the cache is emptied when it has this many
constexpr size_t kFunctionCache = 512;
constexpr int64_t kYieldNs = 5'000'000;  // as sys.getswitchinterval()

void count(os::Atomic<uint64_t>& counter, uint64_t amount) noexcept {
  // order: relaxed; only this worker writes its counters
  counter.store(counter.load(os::relaxed) + amount, os::relaxed);
}

struct Worker {
  PyObject_HEAD
  trace::Ring* trace;
  std::unique_ptr<WorkerSeat> seat;
  std::unique_ptr<MessageBuilder> builder;
  std::unordered_map<uint64_t, Reference>* functions;
  PyObject* hooks;
  PyObject* stop_class;           // the exception class that the stop signal's handler raises
  arena::Handle last_definition;  // applied; 0 = none yet
  uint32_t definitions;
  uint64_t unit_limit;
  uint64_t units;
  uint64_t yield_ticks;
  uint64_t yielded_at;
  // ticks at the end of the last measured step, which is also the beginning of the next one
  uint64_t now;
  int agent_bell;   // write end of the agent's bell, rung for a deadline before its next look
  int bell_number;  // descriptor number in the agent, and here until a task closes it
  uint64_t bell_inode;
};

// Adds the time of a step to its counter, and to the trace if it is long enough.
void note(Worker* self, trace::Kind kind, os::Atomic<uint64_t>& counter, uint64_t begin,
          uint64_t end) {
  count(counter, end - begin);
  self->trace->record(kind, begin, end);
}

MessageView view_of_batch(Worker* self) {
  const Batch& batch = self->seat->batch();
  return {&self->seat->member().arena(),
          &self->seat->member(),
          batch.payload(),
          batch.payload_size,
          batch.attachment_handles(),
          batch.attachments,
          self->seat->batch_handle()};
}

// ---- Forks in tasks -----------------------------------------------------------------------------

// If a task calls os.fork(), the task goes on in the child as well. When the task returns there,
// the child must not publish results for the worker: it exits, like a script that ends.
bool in_fork_of_worker = false;

void watch_forks() {
  static const int once = pthread_atfork(nullptr, nullptr, [] { in_fork_of_worker = true; });
  (void)once;
  in_fork_of_worker = false;
}

// True in such a child, with the exception set that ends it: the task's own, or SystemExit.
bool must_leave(PyObject* result) {
  if (!in_fork_of_worker) return false;
  if (result != nullptr) {
    Py_DECREF(result);
    PyErr_SetNone(PyExc_SystemExit);
  }
  return true;
}

// ---- Errors -------------------------------------------------------------------------------------

// How an item or a whole unit ends: with a result word, or cancelled.
struct Ending {
  uint64_t word = 0;
  bool cancelled = false;
};

// The ending of the running unit if the current exception is the one that the stop signal has
// raised for it. Clears the exception.
std::optional<Ending> take_stop(Worker* self) {
  const pool::StopReason stop = self->seat->stop_reason();
  if (stop == pool::StopReason::none || !PyErr_ExceptionMatches(self->stop_class)) {
    return std::nullopt;
  }
  PyErr_Clear();
  return Ending{pool::kTimedOutItem, stop == pool::StopReason::cancel};
}

// The current exception cannot be sent: prints it, unless it is the stop signal's.
Ending unsent(Worker* self) {
  self->builder->clear();
  if (const auto stopped = take_stop(self)) return *stopped;
  PyErr_WriteUnraisable(self->hooks);
  return {pool::kUnsentItem, false};
}

Reference encode_error(Worker* self, PyObject* error, const char* during, PyObject* result) {
  return Reference::take(
      PyObject_CallMethod(self->hooks, "encode_error", "OsO", error, during, result));
}

// Turns the current exception into an error record; or the exception that was raised meanwhile, if
// users' code raises one. `result` is the result that could not be encoded.
Ending error_ending(Worker* self, const char* during, PyObject* result = Py_None) {
  const Reference error = take_raised();
  Reference encoded = encode_error(self, error.get(), during, result);
  count(self->seat->seat().errors, 1);
  if (!encoded) {
    if (const auto stopped = take_stop(self)) return *stopped;
    const Reference later = take_raised();
    encoded = encode_error(self, later.get(), "run", Py_None);
    if (!encoded) return unsent(self);
  }
  MessageBuilder& out = *self->builder;
  out.clear();
  if (!codec::python::encode(encoded.get(), out)) return unsent(self);
  try {
    const uint64_t word =
        self->seat->write_record(out.bytes.data(), out.bytes.size(), out.attachments.data(),
                                 static_cast<uint32_t>(out.attachments.size()), pool::kRecordError);
    out.forget();
    return {word, false};
  } catch (...) {
    set_python_error();
    return unsent(self);
  }
}

// The ending with the result `result` (borrowed), or with the error that it cannot be encoded.
Ending result_ending(Worker* self, PyObject* result) {
  uint64_t word = 0;
  if (codec::python::to_word(result, &word)) return {word, false};
  const uint64_t begin = os::ticks();
  MessageBuilder& out = *self->builder;
  out.clear();
  out.move_arrays = true;
  bool ok = encode_with(self->hooks, result, out);
  if (ok) {
    try {
      word = self->seat->write_record(out.bytes.data(), out.bytes.size(), out.attachments.data(),
                                      static_cast<uint32_t>(out.attachments.size()), 0);
      out.forget();
    } catch (...) {
      set_python_error();
      ok = false;
    }
  }
  if (!ok) out.clear();
  self->now = os::ticks();
  note(self, trace::Kind::encode, self->seat->seat().encode_ticks, begin, self->now);
  if (ok) return {word, false};
  const auto stopped = take_stop(self);
  return stopped ? *stopped : error_ending(self, "encode", result);
}

// ---- Functions and definitions ------------------------------------------------------------------

// A copy of bytes that the client has stored, behind a header of type `Block` that holds their
// number. Null with an error set if no such block is at `handle`.
template <class Block>
PyObject* stored_bytes(Worker* self, arena::Handle handle) {
  const arena::Arena& arena = self->seat->member().arena();
  const uint64_t room = arena.contains(handle, sizeof(Block)) ? arena.block_size(handle) : 0;
  if (room >= sizeof(Block)) {
    auto* block = arena.at<Block>(handle);
    const uint64_t size = block->size;
    if (size <= room - sizeof(Block)) {
      return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(block->bytes()),
                                       static_cast<Py_ssize_t>(size));
    }
  }
  PyErr_Format(PyExc_SystemError, "the pool names a block at offset %llu, where none can be",
               static_cast<unsigned long long>(handle));
  return nullptr;
}

// hooks.<method>(the stored bytes)
template <class Block>
PyObject* call_with_stored(Worker* self, const char* method, arena::Handle handle) {
  const Reference text = Reference::take(stored_bytes<Block>(self, handle));
  return text ? PyObject_CallMethod(self->hooks, method, "O", text.get()) : nullptr;
}

bool apply_definitions(Worker* self, uint32_t wanted) {
  arena::Arena& arena = self->seat->member().arena();
  while (self->definitions < wanted) {
    const arena::Handle next =
        self->last_definition == 0
            ? self->seat->pool().definitions.load()
            : arena.at<pool::DefinitionBlock>(self->last_definition)->next.load();
    if (next == 0) {
      PyErr_SetString(PyExc_SystemError, "the log of definitions is too short for a batch");
      return false;
    }
    const Reference done =
        Reference::take(call_with_stored<pool::DefinitionBlock>(self, "apply_definition", next));
    if (arena.contains(next, sizeof(pool::DefinitionBlock))) {
      self->last_definition = next;
      self->definitions += 1;
    }
    if (!done) return false;
  }
  return true;
}

// Borrowed from the cache, or nullptr with an error set.
PyObject* function_of(Worker* self, const Batch& batch) {
  auto& cache = *self->functions;
  if (auto found = cache.find(batch.function); found != cache.end()) return found->second.get();
  self->seat->prepare();
  Reference function = Reference::take(
      call_with_stored<pool::FunctionBlock>(self, "decode_function", batch.function_block));
  if (!function) return nullptr;
  if (cache.size() >= kFunctionCache) {
    const auto dropped = std::exchange(cache, {});  // the cache is empty before the finalizers run
  }
  return cache.emplace(batch.function, std::move(function)).first->second.get();
}

// ---- Running a unit -----------------------------------------------------------------------------

PyObject* unit_value(Worker* self, uint32_t unit) {
  const Batch& batch = self->seat->batch();
  const uint64_t word = batch.argument_words()[unit].load();
  if (!pool::word_is_offset(word)) return codec::python::from_word(word);
  const uint64_t begin = os::ticks();
  const auto ownership =
      batch.flags & pool::kKeepMessage ? codec::python::copy_out : codec::python::move_out;
  size_t end = 0;
  PyObject* value =
      codec::python::decode(view_of_batch(self), pool::word_offset(word), &end, ownership);
  self->now = os::ticks();
  note(self, trace::Kind::decode, self->seat->seat().decode_ticks, begin, self->now);
  if (value != nullptr) count(self->seat->seat().bytes_in, end - pool::word_offset(word));
  return value;
}

// The keywords of `function(**mapping)`, as a dict. PyObject_Call uses its keywords argument as a
// dict without a type check.
PyObject* keywords_of(PyObject* function, PyObject* mapping) {
  if (PyDict_Check(mapping)) return Py_NewRef(mapping);
  Reference made = Reference::take(PyDict_New());
  if (!made || PyDict_Update(made.get(), mapping) == 0) return made.release();
  if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
    PyErr_Format(PyExc_TypeError, "%R argument after ** must be a mapping, not %.200s", function,
                 Py_TYPE(mapping)->tp_name);
  }
  return nullptr;
}

// Runs a call unit. `value`: ([function,] args[, kwargs]).
PyObject* call_unit(PyObject* function, PyObject* value) {
  Py_ssize_t at = 0;
  if (!PyTuple_CheckExact(value)) {
    PyErr_SetString(PyExc_SystemError, "malformed call");
    return nullptr;
  }
  const Py_ssize_t size = PyTuple_GET_SIZE(value);
  if (function == nullptr && size > 0) function = PyTuple_GET_ITEM(value, at++);
  PyObject* arguments = at < size ? PyTuple_GET_ITEM(value, at++) : nullptr;
  PyObject* keywords = at < size ? PyTuple_GET_ITEM(value, at++) : nullptr;
  if (function == nullptr || arguments == nullptr || !PyTuple_Check(arguments)) {
    PyErr_SetString(PyExc_SystemError, "malformed call");
    return nullptr;
  }
  if (keywords == nullptr) return PyObject_Call(function, arguments, nullptr);
  const Reference named = Reference::take(keywords_of(function, keywords));
  return named ? PyObject_Call(function, arguments, named.get()) : nullptr;
}

PyObject* call_item(PyObject* function, PyObject* item, uint32_t flags) {
  if (flags & pool::kStarItems) {
    const Reference arguments = Reference::take(PySequence_Tuple(item));
    return arguments ? PyObject_CallObject(function, arguments.get()) : nullptr;
  }
  return PyObject_CallOneArg(function, item);
}

// The ending of a call that has returned (`result` is stolen) or raised (null).
Ending ending_of(Worker* self, PyObject* result) {
  if (result != nullptr) {
    const Ending ending = result_ending(self, result);
    Py_DECREF(result);
    return ending;
  }
  const auto stopped = take_stop(self);
  return stopped ? *stopped : error_ending(self, "run");
}

// A task may have closed the bell's descriptor and opened a file with the same number, to which no
// byte may be written. In that case opens the agent's bell again, through the agent's own
// descriptor.
bool bell_is_ours(Worker* self) {
  struct stat now;
  if (self->agent_bell >= 0 && fstat(self->agent_bell, &now) == 0 &&
      now.st_ino == self->bell_inode && S_ISFIFO(now.st_mode)) {
    return true;
  }
  char path[64];
  PyOS_snprintf(path, sizeof path, "/proc/%d/fd/%d", static_cast<int>(getppid()),
                self->bell_number);
  self->agent_bell = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  return self->agent_bell >= 0 && fstat(self->agent_bell, &now) == 0 &&
         now.st_ino == self->bell_inode;
}

// Rings the agent if it would otherwise sleep beyond this unit's deadline.
void ring_agent(Worker* self) {
  pool::PoolState& state = self->seat->pool();
  if (self->seat->seat().deadline_ns.load() >= state.agent_wakes_ns.load() || !bell_is_ours(self))
    return;
  const char byte = 1;
  (void)!write(self->agent_bell, &byte, 1);  // a full pipe: it has been rung
}

// Runs one item between begin_unit and end_unit and publishes it. False: the unit was cancelled.
bool run_item(Worker* self, const WorkerSeat::Claim& claim, uint32_t item, bool last,
              PyObject* function, PyObject* value) {
  WorkerSeat& seat = *self->seat;
  const Batch& batch = seat.batch();
  const uint64_t begin = self->now;
  seat.begin_unit(claim, batch.timeout_ns, begin);
  if (batch.timeout_ns > 0) ring_agent(self);
  PyObject* result = batch.flags & pool::kCallUnits ? call_unit(function, value)
                                                    : call_item(function, value, batch.flags);
  if (must_leave(result)) return false;
  const uint64_t end = self->now = os::ticks();
  note(self, trace::Kind::task, seat.seat().busy_ticks, begin, end);
  const Ending ending = ending_of(self, result);
  if (in_fork_of_worker) _exit(0);  // a __reduce__ that forked
  seat.end_unit();
  if (ending.cancelled) {
    seat.publish_cancelled(claim, item);
    return false;
  }
  seat.publish_item(claim, item, ending.word, last);
  seat.notify(end);
  return true;
}

void publish_error_for_rest(Worker* self, const WorkerSeat::Claim& claim, uint32_t items,
                            const char* during) {
  const uint64_t word = error_ending(self, during).word;
  if (self->seat->batch().flags & pool::kWholeUnits) {
    return self->seat->publish_whole(claim, word);
  }
  for (uint32_t item = claim.progress; item < items; ++item) {
    self->seat->publish_item(claim, item, word, item + 1 == items);
  }
}

// Appends the result of one item of a whole unit to `results` (`result` is stolen; null: the item
// failed). False if the unit ends with this item; its outcome is then published.
bool take_item(Worker* self, const WorkerSeat::Claim& claim, uint32_t item, PyObject* result,
               PyObject* results) {
  WorkerSeat& seat = *self->seat;
  const bool fine = result != nullptr && PyList_Append(results, result) == 0;
  Py_XDECREF(result);
  const Ending ending = fine ? Ending{} : ending_of(self, nullptr);
  if (in_fork_of_worker) _exit(0);  // a __reduce__ that forked
  seat.end_unit();
  if (fine) {
    seat.note_progress(claim, item + 1);
  } else if (ending.cancelled) {
    seat.publish_cancelled(claim, 0);
  } else {
    seat.publish_whole(claim, ending.word);
  }
  return fine;
}

// Runs a chunk that is one task: its items run one after the other until one fails, and their
// results are encoded together at the end.
void run_whole(Worker* self, const WorkerSeat::Claim& claim, PyObject* function, PyObject* chunk,
               Py_ssize_t at) {
  WorkerSeat& seat = *self->seat;
  const Batch& batch = seat.batch();
  const uint32_t items = batch.item_count(claim.unit);
  const Reference results = Reference::take(PyList_New(0));
  bool fine = static_cast<bool>(results);
  if (!fine) publish_error_for_rest(self, claim, items, "run");
  for (uint32_t item = 0; fine && item < items; ++item) {
    const uint64_t begin = self->now;
    seat.begin_unit(claim, batch.timeout_ns, begin);
    if (batch.timeout_ns > 0) ring_agent(self);
    PyObject* result = call_item(function, PyTuple_GET_ITEM(chunk, at + item), batch.flags);
    if (must_leave(result)) return;
    self->now = os::ticks();
    note(self, trace::Kind::task, seat.seat().busy_ticks, begin, self->now);
    fine = take_item(self, claim, item, result, results.get());
    seat.notify(self->now);
  }
  if (fine) {
    const uint64_t word = result_ending(self, results.get()).word;
    if (in_fork_of_worker) _exit(0);  // a __reduce__ that forked
    seat.publish_whole(claim, word);
  }
}

void run_chunk(Worker* self, const WorkerSeat::Claim& claim, PyObject* function, PyObject* value) {
  const Batch& batch = self->seat->batch();
  const uint32_t items = batch.item_count(claim.unit);
  const Py_ssize_t at = batch.flags & pool::kOwnFunction ? 1 : 0;
  if (!PyTuple_CheckExact(value) || PyTuple_GET_SIZE(value) != at + items) {
    PyErr_SetString(PyExc_SystemError, "malformed chunk");
    return publish_error_for_rest(self, claim, items, "decode");
  }
  if (at == 1) function = PyTuple_GET_ITEM(value, 0);
  if (batch.flags & pool::kWholeUnits) return run_whole(self, claim, function, value, at);
  for (uint32_t item = claim.progress; item < items; ++item) {
    PyObject* argument = PyTuple_GET_ITEM(value, at + item);
    if (!run_item(self, claim, item, item + 1 == items, function, argument)) return;
  }
}

// Counts the bytes of a batch's attachments once, at its last unit: the client ends a batch with
// the first unit that has attachments.
void count_attachments(Worker* self, const Batch& batch) {
  arena::Arena& arena = self->seat->member().arena();
  for (uint32_t i = 0; i < batch.attachments; ++i) {
    count(self->seat->seat().bytes_in, arena.block_size(batch.attachment_handles()[i]));
  }
}

void run_unit(Worker* self, const WorkerSeat::Claim& claim, PyObject* function) {
  const Batch& batch = self->seat->batch();
  if (claim.unit + 1 == batch.units && batch.attachments > 0) count_attachments(self, batch);
  PyObject* value = unit_value(self, claim.unit);
  if (must_leave(value)) return;
  if (value == nullptr) {
    publish_error_for_rest(self, claim, batch.item_count(claim.unit), "decode");
  } else if (batch.flags & pool::kChunkUnits) {
    run_chunk(self, claim, function, value);
  } else if (batch.flags & pool::kOwnFunction && !(batch.flags & pool::kCallUnits)) {
    // (function, item): a callable that is pickled with each unit
    if (PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) == 2) {
      run_item(self, claim, 0, true, PyTuple_GET_ITEM(value, 0), PyTuple_GET_ITEM(value, 1));
    } else {
      PyErr_SetString(PyExc_SystemError, "malformed unit");
      publish_error_for_rest(self, claim, 1, "decode");
    }
  } else {
    run_item(self, claim, 0, true, function, value);
  }
  Py_XDECREF(value);
}

// Between units: runs signal handlers, and gives threads that tasks have started a turn.
bool breathe(Worker* self) {
  if (PyErr_CheckSignals() < 0) {
    if (!PyErr_ExceptionMatches(self->stop_class)) return false;
    PyErr_Clear();  // meant for a unit that has ended
  }
  if (self->now - self->yielded_at > self->yield_ticks) {
    self->yielded_at = self->now;
    Py_BEGIN_ALLOW_THREADS
    Py_END_ALLOW_THREADS
    self->now = os::ticks();
  }
  return true;
}

bool run_batch(Worker* self) {
  WorkerSeat& seat = *self->seat;
  const Batch& batch = seat.batch();
  Reference function;  // null: the function travels with each unit
  Reference failure;   // why the function cannot be decoded: the outcome of each unit
  const bool own = (batch.flags & pool::kOwnFunction) != 0;
  if (self->definitions < batch.definitions) seat.prepare();
  if (apply_definitions(self, batch.definitions) && !own) {
    function = Reference::borrow(function_of(self, batch));
  }
  if (!function) failure = take_raised();
  self->now = os::ticks();
  bool fine = true;
  while (fine && !seat.should_leave()) {
    const auto claim = seat.claim();
    if (!claim) break;
    if (failure) {
      put_raised(Reference::borrow(failure.get()));
      publish_error_for_rest(self, *claim, batch.item_count(claim->unit), "decode");
    } else {
      run_unit(self, *claim, function.get());
    }
    if (in_fork_of_worker) return false;
    ++self->units;
    if (self->unit_limit != 0 && self->units >= self->unit_limit && seat.hand_over()) break;
    fine = breathe(self);
  }
  function.reset();
  failure.reset();
  seat.leave_batch();
  return fine;
}

// ---- The type -----------------------------------------------------------------------------------

PyObject* worker_run(Worker* self, PyObject*) {
  WorkerSeat& seat = *self->seat;
  seat.ready();
  for (;;) {
    if (seat.should_leave()) Py_RETURN_NONE;
    if (self->unit_limit != 0 && self->units >= self->unit_limit) Py_RETURN_NONE;
    if (seat.enter_next()) {
      if (!run_batch(self)) return nullptr;
      continue;
    }
    WorkerSeat::Wait wait;
    const uint64_t begin = os::ticks();
    Py_BEGIN_ALLOW_THREADS
    wait = seat.wait();
    Py_END_ALLOW_THREADS
    self->trace->record(trace::Kind::wait, begin, os::ticks());
    if (wait == WorkerSeat::Wait::leave) Py_RETURN_NONE;
    if (!breathe(self)) return nullptr;
  }
}

// True if the running unit must stop. The stop signal's handler asks before it raises.
PyObject* worker_stopping(Worker* self, PyObject*) {
  return PyBool_FromLong(self->seat->stop_reason() != pool::StopReason::none);
}

PyObject* worker_leaving(Worker* self, PyObject* kind) {
  const long value = PyLong_AsLong(kind);
  if (value == -1 && PyErr_Occurred()) return nullptr;
  if (in_fork_of_worker) Py_RETURN_NONE;
  self->seat->seat().exit_kind.store(static_cast<uint32_t>(value));
  Py_RETURN_NONE;
}

// Leaves the encoded error of a failed initializer for the client.
PyObject* worker_fail_start(Worker* self, PyObject* encoded) {
  MessageBuilder& out = *self->builder;
  out.clear();
  if (!codec::python::encode(encoded, out)) return nullptr;
  try {
    arena::Member& member = self->seat->member();
    const auto handle = member.allocate(sizeof(pool::FunctionBlock) + out.bytes.size());
    auto* block = new (member.arena().address(handle)) pool::FunctionBlock{};
    block->size = out.bytes.size();
    std::memcpy(block->bytes(), out.bytes.data(), out.bytes.size());
    const arena::Handle pool_handle = member.arena().handle_of(&self->seat->pool());
    // outlives this worker; the client takes and frees it
    member.give_to_block(handle, pool_handle);
    uint64_t none = 0;
    if (!self->seat->pool().failure.compare_exchange(none, handle)) {
      member.free_child(handle, pool_handle);
    }
  } catch (...) {
    set_python_error();
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* worker_startup(Worker* self, PyObject*) {
  const arena::Handle handle = self->seat->pool().startup.load();
  if (handle == 0) Py_RETURN_NONE;
  return stored_bytes<pool::FunctionBlock>(self, handle);
}

PyObject* worker_apply_definitions(Worker* self, PyObject*) {
  if (!apply_definitions(self, self->seat->pool().definition_count.load())) return nullptr;
  Py_RETURN_NONE;
}

PyObject* worker_new(PyTypeObject* type, PyObject* arguments, PyObject*) {
  unsigned long long pool_handle = 0;
  unsigned seat = 0;
  PyObject *hooks = nullptr, *stop_class = nullptr;
  int bell = -1;
  if (!PyArg_ParseTuple(arguments, "KIiOO", &pool_handle, &seat, &bell, &hooks, &stop_class)) {
    return nullptr;
  }
  arena::Member* member = current_member();
  if (member == nullptr) return nullptr;
  auto* self = reinterpret_cast<Worker*>(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  try {
    new (&self->seat) std::unique_ptr<WorkerSeat>(new WorkerSeat(*member, pool_handle, seat));
    new (&self->builder) std::unique_ptr<MessageBuilder>(new MessageBuilder(member));
    self->functions = new std::unordered_map<uint64_t, Reference>;
  } catch (...) {
    set_python_error();
    Py_DECREF(self);
    return nullptr;
  }
  self->trace = reinterpret_cast<trace::Ring*>(member->shared().trace);
  watch_forks();
  struct stat pipe;
  self->agent_bell = self->bell_number = bell;
  self->bell_inode = fstat(bell, &pipe) == 0 ? pipe.st_ino : 0;
  self->hooks = Py_NewRef(hooks);
  self->stop_class = Py_NewRef(stop_class);
  self->unit_limit = self->seat->pool().units_per_worker.load();
  self->yield_ticks = static_cast<uint64_t>(kYieldNs / os::ns_per_tick());
  self->yielded_at = os::ticks();
  return reinterpret_cast<PyObject*>(self);
}

void worker_dealloc(Worker* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete self->functions;
  self->builder.reset();
  self->seat.reset();
  Py_XDECREF(self->hooks);
  Py_XDECREF(self->stop_class);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef worker_methods[] = {
    {"run", method(worker_run), METH_NOARGS,
     "Take and run units until the pool ends or this worker has run its share."},
    {"stopping", method(worker_stopping), METH_NOARGS,
     "True when the unit that runs now is to be stopped."},
    {"leaving", method(worker_leaving), METH_O,
     "Record why this worker leaves on its own: 1 planned, 2 initializer failed."},
    {"fail_start", method(worker_fail_start), METH_O,
     "Leave an encoded error for the client: this worker could not start."},
    {"startup", method(worker_startup), METH_NOARGS,
     "The bytes that the client left for starting workers, or None."},
    {"apply_definitions", method(worker_apply_definitions), METH_NOARGS,
     "Apply all definitions logged so far."},
    {nullptr, nullptr, 0, nullptr}};

PyType_Slot worker_slots[] = {{Py_tp_new, reinterpret_cast<void*>(worker_new)},
                              {Py_tp_dealloc, reinterpret_cast<void*>(worker_dealloc)},
                              {Py_tp_methods, worker_methods},
                              {0, nullptr}};

PyType_Spec worker_spec = {"shoal._core.Worker", sizeof(Worker), 0, Py_TPFLAGS_DEFAULT,
                           worker_slots};

PyObject* set_pickler(PyObject*, PyObject* arguments) {
  PyObject *dumps = nullptr, *loads = nullptr;
  if (!PyArg_ParseTuple(arguments, "OO", &dumps, &loads)) return nullptr;
  codec::python::set_pickler(dumps, loads);
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"set_pickler", set_pickler, METH_VARARGS,
     "set_pickler(dumps, loads): encodes and decodes values that the fast path does not take."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_pool_worker(PyObject* module) {
  const Reference type = Reference::take(PyType_FromSpec(&worker_spec));
  if (!type || PyModule_AddObjectRef(module, "Worker", type.get()) < 0) return false;
  return PyModule_AddFunctions(module, functions) == 0;
}

}  // namespace shoal::bindings
