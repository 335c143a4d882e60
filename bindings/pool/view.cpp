// SPDX-License-Identifier: Apache-2.0
//
// Counts of outstanding outcomes. They serve the standard library's private counters, which
// programs read (python/shoal/_dropin/_stock_view.py). Only reads, under the GIL. Does not collect,
// so it shows the state at the last collect().
#include "bindings/pool/client.hpp"
#include "codec/python/codec.hpp"

namespace shoal::bindings {

namespace {

uint32_t queued_units(const pool::Batch& batch) {
  uint32_t queued = 0;
  for (uint32_t unit = 0; unit < batch.units; ++unit) {
    const pool::Unit word = pool::Unit::of(batch.unit_words()[unit].load());
    if (word.state == pool::UnitState::queued) ++queued;
  }
  return queued;
}

// Appends (whose, units without an outcome, units that have not begun) to the list.
bool append_open(PyObject* list, PyObject* whose, uint32_t open, uint32_t queued) {
  const Reference entry = Reference::take(Py_BuildValue("(NII)", Py_NewRef(whose), open, queued));
  return entry && PyList_Append(list, entry.get()) == 0;
}

}  // namespace

PyObject* client_open_outcomes(Client* self, PyObject*) {
  const Inside inside(self);
  Reference list = Reference::take(PyList_New(0));
  bool ok = static_cast<bool>(list);
  const bool alive = self->pool != nullptr && !self->released;
  for (uint32_t slot = 0; ok && alive && slot < self->flights->size(); ++slot) {
    const Flight& flight = (*self->flights)[slot];
    if (flight.ticket == 0) continue;
    const pool::Batch& batch = self->pool->batch(slot);
    PyObject* whose =
        flight.job ? reinterpret_cast<PyObject*>(flight.job.get()) : flight.sink.get();
    ok = append_open(list.get(), whose, batch.units - flight.finished, queued_units(batch));
  }
  // By index: making an entry may run the garbage collector, and with it Python code that submits
  // or withdraws calls.
  for (size_t i = 0; ok && i < self->pending->size(); ++i) {
    ok = append_open(list.get(), (*self->pending)[i].sink.get(), 1, 1);
  }
  return ok ? list.release() : nullptr;
}

PyObject* job_counts(Job* job, void*) {
  uint64_t ready = 0;  // outcomes that can be fetched without waiting
  for (const Item& item : *job->items) {
    if (!item.ready) break;
    ++ready;
  }
  return Py_BuildValue(
      "(LKKKKI)", static_cast<long long>(job->total), static_cast<unsigned long long>(job->pulled),
      static_cast<unsigned long long>(job->delivered), static_cast<unsigned long long>(job->taken),
      static_cast<unsigned long long>(ready), job->chunk);
}

PyObject* job_so_far(Job* job, PyObject*) {
  const Py_ssize_t size = job->list == nullptr ? 0 : PyList_GET_SIZE(job->list);
  PyObject* copy = PyList_New(size);
  if (copy == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* value = i < PyList_GET_SIZE(job->list) ? PyList_GET_ITEM(job->list, i) : nullptr;
    PyList_SET_ITEM(copy, i, Py_NewRef(value != nullptr ? value : Py_None));
  }
  return copy;
}

}  // namespace shoal::bindings
