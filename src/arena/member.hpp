// SPDX-License-Identifier: Apache-2.0
//
// Member: one membership of a session, an explicit object, so that one process can run many in
// tests. Thread safe. Destroying the object leaves the session. MEMBER(me) in comments of this
// layer is the owner word of the member that the function is called on.
//
// 1. allocate, free and moves are one store or compare-exchange on the block's owner word; a death
//    at any instruction leaves each block with exactly one owner, and reap() gives back what the
//    dead one owned.
// 2. Process-local locks are held for bounded local work only, never while waiting for another
//    process.
// 3. After a fork the child's Member object is another member (if the parent held counted blocks)
//    or none: forked_child() tells, rejoin() joins anew. Blocks that the parent owned stay the
//    parent's.
// Design: docs/design/arena.md
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "arena/arena.hpp"
#include "arena/local_lock.hpp"

namespace shoal::arena {

enum class MemberKind : uint32_t {
  root = 1,     // the process that created the session
  process = 2,  // a child of user code
  worker = 3,   // runs a pool's tasks
  zygote = 4,   // template that workers are forked from
  agent = 5,    // warden
  guest = 6,    // attached from outside: `shoal top`, other programs
};

class Member {
 public:
  // Joins the session. `bond`: the member whose death entails this one's, 0: none. Throws
  // TooManyMembers.
  static std::unique_ptr<Member> join(std::shared_ptr<Arena> arena, MemberKind kind,
                                      Incarnation bond = 0);
  ~Member();
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  Arena& arena() const noexcept { return *arena_; }
  const std::shared_ptr<Arena>& arena_pointer() const noexcept { return arena_; }
  Incarnation incarnation() const noexcept { return incarnation_; }  // 0: no member (any more)
  uint32_t slot() const noexcept { return slot_of(incarnation_); }

  // A block of at least `bytes` bytes (0 counts as 1), 64-byte aligned, owner MEMBER(me), contents
  // undefined. Throws MemoryExhausted, NotAMember.
  Handle allocate(size_t bytes);
  // Gives back a block whose owner is MEMBER(me). What is not a block of mine is left alone.
  void free(Handle b) noexcept;

  void give_to_block(Handle b, Handle parent) noexcept;  // MEMBER(me) -> BLOCK(parent)
  // BLOCK(parent) -> MEMBER(me); false: it is not that
  [[nodiscard]] bool take_from_block(Handle b, Handle parent) noexcept;
  // BLOCK(parent) -> freed; false: it is not that
  bool free_child(Handle b, Handle parent) noexcept;
  [[nodiscard]] bool give_to_channel(Handle b, uint32_t channel, uint64_t position) noexcept;
  [[nodiscard]] bool take_from_channel(Handle b, uint32_t channel, uint64_t position) noexcept;

  // Counted blocks: page runs that several members see, freed by the last holder. The counts within
  // this process are private; shared is only one bit per member.
  bool can_hold() const noexcept { return incarnation_ != 0 && slot() < kHolderSlots; }
  // Can b be counted, and may this process hold one more? Each may become a private view at a fork,
  // and the kernel limits how many mappings a process has.
  bool can_count(Handle b) const noexcept;
  // MEMBER(me) -> COUNTED, held once by this process. Needs: can_hold(), b is a page run.
  void make_counted(Handle b);
  // One more reference. Needs: somebody holds it and cannot let go meanwhile. What another holds is
  // seen in the arena's memory: without what that process wrote since a fork.
  bool hold(Handle b);
  void drop(Handle b) noexcept;
  // COUNTED -> MEMBER(me) when this process holds it once, in a shared view, and nobody else does;
  // else false.
  [[nodiscard]] bool take_counted(Handle b) noexcept;

  // What the fork that made this process could not give it a view of its own of.
  struct Unseen {
    size_t blocks = 0;     // an access to them is a fault: see arena/views.cpp
    bool exposed = false;  // not even that could be had: this process must not go on
    bool lost = false;     // why: its parent died, and what it held has been given back
    int error = 0;         // why otherwise: what the kernel said to a private mapping
  };
  const Unseen& unseen() const noexcept { return unseen_; }

