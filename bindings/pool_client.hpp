// SPDX-License-Identifier: Apache-2.0
//
// The Python types of a pool's client side, shared by bind_pool_client.cpp (Client, calls),
// pool_job.cpp (Job: maps) and pool_collect.cpp (outcomes on their way back).
//
// All state here is guarded by the GIL. Python code runs at known places only (encoding, decoding,
// iterating, telling a sink), and other threads may enter the client there; so:
//   1. a Flight that is being read is `busy`: who else finds news for it sets `again`, and the
//      reader reads once more;
//   2. a Job that is being filled is `filling`: others leave its iterator alone;
//   3. no reference into a vector is kept across Python code; flights are found anew by slot, and
//      are another's or nobody's when their ticket has changed;
//   4. Python code may end the pool. `ended` is set first, every open outcome is told then, and the
//      pool's memory is freed when the last thread that is Inside has left.
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <deque>
#include <memory>
#include <vector>

#include "bind.hpp"
#include "codec/message.hpp"
#include "pool/client.hpp"

namespace shoal::bindings {

struct Job;
struct Sendable;  // pool_job.cpp

// A function that was stored in the pool once and is named by its number.
struct Function {
  PyObject_HEAD
  struct Client* client;  // strong
  uint64_t number;
  arena::Handle block;
};

// What is known of one batch in flight, by slot.
struct Flight {
  uint64_t ticket = 0;           // Entry.value; 0 = slot free
  PyObject* sink = nullptr;      // call: told the outcome
  Job* job = nullptr;            // map: gets the outcomes
  Function* function = nullptr;  // kept while the batch is in flight
  PyObject* name = nullptr;      // of the function, for error messages
  uint64_t first_index = 0;      // job: index of the batch's first item
  uint64_t bytes = 0;            // job: counted against its bound
  uint32_t scan_from = 0;        // units before it are read
  uint32_t finished = 0;         // units read to the end
  uint32_t owed = 0;             // lost items not yet told: the batch stays until they are
  std::vector<uint32_t> seen;    // per unit: items read; kRead = all
  bool busy = false;
  bool again = false;
};
inline constexpr uint32_t kRead = UINT32_MAX;

// The sink of a call whose caller waits for it in Client.call: filled in without a Python call.
struct Outcome {
  PyObject_HEAD
  PyObject* value;  // null until done
  bool error;
};

// A call that found all slots taken; it is encoded already.
struct PendingCall {
  uint64_t ticket;
  std::unique_ptr<codec::MessageBuilder> message;
  uint64_t word;
  uint32_t flags;
  uint32_t definitions;
  uint32_t retries;
  int64_t timeout_ns;
  PyObject* sink;
  Function* function;
  PyObject* name;
};

struct Client {
  PyObject_HEAD
  std::unique_ptr<pool::ClientPool> pool;
  std::unique_ptr<codec::MessageBuilder> builder;
  std::vector<Flight>* flights;
  std::deque<PendingCall>* pending;
  // Slots with news that were taken from shared memory and are not read yet. Python code runs
  // between two reads: what it waits for may be among them, in this thread or in another.
  std::deque<uint32_t>* news;
  // What a signal handler raised while an outcome was told; collect() raises it in the main thread.
  PyObject* interrupt;
  PyObject* hooks;  // shoal._pool_hooks.ClientHooks
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
  bool released;     // the memory goes when nobody is inside
  // an encode runs Python code that submits again: it gets a builder of its own
  bool builder_busy;
  uint64_t items_sampled;  // for unit_cost_ns
  uint64_t ticks_sampled;
  double unit_cost_ns;  // measured, 0 = unknown
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

// One outcome of a map's item. `value` is owned.
struct Item {
  PyObject* value = nullptr;
  bool error = false;
  bool ready = false;
};

enum class JobOrder { list, ordered, unordered };

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
  bool holds_chunks;  // a chunk is sent whole: the input may fail within it
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
  uint32_t next_units;  // size of the next batch while costs are unknown
  double pull_ns;       // how long the iterator takes per item, averaged
  bool eager;           // fill to the limits at once; nobody waits yet
  bool filling;
  bool fed;            // a thread in feed() reads the input, nobody else
  Sendable* sendable;  // while that thread waits for its input, else null
  bool cancelled;
  PyObject* on_done;  // called once when all outcomes are in, or null
};

extern PyTypeObject* function_type;
extern PyTypeObject* outcome_type;
extern PyTypeObject* job_type;

// pool_collect.cpp
// ------------------------------------------------------------------------------------------------

// Reads all news. -1 with an error set only for errors of this process (never for a task's).
int collect(Client* client);
// Waits until there is news, the deadline passes (0 returned as well) or a signal handler raises
// (-1).
int wait_for_news(Client* client, uint32_t seen, int64_t deadline_ns);
// Submits a batch whose words, payload and attachments are given; takes a new reference to what the
// flight keeps. 0 with an error set on failure, else the ticket.
uint64_t launch(Client* client, pool::BatchParts& parts, codec::MessageBuilder& message,
                Flight&& flight);
// Moves pending calls into free slots.
void flush_pending(Client* client);
// Stores the log entries that are not yet in shared memory; their count is what a batch made now
// requires.
bool store_definitions(Client* client, uint32_t* count);
// Encodes with the client's definitions as the thread's current ones.
bool encode_for(Client* client, PyObject* value, codec::MessageBuilder& out);
// Tells a sink of an outcome, and a job's owner that it is done. Neither raises by itself: what
// comes out of them is from a signal handler (Ctrl-C). They are told again, so that no outcome is
// lost, and the error waits for the end of collect().
void tell(Client* client, PyObject* sink, PyObject* value, bool error);
void tell_done(Client* client, PyObject* on_done);
// An exception made by hooks.<name>(...); steals the reference to arguments. Never null.
PyObject* make_error(Client* client, const char* name, PyObject* arguments);

// pool_job.cpp
// ------------------------------------------------------------------------------------------------

// Takes the outcome of item `index`; steals `value`.
void job_deliver(Job* job, uint64_t index, PyObject* value, bool error);
bool bind_pool_job(PyObject* module);

// pool_view.cpp
// ------------------------------------------------------------------------------------------------

// A list of (sink or job, units without an outcome, units not begun), one for each batch or call.
PyObject* client_open_outcomes(Client* self, PyObject*);
// (total or -1, pulled, delivered, taken, ready, chunk)
PyObject* job_counts(Job* job, void*);
// JobOrder::list: a copy of the results, None where there is none yet.
PyObject* job_so_far(Job* job, PyObject*);

}  // namespace shoal::bindings
