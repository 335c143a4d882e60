// SPDX-License-Identifier: Apache-2.0
//
// Session: this program's membership in a shoal session: one shared memory, and all its processes.
//
//     shoal::Session session = shoal::Session::join(pid);      // for example of a Python process
//     shoal::Channel numbers(session, "numbers");
//     numbers.send(shoal::Value::list({1, 2.5, "three"}));
//
// Thread safe. A Session object is a reference: copies are the same membership. It ends with the
// last copy and the last object made with it (channels, blocks, received arrays). If this process
// dies before that, other members give back what it held. In the child of a fork a Session cannot
// be used: the child must join itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "shoal/error.hpp"

namespace shoal {

namespace detail {
struct Membership;  // internal
}

// A piece of the session's memory that belongs to this program; freed with the object. 64-byte
// aligned, contents undefined at first.
class Block {
 public:
  Block() noexcept = default;
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;
  ~Block();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  // The block's name in the session: the same in every process, unlike the address.
  [[nodiscard]] std::uint64_t handle() const noexcept { return handle_; }

 private:
  friend class Session;
  std::shared_ptr<detail::Membership> membership_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::uint64_t handle_ = 0;
};

struct SessionStatistics {
  std::uint64_t committed;  // bytes of memory that the session has
  std::uint64_t in_use;     // of these, in use
  std::uint64_t limit;      // 0: as much as the machine has
  std::uint64_t members;
};

class Session {
 public:
  // A new session with this program as its first member.
  static Session create();
  // Joins the session that a process of the same user is in.
  static Session join(int process_id);
  // Joins the session whose memory file is `descriptor`, which is duplicated. A Python parent
  // passes it to a child that it starts with subprocess and pass_fds.
  static Session join_descriptor(int descriptor);

  // For passing on to child processes; close-on-exec, owned by the session.
  [[nodiscard]] int descriptor() const noexcept;
  // This member's number in the session.
  [[nodiscard]] std::uint64_t member() const noexcept;
  [[nodiscard]] Block allocate(std::size_t size) const;
  [[nodiscard]] SessionStatistics statistics() const;

  [[nodiscard]] const std::shared_ptr<detail::Membership>& membership() const noexcept {
    return membership_;
  }

 private:
  explicit Session(std::shared_ptr<detail::Membership> membership) noexcept;
  std::shared_ptr<detail::Membership> membership_;
};

}  // namespace shoal
