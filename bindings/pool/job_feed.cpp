// SPDX-License-Identifier: Apache-2.0
//
// Turns a map's input into batches: takes items as workers need them, and packs them into batches
// whose size depends on how long calls of the function took so far.
//
// The pickling unit is the caller's chunk, as in the standard library: its items are encoded by one
// pickle, and decoded by one worker. Items that are immutable plain values are units of their own,
// whatever the chunk boundaries: no program can see the difference. A chunk that is one task
// (ChunkIs) is never taken apart.
#include <algorithm>
#include <utility>

#include "bindings/interp/raised.hpp"
#include "bindings/pool/client.hpp"
#include "codec/python/codec.hpp"
#include "os/clock.hpp"

namespace shoal::bindings {

namespace {

// intended work in a batch, large enough that 1 to 2 us of overhead do not matter
constexpr double kBatchNs = 500'000;
constexpr double kTailNs = 40'000;  // minimum work in a batch at the end of the input
constexpr uint32_t kMaxUnits = 1024;
constexpr uint32_t kMaxUnknownUnits = 64;  // while no item has been measured
constexpr uint64_t kBatchBytes = uint64_t{256} * 1024;
constexpr uint64_t kQueuedAhead = 12;    // batches of 0.5 ms each, for all workers together
constexpr int64_t kGatherNs = 200'000;   // items of a slow iterator are sent after this time
constexpr double kQuickPullNs = 20'000;  // a feeder gathers items that arrive faster than this
// Units that take longer than this are taken one by one by any free worker; one worker takes a
// whole batch of quicker ones.
constexpr double kSharedNs = 50'000;
// An input that blocks its reader for longer than this does not hold back later jobs and calls,
// since it may be waiting for one of them.
constexpr int64_t kPullPatienceNs = 20'000'000;

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

uint64_t left(const Job* job) {
  return job->total < 0 ? UINT64_MAX : static_cast<uint64_t>(job->total) - job->pulled;
}

// Expected time of one unit; 0 = unknown.
double unit_cost_ns(const Job* job) {
  const double item = job->function != nullptr ? job->function->cost_ns : job->cost_ns;
  return job->whole_chunks ? item * job->chunk : item;
}

// How many units the next batch should have.
uint32_t units_wanted(Job* job) {
  const Client* client = job->client;
  const double cost_ns = unit_cost_ns(job);
  uint32_t units = job->next_units;
  if (job->fed && job->pull_ns > kQuickPullNs) {
    units = job->next_units = 1;  // gathered items would wait while the input blocks
  } else if (cost_ns > 0 && (!job->fed || units >= kMaxUnknownUnits)) {
    const double fit = kBatchNs / std::max(cost_ns, 1.0);
    units = static_cast<uint32_t>(std::clamp(fit, 1.0, static_cast<double>(kMaxUnits)));
  } else {
    job->next_units = std::min(job->next_units * 2, kMaxUnknownUnits);
  }
  // Batches get smaller near the end, so that all workers finish at about the same time; but not so
  // small that handing out a batch costs more than the workers would wait for one another.
  if (job->total >= 0) {
    const uint64_t rest = left(job) / (job->whole_chunks ? job->chunk : 1);
    const uint64_t share = rest / (2ull * client->workers);
    const auto least = cost_ns > 0 ? static_cast<uint64_t>(kTailNs / std::max(cost_ns, 1.0)) : 0;
    units = static_cast<uint32_t>(std::clamp<uint64_t>(std::max(share, least), 1, units));
  }
  return units;
}

}  // namespace

bool may_pull(const Job* job) {
  if (job->iterator == nullptr || job->cancelled || job->client->ended) return false;
  if (!job->client->pool->has_room() || must_wait(job->client, job->place)) return false;
  if (job->bytes >= job->byte_limit) return false;
  return job->window == 0 || job->pulled - job->taken < job->window;
}

// True if enough is queued to keep the workers busy while this thread waits for a processor: on a
// busy machine a woken thread may wait some milliseconds for one.
bool workers_fed(const Job* job) {
  return !job->eager && job->client->pool->queued() >= 2ull * job->client->workers + kQueuedAhead;
}

void end_items(Job* job) {
  Py_CLEAR(job->iterator);
  job->total = static_cast<int64_t>(job->pulled);
  leave_line(job);
}

void end_with(Job* job, Reference error) {
  const uint64_t index = job->pulled++;
  end_items(job);
  job_deliver(job, index, std::move(error), true);
}

namespace {

// A map has as many results as its input's len() said, as in the standard library: further items of
// the input are ignored.
bool is_beyond_list(const Job* job) {
  return job->order == JobOrder::list && job->pulled >= job->list_size;
}

// True if a batch may end here: not inside a chunk if the input may fail. If the input fails inside
// a chunk, the error is the outcome of the chunk's first item, and no item of the chunk runs, as in
// the standard library.
bool at_boundary(const Job* job) { return !job->holds_chunks || job->pulled % job->chunk == 0; }

// The input has failed inside a chunk: removes the chunk's items that were gathered but not sent.
void drop_begun_chunk(Job* job, Gathered& batch) {
  const auto dropped = std::min<uint64_t>(job->pulled % job->chunk, batch.words.size());
  batch.words.resize(batch.words.size() - dropped);
  batch.items -= static_cast<uint32_t>(dropped);
  job->pulled -= dropped;
}

// The input's next item. Runs the input's code; with one worker, notes that it does, since later
// jobs and calls may wait for this job.
Reference next_of(Job* job) {
  const Reference iterator = Reference::borrow(job->iterator);
  const bool noted = job->client->workers == 1;
  if (noted) {
    job->pulling_since_ns = os::monotonic_coarse_ns();
    job->pulling_thread = PyThread_get_thread_ident();
  }
  Reference item = Reference::take(PyIter_Next(iterator.get()));
  if (noted) job->pulling_thread = 0;
  return item;
}

// The next item. Null if the input is exhausted; or if it has failed, in which case the error has
// become the next item's outcome; or, with an error set, if it was interrupted: the caller must
// raise that error.
Reference pull(Job* job, Gathered& batch) {
  Reference item = next_of(job);
  if (job->iterator == nullptr) return Reference();  // cancelled meanwhile
  if (item && !is_beyond_list(job)) {
    job->pulled += 1;
    return item;
  }
  item.reset();
  if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
    if (job->holds_chunks) drop_begun_chunk(job, batch);
    end_with(job, take_raised());
  } else {
    end_items(job);
  }
  return Reference();
}

// True if items that are pickled together are one task.
bool is_task(const Job* job) { return job->chunk_is != ChunkIs::packing; }

// The current error becomes the outcome of `items` items, where `per_task` items are one task.
// False if it is not an Exception (Ctrl-C): then it is also set again, for the caller.
bool fail_items(Job* job, uint64_t first, uint32_t items, uint32_t per_task = 1) {
  const bool ordinary = PyErr_ExceptionMatches(PyExc_Exception) != 0;
  Reference error = take_raised();
  for (uint32_t i = 0; i < items; i += per_task) {
    job_fail_chunk(job, first + i, std::min(per_task, items - i), Reference::borrow(error.get()),
                   true);
  }
  if (!ordinary) put_raised(std::move(error));
  return ordinary;
}

// As fail_items(), for all items of a batch that cannot be sent.
bool fail_batch(Job* job, Gathered& batch, codec::MessageBuilder& message) {
  const Gathered failed = std::exchange(batch, Gathered{});
  message.clear();
  const bool tasks = failed.chunks && is_task(job);
  return fail_items(job, failed.first_index, failed.items, tasks ? failed.items_per_unit : 1);
}

// If a worker dies inside a chunk, another worker decodes the chunk again and runs the items after
// the lost one. The attachments must then still be in the message.
bool may_be_decoded_again(const Job* job, const Gathered& batch,
                          const codec::MessageBuilder& message) {
  return batch.chunks && !is_task(job) && batch.items_per_unit > 1 && !message.attachments.empty();
}

// Submits the gathered items; an error becomes their outcome. False with an error set: see
// fail_items.
bool send(Job* job, Gathered& batch, codec::MessageBuilder& message) {
  if (batch.words.empty()) return true;
  Client* client = job->client;
  pool::BatchParts parts;
  if (client->ended) {
    put_raised(make_error(client, "closed"));
    return fail_batch(job, batch, message);
  }
  if (!store_definitions(client, &parts.definitions)) return fail_batch(job, batch, message);
  parts.argument_words = batch.words.data();
  parts.units = static_cast<uint32_t>(batch.words.size());
  parts.items = batch.items;
  parts.items_per_unit = batch.items_per_unit;
  parts.flags =
      job->flags | (batch.chunks ? pool::kChunkUnits : 0u) |
      (batch.chunks && is_task(job) ? pool::kWholeUnits : 0u) |
      (job->function == nullptr ? pool::kOwnFunction : 0u) |
      (job->retries > 0 || may_be_decoded_again(job, batch, message) ? pool::kKeepMessage : 0u);
  parts.function = job->function != nullptr ? job->function->number : 0;
  parts.function_block = job->function != nullptr ? job->function->block : 0;
  parts.retries = job->retries;
  parts.timeout_ns = job->timeout_ns;
  const double cost_ns = unit_cost_ns(job);
  parts.shared = cost_ns == 0 || cost_ns > kSharedNs;
  Flight flight;
  flight.job = ReferenceTo<Job>::borrow(job);
  flight.function = ReferenceTo<Function>::borrow(job->function);
  flight.name = Reference::borrow(job->name);
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

// Appends the value of a unit whose first item is `index`. False with an error set if it cannot be
// encoded.
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

// Returns a tuple of `first` and the rest of its chunk, preceded by the function if the function
// travels with each unit. Sets `*broken` to the iterator's error if it raised one.
Reference gather_chunk(Job* job, Reference first, uint32_t size, uint32_t* items,
                       Reference* broken) {
  const Reference gathered = Reference::take(PyList_New(0));
  bool ok = static_cast<bool>(gathered);
  if (ok && job->function == nullptr) ok = PyList_Append(gathered.get(), job->callable) == 0;
  ok = ok && PyList_Append(gathered.get(), first.get()) == 0;
  first.reset();
  *items = 1;
  while (ok && *items < size && job->iterator != nullptr) {  // null: cancelled
    const Reference item = next_of(job);
    if (!item) {
      *broken = take_raised();
      break;  // if it is exhausted, the next pull() notices that again
    }
    if (job->iterator == nullptr) break;  // cancelled meanwhile
    job->pulled += 1;
    *items += 1;
    ok = PyList_Append(gathered.get(), item.get()) == 0;
  }
  return Reference::take(ok ? PyList_AsTuple(gathered.get()) : nullptr);
}

// Adds a unit of one item.
bool add_single(Job* job, Gathered& batch, codec::MessageBuilder& message, Reference&& item) {
  const uint64_t index = job->pulled - 1;
  if (job->function == nullptr) {
    item = Reference::take(PyTuple_Pack(2, job->callable, item.get()));
    if (!item) return false;
  }
  const bool ok = add_unit(job, batch, message, item.get(), index, 1);
  item.reset();
  if (ok) return true;
  const bool ordinary = fail_items(job, index, 1);
  Reference interrupt = take_raised();
  const bool sent = send(job, batch, message);  // so that the batch's items stay consecutive
  if (interrupt) put_raised(std::move(interrupt));
  return ordinary && sent;
}

// The input has failed inside a chunk, with `broken`. True if the whole chunk is dropped: then the
// error has become the outcome of the chunk's first item, and `broken` is null.
bool give_up_chunk(Job* job, uint32_t items, Reference& broken) {
  const bool gives_up = job->holds_chunks && job->iterator != nullptr &&
                        PyErr_GivenExceptionMatches(broken.get(), PyExc_Exception);
  if (gives_up) {
    job->pulled -= items;
    end_with(job, std::move(broken));
  }
  return gives_up;
}

// Handles the input's failure, `broken`, after the items before it were added.
bool end_broken(Job* job, bool fine, Reference broken) {
  if (fine && !PyErr_GivenExceptionMatches(broken.get(), PyExc_Exception)) {
    put_raised(std::move(broken));  // Ctrl-C: raised to the caller, as in pull()
    return false;
  }
  if (fine && job->iterator != nullptr) end_with(job, std::move(broken));
  return fine;
}

// Adds `first` and the rest of its chunk, which must be pickled together. The chunk is a batch of
// its own, except that chunks of full size share a batch if all chunks of the job are pickled.
bool add_chunk(Job* job, Gathered& batch, codec::MessageBuilder& message, Reference first,
               uint32_t size) {
  const uint64_t index = job->pulled - 1;
  const bool may_join = job->whole_chunks && size == job->chunk;
  if (!may_join && !send(job, batch, message)) return false;
  if (job->order == JobOrder::list) {
    size = static_cast<uint32_t>(std::min<uint64_t>(size, job->list_size - index));
  }
  uint32_t items = 0;
  Reference broken;
  const Reference chunk = gather_chunk(job, std::move(first), size, &items, &broken);
  if (broken && give_up_chunk(job, items, broken)) return send(job, batch, message);
  if (batch.words.empty()) {
    batch.chunks = true;
    batch.items_per_unit = items;
  }
  bool fine = true;
  if (chunk && add_unit(job, batch, message, chunk.get(), index, items)) {
    if (!may_join || items < job->chunk) fine = send(job, batch, message);
  } else {
    fine = fail_items(job, index, items, is_task(job) ? items : 1);
    Reference interrupt = take_raised();
    fine = send(job, batch, message) && fine;  // so that the batch's items stay consecutive
    if (interrupt) put_raised(std::move(interrupt));
  }
  return broken ? end_broken(job, fine, std::move(broken)) : fine;
}

}  // namespace

// The items that a feeder has gathered so far. While the feeder waits for its input, threads that
// fetch outcomes may send them.
struct Sendable {
  Gathered* batch;
  codec::MessageBuilder* message;
};

namespace {

// As pull(). While it waits, other threads may send the items gathered so far.
Reference pull_while_sendable(Job* job, Gathered& batch, codec::MessageBuilder& message) {
  Sendable sendable{&batch, &message};
  if (job->fed && at_boundary(job)) job->sendable = &sendable;
  Reference item = pull(job, batch);
  job->sendable = nullptr;
  return item;
}

}  // namespace

// False with an error set.
bool send_gathered(Job* job) {
  if (job->sendable == nullptr) return true;
  return send(job, *job->sendable->batch, *job->sendable->message);
}

namespace {

// Gathers and submits one batch. False with an error set if that fails.
bool fill_one(Job* job, codec::MessageBuilder& message) {
  Gathered batch;
  const uint32_t wanted = units_wanted(job);
  const uint64_t begin = os::ticks();
  const auto patience = static_cast<uint64_t>(kGatherNs / os::ns_per_tick());
  const auto is_full = [&] {
    return batch.words.size() >= wanted || message.bytes.size() >= kBatchBytes;
  };
  while (message.attachments.empty() && may_pull(job) && !(is_full() && at_boundary(job))) {
    Reference item = pull_while_sendable(job, batch, message);
    if (!item) break;
    const uint64_t place = (job->pulled - 1) % job->chunk;
    const bool pickled = job->chunk > 1 && (job->whole_chunks || !is_atom(item.get()));
    const bool added = pickled ? add_chunk(job, batch, message, std::move(item),
                                           job->chunk - static_cast<uint32_t>(place))
                               : add_single(job, batch, message, std::move(item));
    if (!added) return false;
    if (pickled && batch.words.empty()) return true;  // sent
    if (os::ticks() - begin > patience && at_boundary(job)) break;
  }
  const double taken = os::ns_per_tick() * static_cast<double>(os::ticks() - begin);
  job->pull_ns = 0.5 * (job->pull_ns + taken / std::max<double>(1.0, batch.items));
  Reference interrupt = take_raised();  // not null: Ctrl-C interrupted pull()
  const bool sent = send(job, batch, message);
  if (!interrupt) return sent;
  put_raised(std::move(interrupt));
  return false;
}

}  // namespace

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

// ---- Places in the line -------------------------------------------------------------------------

namespace {

// True if jobs and calls that were made after this job must wait for it. They need not wait if its
// window is full, since its caller has to fetch first; nor if its input has been running for long
// or runs in this thread, since the input may be waiting for one of those later ones.
bool holds_back(const Job* job) {
  if (job->iterator == nullptr || job->cancelled) return false;
  if (job->window != 0 && job->pulled - job->taken >= job->window) return false;
  if (job->pulling_thread == 0) return true;
  return job->pulling_thread != PyThread_get_thread_ident() &&
         os::monotonic_coarse_ns() - job->pulling_since_ns < kPullPatienceNs;
}

}  // namespace

void join_line(Job* job) {
  job->place = ++job->client->next_place;
  if (job->client->workers == 1) job->client->feeding->push_back(job);
}

void leave_line(Job* job) {
  if (job->client != nullptr && job->client->workers == 1) std::erase(*job->client->feeding, job);
}

bool must_wait(const Client* client, uint64_t place) {
  for (const Job* job : *client->feeding) {
    if (job->place >= place) break;
    if (holds_back(job)) return true;
  }
  return !client->pending->empty() && client->pending->front().place < place;
}

int feed_before(Client* client, uint64_t place) {
  int result = 0;
  for (size_t i = 0; i < client->feeding->size();) {
    Job* job = (*client->feeding)[i];
    if (job->place >= place) break;
    if (!holds_back(job)) {
      ++i;
      continue;
    }
    if (job->fed || job->filling) break;
    const auto kept = ReferenceTo<Job>::borrow(job);
    const int filled = fill(job, false);
    const bool more = holds_back(job);
    if (filled < 0) return -1;
    if (filled > 0) result = 1;
    if (more) break;
  }
  return result;
}

}  // namespace shoal::bindings
