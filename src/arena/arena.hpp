// SPDX-License-Identifier: Apache-2.0
//
// Arena: this process's mapping of one session's memory, a single memfd. Any thread may call
// anything here; nothing in it belongs to a member. Members (arena/member.hpp) allocate.
//
// 1. Handles are offsets; a block never moves and its address in this process never changes.
// 2. The mapping stays for the life of the process: views of Python objects may outlive sessions
//    (unmap_for_test() is for tests). The full reserve is mapped once; growing never maps.
// 3. Lookups (block_of, owner_word, ...) take no lock, never throw and never read outside the
//    mapping, whatever the handle: an invalid handle gives 0 or a dummy word.
// 4. Every process that maps the arena excludes it from core dumps.
// Design: docs/design/arena.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "arena/error.hpp"
#include "arena/layout.hpp"
#include "arena/owner.hpp"
#include "arena/size_class.hpp"
#include "os/atomic.hpp"
#include "os/cgroup.hpp"

namespace shoal::arena {

class Member;

struct ArenaOptions {
  // bytes of address space; 0: SHOAL_RESERVE, else the largest the machine maps, up to 1 TiB
  uint64_t reserve = 0;
  // bytes of memory; 0: SHOAL_MEMORY_LIMIT, else derived from cgroup and RAM at each growth
  uint64_t limit = 0;
};

struct Statistics {
  uint64_t reserve = 0;    // bytes, as all below unless said otherwise
  uint64_t limit = 0;      // the session's own limit, 0: none
  uint64_t committed = 0;  // warm pages, used or not
  uint64_t in_use = 0;     // pages of runs and spans
  uint64_t warm_free = 0;  // committed - in_use
  uint64_t runs = 0;       // number of page runs that are blocks
  uint64_t spans = 0;      // number of spans
  uint64_t orphan_spans = 0;
  uint64_t blocks_member = 0;  // numbers of blocks by the kind of their owner
  uint64_t blocks_channel = 0;
  uint64_t blocks_block = 0;
  uint64_t blocks_record = 0;
  uint64_t blocks_named = 0;
  uint64_t blocks_dying = 0;
  uint64_t members = 0;  // slots that are not free
  uint64_t deaths = 0;   // members that died or left so far
  uint64_t blocks() const noexcept {
    return blocks_member + blocks_channel + blocks_block + blocks_record + blocks_named +
           blocks_dying;
  }
};

class Arena {
 public:
  // A new session's arena. Throws OsError when no reserve at all can be mapped.
  static std::shared_ptr<Arena> create(const ArenaOptions& options = {});
  // Maps the arena behind `fd`, which is duplicated. Throws CorruptArena when the file is no arena
  // or has another layout, OsError when its whole reserve cannot be mapped.
  static std::shared_ptr<Arena> attach(int fd);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // The arena's memfd, to pass to other processes; -1 when user code has closed or reused the
  // descriptor number.
  int fd() const noexcept;
  uint64_t fd_device() const noexcept { return fd_device_; }  // device and inode name the session
  uint64_t fd_inode() const noexcept { return fd_inode_; }
  // Is this process in the pid namespace of the session's creator? True if a namespace is not
  // known.
  bool is_of_this_namespace() const noexcept;
  std::byte* base() const noexcept { return base_; }
  uint64_t reserve() const noexcept { return reserve_; }

  void* address(Handle h) const noexcept { return base_ + h; }
  template <class T>
  T* at(Handle h) const noexcept {
    return reinterpret_cast<T*>(base_ + h);
  }
  // Does [h, h + bytes) lie in pages that the tables describe?
  bool contains(Handle h, size_t bytes) const noexcept;
  Handle handle_of(const void* p) const noexcept;  // 0 when p is not in the data pages
  Handle block_of(const void* p) const noexcept;   // start of the block that holds p; 0: none
  size_t block_size(Handle b) const noexcept;      // usable bytes; 0: no block starts here
  // The block's owner word. If b is no block: a dummy word of this process, of owner kind 15.
  os::Atomic<uint64_t>& owner_word(Handle b) const noexcept;
  // Is b a page run, i.e. can it be counted?
  bool is_run(Handle b) const noexcept;

  // The value of a named root, set by Member::set_root(); 0: none. Takes no lock. Returns a value
  // that the root had at some time during the call. The root may change afterwards, and the member
  // that changes it decides what happens to the block.
  Handle root_get(const char* name) const;

  Statistics statistics() const;
  // Walks the tables and all spans; throws CorruptArena at the first violated invariant. Takes no
  // lock: call it while no member allocates or frees.
  void check() const;

  // Internals, for src/arena and the layers that extend members.
  Header& header() const noexcept { return *reinterpret_cast<Header*>(base_); }
  MemberSlot& slot(uint32_t index) const noexcept {
    return reinterpret_cast<MemberSlot*>(base_ + kSlotsOffset)[index];
  }
  PageDescriptor& page(uint64_t index) const noexcept { return descriptors_[index]; }
  uint64_t page_of(Handle h) const noexcept { return (h - data_offset_) >> kPageShift; }
  Handle page_handle(uint64_t index) const noexcept { return data_offset_ + (index << kPageShift); }
  uint64_t frontier() const noexcept;
  os::Atomic<uint64_t>* used_bits() const noexcept { return used_; }
  os::Atomic<uint64_t>* warm_bits() const noexcept { return warm_; }
  os::Atomic<uint64_t>* orphan_bits() const noexcept { return orphans_; }
  os::Atomic<uint64_t>* child_bits() const noexcept { return children_; }
  os::Atomic<uint64_t>* kept_bits() const noexcept { return kept_; }
  const MarksLayout& marks_layout() const noexcept { return marks_layout_; }
  os::Atomic<uint64_t>* mark_words() const noexcept { return marks_; }
  // Has the member in this slot marked the page? (arena/marks.hpp)
  bool is_marked(uint32_t index, uint64_t page) const noexcept;
  uint64_t data_offset() const noexcept { return data_offset_; }

