// SPDX-License-Identifier: Apache-2.0
//
// The Python types of a pool's client side, shared by bindings/pool/client.cpp (Client, calls),
// bindings/pool/job.cpp and job_feed.cpp (Job: maps), bindings/pool/collect.cpp (collecting
// outcomes) and bindings/pool/view.cpp (counters).
//
// The GIL guards all state here. Python code runs at known places only (encoding, decoding,
// iterating, calling a sink), and other threads may enter the client there; so:
//   1. a Flight that a thread reads is `busy`: another thread that has news of the flight only sets
//      `again`, and the first thread then reads once more;
//   2. a Job that a thread fills is `filling`: other threads leave its iterator alone;
//   3. no reference into a vector is kept across Python code. After Python code, a flight is looked
//      up again by its slot; if the ticket there has changed, the flight has ended and the slot is
//      free or reused;
//   4. Python code may end the pool. `ended` is set first, then every open outcome is delivered,
//      and the pool's memory is freed when the last thread that is Inside has left;
//   5. Python code may fork. In the child `ended` is set, `pool` is null, and no flight has a
//   ticket
//      (client_forget), so after Python code `pool` is used only if `ended` is false or is checked.
//
// Dropping the last reference to an object runs Python code too. Flight, PendingCall and Item own
// their references and drop them at known places only: finish_flight, flush_pending, cancel_call,
// client_abandon, drop_flights and job_dealloc. Each of these first moves the object out of its
// slot or queue into a local variable, so the slot is empty when the local variable drops its
// references. (Only a Target, which keeps sink and job while an outcome is read, may hold them
// longer.) A slot is assigned to only while it is free, when it owns nothing.
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <deque>
#include <memory>
#include <vector>

#include "bindings/interp/bind.hpp"
#include "codec/message.hpp"
#include "pool/client.hpp"

namespace shoal::bindings {

struct Job;
struct Sendable;  // bindings/pool/job.cpp

// A function that is stored in the pool once; batches refer to it by its number.
struct Function {
  PyObject_HEAD
  struct Client* client;  // strong
  uint64_t number;
  arena::Handle block;
  double cost_ns;  // measured time of one call; 0 = unknown
};

// An item whose worker died while it ran.
struct Loss {
  uint32_t unit;
  uint32_t item;  // its place in the unit
  pool::ClientPool::Death death;
};

// The client's state of one batch in flight, by slot.
struct Flight {
  uint64_t ticket = 0;             // Entry.value; 0 = slot free
  Reference sink;                  // call: receives the outcome
  ReferenceTo<Job> job;            // map: receives the outcomes
  ReferenceTo<Function> function;  // kept while the batch is in flight
  Reference name;                  // name of the function, for error messages
  uint64_t first_index = 0;        // job: index of the batch's first item
  uint64_t bytes = 0;              // job: counted against byte_limit
  uint32_t scan_from = 0;          // all units before this one have been read
  uint32_t finished = 0;           // number of units read to the end
  std::vector<Loss> losses;        // delivered when their items are read
  std::vector<uint32_t> seen;      // per unit: items read; kRead = all
  bool busy = false;
  bool again = false;
};
inline constexpr uint32_t kRead = UINT32_MAX;

// A pool's flights by slot. The vector grows with the highest slot used: a full array would be
// memory that each pool touches and each fork of the process copies. Room for all slots is
// reserved, so nothing moves or allocates later.
class Flights {
 public:
  Flights() { made_.reserve(pool::kBatchSlots); }
  Flight& operator[](uint32_t slot) {
    if (slot >= made_.size()) made_.resize(slot + 1);
    return made_[slot];
  }
  [[nodiscard]] uint32_t size() const noexcept { return static_cast<uint32_t>(made_.size()); }
  auto begin() noexcept { return made_.begin(); }
  auto end() noexcept { return made_.end(); }

