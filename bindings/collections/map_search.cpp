// SPDX-License-Identifier: Apache-2.0
#include "bindings/collections/map_search.hpp"

#include <cstring>

#include "codec/python/codec.hpp"

namespace shoal::bindings {

using collections::KeyKind;
using collections::Map;

bool KeySearch::prepare(PyObject* key) {
  const auto& user = state_of<collections::ContainerState>(self_).user;
  // order: relaxed, both: written only when the map is made
  if (!make_key(key, user[kMapSeed].load(os::relaxed), to_find_, key_)) return false;
  foreign_ = !key_.is_portable && user[kMapFingerprint].load(os::relaxed) != hash_fingerprint();
  return true;
}

Map::Same KeySearch::judge(Handle item, uint64_t position) {
  const arena::Arena& arena = member_.arena();
  const collections::ItemParts parts = collections::open_item(arena, item);
  if (parts.key_kind == KeyKind::canonical && key_.kind == KeyKind::canonical) {
    const bool same = parts.key.size() == key_.bytes.size() &&
                      std::memcmp(parts.key.data(), key_.bytes.data(), parts.key.size()) == 0;
    return same ? Map::Same::yes : Map::Same::no;
  }
  const Bytes shown = parts.shown_key.empty() ? parts.key : parts.shown_key;
  const auto known = verdicts_.find(position);
  if (known != verdicts_.end() && known->second.size == shown.size() &&
      std::memcmp(keys_.data() + known->second.offset, shown.data(), shown.size()) == 0) {
    return known->second.same ? Map::Same::yes : Map::Same::no;
  }
  if (keys_.size() - asked_from_ > kMostAskedBytes) return Map::Same::stop;
  asked_.push_back({position, {keys_.size(), shown.size(), false}});
  keys_.append(shown.data(), shown.size());
  return Map::Same::no;
}

Map::Entry KeySearch::search(Map& map, bool* asked) {
  asked_.clear();
  asked_from_ = keys_.size();
  const auto is_same = [&](Handle item, uint64_t position) { return judge(item, position); };
  if (!foreign_) {
    const Map::Entry entry = map.find(key_.hash, is_same);
    *asked = !asked_.empty();
    if (entry || *asked || key_.is_portable || map.state().user[kMapForeign].load() == 0) {
      return entry;
    }
  }
  // Keys whose hash this process does not know, or that were stored without a hash: one by one.
  for (uint64_t i = map.begin(); i < map.end(); ++i) {
    const Handle item = map.at(i);
    if (item == 0 || collections::open_item(member_.arena(), item).key_kind != KeyKind::opaque) {
      continue;
    }
    if (!foreign_ && map.hash_at(i) != kForeignHash) continue;
    const Map::Same same = is_same(item, i);
    if (same == Map::Same::yes && asked_.empty()) return map.entry_at(i);
    if (same != Map::Same::no) break;
  }
  *asked = !asked_.empty();
  return {};
}

void KeySearch::insert(Map& map, NewItem& fresh) {
  // Before the key is inserted: a process that sees the mark without the key only searches in vain.
  if (foreign_) map.state().user[kMapForeign].store(1);
  map.insert(member_, foreign_ ? kForeignHash : key_.hash, fresh.get());
  fresh.release();
}

bool KeySearch::compare() {
  for (Asked& asked : asked_) {
    codec::MessageView view;
    view.bytes = keys_.data() + asked.key.offset;
    view.size = asked.key.size;
    PyObject* const other = codec::python::decode(view, 0, nullptr, codec::python::copy_out);
    if (other == nullptr) return false;
    const int same = PyObject_RichCompareBool(other, key_.object, Py_EQ);
    Py_DECREF(other);
    if (same < 0) return false;
    asked.key.same = same != 0;
    try {
      verdicts_[asked.position] = asked.key;
    } catch (const std::exception&) {
      set_python_error();
      return false;
    }
    if (same != 0) break;
  }
  return true;
}

void keep_first_key(arena::Member& member, Handle old, NewItem& fresh) {
  const collections::ItemParts had = collections::open_item(member.arena(), old);
  collections::ItemParts parts = collections::open_item(member.arena(), fresh.get());
  const auto equal = [](Bytes a, Bytes b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
  };
  if (equal(had.shown_key, parts.shown_key) && equal(had.key, parts.key)) return;
  parts.key = had.key;
  parts.shown_key = had.shown_key;
  parts.key_kind = had.key_kind;
  NewItem merged(member);
  merged.reset(collections::make_item(member, parts));
  fresh.swap(merged);
}

bool map_put(KeySearch& search, PyObject* value, arena::Member& member) {
  NewItem fresh(member);
  if (!fresh.make(&search.key(), value)) return false;
  Removed removed(member);
  return search.run([&](Map& map, const Map::Entry& entry) {
    if (entry) {
      keep_first_key(member, entry.item, fresh);
      removed.item(map.replace(member, entry, fresh.get()));
      fresh.release();
    } else {
      search.insert(map, fresh);
    }
  });
}

PyObject* map_get(KeySearch& search, arena::Member& member) {
  Copies copies(member);
  const bool ran = search.run([&](Map&, const Map::Entry& entry) {
    if (entry) copies.add(entry.item, Copies::value);
  });
  return ran && copies.count() != 0 ? copies.decode(0) : nullptr;
}

int map_remove(KeySearch& search, arena::Member& member) {
  Removed removed(member);
  const bool ran = search.run([&](Map& map, const Map::Entry& entry) {
    if (entry) removed.item(map.erase(member, entry));
  });
  if (!ran) return -1;
  return removed.item() != 0 ? 1 : 0;
}

}  // namespace shoal::bindings
