// SPDX-License-Identifier: Apache-2.0
#include "sync/holds.hpp"

#include "os/clock.hpp"

namespace shoal::sync {

namespace {

constexpr uint32_t kUsed = 1;
constexpr uint32_t kCached = 2;
constexpr uint32_t kOwned = 4;
constexpr int kWordsPerLane = 4;

// The head of a list that only grows and needs no lock, so that the child of a fork can use it.
os::Atomic<uint64_t> all_holds;

Holds* head() noexcept { return reinterpret_cast<Holds*>(all_holds.load()); }

}  // namespace

// The held word that this thread keeps reserved, and the Holds to which the word belongs. Every
// lock and unlock reads this several times. So it is constant-initialized and trivial, which needs
// no initialization guard, and lies at a fixed offset in the thread's storage (16 bytes of the
// static TLS block, which has room for a library that is loaded after the program's start).
struct ThreadCache {
  Holds* holds = nullptr;
  int word = Holds::kNone;

  void drop() noexcept {
    if (holds != nullptr && word != Holds::kNone) holds->mode_[word].fetch_and(~kCached);
    word = Holds::kNone;
  }
  void turn_to(Holds* other) noexcept;
};

namespace {

[[gnu::tls_model("initial-exec")]] constinit thread_local ThreadCache cache;

// Returns the reserved word when the thread ends.
struct ThreadEnd {
  ~ThreadEnd() { cache.drop(); }
  void expect() noexcept {}  // the call makes the compiler register the destructor
};
thread_local ThreadEnd thread_end;

}  // namespace

void ThreadCache::turn_to(Holds* other) noexcept {
  thread_end.expect();
  drop();
  holds = other;
}

Holds::Holds(arena::Member& member)
    : member_(&member), incarnation_(member.incarnation()), lanes_(member.shared().lanes) {}

Holds& Holds::of(arena::Member& member) {
  const arena::Incarnation me = member.incarnation();
  if (me == 0) throw arena::NotAMember("this process is not a member of the session");
  const auto is_it = [&](Holds* at) {
    return at->member_ == &member && at->incarnation_ == me && at->lanes_ == member.shared().lanes;
  };
  if (cache.holds != nullptr && is_it(cache.holds)) [[likely]]
    return *cache.holds;
  Holds* fresh = nullptr;
  for (;;) {
    Holds* const first = head();
    for (Holds* at = first; at != nullptr; at = at->next_) {
      if (!is_it(at)) continue;
      delete fresh;
      cache.turn_to(at);
      return *at;
    }
    if (fresh == nullptr) fresh = new Holds(member);
    fresh->next_ = first;
    auto expected = reinterpret_cast<uint64_t>(first);
    if (!all_holds.compare_exchange(expected, reinterpret_cast<uint64_t>(fresh))) continue;
    cache.turn_to(fresh);
    return *fresh;
  }
}

os::Atomic<uint64_t>& Holds::held(int word) noexcept {
  return lanes_[word / kWordsPerLane].held[word % kWordsPerLane];
}

int Holds::take(bool brief) noexcept {
  ThreadCache& mine = cache;
  // order: relaxed; only this thread sets USED on the word that it has cached (invariant 2)
  if (mine.holds == this && mine.word != kNone && mode_[mine.word].load(os::relaxed) == kCached) {
    mode_[mine.word].store(kCached | kUsed, os::relaxed);  // order: relaxed; as above
    return mine.word;
  }
  for (int word = brief ? 0 : kReserve; word < kWords; ++word) {
    const bool cache_it = mine.holds == this && mine.word == kNone && word >= kReserve;
    uint32_t expected = 0;
    // order: relaxed; saves compare-exchanges that would fail
    if (mode_[word].load(os::relaxed) != 0) continue;
    if (!mode_[word].compare_exchange(expected, cache_it ? kCached | kUsed : kUsed)) continue;
    if (cache_it) mine.word = word;
    return word;
  }
  return kNone;
}

int Holds::publish(arena::Handle object, HeldKind kind, bool brief) noexcept {
  const int word = take(brief);
  if (word == kNone) return kNone;
  // order: relaxed; read only after this process is dead, when all its stores are visible; the
  // read-modify-write that follows in every caller keeps the compiler from moving this store down
  held(word).store(object | static_cast<uint64_t>(kind), os::relaxed);
  return word;
}

void Holds::clear(int word) noexcept {
  if (word == kNone) return;
  // order: release; keeps the wake before this store; no acquire pairs with it, since other
  // processes read the word only after the death of this one
  held(word).store(0, os::release);
  if (cache.holds == this && cache.word == word) {
    // order: relaxed; the word is this thread's own (invariant 2)
    mode_[word].store(kCached, os::relaxed);
  } else {
    mode_[word].fetch_and(~(kUsed | kOwned));
  }
}

void Holds::set_owned(int word) noexcept {
  if (word == kNone) return;
  // order: relaxed; read by this thread, or by a thread that unlocks what this thread locked: the
  // program orders that thread's unlock after the lock by synchronization of its own
  mode_[word].store(mode_[word].load(os::relaxed) | kOwned, os::relaxed);
}

int Holds::find_owned(arena::Handle object) noexcept {
  const uint64_t wanted = object | static_cast<uint64_t>(HeldKind::mutex);
  const auto owns = [&](int word) {
    // order: relaxed, both; as in set_owned
    return (mode_[word].load(os::relaxed) & kOwned) != 0 && held(word).load(os::relaxed) == wanted;
  };
  if (cache.holds == this && cache.word != kNone && owns(cache.word)) return cache.word;
  for (int word = 0; word < kWords; ++word) {
    if (owns(word)) return word;
  }
  return kNone;
}

// Another thread may unlock the lock at the same time, and use its word for another lock: then the
// exchange fails. After the exchange, no other thread uses the word before its mode says that it is
// free: unlock() does not look for the words of stale locks.
void Holds::drop_stale(bool (*is_stale)(arena::Arena&, arena::Handle)) noexcept {
  for (int word = 0; word < kWords; ++word) {
    // order: relaxed, both; the exchange decides
    if ((mode_[word].load(os::relaxed) & kOwned) == 0) continue;
    uint64_t seen = held(word).load(os::relaxed);
    const arena::Handle object = seen & ~kHeldKindMask;
    if (object == 0 || !is_stale(member_->arena(), object)) continue;
    if (held(word).compare_exchange(seen, 0)) mode_[word].fetch_and(~(kUsed | kOwned));
  }
}

bool Holds::seems_dead(arena::Incarnation other) noexcept {
  if (other == incarnation_) return false;
  if (!arena::member_listed(member_->arena(), other)) return true;
  const auto now_ms = static_cast<uint32_t>(os::monotonic_ns() / 1'000'000);
  os::Atomic<uint64_t>& last = last_look_[other % kLooks];
  // order: relaxed, twice; if two threads do not see each other's check, both read /proc
  const uint64_t seen = last.load(os::relaxed);
  if (seen >> 32 == arena::short_number(other) && now_ms - static_cast<uint32_t>(seen) < kLookMs)
    return false;
  last.store(uint64_t{arena::short_number(other)} << 32 | now_ms, os::relaxed);
  looks_.fetch_add(1);
  return !arena::member_alive(member_->arena(), other);
}

int Holds::used_for_test() const noexcept {
  int used = 0;
  for (const auto& mode : mode_) used += static_cast<int>(mode.load() & kUsed);
  return used;
}

}  // namespace shoal::sync
