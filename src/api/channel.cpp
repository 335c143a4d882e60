// SPDX-License-Identifier: Apache-2.0
#include "shoal/channel.hpp"

#include "api/membership.hpp"
#include "api/plain.hpp"
#include "channel/channel.hpp"
#include "os/clock.hpp"

namespace shoal {

struct Channel::Implementation {
  std::shared_ptr<detail::Membership> membership;
  std::unique_ptr<channel::Channel> channel;
};

namespace {

std::int64_t deadline_from(const Channel::Timeout& timeout) noexcept {
  if (!timeout.has_value()) return sync::kForever;
  return timeout->count() <= 0 ? 0 : os::monotonic_ns() + timeout->count();
}

// Owns a message: frees it in the end, unless `handle` was set to 0.
struct OwnMessage {
  arena::Member& member;
  arena::Handle handle;
  ~OwnMessage() {
    if (handle != 0) channel::free_message(member, handle);
  }
};

}  // namespace

Channel::Channel(const Session& session, const std::string& name, const ChannelLimits& limits)
    : implementation_(std::make_unique<Implementation>()) {
  detail::translated([&] {
    implementation_->membership = session.membership();
    implementation_->channel =
        channel::Channel::open(*session.membership()->member, name, channel::Channel::Open::either,
                               {limits.items, limits.bytes});
  });
}

Channel::Channel(Channel&&) noexcept = default;
Channel& Channel::operator=(Channel&&) noexcept = default;
Channel::~Channel() = default;

SendResult Channel::send(const Value& value, Timeout timeout) {
  return detail::translated([&] {
    arena::Member& member = *implementation_->membership->member;
    codec::MessageBuilder builder(&member);
    detail::encode(value, builder);
    OwnMessage message{
        member, channel::make_message(member, std::span(builder.bytes.data(), builder.bytes.size()),
                                      builder.attachments)};
    builder.forget();
    switch (implementation_->channel->send(member, message.handle, deadline_from(timeout))) {
      case channel::Sent::ok:
        message.handle = 0;
        return SendResult::ok;
      case channel::Sent::full:
        return SendResult::full;
      case channel::Sent::closed:
        return SendResult::closed;
      case channel::Sent::interrupted:
        break;
    }
    return SendResult::interrupted;
  });
}

ReceiveResult Channel::receive(Value* value, Timeout timeout) {
  return detail::translated([&] {
    arena::Member& member = *implementation_->membership->member;
    OwnMessage message{member, 0};
    switch (implementation_->channel->receive(member, &message.handle, deadline_from(timeout))) {
      case channel::Received::ok:
        break;
      case channel::Received::empty:
        return ReceiveResult::empty;
      case channel::Received::closed:
        return ReceiveResult::closed;
      case channel::Received::interrupted:
        return ReceiveResult::interrupted;
    }
    const channel::Message opened = channel::open_message(member.arena(), message.handle);
    codec::MessageView view;
    view.arena = &member.arena();
    view.member = &member;
    view.bytes = opened.bytes;
    view.size = opened.size;
    view.attachments = opened.attachments;
    view.n_attachments = opened.attachment_count;
    view.parent = message.handle;
    *value = detail::decode(view, implementation_->membership);
    return ReceiveResult::ok;
  });
}

void Channel::close() { implementation_->channel->close(*implementation_->membership->member); }

bool Channel::is_closed() const noexcept { return implementation_->channel->is_closed(); }

std::uint64_t Channel::length() const noexcept { return implementation_->channel->length(); }

int Channel::descriptor() {
  return detail::translated(
      [&] { return implementation_->channel->descriptor(*implementation_->membership->member); });
}

}  // namespace shoal
