// SPDX-License-Identifier: Apache-2.0
//
// Atomic<T>: the one wrapper of std::atomic, for 32- and 64-bit integers in memory that processes
// share. Callable in any member, thread or signal handler. Never allocates, blocks or throws, and
// is always lock-free. It has the layout of T, and zero bytes are a valid value, so it may lie in
// freshly mapped memory. The default order is seq_cst; a weaker one needs a comment at the call
// (order: ...; pairs with ...; publishes ...). In test builds a hook of the calling thread runs
// before each access, so that seeded schedules can interleave members, or a model of the thread
// carries out the access in place of the processor (testing/weak_memory.hpp); both are null by
// default. There are no fences: ThreadSanitizer does not see them.
// Design: docs/design/os.md
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace shoal::os {

using Order = std::memory_order;
inline constexpr Order relaxed = std::memory_order_relaxed;
inline constexpr Order acquire = std::memory_order_acquire;
inline constexpr Order release = std::memory_order_release;
inline constexpr Order acq_rel = std::memory_order_acq_rel;
inline constexpr Order seq_cst = std::memory_order_seq_cst;

enum class AccessKind : uint8_t { load, store, exchange, compare_exchange, add, bit_or, bit_and };

#if defined(SHOAL_TESTING) && SHOAL_TESTING
using AccessHook = void (*)(const void* address);
inline thread_local AccessHook access_hook = nullptr;  // tests only: runs before each access
inline void before_access(const void* address) {
  if (access_hook != nullptr) access_hook(address);
}

struct Access {
  AccessKind kind;
  Order order;
  unsigned size;
  void* word;
  uint64_t operand;   // the value that is stored, added and so on
  uint64_t expected;  // by a compare-exchange
};
using AccessModel = uint64_t (*)(const Access& access);  // returns the value found
inline thread_local AccessModel access_model = nullptr;  // tests only
inline bool has_access_model() noexcept { return access_model != nullptr; }
#else
inline void before_access(const void*) {}
constexpr bool has_access_model() noexcept { return false; }
#endif

template <class T>
class Atomic {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  static_assert(std::atomic<T>::is_always_lock_free && sizeof(std::atomic<T>) == sizeof(T));

 public:
  constexpr Atomic() noexcept = default;
  constexpr explicit Atomic(T value) noexcept : value_(value) {}
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  T load(Order order = seq_cst) const noexcept {
    before_access(this);
    if (has_access_model()) return modelled(Kind::load, 0, order);
    return value_.load(order);
  }
  void store(T value, Order order = seq_cst) noexcept {
    before_access(this);
    if (has_access_model()) {
      modelled(Kind::store, value, order);
      return;
    }
    value_.store(value, order);
  }
  T exchange(T value, Order order = seq_cst) noexcept {
    before_access(this);
    if (has_access_model()) return modelled(Kind::exchange, value, order);
    return value_.exchange(value, order);
  }
  // Strong. On failure `expected` becomes the value found.
  bool compare_exchange(T& expected, T desired, Order order = seq_cst) noexcept {
    before_access(this);
    if (has_access_model()) {
      const T wanted = expected;
      expected = modelled(Kind::compare_exchange, desired, order, wanted);
      return expected == wanted;
    }
    return value_.compare_exchange_strong(expected, desired, order, failure(order));
  }
  T fetch_add(T value, Order order = seq_cst) noexcept {
    before_access(this);
    if (has_access_model()) return modelled(Kind::add, value, order);
    return value_.fetch_add(value, order);
  }
  T fetch_sub(T value, Order order = seq_cst) noexcept {
    before_access(this);
    if (has_access_model()) return modelled(Kind::add, static_cast<T>(T{0} - value), order);
    return value_.fetch_sub(value, order);
  }
  T fetch_or(T value, Order order = seq_cst) noexcept {
    before_access(this);
    if (has_access_model()) return modelled(Kind::bit_or, value, order);
    return value_.fetch_or(value, order);
  }
  T fetch_and(T value, Order order = seq_cst) noexcept {
    before_access(this);
    if (has_access_model()) return modelled(Kind::bit_and, value, order);
    return value_.fetch_and(value, order);
  }
  // For the futex system call, which takes a pointer to the plain word.
  T* raw() noexcept { return reinterpret_cast<T*>(&value_); }

 private:
  using Kind = AccessKind;
#if defined(SHOAL_TESTING) && SHOAL_TESTING
  static constexpr uint64_t widen(T value) noexcept {
    return static_cast<std::make_unsigned_t<T>>(value);
  }
  T modelled(Kind kind, T operand, Order order, T expected = 0) const noexcept {
    return static_cast<T>(access_model(
        {kind, order, sizeof(T), const_cast<Atomic*>(this), widen(operand), widen(expected)}));
  }
#else
  static constexpr T modelled(Kind, T, Order, T = 0) noexcept { return 0; }
#endif
  static constexpr Order failure(Order order) noexcept {
    if (order == acq_rel) return acquire;
    if (order == release) return relaxed;
    return order;
  }
  std::atomic<T> value_{};
};

inline constexpr std::size_t kCacheLine = 128;  // the same on all machines: layouts are shared

// A hint to the processor inside a spin loop.
inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace shoal::os
