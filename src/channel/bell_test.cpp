// SPDX-License-Identifier: Apache-2.0
//
// Descriptors of channels: readable exactly while there is a message (or room), whichever process
// sends, receives, forks, is stopped, can open no more files, or is killed at a bell's kill point.
#include "channel/bell.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "channel/channel.hpp"
#include "os/process.hpp"
#include "sync/child_member_for_test.hpp"
#include "testing/deadline.hpp"
#include "testing/kill_point.hpp"
#include "testing/stop_at.hpp"

namespace shoal::channel {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using sync::ChildMember;
using testing::Ending;
using testing::in_ms;

bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1;
}

class BellTest : public ::testing::Test {
 protected:
  static std::unique_ptr<Channel> open(Member& member) { return Channel::open(member, "b"); }

  static void send(Channel& channel, Member& member) {
    const Handle made = make_message(member, {}, {});
    EXPECT_EQ(channel.try_send(member, made), Sent::ok);
  }

  static bool take(Channel& channel, Member& member) {
    Handle got = 0;
    if (channel.try_receive(member, &got) != Received::ok) return false;
    free_message(member, got);
    return true;
  }

  // What a separate process does with a channel object of its own.
  template <class Work>
  Ending in_child(const Work& work) {
    ChildMember child(arena_, [&](Member& member) {
      const auto channel = open(member);
      work(*channel, member);
    });
    return child.wait();
  }

  BellBoard& board() { return arena_->at<ChannelState>(channel_->handle())->items_board; }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  std::unique_ptr<Channel> channel_ = open(*me_);
};

TEST_F(BellTest, IsReadableExactlyWhileThereAreMessages) {
  const auto other = Member::join(arena_, MemberKind::process);
  const auto others = open(*other);
  send(*others, *other);
  const int fd = channel_->descriptor(*me_);
  EXPECT_TRUE(readable(fd));
  EXPECT_TRUE(take(*channel_, *me_));
  EXPECT_FALSE(readable(fd));
  send(*others, *other);
  send(*others, *other);
  for (const bool more : {true, false}) {
    EXPECT_TRUE(readable(fd));
    EXPECT_TRUE(take(*channel_, *me_));
    EXPECT_EQ(readable(fd), more);
  }
  EXPECT_FALSE(take(*channel_, *me_));
  EXPECT_FALSE(readable(fd));
  channel_->close(*other);
  EXPECT_TRUE(readable(fd));
}

TEST_F(BellTest, WhatAnotherProcessTakesIsNotThereAnyMore) {
  const int fd = channel_->descriptor(*me_);
  send(*channel_, *me_);
  EXPECT_TRUE(readable(fd));
  EXPECT_EQ(in_child([](Channel& channel, Member& member) { take(channel, member); }),
            Ending::finished);
  EXPECT_FALSE(readable(fd));
}

TEST_F(BellTest, AForkHasTheSameDescriptor) {
  const int fd = channel_->descriptor(*me_);
  ChildMember child(arena_, [&](Member& member) {
    if (channel_->descriptor(member) != fd) _exit(3);
    send(*channel_, member);
    if (!readable(fd) || !take(*channel_, member) || readable(fd)) _exit(4);
    send(*channel_, member);
  });
  EXPECT_EQ(child.wait(), Ending::finished);
  EXPECT_TRUE(readable(fd));
}

TEST_F(BellTest, SeveralProcessesSeeTheSame) {
  const int fd = channel_->descriptor(*me_);
  EXPECT_EQ(in_child([&](Channel& channel, Member& member) {
              const int mine = channel.descriptor(member);
              if (mine == fd || readable(mine)) _exit(3);
              send(channel, member);
              if (!readable(mine) || !readable(fd)) _exit(4);
              if (!take(channel, member) || readable(mine) || readable(fd)) _exit(5);
            }),
            Ending::finished);
}

// The first process that asked for the descriptor has ended; its fork's child has the pipe still.
TEST_F(BellTest, OutlivesWhoMadeIt) {
  ChildMember first(arena_, [&](Member& member) {
    static_cast<void>(channel_->descriptor(member));
    raise(SIGKILL);
  });
  EXPECT_EQ(first.wait(), Ending::killed);
  const int fd = channel_->descriptor(*me_);
  EXPECT_EQ(in_child([](Channel& channel, Member& member) { send(channel, member); }),
            Ending::finished);
  EXPECT_TRUE(readable(fd));
}

TEST_F(BellTest, RingsForNobodyOnceAllListenersAreGone) {
  EXPECT_EQ(in_child([](Channel& channel, Member& member) {
              static_cast<void>(channel.descriptor(member));
              raise(SIGKILL);
            }),
            Ending::killed);
  EXPECT_NE(board().pipe.load(), 0U);
  send(*channel_, *me_);
  EXPECT_EQ(board().pipe.load(), 0U);
}

