// SPDX-License-Identifier: Apache-2.0
#include "arena/arena.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstring>

#include "arena/test_session.hpp"
#include "os/error.hpp"
#include "os/memory.hpp"

namespace shoal::arena {
namespace {

TEST(Arena, IsSeenTheSameThroughASecondMapping) {
  TestSession s;
  const Handle b = s.me->allocate(100);
  std::strcpy(s.arena->at<char>(b), "hello");
  const auto again = Arena::attach(s.arena->fd());
  EXPECT_NE(again->base(), s.arena->base());
  EXPECT_EQ(again->reserve(), s.arena->reserve());
  EXPECT_STREQ(again->at<char>(b), "hello");
  EXPECT_EQ(again->block_of(again->address(b)), b);
  EXPECT_EQ(again->block_of(s.arena->address(b)), 0U);
  again->unmap_for_test();
}

TEST(Arena, AttachRefusesWhatIsNoArena) {
  EXPECT_THROW(Arena::attach(-1), os::OsError);
  const int empty = os::create_memory_file("test", 4096);
  EXPECT_THROW(Arena::attach(empty), CorruptArena);
  const int zeros = os::create_memory_file("test", 64 << 20);
  EXPECT_THROW(Arena::attach(zeros), CorruptArena);
  os::close_fd(empty);
  os::close_fd(zeros);
}

TEST(Arena, AttachRefusesAnotherLayout) {
  TestSession s;
  Header& h = s.arena->header();
  const uint64_t hash = h.layout_hash;
  h.layout_hash ^= 1;
  EXPECT_THROW(Arena::attach(s.arena->fd()), CorruptArena);
  h.layout_hash = hash;
  h.data_offset += kPage;
  EXPECT_THROW(Arena::attach(s.arena->fd()), CorruptArena);
  h.data_offset -= kPage;
  Arena::attach(s.arena->fd())->unmap_for_test();
}

TEST(Arena, IsCloseOnExecAndSealed) {
  TestSession s;
  EXPECT_NE(fcntl(s.arena->fd(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_NE(ftruncate(s.arena->fd(), 4096), 0);
}

TEST(Arena, NeverTouchesAFileThatTookItsDescriptorNumber) {
  TestSession s;
  const int number = s.arena->fd();
  const int other = os::create_memory_file("user data", 4096);
  const int kept = os::duplicate_fd(number);
  ASSERT_EQ(dup2(other, number), number);  // as os.closerange() and then open() in user code
  EXPECT_EQ(s.arena->fd(), -1);
  const Handle b = s.me->allocate(20 << 20);  // grows nevertheless, through the mapping
  std::memset(s.arena->address(b), 1, 20 << 20);
  os::FileIdentity identity;
  ASSERT_TRUE(os::identify(other, &identity));
  EXPECT_EQ(identity.size, 4096U);
  s.me->free(b);
  s.arena->check();
  for (const int fd : {other, kept, number}) os::close_fd(fd);
}

TEST(Arena, WorksUnderAFileSizeLimit) {
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{64} << 10, rlim_t{4} << 20}) {
    const int status = in_child([&] {
      const rlimit limit{bytes, bytes};
      setrlimit(RLIMIT_FSIZE, &limit);
      TestSession s(uint64_t{1} << 30);
      const Handle b = s.me->allocate(20 << 20);
      std::memset(s.arena->address(b), 7, 20 << 20);
      // Another process that has only the file: it maps the same memory.
      const std::shared_ptr<Arena> other = Arena::attach(s.arena->fd());
      const bool same = *static_cast<char*>(other->address(b)) == 7;
      s.me->free(b);
      return s.arena->reserve() == (1 << 30) && same && s.me->purge(0) != 0 ? 0 : 1;
    });
    EXPECT_TRUE(succeeded(status)) << bytes;
  }
}

TEST(Arena, TakesASmallerReserveUnderAnAddressSpaceLimit) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need the address space";
#endif
  const int status = in_child([] {
    const rlimit limit{uint64_t{2} << 30, uint64_t{2} << 30};
    setrlimit(RLIMIT_AS, &limit);
    TestSession s(uint64_t{1} << 40);
    return s.arena->reserve() < (uint64_t{2} << 30) && s.me->allocate(1 << 20) != 0 ? 0 : 1;
  });
  EXPECT_TRUE(succeeded(status));
}

}  // namespace
}  // namespace shoal::arena
