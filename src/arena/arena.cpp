// SPDX-License-Identifier: Apache-2.0
#include "arena/arena.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "os/error.hpp"
#include "os/memory.hpp"
#include "os/process.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

constexpr uint64_t kMinReserve = uint64_t{16} << 20;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
// GCC 12's ThreadSanitizer has room for one 1 TiB mapping only
constexpr uint64_t kMaxReserve = uint64_t{16} << 30;
#else
constexpr uint64_t kMaxReserve = uint64_t{1} << 40;
#endif
// share of the cgroup limit or RAM: the arena's pages survive OOM kills of the processes that use
// them
constexpr double kShareOfMachine = 0.8;

constexpr uint64_t align_up(uint64_t value, uint64_t to) noexcept {
  return (value + to - 1) / to * to;
}

// A number of bytes with an optional suffix K, M, G or T; 0: not set.
uint64_t bytes_from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return 0;
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || value <= 0) return 0;
  static constexpr char kUnits[] = "KMGT";
  const char* unit = *end == '\0' ? nullptr : std::strchr(kUnits, std::toupper(*end));
  const auto shift = unit == nullptr ? 0 : 10 * (unit - kUnits + 1);
  return static_cast<uint64_t>(value * static_cast<double>(uint64_t{1} << shift));
}

// The reserve: `wanted`, else SHOAL_RESERVE, else the most that is sensible here; halved until it
// can be mapped.
uint64_t choose_reserve(uint64_t wanted) {
  if (wanted == 0) wanted = bytes_from_environment("SHOAL_RESERVE");
  // Under ulimit -v the program needs most of the address space itself.
  const uint64_t left = os::address_space_left();
  const uint64_t share = left == UINT64_MAX ? kMaxReserve : left / 3;
  const uint64_t most = wanted != 0 ? wanted : std::min(kMaxReserve, share);
  uint64_t reserve = std::clamp(most, kMinReserve, uint64_t{1} << 40) / kPage * kPage;
  while (reserve > kMinReserve && !os::can_reserve(reserve)) reserve /= 2;
  return std::max(reserve / kPage * kPage, kMinReserve);
}

// A memory file of `*reserve` bytes. If the system does not allow that size (kernel.shmmax), halves
// `*reserve` until it does.
int create_file(uint64_t* reserve) {
  for (;;) {
    try {
      return os::create_memory_file("shoal", *reserve);
    } catch (const os::OsError& error) {
      const bool too_large =
          error.error == EINVAL || error.error == ENOSPC || error.error == ENOMEM;
      if (!too_large || *reserve <= kMinReserve) throw;
      *reserve = std::max(*reserve / 2 / kPage * kPage, kMinReserve);
    }
  }
}

// Fills in the offsets of the tables in a file of this size.
void lay_out(Header& h, uint64_t reserve) noexcept {
  const uint64_t pages = reserve / kPage;
  h.reserve = reserve;
  h.used_offset = align_up(kSlotsOffset + sizeof(MemberSlot) * kMemberSlots, kPage);
  h.warm_offset = align_up(h.used_offset + pages / 8 + 8, kPage);
  h.orphan_offset = align_up(h.warm_offset + pages / 8 + 8, kPage);
  h.child_offset = align_up(h.orphan_offset + pages / 8 + 8, kPage);
  h.kept_offset = align_up(h.child_offset + pages / 8 + 8, kPage);
  h.descriptors_offset = align_up(h.kept_offset + pages / 8 + 8, kPage);
  h.marks_offset = align_up(h.descriptors_offset + pages * sizeof(PageDescriptor), kPage);
  h.data_offset = align_up(h.marks_offset + MarksLayout(pages).bytes(), kPage * kHugeAlign);
  h.pages = (reserve - h.data_offset) / kPage;
}

