// SPDX-License-Identifier: Apache-2.0
#include "shoal/session.hpp"

#include <string>

#include "api/membership.hpp"
#include "channel/channel.hpp"
#include "collections/container.hpp"
#include "os/memory_search.hpp"

namespace shoal {

namespace {

std::shared_ptr<detail::Membership> join_arena(std::shared_ptr<arena::Arena> arena,
                                               arena::MemberKind kind) {
  channel::register_reap_hooks();
  collections::register_end_hooks();
  auto membership = std::make_shared<detail::Membership>();
  membership->member = arena::Member::join(arena, kind);
  membership->arena = std::move(arena);
  return membership;
}

}  // namespace

Block::Block(Block&& other) noexcept { *this = std::move(other); }

Block& Block::operator=(Block&& other) noexcept {
  std::swap(membership_, other.membership_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(handle_, other.handle_);
  return *this;
}

Block::~Block() {
  if (handle_ != 0) membership_->member->free(handle_);
}

Session::Session(std::shared_ptr<detail::Membership> membership) noexcept
    : membership_(std::move(membership)) {}

Session Session::create() {
  return detail::translated(
      [] { return Session(join_arena(arena::Arena::create(), arena::MemberKind::root)); });
}

Session Session::join_descriptor(int descriptor) {
  return detail::translated([&] {
    return Session(join_arena(arena::Arena::attach(descriptor), arena::MemberKind::guest));
  });
}

Session Session::join(int process_id) {
  return detail::translated([&] {
    const std::vector<int> files = os::open_memory_files_of(process_id, "shoal");
    std::shared_ptr<arena::Arena> arena;
    if (!files.empty()) arena = arena::Arena::attach(files.front());
    for (const int file : files) os::close_descriptor(file);
    if (arena == nullptr) {
      throw Error("process " + std::to_string(process_id) + " has not joined a shoal session");
    }
    return Session(join_arena(std::move(arena), arena::MemberKind::guest));
  });
}

int Session::descriptor() const noexcept { return membership_->arena->fd(); }

std::uint64_t Session::member() const noexcept { return membership_->member->incarnation(); }

Block Session::allocate(std::size_t size) const {
  return detail::translated([&] {
    Block block;
    block.handle_ = membership_->member->allocate(size);
    block.membership_ = membership_;
    block.data_ = membership_->arena->at<std::byte>(block.handle_);
    block.size_ = size;
    return block;
  });
}

SessionStatistics Session::statistics() const {
  const arena::Statistics s = membership_->arena->statistics();
  return {s.committed, s.in_use, s.limit, s.members};
}

}  // namespace shoal
