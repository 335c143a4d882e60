// SPDX-License-Identifier: Apache-2.0
//
// Member: one membership of a session, an explicit object, so that one process can have several in
// tests. Thread safe. Destroying the object leaves the session. MEMBER(me) in comments of this
// layer is the owner word of the member that the function is called on.
//
// 1. allocate, free and moves are one store or compare-exchange on the block's owner word; a death
//    at any instruction leaves each block with exactly one owner, and reap() frees what the dead
//    member owned.
// 2. Process-local locks are held for bounded local work only, never while waiting for another
//    process.
// 3. After a fork the child's Member object is a new member (if the parent held counted or shared
//    blocks) or no member: incarnation() is 0 then, and rejoin() joins as a new one. Blocks that
//    the parent owned remain the parent's.
// Design: docs/design/arena.md
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "arena/arena.hpp"
#include "arena/kept_runs.hpp"
#include "arena/local_lock.hpp"

namespace shoal::arena {

class Record;

enum class MemberKind : uint32_t {
  root = 1,     // the process that created the session
  process = 2,  // a child of user code
  worker = 3,   // runs a pool's tasks
  zygote = 4,   // template that workers are forked from
  agent = 5,    // starts a pool's workers and watches them
  guest = 6,    // attached from outside: `shoal top`, other programs
};

enum class RootSet : uint8_t {
  done,
  differs,  // the root does not have the expected value
  full,     // 64 other roots are set
};

class Member {
 public:
  // Joins the session. Throws TooManyMembers; MemoryExhausted; NotAMember if this process is in
  // another pid namespace than the session.
  static std::unique_ptr<Member> join(std::shared_ptr<Arena> arena, MemberKind kind);
  ~Member();
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  Arena& arena() const noexcept { return *arena_; }
  const std::shared_ptr<Arena>& arena_pointer() const noexcept { return arena_; }
  Incarnation incarnation() const noexcept { return incarnation_; }  // 0: not a member
  uint32_t slot() const noexcept { return slot_of(incarnation_); }

  // A block of at least `bytes` bytes (0 counts as 1), 64-byte aligned, owner MEMBER(me), contents
  // undefined. Throws MemoryExhausted, NotAMember.
  Handle allocate(size_t bytes);
  // The same for a block that may be given to share(): behind its `bytes` it has the words of a
  // record.
  Handle allocate_shareable(size_t bytes);
  // Frees a block whose owner is MEMBER(me). Does nothing if b is no block of this member.
  void free(Handle b) noexcept;

  void give_to_block(Handle b, Handle parent) noexcept;  // MEMBER(me) -> BLOCK(parent)
  // BLOCK(parent) -> MEMBER(me); false: b has another owner
  [[nodiscard]] bool take_from_block(Handle b, Handle parent) noexcept;
  // BLOCK(parent) -> freed; false: b has another owner
  bool free_child(Handle b, Handle parent) noexcept;
  [[nodiscard]] bool give_to_channel(Handle b, uint32_t channel, uint64_t position) noexcept;
  [[nodiscard]] bool take_from_channel(Handle b, uint32_t channel, uint64_t position) noexcept;

  // Counted blocks: page runs that a fork's child sees as they were at the fork, freed by the last
  // holder. Each process counts its own references in private memory.
  // Can b be counted, and may this process hold one more block? Each held block may become a
  // private view at a fork, and the kernel limits the number of mappings of a process.
  bool can_count(Handle b) const noexcept;
  // MEMBER(me) -> RECORD, held once by this process. Needs: b is a page run. May throw
  // MemoryExhausted.
  void make_counted(Handle b);
  // Adds a reference. A process that did not hold b before sees the arena's memory: without what
  // another holder has written into its private view since a fork. False: b is no record (any
  // more); or this process has dropped b and cannot see the arena's memory, because the kernel
  // refused to restore the shared view. May throw MemoryExhausted.
  bool hold(Handle b);
  void drop(Handle b) noexcept;
  // RECORD -> MEMBER(me) if this process is the only holder, has one reference and sees the block
  // in a shared view; else false.
  [[nodiscard]] bool take_counted(Handle b) noexcept;

  // The counted blocks of which the fork that made this process could not give it a view.
  struct Unseen {
    size_t blocks = 0;     // how many; an access to them is a fault: see arena/views.cpp
    bool exposed = false;  // some could not be made inaccessible: this process must not continue
    bool lost = false;     // the reason is that the parent died and its blocks were freed
    int error = 0;         // any other reason: errno of the private mapping
  };
  const Unseen& unseen() const noexcept { return unseen_; }

