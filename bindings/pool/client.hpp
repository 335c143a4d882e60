// SPDX-License-Identifier: Apache-2.0
//
// The Python types of a pool's client side, shared by bindings/pool/client.cpp (Client, calls),
// bindings/pool/job.cpp (Job: maps) and bindings/pool/collect.cpp (outcomes on their way back).
//
// All state here is guarded by the GIL. Python code runs at known places only (encoding, decoding,
// iterating, telling a sink), and other threads may enter the client there; so:
//   1. a Flight that a thread reads is `busy`: another thread that has news of it only sets
//      `again`, and the first one reads once more;
//   2. a Job that a thread fills is `filling`: other threads leave its iterator alone;
//   3. no reference into a vector is kept across Python code. A flight is looked up again by its
//      slot; when the ticket there has changed, the flight is over and the slot is free or reused;
//   4. Python code may end the pool. `ended` is set first, every open outcome is told then, and the
//      pool's memory is freed when the last thread that is Inside has left.
//
// Giving up the last reference to an object runs Python code too. Flight, PendingCall and Item own
// their references, which are given up at known places only: in finish_flight, flush_pending,
// cancel_call, client_abandon, drop_flights and job_dealloc, where a local object ends that was
// moved out of its slot or queue, so the slot is empty by then. (Only a Target, which keeps sink
// and job while an outcome is read, may be the last one after that.) A slot is assigned to only
// while it is free: it owns nothing then.
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

// A function that was stored in the pool once and is named by its number.
struct Function {
  PyObject_HEAD
  struct Client* client;  // strong
  uint64_t number;
  arena::Handle block;
  double cost_ns;  // what a call of it takes, measured; 0 = unknown
};

// What is known of one batch in flight, by slot.
struct Flight {
  uint64_t ticket = 0;             // Entry.value; 0 = slot free
  Reference sink;                  // call: told the outcome
  ReferenceTo<Job> job;            // map: gets the outcomes
  ReferenceTo<Function> function;  // kept while the batch is in flight
  Reference name;                  // of the function, for error messages
  uint64_t first_index = 0;        // job: index of the batch's first item
  uint64_t bytes = 0;              // job: counted against its bound
  uint32_t scan_from = 0;          // units before it are read
  uint32_t finished = 0;           // units read to the end
  uint32_t owed = 0;               // lost items not yet told: the batch stays until they are
  std::vector<uint32_t> seen;      // per unit: items read; kRead = all
  bool busy = false;
  bool again = false;
};
inline constexpr uint32_t kRead = UINT32_MAX;

// A pool's flights by slot. Slots that were never used have none: a pool takes its lowest free
// slot, and the whole array would be memory that each pool touches and each fork of it copies. Room
// for all is reserved, so nothing moves or allocates.
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

// The sink of a call whose caller waits in Client.call: filled in without running Python code.
struct Outcome {
  PyObject_HEAD
  PyObject* value;  // null until done
  bool error;
};

// A call that waits, encoded, in the client: all slots were taken, or it must not overtake a map
// that was made before it.
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
  // Slots with news that were taken from shared memory and are not read yet. Python code runs
  // between two reads, and may wait for an outcome that is in one of these slots: so all threads
  // see them.
  std::deque<uint32_t>* news;
  // Jobs whose input may give more, in the order in which they were made. Borrowed: a job takes
  // itself out when its input ends or it is deallocated.
  std::vector<Job*>* feeding;
  // Jobs and calls have places in the order in which they were made. A pool with one worker sends
  // by that order: a call waits until the jobs before it have sent all that they have.
  uint64_t next_place;
  // What a signal handler raised while an outcome was told; collect() raises it in the main thread.
  PyObject* interrupt;
  PyObject* hooks;  // shoal._pool._client_hooks.ClientHooks
  // list of bytes: the log of definitions; the pool's memory has a prefix of it
  PyObject* definitions;
  PyObject* trouble;  // called with "agent" (its process is gone) or "starts" (no worker can start)
  uint64_t next_function;
  uint64_t next_pending;  // tickets of pending calls have their top bit set
  int agent_pidfd;
  unsigned cpus;
  unsigned workers;
  unsigned waiters;  // threads in wait_for_news
  unsigned inside;   // calls that may touch the pool's memory
  bool ended;        // all outcomes are told, nothing more is submitted
  bool released;     // the memory is freed as soon as `inside` is 0
  // an encode runs Python code that submits again: it gets a builder of its own
  bool builder_busy;
};

// Keeps the pool's memory while a call works with it.
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
  uint32_t stands_for = 1;  // items: the error of a chunk that was one task is all their outcome
  bool ends = false;        // the iterator over the results ends after it
};

enum class JobOrder { list, ordered, unordered };

// What became of the wish to cancel a call: it is too late, it was withdrawn before it ran, or a
// worker runs it.
enum class CancelAnswer { too_late, withdrawn, running };

// The items of a chunk are pickled together. Are they one task as well?
enum class ChunkIs {
  packing,        // no: each item is a task
  default_tasks,  // yes, if its items are pickled: the caller did not ask for this size
  tasks           // yes
};