void check_header(const Header& h, uint64_t file_size) {
  const auto wrong = [](const char* what) {
    throw CorruptArena(std::string("this file is no arena of this version of shoal: wrong ") +
                       what);
  };
  if (h.ready.load() != kMagic || h.magic != kMagic) wrong("magic number");
  if (h.version != kVersion) wrong("version");
  if (h.header_size != sizeof(Header) || h.layout_hash != layout_hash()) wrong("layout hash");
  Header expected{};
  lay_out(expected, h.reserve);
  if (h.reserve != file_size || h.pages != expected.pages ||
      h.data_offset != expected.data_offset || h.used_offset != expected.used_offset ||
      h.warm_offset != expected.warm_offset || h.orphan_offset != expected.orphan_offset ||
      h.child_offset != expected.child_offset || h.kept_offset != expected.kept_offset ||
      h.descriptors_offset != expected.descriptors_offset ||
      h.marks_offset != expected.marks_offset)
    wrong("table offsets");
}

}  // namespace

void Arena::map(uint64_t reserve) {
  os::FileIdentity identity;
  if (!os::identify(fd_, &identity)) throw os::OsError("fstat", errno, "the arena's memory file");
  fd_device_ = identity.device;
  fd_inode_ = identity.inode;
  is_segment_ = identity.is_segment;
  base_ = os::map_file(fd_, 0, reserve, true);
  if (base_ == nullptr)
    throw os::OsError(
        "mmap", errno,
        "the session's address space of " + std::to_string(reserve >> 20) +
            " MiB cannot be mapped here (ulimit -v? set SHOAL_RESERVE for the session)");
  reserve_ = reserve;
  memory_path_ = os::find_cgroup("memory");
}

void Arena::adopt_tables() noexcept {
  const Header& h = header();
  data_offset_ = h.data_offset;
  pages_ = h.pages;
  descriptors_ = at<PageDescriptor>(h.descriptors_offset);
  used_ = at<os::Atomic<uint64_t>>(h.used_offset);
  warm_ = at<os::Atomic<uint64_t>>(h.warm_offset);
  orphans_ = at<os::Atomic<uint64_t>>(h.orphan_offset);
  children_ = at<os::Atomic<uint64_t>>(h.child_offset);
  kept_ = at<os::Atomic<uint64_t>>(h.kept_offset);
  marks_ = at<os::Atomic<uint64_t>>(h.marks_offset);
  marks_layout_ = MarksLayout(reserve_ / kPage);
}

std::shared_ptr<Arena> Arena::create(const ArenaOptions& options) {
  uint64_t reserve = choose_reserve(options.reserve);
  std::shared_ptr<Arena> arena(new Arena);
  arena->fd_ = create_file(&reserve);
  arena->map(reserve);
  // with slot 0, which no member has, and where a process that is no member looks for its marks
  if (!arena->commit(0, kSlotsOffset + sizeof(MemberSlot)))
    throw os::OsError("fallocate", errno, "the arena's header");
  Header& h = arena->header();
  h.magic = kMagic;
  h.version = kVersion;
  h.header_size = sizeof(Header);
  h.layout_hash = layout_hash();
  lay_out(h, reserve);
  h.pid_namespace = os::pid_namespace();
  h.limit = options.limit != 0 ? options.limit : bytes_from_environment("SHOAL_MEMORY_LIMIT");
  if (h.limit == 0) {
    const os::MemoryLimit machine = os::memory_limit(arena->memory_path_);
    if (machine.limit != os::kUnlimited)
      h.limit = static_cast<uint64_t>(static_cast<double>(machine.limit) * kShareOfMachine);
  }
  h.slots_used.store(1);  // slot 0 is not first: no member has the number 0
  arena->adopt_tables();
  h.ready.store(kMagic);
  return arena;
}

