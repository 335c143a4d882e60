// SPDX-License-Identifier: Apache-2.0
//
// Finding a Python key in a shared map, for bindings/collections/map.cpp.
//
// Opaque keys (bindings/collections/shared_key.hpp) are compared by the program's __eq__, which
// must not run under the lock. So a search that meets such keys copies them, the lock is released,
// the keys are compared, and the search starts again with the verdicts. A verdict belongs to a key
// at a position, whatever its value is: a key whose value others replace all the time is compared
// only once.
//
// Every function needs the GIL.
// Design: docs/design/collections.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <unordered_map>
#include <vector>

#include "bindings/collections/container.hpp"
#include "collections/map.hpp"

namespace shoal::bindings {

// Words of the state that belong to this layer.
enum MapWord { kMapSeed = 0, kMapFingerprint = 1, kMapForeign = 2 };

class KeySearch {
 public:
  // to_find: the key will not be stored.
  KeySearch(PyObject* self, arena::Member& member, bool to_find) noexcept
      : self_(self), member_(member), to_find_(to_find) {}

  // False with an error set: unhashable, or not picklable.
  bool prepare(PyObject* key);
  [[nodiscard]] const SharedKey& key() const noexcept { return key_; }
  // Under the lock, when the search found nothing: adds the item, made for the prepared key.
  void insert(collections::Map& map, NewItem& fresh);

  // Runs step(map, entry) under the lock; entry is false if no entry has the key. False: error set.
  template <class Step>
  bool run(Step&& step) {
    for (;;) {
      bool asked = false;
      const bool ran = run_locked<collections::Map>(self_, member_, [&](collections::Map& map) {
        const collections::Map::Entry entry = search(map, &asked);
        if (!asked) step(map, entry);
      });
      if (!ran) return false;
      if (!asked) return true;
      if (!compare()) return false;
    }
  }

 private:
  // The hash under which opaque keys are stored by processes with another hash seed than the map's.
  static constexpr uint64_t kForeignHash = 0xF0F0F0F0F0F0F0F0;
  // Bytes of the keys that one round compares; with more, the search stops there.
  static constexpr size_t kMostAskedBytes = size_t{64} << 10;
  struct Judged {   // a key that is to be compared, or has been
    size_t offset;  // in keys_
    size_t size;
    bool same;
  };
  struct Asked {
    uint64_t position;
    Judged key;
  };

  collections::Map::Entry search(collections::Map& map, bool* asked);
  // `no` also for a key that must be compared first; `stop` when there are enough of these.
  collections::Map::Same judge(Handle item, uint64_t position);
  bool compare();

  PyObject* const self_;
  arena::Member& member_;
  const bool to_find_;
  bool foreign_ = false;
  SharedKey key_;
  std::unordered_map<uint64_t, Judged> verdicts_;  // by position
  std::vector<Asked> asked_;                       // the keys to compare
  codec::Buffer keys_;                             // bytes of the keys in both
  size_t asked_from_ = 0;                          // where the keys of asked_ begin in keys_
};

// Gives `fresh` the key of the entry's item `old`, if the two are shown differently: like a dict, a
// map keeps the first of equal keys. Under the lock.
void keep_first_key(arena::Member& member, Handle old, NewItem& fresh);

// Puts value under the prepared key.
bool map_put(KeySearch& search, PyObject* value, arena::Member& member);
// New reference to the value; nullptr without an error: no entry has the key.
PyObject* map_get(KeySearch& search, arena::Member& member);
int map_remove(KeySearch& search, arena::Member& member);

}  // namespace shoal::bindings