 private:
  std::vector<Flight> made_;
};

// The sink of a call whose caller waits in Client.call. Storing the outcome runs no Python code.
struct Outcome {
  PyObject_HEAD
  PyObject* value;  // null until done
  bool error;
};

// A call that waits, encoded, in the client: because all slots were taken, or because it must not
// overtake a map that was made before it.
struct PendingCall {
  uint64_t ticket;
  std::unique_ptr<codec::MessageBuilder> message;
  uint64_t word;
  uint32_t flags;
  uint32_t definitions;
  uint32_t retries;
  int64_t timeout_ns;
  Reference sink;
  ReferenceTo<Function> function;
  Reference name;
  uint64_t place;  // see Client.next_place
};

struct Client {
  PyObject_HEAD
  std::unique_ptr<pool::ClientPool> pool;
  std::unique_ptr<codec::MessageBuilder> builder;
  Flights* flights;
  std::deque<PendingCall>* pending;
  // Slots with news that were taken from shared memory and have not been read yet. Python code runs
  // between two reads and may wait for an outcome in one of these slots, so all threads share the
  // list.
  std::deque<uint32_t>* news;
  // Jobs whose input may give more, in the order in which they were made. Borrowed: a job removes
  // itself when its input ends or it is deallocated.
  std::vector<Job*>* feeding;
  // Jobs and calls have places in the order in which they were made. A pool with one worker sends
  // in that order: a call waits until the jobs before it have sent all their input.
  uint64_t next_place;
  // The exception that a signal handler raised during the delivery of an outcome; collect() raises
  // it in the main thread.
  PyObject* interrupt;
  PyObject* hooks;  // shoal._pool._client_hooks.ClientHooks
  // list of bytes: the log of definitions; the pool's memory holds a prefix of it
  PyObject* definitions;
  PyObject* trouble;  // called with "agent" (the agent has died) or "starts" (no worker can start)
  uint64_t next_function;
  uint64_t next_pending;  // tickets of pending calls have their top bit set
  int agent_pidfd;
  int64_t agent_seen_ns;  // when a thread last checked whether the agent lives
  unsigned cpus;
  unsigned workers;
  unsigned waiters;  // threads in wait_for_news
  bool quiet;        // the last wait of a thread ended without news
  unsigned inside;   // calls that may touch the pool's memory
  bool ended;        // all outcomes are or will be delivered, nothing more is submitted
  bool released;     // the pool's memory is freed as soon as `inside` is 0
  // a submit uses `builder`; Python code that submits during the encoding gets its own builder
  bool builder_busy;
};

// Keeps the pool's memory while a method uses it.
class Inside {
 public:
  explicit Inside(Client* client) : client_(client) { client_->inside += 1; }
  ~Inside() {
    client_->inside -= 1;
    if (client_->inside == 0 && client_->released) client_->pool.reset();
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Client* client_;
};

// One outcome of a map's item.
struct Item {
  Reference value;
  bool error = false;
  bool ready = false;
  uint32_t stands_for = 1;  // items; > 1: the error of a chunk that was one task
  bool ends = false;        // the iterator over the results ends after this item
};

enum class JobOrder { list, ordered, unordered };

// The result of a request to cancel a call: too late, withdrawn before it ran, or a worker runs it.
enum class CancelAnswer { too_late, withdrawn, running };

// The items of a chunk are pickled together. Says whether they are one task as well.
enum class ChunkIs {
  packing,        // no: each item is a task of its own
  default_tasks,  // yes if the items are pickled; the caller did not choose the chunk size
  tasks           // yes
};

struct Job {
  PyObject_HEAD
  Client* client;      // strong
  Function* function;  // or null: `callable` travels with each unit
  PyObject* callable;
  PyObject* name;
  PyObject* iterator;       // null once exhausted
  PyObject* list;           // JobOrder::list: results, untracked by the GC until complete
  uint64_t list_size;       // length of `list`: what the input's len() returned
  std::deque<Item>* items;  // ordered: from index `taken` on; unordered: by arrival
  PyObject* first_error;    // JobOrder::list: error of the lowest index
  uint64_t first_error_index;
  JobOrder order;
  uint32_t flags;  // pool::BatchFlags
  uint32_t chunk;
  ChunkIs chunk_is;
  bool whole_chunks;   // each chunk is pickled as one unit, whatever its items are
  bool ends_at_error;  // the iterator ends after an error, as the standard library's
  bool is_over;        // the iterator has ended after an error
  bool holds_chunks;   // a chunk is sent only when complete: the input may fail before
  uint32_t retries;
  int64_t timeout_ns;
  int64_t total;       // items, -1 = unknown
  uint64_t pulled;     // items taken from the iterator
  uint64_t delivered;  // items with an outcome
  uint64_t taken;      // items handed to the caller
  uint64_t window;     // pulled - taken is at most this; 0 = no limit
  bool bounded;        // the caller set the window: it stays when the pool is drained
  uint64_t bytes;      // of batches in flight
  uint64_t byte_limit;
  uint32_t next_units;           // size of the next batch while costs are unknown
  double pull_ns;                // how long the iterator takes per item, averaged
  double cost_ns;                // measured time of one item, if there is no Function; 0 = unknown
  uint64_t place;                // see Client.next_place
  unsigned long pulling_thread;  // thread that runs the input's code now, 0 = none
  int64_t pulling_since_ns;
  bool eager;  // fill up to the limits: no thread has asked for outcomes yet
  bool filling;
  bool fed;            // only the feeder, the thread in feed(), reads the input
  Sendable* sendable;  // set while the feeder waits for its input
  bool cancelled;
  PyObject* on_done;  // called once when all outcomes have been delivered, or null
};

extern PyTypeObject* function_type;
extern PyTypeObject* outcome_type;
extern PyTypeObject* job_type;

// bindings/pool/collect.cpp
// ------------------------------------------------------------------------------------------------

// Reads all news. -1 with an error set only for errors of this process (never for a task's).
int collect(Client* client);
// Waits until there is news or the deadline passes (0), or a signal handler raises (-1).
int wait_for_news(Client* client, uint32_t seen, int64_t deadline_ns);
// For a thread that does not wait, but may ask again and again: checks now and then whether the
// agent lives, as wait_for_news() does. 0, or -1 with an error set.
int look_after_agent(Client* client);
// Submits a batch with the given words, payload and attachments. Returns the ticket, and the flight
// is in its slot; or 0 with an error set, and the caller still has the flight.
uint64_t launch(Client* client, pool::BatchParts& parts, codec::MessageBuilder& message,
                Flight&& flight);
// Moves pending calls into free slots.
void flush_pending(Client* client);
// Stores the log entries that are not yet in shared memory. `count`: the number of entries that a
// batch made now requires.
bool store_definitions(Client* client, uint32_t* count);
// Encodes `value` with the client's hooks as the current hooks of the thread.
bool encode_for(Client* client, PyObject* value, codec::MessageBuilder& out);
// Deliver an outcome to a sink, and tell a job's owner that the job is done. The called methods
// raise nothing of their own: an exception comes from a signal handler (Ctrl-C). In that case the
// call is made again, so that no outcome is lost, and collect() raises the exception at its end.
void tell(Client* client, PyObject* sink, PyObject* value, bool error);
void tell_done(Client* client, PyObject* on_done);
// The exception that hooks.<name>(*arguments) returns; if that fails, or `arguments` is null with
// an error set, that error. Never null.
Reference make_error(Client* client, const char* name, Reference arguments);
// The same without arguments.
Reference make_error(Client* client, const char* name);

// bindings/pool/job_feed.cpp
// ------------------------------------------------------------------------------------------------

// Input is taken only while may_pull() holds and workers_fed() does not.
bool may_pull(const Job* job);
bool workers_fed(const Job* job);
int fill(Job* job, bool once);
inline constexpr double kSlowPullNs = 200'000;  // per item: slower inputs are not read ahead
// Marks the job's input as exhausted.
void end_items(Job* job);
// The iterator failed: its error becomes the outcome of the next item, and the input is exhausted.
void end_with(Job* job, Reference error);
// Sends the items that the feeder has gathered and still holds while it waits for its input. False
// with an error set.
bool send_gathered(Job* job);
// join_line() gives a new job the next place; leave_line() is called when its input has ended.
void join_line(Job* job);
void leave_line(Job* job);
// True if a job or call with this place must wait for one that was made before it.
bool must_wait(const Client* client, uint64_t place);
// Sends the input of jobs with an earlier place for which later ones must wait. Returns as fill()
// does.
int feed_before(Client* client, uint64_t place);

// bindings/pool/job.cpp
// ------------------------------------------------------------------------------------------------

// Stores the outcome of item `index`. `value` is passed on by reference: this runs for each item.
void job_deliver(Job* job, uint64_t index, Reference&& value, bool error);
// Stores the one error of a chunk that was one task. With `ends` the iterator over the results ends
// there, as the standard library's does; after a worker's death the iterator continues.
void job_fail_chunk(Job* job, uint64_t index, uint32_t items, Reference&& error, bool ends);
bool bind_pool_job(PyObject* module);
bool bind_pool_outcome();

// bindings/pool/view.cpp
// ------------------------------------------------------------------------------------------------

// A list of (sink or job, units without an outcome, units not begun), one for each batch or call.
PyObject* client_open_outcomes(Client* self, PyObject*);
// (total or -1, pulled, delivered, taken, ready, chunk)
PyObject* job_counts(Job* job, void*);
// JobOrder::list: a copy of the results, None for each result that is missing.
PyObject* job_so_far(Job* job, PyObject*);

}  // namespace shoal::bindings