TEST_F(BellTest, ANumberThatUserCodeReusedIsLeftAlone) {
  const int fd = channel_->descriptor(*me_);
  int others[2];
  ASSERT_EQ(pipe(others), 0);
  ASSERT_EQ(dup2(others[1], fd), fd);  // closerange(), then open()
  send(*channel_, *me_);
  EXPECT_FALSE(readable(others[0]));
  const int again = channel_->descriptor(*me_);
  EXPECT_NE(again, fd);
  EXPECT_TRUE(readable(again));
  for (const int one : {others[0], others[1], fd}) ::close(one);
}

TEST_F(BellTest, ASenderThatMayOpenNothingMoreRingsAllTheSame) {
  const int fd = channel_->descriptor(*me_);
  EXPECT_EQ(in_child([](Channel& channel, Member& member) {
              const rlimit none{3, 3};  // all of these are in use
              if (setrlimit(RLIMIT_NOFILE, &none) != 0) _exit(3);
              send(channel, member);
            }),
            Ending::finished);
  EXPECT_TRUE(readable(fd));
  EXPECT_EQ(in_child([](Channel& channel, Member& member) {
              const rlimit none{3, 3};  // all of these are in use
              if (setrlimit(RLIMIT_NOFILE, &none) != 0) _exit(3);
              take(channel, member);
            }),
            Ending::finished);
  EXPECT_FALSE(readable(fd));
}

// A process that cannot get any descriptor: it can neither ring nor silence the bell.
TEST_F(BellTest, WhatAProcessCouldNotRingTheNextOneRings) {
  const int fd = channel_->descriptor(*me_);
  const auto without_descriptors = [&](auto work) {
    EXPECT_EQ(in_child([&](Channel& channel, Member& member) {
                const rlimit none{0, 0};
                if (setrlimit(RLIMIT_NOFILE, &none) != 0) _exit(3);
                work(channel, member);
              }),
              Ending::finished);
  };
  for (const bool by_a_sender : {true, false}) {
    without_descriptors([](Channel& channel, Member& member) { send(channel, member); });
    EXPECT_FALSE(readable(fd)) << "it could ring, so this tests nothing";
    if (by_a_sender) {
      send(*channel_, *me_);
      EXPECT_TRUE(take(*channel_, *me_));
    } else {
      channel_->look_after(*me_);
    }
    EXPECT_TRUE(readable(fd));
    without_descriptors([](Channel& channel, Member& member) { take(channel, member); });
    EXPECT_TRUE(readable(fd)) << "it could silence the bell, so this tests nothing";
    channel_->look_after(*me_);
    EXPECT_FALSE(readable(fd));
  }
  without_descriptors([](Channel& channel, Member& member) { send(channel, member); });
  EXPECT_EQ(channel_->descriptor(*me_), fd);
  EXPECT_TRUE(readable(fd)) << "descriptor() checks the bell";
}

TEST_F(BellTest, WhoWaitsByTheDescriptorReapsASenderThatDiedBeforeItRang) {
  const int fd = channel_->descriptor(*me_);
  EXPECT_EQ(in_child([](Channel& channel, Member& member) {
              testing::arm_kill_point("ring.push.tail", 1);
              send(channel, member);
            }),
            Ending::killed);
  EXPECT_FALSE(readable(fd));
  arena_->header().next_sweep_ns.store(0);  // a second has passed
  channel_->look_after(*me_);
  EXPECT_TRUE(readable(fd));
  EXPECT_EQ(arena_->statistics().deaths, 1U);
}

TEST_F(BellTest, AReaperDoesNotWaitForTheLock) {
  const int fd = channel_->descriptor(*me_);
  sync::Mutex lock(*arena_, board().lock);
  const auto holder = Member::join(arena_, MemberKind::process);
  ASSERT_TRUE(sync::is_locked(lock.lock(*holder)));
  EXPECT_EQ(in_child([](Channel& channel, Member& member) {
              testing::arm_kill_point("ring.push.tail", 1);
              send(channel, member);
            }),
            Ending::killed);
  uint64_t looks = 0;
  const auto count = [&](const void* address) {
    looks += address == &board().lock.word ? 1 : 0;
    return false;
  };
  (void)testing::stopped_at(1, count, [&] { arena::reap_all_dead(*arena_, *me_); }, {[] {}});
  EXPECT_LT(looks, 20U);
  EXPECT_TRUE(readable(fd));
  EXPECT_EQ(board().again.load(), 1U) << "the lock's holder will settle";
  EXPECT_EQ(lock.unlock(*holder), sync::Unlocked::ok);
  EXPECT_TRUE(take(*channel_, *me_));
  EXPECT_FALSE(readable(fd));
}