  // Shared blocks: of any size, used in place by all who hold them (a fork's child goes on to use
  // the same memory), freed by the last holder. The counts within this process are private.
  void share(Handle b);        // MEMBER(me) -> SHARED, held once by this process
  bool hold_shared(Handle b);  // once more; false: it is not shared (any more)
  // True: this was the last holder of all, and the block is MEMBER(me), to be freed by the caller.
  [[nodiscard]] bool drop_shared(Handle b) noexcept;
  size_t shared_held() const noexcept;  // how many different ones this process holds
  // References from other blocks, which outlive the process that made them. Needs: this process
  // holds b. False: it is not shared. What a death between counting and storing leaves is one
  // reference too many, never one too few.
  bool store_shared(Handle b) noexcept;
  // Takes one such reference back. True: as for drop_shared().
  [[nodiscard]] bool unstore_shared(Handle b) noexcept;

  // A free lane of this member; use LaneGuard. Waits (yielding) while 16 operations of this member
  // are running.
  Lane& claim_lane() noexcept;
  void return_lane(Lane& lane) noexcept;

  // Gives warm memory that has been free for `older_than_ns` back to the system, and releases empty
  // spans. Returns bytes given back. Agents call it now and then; slow paths do by themselves
  // (SHOAL_DECAY seconds).
  uint64_t purge(int64_t older_than_ns, uint64_t most_bytes = UINT64_MAX);
  uint64_t purge() { return purge(decay_ns_); }

  // Orderly exit: everything this member owns is given back now. No other thread may use the
  // member meanwhile: one that is inside an operation then is taken for dead.
  void leave() noexcept;
  // This object was inherited through a fork.
  bool forked_child() const noexcept { return forked_child_; }
  // In a forked child without membership: join as a new member. Throws NotAMember when the parent
  // died before the child became one, since what the child inherited may be used anew by then.
  void rejoin();
  // Behaves as if this process had been killed here; the object is unusable after.
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
  struct Cache {                  // one size class: all of it can be rebuilt by scanning `spans`
    std::vector<FreeBlock> free;  // blocks known to be free in `spans`, last in first out
    std::vector<uint64_t> spans;  // first pages of the spans in which this member allocates
    size_t cursor = 0;            // where the next scan for remotely freed blocks begins
    size_t trim_at = 0;           // so many free blocks: look for spans to give back
  };
  struct Held {           // a counted block that this process holds
    uint32_t references;  // in this process; 0: dropped, once its shared view can be restored
    bool is_private;      // this process sees a view of its own: see arena/views.cpp
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
  void join_slot(MemberKind kind, Incarnation bond);
  void join_low_slot(MemberKind kind, Incarnation bond);
  void require_membership() const;
  Handle allocate_small(uint32_t size_class);
  void refill(uint32_t size_class, std::unique_lock<LocalLock>& local);
  size_t scan_spans(uint32_t size_class, size_t limit) noexcept;
  void collect_span(Cache& cache, uint64_t first_page) noexcept;
  void add_span(uint32_t size_class, uint64_t first_page);
  bool adopt_orphan(uint32_t size_class);
  void trim(uint32_t size_class, size_t keep) noexcept;
  size_t trim_some(uint32_t size_class, size_t keep) noexcept;
  bool span_is_free(uint64_t first_page) const noexcept;
  bool free_small(Handle b, Arena::Located at, uint64_t expected) noexcept;
  bool free_run(Arena::Located at, uint64_t expected) noexcept;
  bool free_owned(Handle b, uint64_t expected) noexcept;
  void purge_if_due() noexcept;
  uint64_t sweep_orphans();
  void release_last(Handle b, uint64_t word) noexcept;
  bool let_go(HeldEntry entry, uint64_t* last) noexcept;
  void drop_again() noexcept;
  std::vector<View> shared_views();
  bool make_private(const View* views, size_t count, uint64_t bytes) noexcept;
  bool make_views_private() noexcept;
  void copy_shared_views() noexcept;
  void forget_copies() noexcept;
  void leave_shared_views() noexcept;
  void hide(Handle b, Held& held) noexcept;
  bool see_shared(Handle b, Held& held) noexcept;
  void restore_views() noexcept;
  void share_with_child(Incarnation child) noexcept;
  void drop_counted_shares() noexcept;
  bool has_bit() const noexcept { return slot() < kSharerSlots; }  // in shared blocks
  void forget() noexcept;

