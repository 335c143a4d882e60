// SPDX-License-Identifier: Apache-2.0
//
// Pipes: frames in order and whole, many readers and writers, strangers' frames, and members that
// are killed at each kill point and after each instruction, alone and a reader with a writer.
#include "channel/pipe.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "channel/message.hpp"
#include "os/error.hpp"
#include "sync/child_member_for_test.hpp"
#include "testing/deadline.hpp"
#include "testing/kill_point.hpp"
#include "testing/single_step.hpp"

namespace shoal::channel {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using sync::ChildMember;
using testing::Ending;
using testing::in_ms;

// A pipe whose two ends are used from one Member or from several.
class PipeTest : public ::testing::TestWithParam<bool> {
 protected:
  PipeTest() {
    signal(SIGPIPE, SIG_IGN);  // as in Python: a pipe has no flag against SIGPIPE
    open();
  }
  ~PipeTest() override { close(); }

  void open() {
    state_ = me_->allocate_shareable(Pipe::state_size(both_ways()));
    Pipe::create_state(*arena_, state_, both_ways());
    me_->share(state_);
    os::stream_open(both_ways(), &fds_[0], &fds_[1]);
    reader_ = std::make_unique<Pipe>(*arena_, state_, 0, fds_[0]);
    writer_ = std::make_unique<Pipe>(*arena_, state_, 1, fds_[1]);
  }

  void close() {
    for (int& fd : fds_) {
      if (fd >= 0) os::stream_close(fd);
      fd = -1;
    }
    if (state_ != 0) Pipe::let_go(*me_, state_);
    state_ = 0;
  }

  [[nodiscard]] static bool both_ways() { return GetParam(); }

  Piped send(Member& member, uint64_t value, size_t size = 8, int64_t deadline_ns = 0) {
    std::vector<std::byte> payload(std::max(size, sizeof value));
    std::memcpy(payload.data(), &value, sizeof value);
    return writer_->send(member, payload, deadline_ns);
  }

  // The value in the next frame, or 0.
  uint64_t receive(Member& member, int64_t deadline_ns = 0, Piped* how = nullptr) {
    Frame frame;
    const Piped result = reader_->receive(member, frame, deadline_ns);
    if (how != nullptr) *how = result;
    uint64_t value = 0;
    if (result != Piped::ok) return 0;
    EXPECT_GE(frame.size, sizeof value);
    std::memcpy(&value, frame.data(), sizeof value);
    for (uint64_t i = sizeof value; i < frame.size; ++i) {
      EXPECT_EQ(frame.data()[i], std::byte{0});
    }
    return value;
  }