  struct Located {
    uint64_t first;  // first page of the run or span
    uint64_t shape;  // its shape word; kind free: no run or span here
  };
  Located locate(Handle h) const noexcept;
  // The owner word of the block that starts at b, in the run or span `at`.
  os::Atomic<uint64_t>& owner_at(Located at, Handle b) const noexcept;
  // The start of b's run or span.
  Handle span_of(Handle b) const noexcept { return page_handle(locate(b).first); }
  os::Atomic<uint64_t>* at_span(Handle start) const noexcept {  // a span's owner words
    return reinterpret_cast<os::Atomic<uint64_t>*>(base_ + start);
  }

  // The memory cgroup of this process, found when the arena was mapped.
  const os::CgroupPath& memory_path() const noexcept { return memory_path_; }
  // Reserves memory behind [offset, offset + bytes); the caller has checked the headroom. False
  // with errno.
  bool commit(uint64_t offset, uint64_t bytes) const noexcept;
  void decommit(uint64_t offset, uint64_t bytes) const noexcept;
  // Make this process's view of a range private or shared again: see arena/views.cpp. False when
  // the descriptor is lost or the kernel refuses.
  bool map_private(uint64_t offset, uint64_t bytes) const noexcept;
  bool map_shared(uint64_t offset, uint64_t bytes) const noexcept;
  void unmap_for_test();
  bool marks_refused_for_test = false;  // as if there were no memory for marks

 private:
  Arena() = default;
  void map(uint64_t reserve);
  void adopt_tables() noexcept;
  static os::Atomic<uint64_t>& dummy_owner() noexcept;

  std::byte* base_ = nullptr;
  uint64_t reserve_ = 0;
  uint64_t data_offset_ = 0;
  uint64_t pages_ = 0;
  PageDescriptor* descriptors_ = nullptr;
  os::Atomic<uint64_t>* used_ = nullptr;
  os::Atomic<uint64_t>* warm_ = nullptr;
  os::Atomic<uint64_t>* orphans_ = nullptr;
  os::Atomic<uint64_t>* children_ = nullptr;
  os::Atomic<uint64_t>* kept_ = nullptr;
  os::Atomic<uint64_t>* marks_ = nullptr;
  MarksLayout marks_layout_{0};
  int fd_ = -1;
  uint64_t fd_device_ = 0;  // identity of fd_'s file: user code may close any number and reuse it
  uint64_t fd_inode_ = 0;
  bool is_segment_ = false;  // the memory is a System V segment, named by the file: os/segment.hpp
  os::CgroupPath memory_path_;
};

inline uint64_t Arena::frontier() const noexcept {
  // order: acquire; pairs with the store in extend_frontier_locked; publishes the tables' memory
  const uint64_t frontier = header().frontier.load(os::acquire);
  return frontier < pages_ ? frontier : pages_;
}

inline bool Arena::is_marked(uint32_t index, uint64_t page) const noexcept {
  const uint64_t chunk = marks_layout_.chunk_of(page);
  // order: relaxed, twice; asked by the member that marks, or by its reaper after its death
  if ((slot(index).mark_chunks[chunk / 64].load(os::relaxed) >> (chunk % 64) & 1) == 0)
    return false;
  const uint64_t word = marks_[marks_layout_.word_of(index, page)].load(os::relaxed);
  return (word >> (page % 64) & 1) != 0;
}

inline Arena::Located Arena::locate(Handle h) const noexcept {
  if (h < data_offset_) return {0, 0};
  uint64_t first = page_of(h);
  if (first >= frontier()) return {0, 0};
  // order: acquire; pairs with the release store in Member::make_span; publishes the owner words
  uint64_t shape = descriptors_[first].shape.load(os::acquire);
  if (shape_kind(shape) == PageKind::tail) {
    if (tail_distance(shape) > first) return {0, 0};
    first -= tail_distance(shape);
    shape = descriptors_[first].shape.load(os::acquire);  // order: acquire; as above
  }
  const PageKind kind = shape_kind(shape);
  if (kind != PageKind::run && kind != PageKind::span) return {0, 0};
  return {first, shape};
}

inline os::Atomic<uint64_t>& Arena::owner_word(Handle b) const noexcept {
  return owner_at(locate(b), b);
}

inline os::Atomic<uint64_t>& Arena::owner_at(Located at, Handle b) const noexcept {
  const Handle start = page_handle(at.first);
  if (shape_kind(at.shape) == PageKind::span && shape_class(at.shape) < kClasses) {
    const SizeClass& c = class_in(at.shape);
    const uint32_t index = block_index(c, b - start);
    if (index < c.count && start + c.first + uint64_t{index} * c.size == b)
      return at_span(start)[index];
  } else if (shape_kind(at.shape) == PageKind::run && b == start) {
    return descriptors_[at.first].owner;
  }
  return dummy_owner();
}

}  // namespace shoal::arena

#include "arena/member.hpp"  // IWYU pragma: export
