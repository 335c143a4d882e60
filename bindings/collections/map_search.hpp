// SPDX-License-Identifier: Apache-2.0
//
// Finding a Python key in a shared map, for bindings/collections/map.cpp.
//
// Opaque keys (bindings/collections/shared_key.hpp) are compared by the program's __eq__, which
// must not run under the lock. So a search that meets some copies them, the lock is let go, they
// are compared, and the search begins anew with what was learned. What was learned is of a key at a
// position, whatever its value: one that others put all the time is compared once.
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
  // Under the lock, when it was not found: a new entry with this item, made for the prepared key.
  void insert(collections::Map& map, NewItem& fresh);

  // Runs step(map, entry) under the lock; entry is false if there is no such key. False: error set.
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
  // Of opaque keys from processes whose hashes mean nothing elsewhere.
  static constexpr uint64_t kForeignHash = 0xF0F0F0F0F0F0F0F0;
  // Of keys that are compared together; the search stops where there are more.
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
  // no when it is to be asked first, or stop where enough are.
  collections::Map::Same judge(Handle item, uint64_t position);
  bool compare();

  PyObject* const self_;
  arena::Member& member_;
  const bool to_find_;
  bool foreign_ = false;
  SharedKey key_;
  std::unordered_map<uint64_t, Judged> verdicts_;  // by position
  std::vector<Asked> asked_;                       // the keys that are to be compared
  codec::Buffer keys_;                             // of both
  size_t asked_from_ = 0;                          // in keys_
};

// The entry's item with the key that it has had, should that be shown otherwise than the new one's:
// a dict keeps the first of equal keys. Under the lock.
void keep_first_key(arena::Member& member, Handle old, NewItem& fresh);

// Puts value under the prepared key.
bool map_put(KeySearch& search, PyObject* value, arena::Member& member);
// New reference to the value; nullptr without an error: there is no such key.
PyObject* map_get(KeySearch& search, arena::Member& member);
// 1 removed, 0 was not there, -1 with an error set.
int map_remove(KeySearch& search, arena::Member& member);

}  // namespace shoal::bindings