  // Shared blocks: of any size, used in place by all holders (a fork's child uses the same memory),
  // freed by the last holder. Each process counts its own references in private memory.
  // MEMBER(me) -> RECORD, held once by this process. Needs: b is of allocate_shareable(). May throw
  // MemoryExhausted.
  void share(Handle b);
  // Adds a reference; false: b is no record (any more). May throw MemoryExhausted.
  bool hold_shared(Handle b);
  // True: this was the last reference of all, and the block is MEMBER(me), which the caller frees.
  [[nodiscard]] bool drop_shared(Handle b) noexcept;
  size_t shared_held() const noexcept;  // how many shared blocks this process holds
  // Makes `referrer`, a block that is MEMBER(me), refer to b, so that b exists as long as the
  // reference. Needs: this process holds b; `place` lies in `referrer` and is kNoPlace
  // (arena/record.hpp). From the call on, the owner of `referrer` must call unlink() before it
  // frees `referrer`; after its death its reaper does, in an end hook. False: b is no record. May
  // throw MemoryExhausted.
  [[nodiscard]] bool link(Handle b, Handle referrer, os::Atomic<uint32_t>& place);
  // Removes the reference, if it is there; may be repeated. True: as for drop_shared().
  [[nodiscard]] bool unlink(Handle b, Handle referrer, uint32_t place) noexcept;

  // Directory of named roots: at most 64 at a time, with names of 1 to 48 bytes. Changes the root
  // from `expected` to `h`; the value 0 means that the root is not set. A root that is not set
  // takes no entry. Waits for the RunsLock. If this process dies at any instruction of the call,
  // the root has its old value or the new one.
  [[nodiscard]] RootSet set_root(const char* name, Handle h, Handle expected = 0);

  // To be called before each store that makes this member the owner of block `b` or one of its
  // holders: marks the page for the reaper (arena/marks.hpp). Costs two loads if the page is marked
  // already, as it usually is.
  void mark(Handle b) noexcept;

  // A free lane of this member; use LaneGuard. Waits while 16 operations of this member are
  // running.
  Lane& claim_lane() noexcept;
  void return_lane(Lane& lane) noexcept;

  // Gives warm memory that has been free for `older_than_ns` back to the system, and releases empty
  // spans. Returns the bytes given back. Slow paths call it by themselves, once a second for all
  // members (for pages that have been free for SHOAL_DECAY seconds).
  uint64_t purge(int64_t older_than_ns, uint64_t most_bytes = UINT64_MAX);
  uint64_t purge() { return purge(decay_ns_); }

  // Orderly exit: frees everything that this member owns. No other thread may use the member during
  // the call: an operation that such a thread has begun is repaired like that of a dead process.
  void leave() noexcept;
  // This object was inherited through a fork.
  bool forked_child() const noexcept { return forked_child_; }
  // In a forked child that is no member: joins as a new member. Throws NotAMember if the child
  // inherited shared objects that may have been reused: the parent died before the child became a
  // member, or there was no member slot for it.
  void rejoin();
  // Behaves as if this process had been killed here; the object is unusable afterwards.
  void abandon_for_test() noexcept;
  void limit_held_for_test(size_t most) noexcept { most_held_ = most; }
  size_t private_views_for_test() const noexcept;

  MemberSlot& shared() const noexcept { return arena_->slot(slot()); }

 private:
  friend struct ForkHandlers;
  friend bool reap(Arena& arena, Member& reaper, Incarnation dead);

  struct FreeBlock {
    Handle block;
    os::Atomic<uint64_t>* owner;  // its owner word
  };
  struct OrphanSearch {           // of one class, through the orphan bitmap
    uint64_t epoch = UINT64_MAX;  // Header::death_epoch when it began
    uint64_t from = 0;            // the page at which it continues
  };
  struct Cache {                  // one size class: all of it can be rebuilt by scanning `spans`
    std::vector<FreeBlock> free;  // blocks known to be free in `spans`, last in first out
    std::vector<uint64_t> spans;  // first pages of the spans in which this member allocates
    size_t cursor = 0;            // where the next scan for remotely freed blocks begins
    size_t trim_at = 0;           // with more free blocks than this, look for spans to release
    OrphanSearch search;
  };
  struct Room {  // memory for a larger cache; after the swap, the old memory
    std::vector<FreeBlock> free;
    std::vector<uint64_t> spans;
  };
  struct Held {           // a counted block that this process holds
    uint32_t references;  // in this process; 0: to be dropped once its shared view is restored
    bool is_private;      // this process has a private view of it: see arena/views.cpp
  };
  struct View {  // of a held block
    Handle block;
    uint64_t bytes;
    Held* held;
  };
  struct Copy {  // for the child of the fork under way
    Handle block;
    uint64_t bytes;
    void* contents;
  };
  using HeldEntry = std::unordered_map<Handle, Held>::iterator;