struct Job {
  PyObject_HEAD
  Client* client;      // strong
  Function* function;  // or null: `callable` travels with each unit
  PyObject* callable;
  PyObject* name;
  PyObject* iterator;       // null once exhausted
  PyObject* list;           // JobOrder::list: results, untracked until whole
  uint64_t list_size;       // its length, as the input's len() said
  std::deque<Item>* items;  // ordered: from index `taken` on; unordered: as they come
  PyObject* first_error;    // JobOrder::list: error of the lowest index
  uint64_t first_error_index;
  JobOrder order;
  uint32_t flags;  // pool::BatchFlags
  uint32_t chunk;
  ChunkIs chunk_is;
  bool whole_chunks;   // all chunks are pickled and run as one
  bool ends_at_error;  // an iterator of chunks, as the standard library's
  bool is_over;        // and it has
  bool holds_chunks;   // a chunk is sent when all its items are there: the input may fail before
  uint32_t retries;
  int64_t timeout_ns;
  int64_t total;       // items, -1 = unknown
  uint64_t pulled;     // items taken from the iterator
  uint64_t delivered;  // items with an outcome
  uint64_t taken;      // items handed to the caller
  uint64_t window;     // pulled - taken is at most this; 0 = no limit
  bool bounded;        // by the caller: it stays when the pool is drained
  uint64_t bytes;      // in flight
  uint64_t byte_limit;
  uint32_t next_units;           // size of the next batch while costs are unknown
  double pull_ns;                // how long the iterator takes per item, averaged
  double cost_ns;                // of an item, measured, where there is no Function; 0 = unknown
  uint64_t place;                // see Client.next_place
  unsigned long pulling_thread;  // in the input's code just now, and since when; 0 = none
  int64_t pulling_since_ns;
  bool eager;  // fill up to the limits at once: no thread has asked for outcomes yet
  bool filling;
  bool fed;            // only a thread in feed() reads the input
  Sendable* sendable;  // while that thread waits for its input, else null
  bool cancelled;
  PyObject* on_done;  // called once when all outcomes are in, or null
};

extern PyTypeObject* function_type;
extern PyTypeObject* outcome_type;
extern PyTypeObject* job_type;

// bindings/pool/collect.cpp
// ------------------------------------------------------------------------------------------------

// Reads all news. -1 with an error set only for errors of this process (never for a task's).
int collect(Client* client);
// Waits until there is news, the deadline passes (0 returned as well) or a signal handler raises
// (-1).
int wait_for_news(Client* client, uint32_t seen, int64_t deadline_ns);
// Submits a batch whose words, payload and attachments are given. The ticket, and the flight has
// become the slot's; or 0 with an error set, and the flight is still the caller's.
uint64_t launch(Client* client, pool::BatchParts& parts, codec::MessageBuilder& message,
                Flight&& flight);
// Moves pending calls into free slots.
void flush_pending(Client* client);
// Stores the log entries that are not yet in shared memory; their count is what a batch made now
// requires.
bool store_definitions(Client* client, uint32_t* count);
// Encodes with the client's definitions as the thread's current ones.
bool encode_for(Client* client, PyObject* value, codec::MessageBuilder& out);
// Tells a sink of an outcome, and a job's owner that the job is done. These calls raise nothing of
// their own: an exception comes from a signal handler (Ctrl-C). Then the call is made again, so
// that no outcome is lost, and collect() raises the exception at its end.
void tell(Client* client, PyObject* sink, PyObject* value, bool error);
void tell_done(Client* client, PyObject* on_done);
// An exception made by hooks.<name>(*arguments); where that fails (null arguments, with an error
// set, included), the error. Never null.
Reference make_error(Client* client, const char* name, Reference arguments);
// The same without arguments.
Reference make_error(Client* client, const char* name);

// bindings/pool/job_feed.cpp
// ------------------------------------------------------------------------------------------------

// Input is taken only while may_pull() holds and workers_fed() does not.
bool may_pull(const Job* job);
bool workers_fed(const Job* job);
int fill(Job* job, bool once);
inline constexpr double kSlowPullNs = 200'000;  // per item: such an input is not read in next()
// There are no more items.
void end_items(Job* job);
// The iterator failed: its error is the outcome of the item it owed, and there are no more.
void end_with(Job* job, Reference error);
// Sends what the feeder has gathered before its input made it wait. False with an error set.
bool send_gathered(Job* job);
// A new job takes its place behind all that there is; leave_line() when its input has ended.
void join_line(Job* job);
void leave_line(Job* job);
// Must a job or call with this place wait for one that was made before it?
bool must_wait(const Client* client, uint64_t place);
// Sends the input of jobs with an earlier place, where later ones must wait for it. Returns as
// fill() does.
int feed_before(Client* client, uint64_t place);

// bindings/pool/job.cpp
// ------------------------------------------------------------------------------------------------

// Takes the outcome of item `index`. (Called for each item: a Reference&& is not moved on the way.)
void job_deliver(Job* job, uint64_t index, Reference&& value, bool error);
// Takes the one error of a chunk that was one task. With `ends` the iterator over the chunks'
// results ends there, as the standard library's does; after a worker's death it goes on.
void job_fail_chunk(Job* job, uint64_t index, uint32_t items, Reference&& error, bool ends);
bool bind_pool_job(PyObject* module);
bool bind_pool_outcome();

// bindings/pool/view.cpp
// ------------------------------------------------------------------------------------------------

// A list of (sink or job, units without an outcome, units not begun), one for each batch or call.
PyObject* client_open_outcomes(Client* self, PyObject*);
// (total or -1, pulled, delivered, taken, ready, chunk)
PyObject* job_counts(Job* job, void*);
// JobOrder::list: a copy of the results, None where there is none yet.
PyObject* job_so_far(Job* job, PyObject*);

}  // namespace shoal::bindings
