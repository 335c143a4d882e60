// SPDX-License-Identifier: Apache-2.0
//
// Named constants for the enumerations that Python code passes to the core or gets from it, so that
// no Python file repeats the numbers.
#include "bindings/channel/messages.hpp"
#include "bindings/collections/container.hpp"
#include "bindings/interp/bind.hpp"
#include "bindings/pool/client.hpp"
#include "pool/layout.hpp"

namespace shoal::bindings {
namespace {

struct Constant {
  const char* name;
  long value;
};

template <class E>
constexpr Constant constant(const char* name, E value) {
  return {name, static_cast<long>(value)};
}

constexpr Constant kConstants[] = {
    constant("PHASE_RUNNING", pool::Phase::running),
    constant("PHASE_DRAINING", pool::Phase::draining),
    constant("PHASE_STOPPING", pool::Phase::stopping),
    constant("EXIT_PLANNED", pool::ExitKind::planned),
    constant("EXIT_INITIALIZER_FAILED", pool::ExitKind::initializer_failed),
    constant("BATCH_CALL_UNITS", pool::kCallUnits),
    constant("BATCH_STAR_ITEMS", pool::kStarItems),
    constant("BATCH_OWN_FUNCTION", pool::kOwnFunction),
    constant("BATCH_CHUNK_UNITS", pool::kChunkUnits),
    constant("MAX_ITEMS_PER_UNIT", pool::kMaxItemsPerUnit),
    constant("START_PATIENCE", pool::kStartPatience),
    constant("ORDER_LIST", JobOrder::list),
    constant("ORDER_ORDERED", JobOrder::ordered),
    constant("ORDER_UNORDERED", JobOrder::unordered),
    constant("CHUNK_PACKING", ChunkIs::packing),
    constant("CHUNK_DEFAULT_TASKS", ChunkIs::default_tasks),
    constant("CHUNK_TASKS", ChunkIs::tasks),
    constant("CANCEL_TOO_LATE", CancelAnswer::too_late),
    constant("CANCEL_WITHDRAWN", CancelAnswer::withdrawn),
    constant("CANCEL_RUNNING", CancelAnswer::running),
    constant("COPY_KEYS", Copies::key),
    constant("COPY_VALUES", Copies::value),
    constant("COPY_ITEMS", Copies::key | Copies::value),
    constant("QUEUE_GET_END", QueueEnd::kGetEnd),
    constant("QUEUE_PUT_END", QueueEnd::kPutEnd),
    constant("QUEUE_BOTH_ENDS", QueueEnd::kBothEnds),
};

}  // namespace

bool bind_constants(PyObject* module) {
  for (const Constant& each : kConstants) {
    if (PyModule_AddIntConstant(module, each.name, each.value) < 0) return false;
  }
  return true;
}

}  // namespace shoal::bindings