// The holder of the lock is stopped, also after it has written its byte. In the meantime a
// receiver, which has no lock, takes the byte out. When the holder goes on, it must not say that
// there is one.
TEST_F(BellTest, AHolderDoesNotVouchForAByteThatAnotherHasTakenOut) {
  const int fd = channel_->descriptor(*me_);
  const auto other = Member::join(arena_, MemberKind::process);
  const auto others = open(*other);
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    const bool stopped =
        testing::stopped_at(nth, testing::accesses_to(&board().state, 2 * sizeof board().state),
                            [&] { send(*channel_, *me_); },
                            {[&] { take(*others, *other); },
                             [&] {
                               send(*others, *other);
                               EXPECT_TRUE(readable(fd));
                             }});
    while (take(*channel_, *me_)) {
    }
    EXPECT_FALSE(readable(fd));
    if (!stopped) break;
  }
}

// The holder of the lock has died before it wrote its byte.
TEST_F(BellTest, WhoCannotOpenThePipeDoesNotVouchForAByte) {
  const int fd = channel_->descriptor(*me_);
  EXPECT_EQ(in_child([&](Channel& channel, Member& member) {
              const rlimit none{0, 0};
              if (setrlimit(RLIMIT_NOFILE, &none) != 0) _exit(3);
              board().state.store(2);  // CHANGING
              send(channel, member);
            }),
            Ending::finished);
  EXPECT_FALSE(readable(fd)) << "it could ring, so this tests nothing";
  send(*channel_, *me_);
  EXPECT_TRUE(readable(fd));
}

TEST_F(BellTest, AStoppedHolderIsWaitedForOnce) {
  const int fd = channel_->descriptor(*me_);
  const auto holder = Member::join(arena_, MemberKind::process);
  sync::Mutex lock(*arena_, board().lock);
  ASSERT_TRUE(sync::is_locked(lock.lock(*holder)));
  uint64_t looks = 0;
  const auto count = [&](const void* address) {
    looks += address == &board().lock.word ? 1 : 0;
    return false;
  };
  const auto looks_in = [&](const std::function<void()>& work) {
    looks = 0;
    (void)testing::stopped_at(1, count, work, {[] {}});
    return looks;
  };
  const auto send_and_take = [&] {
    send(*channel_, *me_);
    EXPECT_TRUE(readable(fd));
    EXPECT_TRUE(take(*channel_, *me_));
    EXPECT_FALSE(readable(fd));
  };
  send_and_take();
  EXPECT_LT(looks_in(send_and_take), 20U) << "it waited for the lock again";
  EXPECT_EQ(channel_->descriptor(*me_), fd);
  EXPECT_EQ(lock.unlock(*holder), sync::Unlocked::ok);
  send_and_take();
  ASSERT_TRUE(sync::is_locked(lock.lock(*holder)));
  EXPECT_GT(looks_in(send_and_take), 20U) << "as patient as ever with the next one";
  EXPECT_EQ(lock.unlock(*holder), sync::Unlocked::ok);
}

// A sender that has stopped waiting for the lock is stopped. In the meantime another member
// receives the message and releases the lock. Then the sender writes its byte.
TEST_F(BellTest, AByteThatComesLateIsTakenOut) {
  const int fd = channel_->descriptor(*me_);
  const auto other = Member::join(arena_, MemberKind::process);
  const auto others = open(*other);
  sync::Mutex lock(*arena_, board().lock);
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    ASSERT_TRUE(sync::is_locked(lock.lock(*other)));
    const bool stopped =
        testing::stopped_at(nth, testing::accesses_to(&board().pipe, sizeof board().pipe),
                            [&] { send(*channel_, *me_); }, {[&] {
                              EXPECT_TRUE(take(*others, *other));
                              EXPECT_EQ(lock.unlock(*other), sync::Unlocked::ok);
                            }});
    EXPECT_EQ(readable(fd), channel_->length() != 0);
    if (!stopped) break;
    while (take(*channel_, *me_)) {
    }
    EXPECT_FALSE(readable(fd));
  }
  EXPECT_EQ(lock.unlock(*other), sync::Unlocked::ok);
}

TEST_F(BellTest, EdgesComeWheneverItBecomesReadable) {
  const int fd = channel_->descriptor(*me_);
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event), 0);
  const auto edges = [&] { return epoll_wait(poller, &event, 1, 0); };
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(edges(), 0);
    send(*channel_, *me_);
    send(*channel_, *me_);
    EXPECT_EQ(edges(), 1);
    EXPECT_EQ(edges(), 0);
    while (take(*channel_, *me_)) {
    }
  }
  ::close(poller);
}

