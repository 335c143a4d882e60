// SPDX-License-Identifier: Apache-2.0
//
// Channel: a queue of values between all members of a session, C++ and Python, found by its name.
// Any number of threads and processes send and receive; each value is received once; values of one
// sender arrive in order. When a process is killed, the others go on, and only the values that it
// was sending or had received are lost. In Python it is shoal._core.Channel.
//
// Thread safe. Waits sleep in the kernel after a short spin; a signal (with a handler installed
// without SA_RESTART) ends a wait with `interrupted`.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "shoal/session.hpp"
#include "shoal/value.hpp"

namespace shoal {

enum class [[nodiscard]] SendResult { ok, full, closed, interrupted };
enum class [[nodiscard]] ReceiveResult { ok, empty, closed, interrupted };

struct ChannelLimits {
  std::uint64_t items = 1024;  // 0: no limit
  std::uint64_t bytes = 0;     // 0: no limit
};

class Channel {
 public:
  using Timeout = std::optional<std::chrono::nanoseconds>;  // nullopt: for ever; 0: do not wait
  static constexpr std::nullopt_t kForever = std::nullopt;

  // Opens the session's channel of this name (1 to 45 bytes), or makes it with these limits.
  Channel(const Session& session, const std::string& name, const ChannelLimits& limits = {});
  Channel(Channel&&) noexcept;
  Channel& operator=(Channel&&) noexcept;
  ~Channel();

  SendResult send(const Value& value, Timeout timeout = kForever);
  // Throws NotPlain for values that C++ cannot hold: that message is lost, the channel still works.
  ReceiveResult receive(Value* value, Timeout timeout = kForever);

  // Nothing more can be sent; what is in the channel can still be received.
  void close();
  [[nodiscard]] bool is_closed() const noexcept;
  [[nodiscard]] std::uint64_t length() const noexcept;
  // Readable (poll, epoll) while there may be messages: then receive with timeout 0 until `empty`.
  [[nodiscard]] int descriptor();

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace shoal