  // All frames that are in the pipe, in order.
  std::vector<uint64_t> drain() {
    std::vector<uint64_t> found;
    for (;;) {
      Piped how = Piped::again;
      const uint64_t value =
          receive(*me_, in_ms(os::stream_queued(fds_[0]) != 0 ? 10'000 : 20), &how);
      if (how != Piped::ok) return found;
      found.push_back(value);
    }
  }

  void expect_works() {
    EXPECT_EQ(send(*me_, 1'000'000, 100, in_ms(10'000)), Piped::ok);
    EXPECT_EQ(receive(*me_, in_ms(10'000)), 1'000'000U);
    EXPECT_EQ(os::stream_queued(fds_[0]), 0U);
  }

  // The block that a frame of this test names: its first eight bytes, parked in `slot_`.
  static Named named(const Pipe&, const Frame& frame) noexcept {
    Named found{0, slot_};
    std::memcpy(&found.block, frame.data(), sizeof found.block);
    return found;
  }

  int slots_in_use() {
    int count = 0;
    const auto* const ways = reinterpret_cast<PipeWay*>(arena_->at<PipeState>(state_) + 1);
    for (int i = 0; i < (both_ways() ? 2 : 1); ++i) {
      for (const os::Atomic<uint64_t>& word : ways[i].parked) count += word.load() != 0 ? 1 : 0;
    }
    return count;
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  Handle state_ = 0;
  static inline uint32_t slot_ = 0;
  int fds_[2] = {-1, -1};
  std::unique_ptr<Pipe> reader_;
  std::unique_ptr<Pipe> writer_;
};

INSTANTIATE_TEST_SUITE_P(Ways, PipeTest, ::testing::Values(false, true),
                         [](const auto& made) { return made.param ? "Both" : "One"; });

TEST_P(PipeTest, FramesComeWholeAndInOrder) {
  EXPECT_EQ(receive(*me_), 0U);
  for (uint64_t i = 1; i <= 30; ++i) EXPECT_EQ(send(*me_, i, i * 40), Piped::ok);
  for (uint64_t i = 1; i <= 30; ++i) EXPECT_EQ(receive(*me_), i);
  EXPECT_EQ(receive(*me_), 0U);
}

TEST_P(PipeTest, AFullPipeTakesMoreWhenItWasRead) {
  uint64_t sent = 0;
  while (send(*me_, sent + 1, Pipe::kMostInFrame) == Piped::ok) ++sent;
  EXPECT_GT(sent, 10U);
  EXPECT_EQ(send(*me_, 7, 8, in_ms(20)), Piped::again);
  std::thread late(
      [&] { EXPECT_EQ(send(*me_, sent + 1, Pipe::kMostInFrame, in_ms(20'000)), Piped::ok); });
  for (uint64_t i = 1; i <= sent + 1; ++i) EXPECT_EQ(receive(*me_, in_ms(20'000)), i);
  late.join();
}

TEST_P(PipeTest, TheLastCopyGoneIsTheEnd) {
  EXPECT_EQ(send(*me_, 5), Piped::ok);
  os::stream_close(fds_[1]);
  fds_[1] = -1;
  EXPECT_EQ(receive(*me_), 5U);
  Piped how = Piped::again;
  receive(*me_, in_ms(10'000), &how);
  EXPECT_EQ(how, Piped::ended);
}

TEST_P(PipeTest, WithoutReadersWhatIsOnItsWayIsFreed) {
  const Handle message = make_message(*me_, {}, {});
  EXPECT_GE(writer_->park(*me_, message), 0);
  os::stream_close(fds_[0]);
  fds_[0] = -1;
  EXPECT_EQ(arena_->statistics().blocks(), 2U);
  EXPECT_EQ(send(*me_, 1), Piped::ended);
  EXPECT_EQ(arena_->statistics().blocks(), 1U);
}

TEST_P(PipeTest, ItIsKnownThatNobodyReads) {
  EXPECT_GE(writer_->park(*me_, make_message(*me_, {}, {})), 0);
  EXPECT_FALSE(writer_->is_broken(*me_));
  os::stream_close(fds_[0]);
  fds_[0] = -1;
  EXPECT_EQ(arena_->statistics().blocks(), 2U);
  EXPECT_TRUE(writer_->is_broken(*me_));
  EXPECT_EQ(arena_->statistics().blocks(), 1U);
}

TEST_P(PipeTest, BytesOnTheirWayAreBounded) {
  std::vector<std::pair<Handle, uint32_t>> parked;
  for (;;) {
    const Handle large = me_->allocate(20 << 20);
    const Handle message = make_message(*me_, {}, std::span(&large, 1));
    const int slot = writer_->park(*me_, message);
    if (slot < 0) {
      free_message(*me_, message);
      break;
    }
    parked.emplace_back(message, slot);
    ASSERT_EQ(send(*me_, message), Piped::ok);
  }
  EXPECT_EQ(parked.size(), 4U);
  // All frames are read: parked blocks may be lost with a dead reader, and must not block a sender.
  EXPECT_EQ(drain().size(), parked.size());
  const Handle next = make_message(*me_, {}, {});
  parked.emplace_back(next, writer_->park(*me_, next));
  for (const auto& [message, slot] : parked) {
    EXPECT_TRUE(reader_->take(*me_, message, slot));
    free_message(*me_, message);
  }
  EXPECT_EQ(arena_->statistics().blocks(), 1U);
}

TEST_P(PipeTest, AForgottenDescriptorIsAnError) {
  ASSERT_EQ(send(*me_, 1), Piped::ok);
  reader_->forget_descriptor();
  writer_->forget_descriptor();
  Frame frame;
  EXPECT_THROW(static_cast<void>(reader_->receive(*me_, frame, 0)), os::OsError);
  EXPECT_THROW(static_cast<void>(reader_->poll(in_ms(10'000))), os::OsError);
  EXPECT_THROW(static_cast<void>(send(*me_, 2)), os::OsError);
  EXPECT_THROW(static_cast<void>(writer_->is_broken(*me_)), os::OsError);
}

TEST_P(PipeTest, ParkedMessagesAreTakenOnce) {
  std::vector<std::pair<Handle, uint32_t>> parked;
  for (;;) {
    const Handle message = make_message(*me_, {}, {});
    const int slot = writer_->park(*me_, message);
    if (slot < 0) {
      free_message(*me_, message);
      break;
    }
    parked.emplace_back(message, slot);
  }
  EXPECT_EQ(parked.size(), PipeWay::kParked);
  for (const auto& [message, slot] : parked) {
    EXPECT_TRUE(reader_->take(*me_, message, slot));
    EXPECT_FALSE(reader_->take(*me_, message, slot));
    free_message(*me_, message);
  }
  const Handle message = make_message(*me_, {}, {});
  const int slot = writer_->park(*me_, message);
  EXPECT_TRUE(writer_->unpark(*me_, message, static_cast<uint32_t>(slot)));
  free_message(*me_, message);
  EXPECT_EQ(arena_->statistics().blocks(), 1U);
}

TEST_P(PipeTest, AStrangersFrameMayComeInParts) {
  const std::string big(100'000, 'z');
  const uint32_t size = htonl(static_cast<uint32_t>(big.size()));
  std::thread stranger([&] {
    std::string all(reinterpret_cast<const char*>(&size), 4);
    all += big;
    for (size_t at = 0; at < all.size();) {
      at += static_cast<size_t>(
          write(fds_[1], all.data() + at, std::min<size_t>(all.size() - at, 7777)));
    }
  });
  Frame frame;
  EXPECT_EQ(reader_->receive(*me_, frame, in_ms(20'000)), Piped::ok);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(frame.data()), frame.size), big);
  stranger.join();
  expect_works();
}

TEST_P(PipeTest, ManyReadAndWriteAndNothingIsLost) {
  constexpr uint64_t kEach = 3'000;
  const Handle counts = me_->allocate(kEach * 3 * 4);
  auto* const seen = reinterpret_cast<os::Atomic<uint32_t>*>(arena_->address(counts));
  std::memset(static_cast<void*>(seen), 0, kEach * 3 * 4);
  std::vector<std::unique_ptr<ChildMember>> children;
  for (uint64_t w = 0; w < 3; ++w) {
    children.push_back(std::make_unique<ChildMember>(arena_, [&, w](Member& member) {
      for (uint64_t i = 0; i < kEach; ++i) {
        if (send(member, w * kEach + i + 1, 8 + i % 500, in_ms(60'000)) != Piped::ok) _exit(3);
      }
    }));
    children.push_back(std::make_unique<ChildMember>(arena_, [&](Member& member) {
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t value = receive(member, in_ms(60'000));
        if (value == 0) _exit(4);
        seen[value - 1].fetch_add(1);
      }
    }));
  }
  for (const auto& child : children) EXPECT_EQ(child->wait(), Ending::finished);
  for (uint64_t i = 0; i < kEach * 3; ++i) EXPECT_EQ(seen[i].load(), 1U);
  me_->free(counts);
}

TEST_P(PipeTest, AStoppedReaderStopsNobody) {
  ChildMember sleeper(arena_, [&](Member& member) { receive(member, in_ms(60'000)); });
  usleep(50'000);
  sleeper.stop();
  for (uint64_t i = 1; i <= 50; ++i) {
    EXPECT_EQ(send(*me_, i), Piped::ok);
    EXPECT_EQ(receive(*me_, in_ms(10'000)), i);
  }
  sleeper.resume();
  EXPECT_EQ(send(*me_, 99), Piped::ok);
  EXPECT_EQ(sleeper.wait(), Ending::finished);
}

// ---- deaths

// The frames 1, 2, 3 were sent; the victim receives one and sends 4 and 5. Afterwards at most the
// frame that the victim was receiving or sending is lost, and none is received twice.
void expect_sound_rest(const std::vector<uint64_t>& rest) {
  uint64_t previous = 0;
  for (const uint64_t value : rest) {
    EXPECT_GT(value, previous);
    EXPECT_LE(value, 5U);
    previous = value;
  }
  ASSERT_GE(rest.size(), 2U);
  EXPECT_LE(rest.front(), 2U);
}

TEST_P(PipeTest, AtEachKillPoint) {
  for (const char* point : {"pipe.send.frame", "pipe.receive.header", "pipe.receive.frame"}) {
    SCOPED_TRACE(point);
    for (int round = 0; round < 3; ++round) {
      for (uint64_t i = 1; i <= 3; ++i) ASSERT_EQ(send(*me_, i, i * 500), Piped::ok);
      ChildMember victim(arena_, [&](Member& member) {
        testing::arm_kill_point(point, 1);
        receive(member, in_ms(10'000));
        static_cast<void>(send(member, 4));
        static_cast<void>(send(member, 5));
      });
      EXPECT_EQ(victim.wait(), Ending::killed);
      arena::reap_all_dead(*arena_, *me_);
      expect_sound_rest(drain());
      expect_works();
    }
  }
}

// No member reaps, and no call waits.
TEST_P(PipeTest, WhoDoesNotWaitTakesTheLocksOfTheDeadAllTheSame) {
  for (const char* point : {"pipe.send.frame", "pipe.receive.header", "pipe.receive.frame"}) {
    SCOPED_TRACE(point);
    for (uint64_t i = 1; i <= 3; ++i) ASSERT_EQ(send(*me_, i, i * 500), Piped::ok);
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      receive(member, in_ms(10'000));
      static_cast<void>(send(member, 4));
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    Piped sent = Piped::again;
    while (sent == Piped::again) sent = send(*me_, 5);
    EXPECT_EQ(sent, Piped::ok);
    uint64_t last = 0;
    while (last != 5) last = receive(*me_);
    EXPECT_EQ(os::stream_queued(fds_[0]), 0U);
  }
}

TEST_P(PipeTest, WhenAReaderAndAWriterDieAtOnce) {
  for (const char* reading : {"pipe.receive.header", "pipe.receive.frame"}) {
    for (uint64_t i = 1; i <= 3; ++i) ASSERT_EQ(send(*me_, i, i * 500), Piped::ok);
    ChildMember reader(arena_, [&](Member& member) {
      testing::arm_kill_point(reading, 1);
      receive(member, in_ms(10'000));
    });
    ChildMember writer(arena_, [&](Member& member) {
      testing::arm_kill_point("pipe.send.frame", 1);
      static_cast<void>(send(member, 4, 800));
    });
    EXPECT_EQ(reader.wait(), Ending::killed);
    EXPECT_EQ(writer.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    const std::vector<uint64_t> rest = drain();
    EXPECT_EQ(rest, (std::vector<uint64_t>{2, 3, 4}));
    expect_works();
  }
}

TEST_P(PipeTest, WhileADeathIsBeingSettled) {
  for (const char* first : {"pipe.receive.header", "pipe.receive.frame"}) {
    for (const char* point : {"pipe.enter.unsettled", "pipe.settle.taken", "pipe.settle.done"}) {
      SCOPED_TRACE(std::string(first) + " " + point);
      for (uint64_t i = 1; i <= 3; ++i) ASSERT_EQ(send(*me_, i, i * 500), Piped::ok);
      for (const char* armed : {first, point}) {
        ChildMember victim(arena_, [&](Member& member) {
          testing::arm_kill_point(armed, 1);
          receive(member, in_ms(10'000));
        });
        EXPECT_EQ(victim.wait(), Ending::killed);
        arena::reap_all_dead(*arena_, *me_);
      }
      expect_sound_rest(drain());
      expect_works();
    }
  }
}

// Several writers die before a reader does: each frame may have been written or not.
TEST_P(PipeTest, WhenSeveralWritersDieBeforeAReader) {
  for (const uint64_t pattern : {0b000U, 0b001U, 0b010U, 0b011U, 0b101U, 0b110U, 0b111U}) {
    for (const char* reading : {"pipe.receive.header", "pipe.receive.frame"}) {
      SCOPED_TRACE(std::to_string(pattern) + " " + reading);
      std::vector<uint64_t> expected;
      for (uint64_t i = 0; i < 3; ++i) {
        const bool is_written = (pattern >> i & 1) != 0;
        ChildMember writer(arena_, [&](Member& member) {
          testing::arm_kill_point(is_written ? "pipe.send.frame" : "pipe.send.end", 1);
          static_cast<void>(send(member, 10 + i, 300 + 100 * i));
        });
        EXPECT_EQ(writer.wait(), Ending::killed);
        arena::reap_all_dead(*arena_, *me_);
        if (is_written) expected.push_back(10 + i);
      }
      for (uint64_t i = 1; i <= 4; ++i) {
        ASSERT_EQ(send(*me_, i, i * 500), Piped::ok);
        expected.push_back(i);
      }
      ChildMember reader(arena_, [&](Member& member) {
        testing::arm_kill_point(reading, 1);
        receive(member, in_ms(10'000));
      });
      EXPECT_EQ(reader.wait(), Ending::killed);
      arena::reap_all_dead(*arena_, *me_);
      expected.erase(expected.begin());
      EXPECT_EQ(drain(), expected);
      expect_works();
    }
  }
}

// More frames are queued than ends are remembered: settle() knows the frame by its header.
TEST_P(PipeTest, WhenAReaderDiesWithManyFramesOnTheirWay) {
  for (const char* point : {"pipe.receive.read", "pipe.receive.header", "pipe.receive.frame"}) {
    uint64_t sent = 0;
    while (sent < 1'000 && send(*me_, sent + 1, 20 + sent % 7) == Piped::ok) ++sent;
    ChildMember reader(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 3);
      for (int i = 0; i < 3; ++i) receive(member, in_ms(10'000));
    });
    EXPECT_EQ(reader.wait(), Ending::killed) << point;
    arena::reap_all_dead(*arena_, *me_);
    const std::vector<uint64_t> rest = drain();
    ASSERT_EQ(rest.size(), sent - 3) << point;
    EXPECT_EQ(rest.front(), 4U);
    EXPECT_EQ(rest.back(), sent);
    expect_works();
  }
}

// A reader dies while it counts again.
TEST_P(PipeTest, WhileAReaderCountsAgain) {
  for (uint64_t i = 1; i <= 2; ++i) ASSERT_EQ(send(*me_, i, 400), Piped::ok);
  ChildMember writer(arena_, [&](Member& member) {
    testing::arm_kill_point("pipe.send.end", 1);
    static_cast<void>(send(member, 3, 300));
  });
  EXPECT_EQ(writer.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  ASSERT_EQ(send(*me_, 4, 500), Piped::ok);
  ChildMember reader(arena_, [&](Member& member) {
    testing::arm_kill_point("pipe.doubt.taken", 1);
    receive(member, in_ms(10'000));
  });
  EXPECT_EQ(reader.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(drain(), (std::vector<uint64_t>{1, 2, 4}));
  expect_works();
}

// More writers die than PipeWay::doubtful has places, while no reader dies.
TEST_P(PipeTest, WhenMoreWritersDieThanAreRemembered) {
  for (uint64_t i = 0; i < 30; ++i) {
    ChildMember writer(arena_, [&](Member& member) {
      testing::arm_kill_point(i % 3 == 0 ? "pipe.send.frame" : "pipe.send.end", 1);
      static_cast<void>(send(member, 100 + i, 200 + i));
    });
    EXPECT_EQ(writer.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    ASSERT_EQ(send(*me_, i + 1, 100), Piped::ok);
    EXPECT_EQ(drain().back(), i + 1);
  }
  for (uint64_t i = 1; i <= 3; ++i) ASSERT_EQ(send(*me_, i, 700), Piped::ok);
  ChildMember reader(arena_, [&](Member& member) {
    testing::arm_kill_point("pipe.receive.header", 1);
    receive(member, in_ms(10'000));
  });
  EXPECT_EQ(reader.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(drain(), (std::vector<uint64_t>{2, 3}));
  expect_works();
}

// A writer that is killed around its system call leaves a frame that may or may not be written.
// Here it is not written, since the pipe is full.
TEST_P(PipeTest, WhileADoubtfulFrameIsCounted) {
  for (const char* point : {"pipe.doubt.size", "pipe.doubt.frames"}) {
    SCOPED_TRACE(point);
    uint64_t sent = 0;
    while (send(*me_, sent + 1, Pipe::kMostInFrame) == Piped::ok) ++sent;
    for (const char* armed : {"pipe.send.frame", point}) {
      ChildMember victim(arena_, [&](Member& member) {
        testing::arm_kill_point(armed, 1);
        static_cast<void>(send(member, 4'000, Pipe::kMostInFrame - 100));
      });
      EXPECT_EQ(victim.wait(), Ending::killed);
      arena::reap_all_dead(*arena_, *me_);
    }
    ChildMember reader(arena_, [&](Member& member) {
      testing::arm_kill_point("pipe.receive.header", 1);
      receive(member, in_ms(10'000));
    });
    EXPECT_EQ(reader.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    const std::vector<uint64_t> rest = drain();
    EXPECT_EQ(rest.size(), sent - 1);
    EXPECT_EQ(rest.front(), 2U);
    EXPECT_EQ(rest.back(), sent);
    expect_works();
  }
}

TEST_P(PipeTest, WithMessagesOnTheirWay) {
  for (const char* point :
       {"pipe.park.slot", "pipe.park.owner", "pipe.unpark.owner", "pipe.send.frame",
        "pipe.take.intent", "pipe.receive.frame", "pipe.take.owner", "pipe.take.slot"}) {
    SCOPED_TRACE(point);
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      const Handle attached = member.allocate(100'000);
      const Handle made = make_message(member, {}, std::span(&attached, 1));
      const bool gives_up = std::string(point) == "pipe.unpark.owner";
      const int slot = writer_->park(member, made);
      if (gives_up) writer_->unpark(member, made, static_cast<uint32_t>(slot));
      static_cast<void>(send(member, made));
      slot_ = static_cast<uint32_t>(slot);
      Frame frame;
      static_cast<void>(reader_->receive(member, frame, in_ms(10'000), &named));
      if (frame.took) free_message(member, named(*reader_, frame).block);
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    if (std::string(point).starts_with("pipe.take") || std::string(point) == "pipe.receive.frame") {
      EXPECT_EQ(slots_in_use(), 0) << "a slot is lost";
    }
    drain();
    expect_works();
    close();
    arena::reap_all_dead(*arena_, *me_);
    // (the next reap frees the attachments of a message that was not taken)
    ChildMember nobody(arena_, [](Member&) { raise(SIGKILL); });
    EXPECT_EQ(nobody.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    EXPECT_EQ(arena_->statistics().blocks(), 0U);
    open();
  }
}

TEST_P(PipeTest, TheLastHoldersDeathFreesAll) {
  ChildMember victim(arena_, [&](Member& member) {
    const Handle state = member.allocate_shareable(Pipe::state_size(both_ways()));
    Pipe::create_state(*arena_, state, both_ways());
    member.share(state);
    Pipe pipe(*arena_, state, 1, fds_[1]);
    for (int i = 0; i < 5; ++i) {
      const Handle attached = member.allocate(100'000);
      static_cast<void>(pipe.park(member, make_message(member, {}, std::span(&attached, 1))));
    }
    raise(SIGKILL);
  });
  EXPECT_EQ(victim.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(arena_->statistics().blocks(), 1U);
}

TEST_P(PipeTest, AtEveryInstruction) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "instructions are the sanitizer's";
#endif
  std::unique_ptr<Member> member;
  testing::StepResult last;
  Frame frame;
  const std::byte payload[40] = {std::byte{4}};
  const uint64_t deaths = testing::kill_at_every_instruction(
      [&] {
        member = Member::join(arena_, MemberKind::process);
        sync::Holds::of(*member);
        for (uint64_t i = 1; i <= 3; ++i) {
          if (send(*member, i, i * 500) != Piped::ok) _exit(3);
        }
      },
      [&] {
        static_cast<void>(reader_->receive(*member, frame, 0));
        static_cast<void>(writer_->send(*member, payload, 0));
      },
      [&](uint64_t) {
        arena::reap_all_dead(*arena_, *me_);
        expect_sound_rest(drain());
        expect_works();
      },
      &last);
  if (last.outcome == testing::StepOutcome::unavailable) GTEST_SKIP() << "no ptrace here";
  EXPECT_EQ(last.outcome, testing::StepOutcome::completed) << last.status;
  EXPECT_GT(deaths, 20U);
}

TEST_P(PipeTest, NoKillPointIsForgotten) {
  const std::string known =
      " pipe.enter.unsettled pipe.settle.done pipe.settle.taken pipe.send.end pipe.send.frame "
      "pipe.doubt.size"
      " pipe.doubt.frames pipe.doubt.taken pipe.receive.read pipe.receive.header "
      "pipe.receive.frame pipe.park.slot "
      "pipe.park.owner "
      "pipe.take.owner"
      " pipe.take.slot pipe.take.intent pipe.unpark.owner ";
  for (const std::string& name : testing::kill_point_names()) {
    if (!name.starts_with("pipe.")) continue;
    EXPECT_NE(known.find(" " + name + " "), std::string::npos) << name << " is not tested";
  }
}

}  // namespace
}  // namespace shoal::channel