  std::shared_ptr<Arena> arena_;
  Incarnation incarnation_ = 0;
  MemberKind kind_ = MemberKind::process;
  bool forked_child_ = false;
  bool lost_ = false;  // inherited shared blocks that it may not use: see rejoin()
  int64_t decay_ns_ = 0;
  os::Atomic<uint32_t> lanes_taken_;  // bit per lane
  uint64_t sharing_number_ = 0;       // makes each counted owner word unique

  mutable LocalLock local_;  // guards what follows; never held across a wait
  std::array<Cache, kClasses> caches_;
  std::unordered_map<Handle, Held> held_;        // counted blocks
  size_t undropped_ = 0;                         // of these: without references
  std::unordered_map<Handle, uint32_t> shared_;  // shared blocks -> references in this process
  size_t most_held_ = 0;                         // counted blocks that this process may hold
  Unseen unseen_;
  std::mutex reaping_;             // one reap at a time per member; taken before local_
  std::vector<Copy> fork_copies_;  // during a fork: what the child gets a copy of
  Incarnation fork_child_ = 0;     // slot prepared for the child of the fork under way
  int birth_lock_ = -1;            // during a fork: descriptor of the lock that says it may live
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

// Is this incarnation still a member whose process lives? Reads /proc unless the slot says no
// (about 15 us).
bool member_alive(Arena& arena, Incarnation incarnation) noexcept;
// The same without looking at the process: does the slot still belong to this incarnation, not
// known as dead?
bool member_listed(Arena& arena, Incarnation incarnation) noexcept;
// The process of a member; 0: no such member.
int member_pid(Arena& arena, Incarnation incarnation) noexcept;

// Gives back all that `dead` held. Idempotent; several may try at once: one does it, the others
// return false ("being done by a live member" or "is not dead"). True: nothing of `dead` is left.
bool reap(Arena& arena, Member& reaper, Incarnation dead);
// Reaps every member that is found dead; returns how many.
int reap_all_dead(Arena& arena, Member& reaper);

// Upper layers repair their intents: called for each lane of the dead member whose intent has this
// kind (low 4 bits, 1 to 15), and with kind 0 for every lane that holds anything (held locks,
// wake). May be called again for the same lane when a reaper died. The lane belongs to the caller
// while the hook runs. To free a block, a hook makes its owner MEMBER(dead): the scan that follows
// frees it and its children.
using ReapHook = void (*)(Arena& arena, Member& reaper, Incarnation dead, Lane& lane);
void register_reap_hook(uint64_t intent_kind, ReapHook hook) noexcept;

// Called for each block of the dead before it is freed, which includes shared blocks that it held
// last: the hook looks whether the block holds a state of its kind, by a magic_at().
using EndHook = void (*)(Arena& arena, Member& reaper, Handle block);
void register_end_hook(EndHook hook) noexcept;
// A magic number that depends on where it lies, so that a program's own data, copied there or left
// from an earlier use, is not taken for a state.
constexpr uint32_t magic_at(uint32_t magic, Handle handle) noexcept {
  return magic ^ static_cast<uint32_t>(handle >> 6);
}
// Ends and frees a block that is MEMBER(me): runs the end hooks for it, and then for the blocks
// that they end in turn (one after the other, so that chains of any length are safe).
void end_block(Member& member, Handle block) noexcept;

}  // namespace shoal::arena
