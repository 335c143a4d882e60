// SPDX-License-Identifier: Apache-2.0
//
// Byte streams of the kernel that carry a pipe's frames: a pipe one way, a socket pair both ways.
// Any thread. Nothing here changes the descriptor's flags, since others may use it too: reading
// and writing never block by a flag of the call. Descriptors are close-on-exec.
//
// A frame of at most kFrameBytes is written as a whole or not at all, also where several processes
// write and whoever is killed: the kernel promises it for pipes (PIPE_BUF), and a socket takes it
// as one buffer.
// Design: docs/design/pipe.md
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::os {

inline constexpr size_t kFrameBytes = 4096;

// One way (a pipe): first reads, second writes. Else each does both. Throws OsError.
void stream_open(bool both_ways, int* first, int* second);
void stream_close(int fd) noexcept;

enum class [[nodiscard]] Moved {
  done,
  would_block,
  ended,  // reading: nobody can write any more; writing: nobody can read
};

// Head and body as one frame, kFrameBytes at most. Throws OsError.
Moved stream_write(int fd, bool socket, const void* head, size_t head_size, const void* body,
                   size_t body_size);

// At least one and at most `size` bytes. Throws OsError.
Moved stream_read(int fd, bool socket, void* to, size_t size, size_t* got);

// Bytes that are there to be read; 0 also when the descriptor is none.
size_t stream_queued(int fd) noexcept;

// Bytes written to it that nobody has read yet: of a socket a measure of them, 0 when there are
// none.
size_t stream_unread(int fd, bool socket) noexcept;
// Whether nobody can read any more what is written to it. Throws OsError.
bool stream_broken(int fd);

enum class [[nodiscard]] Readiness { ready, timed_out, interrupted };
// Until it can be read, or written, or the other side is gone. deadline_ns: CLOCK_MONOTONIC, < 0
// none, 0 a look only. Throws OsError, also for a negative descriptor, at which poll(2) waits.
Readiness stream_wait(int fd, bool to_write, int64_t deadline_ns);

}  // namespace shoal::os