// One reader that trusts the descriptor: it never finds the channel empty, and misses no message.
TEST_F(BellTest, OneReaderNeverWaitsWhenItIsReadable) {
  const int fd = channel_->descriptor(*me_);
  constexpr int kEach = 4'000;
  std::thread senders[3];
  for (std::thread& sender : senders) {
    sender = std::thread([&] {
      const auto member = Member::join(arena_, MemberKind::process);
      const auto channel = open(*member);
      for (int i = 0; i < kEach; ++i) {
        // The channel may be full: on a busy machine the reader is slow.
        const Handle made = make_message(*member, {}, {});
        EXPECT_EQ(channel->send(*member, made, in_ms(30'000)), Sent::ok);
        if (i % 3 == 0) std::this_thread::yield();
      }
    });
  }
  for (int got = 0; got < 3 * kEach;) {
    pollfd entry{fd, POLLIN, 0};
    ASSERT_EQ(poll(&entry, 1, 30'000), 1) << "missed message " << got;
    ASSERT_TRUE(take(*channel_, *me_)) << "readable for nothing after " << got;
    ++got;
    // Receive all there is, as an event loop may do: no byte of a later sender may stay behind.
    while (got % 2 == 0 && take(*channel_, *me_)) ++got;
  }
  EXPECT_FALSE(readable(fd));
  for (std::thread& sender : senders) sender.join();
}

TEST_F(BellTest, AStoppedSenderKeepsNobodyWaiting) {
  const int fd = channel_->descriptor(*me_);
  sync::Mutex lock(*arena_, board().lock);
  ChildMember stopped(arena_, [&](Member& member) {
    if (!sync::is_locked(lock.lock(member))) _exit(3);
    raise(SIGSTOP);
    static_cast<void>(lock.unlock(member));
  });
  while (lock.owner() == 0) usleep(1'000);
  send(*channel_, *me_);
  EXPECT_TRUE(readable(fd));
  EXPECT_TRUE(take(*channel_, *me_));
  EXPECT_FALSE(readable(fd));
  EXPECT_EQ(in_child([](Channel& channel, Member& member) {
              testing::arm_kill_point("bell.change.alone", 1);
              send(channel, member);
            }),
            Ending::killed);
  send(*channel_, *me_);
  EXPECT_TRUE(readable(fd));
  while (take(*channel_, *me_)) {
  }
  EXPECT_FALSE(readable(fd));
  stopped.resume();
  EXPECT_EQ(stopped.wait(), Ending::finished);
  send(*channel_, *me_);
  EXPECT_TRUE(readable(fd));
}

TEST_F(BellTest, WhoeverIsKilledInItLeavesTheTruth) {
  for (const char* point :
       {"bell.make.pipe", "bell.keep.word", "bell.forget.keeper", "bell.end.pipe",
        "bell.change.begin", "bell.change.end", "ring.push.slot"}) {
    SCOPED_TRACE(point);
    const bool without_me = std::string(point) == "bell.make.pipe" ||
                            std::string(point) == "bell.end.pipe" ||
                            std::string(point) == "bell.forget.keeper";
    channel_ = nullptr;  // which closes this process's descriptor
    EXPECT_EQ(in_child([](Channel& channel, Member& member) {
                static_cast<void>(channel.descriptor(member));
                raise(SIGKILL);  // leaves the word of a keeper that is gone
              }),
              Ending::killed);
    channel_ = open(*me_);
    int fd = without_me ? -1 : channel_->descriptor(*me_);
    for (const int nth : {1, 2}) {
      if (nth == 2 && !std::string(point).starts_with("bell.change")) continue;
      EXPECT_EQ(in_child([&](Channel& channel, Member& member) {
                  testing::arm_kill_point(point, nth);
                  send(channel, member);
                  static_cast<void>(channel.descriptor(member));
                  take(channel, member);
                }),
                Ending::killed)
          << nth;
      arena::reap_all_dead(*arena_, *me_);
      if (fd < 0) fd = channel_->descriptor(*me_);
      EXPECT_EQ(readable(fd), channel_->length() != 0) << nth;
      while (take(*channel_, *me_)) {
      }
      EXPECT_FALSE(readable(fd));
      send(*channel_, *me_);
      EXPECT_TRUE(readable(fd));
      EXPECT_TRUE(take(*channel_, *me_));
    }
  }
}

}  // namespace
}  // namespace shoal::channel