std::shared_ptr<Arena> Arena::attach(int fd) {
  std::shared_ptr<Arena> arena(new Arena);
  arena->fd_ = os::duplicate_fd(fd);
  os::FileIdentity identity;
  if (!os::identify(arena->fd_, &identity)) throw os::OsError("fstat", errno, "arena to attach to");
  if (identity.size < kMinReserve) throw CorruptArena("this file is no arena: it is too small");
  std::byte* probe = os::map_file(arena->fd_, 0, kSlotsOffset, true);
  if (probe == nullptr) throw os::OsError("mmap", errno, "the arena's header");
  try {
    check_header(*reinterpret_cast<Header*>(probe), identity.size);
  } catch (...) {
    os::unmap(probe, kSlotsOffset);
    throw;
  }
  os::unmap(probe, kSlotsOffset);
  arena->map(identity.size);
  arena->adopt_tables();
  return arena;
}

Arena::~Arena() {
  if (fd() >= 0)
    os::close_fd(fd_);  // but keeps the mapping: views of Python objects may outlive the session
}

void Arena::unmap_for_test() {
  os::unmap(base_, reserve_);
  base_ = nullptr;
}

int Arena::fd() const noexcept {
  os::FileIdentity now;
  const os::FileIdentity mine{fd_device_, fd_inode_, 0};
  return os::identify(fd_, &now) && now == mine ? fd_ : -1;
}

bool Arena::is_of_this_namespace() const noexcept {
  const uint64_t mine = os::pid_namespace();
  const uint64_t sessions = header().pid_namespace;
  return mine == sessions || mine == 0 || sessions == 0;
}

bool Arena::commit(uint64_t offset, uint64_t bytes) const noexcept {
  const int file = fd();
  return file >= 0 && !is_segment_ ? os::reserve_file_range(file, offset, bytes)
                                   : os::populate(base_ + offset, bytes);
}

void Arena::decommit(uint64_t offset, uint64_t bytes) const noexcept {
  os::punch(base_ + offset, bytes);
}

// Refuses a segment: a private view of a segment is a copy, and what other threads write between
// the copying and the mapping of the copy would be lost.
bool Arena::map_private(uint64_t offset, uint64_t bytes) const noexcept {
  const int file = fd();
  return file >= 0 && !is_segment_ &&
         os::map_file(file, offset, bytes, false, base_ + offset) != nullptr;
}

bool Arena::map_shared(uint64_t offset, uint64_t bytes) const noexcept {
  const int file = fd();
  return file >= 0 && os::map_file(file, offset, bytes, true, base_ + offset) != nullptr;
}

os::Atomic<uint64_t>& Arena::dummy_owner() noexcept {
  static os::Atomic<uint64_t> dummy;
  dummy.store(15, os::relaxed);  // order: relaxed; the word only says "no such block"
  return dummy;
}

bool Arena::contains(Handle h, size_t bytes) const noexcept {
  const uint64_t end = page_handle(frontier());
  return h >= data_offset_ && h <= end && bytes <= end - h;
}

Handle Arena::handle_of(const void* p) const noexcept {
  const auto offset = static_cast<uint64_t>(static_cast<const std::byte*>(p) - base_);
  return offset >= data_offset_ && offset < page_handle(frontier()) ? offset : 0;
}

Handle Arena::block_of(const void* p) const noexcept {
  const Handle h = handle_of(p);
  if (h == 0) return 0;
  const Located at = locate(h);
  const Handle start = page_handle(at.first);
  if (shape_kind(at.shape) == PageKind::run) return start;
  if (shape_kind(at.shape) != PageKind::span || shape_class(at.shape) >= kClasses) return 0;
  const SizeClass& c = class_in(at.shape);
  const uint32_t index = block_index(c, h - start);
  return index < c.count ? start + c.first + uint64_t{index} * c.size : 0;
}

size_t Arena::block_size(Handle b) const noexcept {
  if (block_of(base_ + b) != b || b == 0) return 0;
  const Located at = locate(b);
  if (shape_kind(at.shape) == PageKind::run)
    return std::min(shape_pages(at.shape), frontier() - at.first) << kPageShift;
  return class_in(at.shape).size;
}

bool Arena::is_run(Handle b) const noexcept {
  const Located at = locate(b);
  return shape_kind(at.shape) == PageKind::run && page_handle(at.first) == b;
}

}  // namespace shoal::arena