  explicit Member(std::shared_ptr<Arena> arena) noexcept;
  void join_slot(MemberKind kind);
  void enter_slot(Incarnation claimed, MemberKind kind);
  void require_own_namespace() const;
  void require_membership() const;
  Handle allocate_small(uint32_t size_class);
  Handle allocate_from_free(size_t bytes);
  void refill(uint32_t size_class, std::unique_lock<LocalLock>& local);
  size_t scan_spans(uint32_t size_class, size_t limit) noexcept;
  void collect_span(Cache& cache, uint64_t first_page) noexcept;
  std::unique_lock<LocalLock> lock_with_room(uint32_t size_class, Room* room);
  void add_span(uint32_t size_class, uint64_t first_page) noexcept;
  void mark_span(uint64_t first_page, uint64_t pages) noexcept;
  void make_span(uint32_t size_class, uint64_t first_page);
  OrphanSearch begin_search(OrphanSearch& last) const noexcept;
  uint64_t find_orphan(uint32_t size_class, OrphanSearch* search) noexcept;
  void adopt_span(uint64_t first_page);
  void sweep_orphans() noexcept;
  uint64_t sweep_span_locked(uint64_t page) noexcept;
  void trim(uint32_t size_class, size_t keep) noexcept;
  size_t trim_some(uint32_t size_class, size_t keep) noexcept;
  bool free_small(Handle b, Arena::Located at, uint64_t expected) noexcept;
  bool free_run(Arena::Located at, uint64_t expected) noexcept;
  Handle take_kept(uint64_t pages) noexcept;
  bool keep(uint64_t first, uint64_t pages) noexcept;
  bool free_owned(Handle b, uint64_t expected) noexcept;
  void purge_if_due() noexcept;
  uint64_t next_version() noexcept;
  uint64_t begin_with_extensions(Record& record);
  void finish_record(Record& record, uint64_t begun) noexcept;
  void extend_record(Record& record);
  void extend_record(Handle b);
  void release_last(Handle b) noexcept;
  bool let_go(HeldEntry entry) noexcept;
  bool restore_and_let_go(Handle b) noexcept;
  void drop_again() noexcept;
  std::vector<View> views_of_held(bool with_private);
  bool make_private(const View* views, size_t count, uint64_t bytes) noexcept;
  bool make_views_private() noexcept;
  void copy_views(bool with_private) noexcept;
  void forget_copies() noexcept;
  void leave_views(bool holds) noexcept;
  void hide(Handle b, Held& held) noexcept;
  bool restore_view(Handle b) const noexcept;
  void restore_views() noexcept;
  void forget() noexcept;

  std::shared_ptr<Arena> arena_;
  Incarnation incarnation_ = 0;
  MemberKind kind_ = MemberKind::process;
  bool forked_child_ = false;
  // This process inherited shared objects that it must not use (see rejoin()), because ...
  enum class Lost : uint8_t {
    no,
    parent_died,  // its parent died before this process was a member
    no_place,     // the session had no free member slot, or no memory, when it was forked
  };
  Lost lost_ = Lost::no;
  int64_t decay_ns_ = 0;
  os::Atomic<uint32_t> lanes_taken_;  // bit per lane

  mutable LocalLock local_;       // guards the members below; never held across a wait
  uint64_t next_version_ = 0;     // numbers for records that only this process gives out:
  uint64_t end_of_versions_ = 0;  // next_version_ to end_of_versions_ - 1
  std::array<Cache, kClasses> caches_;
  KeptRuns kept_;
  std::unordered_map<Handle, Held> held_;        // counted blocks
  size_t undropped_ = 0;                         // entries of held_ without references
  std::unordered_map<Handle, uint32_t> shared_;  // shared blocks -> references in this process
  size_t most_held_ = 0;                         // how many counted blocks this process may hold
  Unseen unseen_;
  std::mutex reaping_;             // one reap at a time per member; taken before local_
  std::mutex views_;               // held while a view of a held block changes; taken before local_
  std::vector<Copy> fork_copies_;  // during a fork: copies of blocks for the child
  Incarnation fork_child_ = 0;     // during a fork: the incarnation prepared for the child
  std::vector<Handle> fork_spares_;  // during a fork: blocks for extensions of records
  int birth_lock_ = -1;              // during a fork: descriptor of the child's birth lock
};

// Claims a lane for the running operation.
class LaneGuard {
 public:
  explicit LaneGuard(Member& member) noexcept : member_(member), lane_(member.claim_lane()) {}
  ~LaneGuard() { member_.return_lane(lane_); }
  LaneGuard(const LaneGuard&) = delete;
  LaneGuard& operator=(const LaneGuard&) = delete;
  Lane& operator*() const noexcept { return lane_; }
  Lane* operator->() const noexcept { return &lane_; }

 private:
  Member& member_;
  Lane& lane_;
};

// Is this incarnation still a member whose process lives? Reads /proc (about 15 us) unless the slot
// already says no.
bool member_alive(Arena& arena, Incarnation incarnation) noexcept;
// The same without looking at the process: does the slot still belong to this incarnation, in a
// state other than dead?
bool member_listed(Arena& arena, Incarnation incarnation) noexcept;
// The latest member whose incarnation has these low bits (by default a ShortNumber), `bits` at
// least kSlotBits. If it is the member that the number was taken from, this is its incarnation; a
// number that a late process has read long ago may be that of another member by now. 0: none, also
// for the number 0.
Incarnation full_number(const Arena& arena, uint64_t low, unsigned bits = kShortBits) noexcept;
// The process id of a member; 0: no such member.
int member_pid(Arena& arena, Incarnation incarnation) noexcept;

// Frees all that `dead` held. Idempotent. Several members may call it for the same `dead`: one does
// the work, the others return false. False: a live member is reaping it, or it is not dead. True:
// nothing that `dead` held is left. After a std::bad_alloc any member may try again.
bool reap(Arena& arena, Member& reaper, Incarnation dead);
// Reaps every member that is found dead; returns how many.
int reap_all_dead(Arena& arena, Member& reaper);
// The same at most once a second in the whole session. For waiters, which call it at their ticks.
void reap_if_due(Arena& arena, Member& reaper);

// Repairs an intent of an upper layer. Called for each lane of the dead member whose intent has
// this kind (low 4 bits, 1 to 15), and with kind 0 for every lane that is not empty (intent, held
// locks or wake). Called again for the same lane if the reaper dies. The lane belongs to the
// reaper while the hook runs. To free a block, the hook calls give_to_dead(): the scan that follows
// frees the block and its children.
using ReapHook = void (*)(Arena& arena, Member& reaper, Incarnation dead, Lane& lane);
void register_reap_hook(uint64_t intent_kind, ReapHook hook) noexcept;
// `expected` -> MEMBER(dead). False: the block has another owner, which is stored in `expected`.
bool give_to_dead(Arena& arena, Incarnation dead, Handle block, uint64_t& expected) noexcept;

// Member::mark() for another member: for a child of a fork of the caller that is not live yet, or
// for a dead member that the caller is reaping.
void mark_for(Arena& arena, Incarnation member, Handle block) noexcept;
inline void Member::mark(Handle b) noexcept {
  const uint64_t page = arena_->page_of(b);  // huge for a handle that is too small
  if (page < arena_->frontier() && !arena_->is_marked(slot(), page))
    mark_for(*arena_, incarnation_, b);
}

// Called for each block before the reaper frees it, including shared blocks of which the dead
// member was the last holder. The hook tells by a magic_at() whether the block is a state of its
// kind.
using EndHook = void (*)(Arena& arena, Member& reaper, Handle block);
void register_end_hook(EndHook hook) noexcept;
// A magic number that depends on the block's handle, so that a program's own data, or a magic
// number copied or left from an earlier use, is not mistaken for a state.
constexpr uint32_t magic_at(uint32_t magic, Handle handle) noexcept {
  return magic ^ static_cast<uint32_t>(handle >> 6);
}
// Ends and frees a block that is MEMBER(me): runs the end hooks for it, and then for each block
// that these hooks end (in a loop, not recursively, so that chains of any length are safe).
void end_block(Member& member, Handle block) noexcept;

}  // namespace shoal::arena
