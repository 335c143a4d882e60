// SPDX-License-Identifier: Apache-2.0
//
// Byte streams of the kernel that carry a pipe's frames: a pipe for one direction, a socket pair
// for both. Any thread may call these functions. Reads and writes are non-blocking by a flag of the
// call: the descriptor's own flags are not changed, since other code may use the descriptor too.
// Descriptors are close-on-exec.
//
// A frame of at most kFrameBytes is written as a whole or not at all, even if several processes
// write and one of them is killed: the kernel guarantees this for pipes (PIPE_BUF), and a socket
// takes the frame as one buffer.
// Design: docs/design/pipe.md
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::os {

inline constexpr size_t kFrameBytes = 4096;

// A pipe: `first` reads, `second` writes; if both_ways, a socket pair, each end of which does both.
// Throws OsError.
void stream_open(bool both_ways, int* first, int* second);
void stream_close(int fd) noexcept;

enum class [[nodiscard]] Moved {
  done,
  would_block,
  ended,  // reading: no writer is left; writing: no reader is left
};

// Writes head and body as one frame, kFrameBytes at most. Throws OsError.
Moved stream_write(int fd, bool socket, const void* head, size_t head_size, const void* body,
                   size_t body_size);

// Reads at least one and at most `size` bytes. Throws OsError.
Moved stream_read(int fd, bool socket, void* to, size_t size, size_t* got);

// Bytes that can be read now; 0 also for an invalid descriptor.
size_t stream_queued(int fd) noexcept;

// Bytes that were written to it and not read yet. Of a socket, a number that is 0 only if there are
// none.
size_t stream_unread(int fd, bool socket) noexcept;
// Is no reader of what is written to it left? Throws OsError.
bool stream_broken(int fd);

enum class [[nodiscard]] Readiness { ready, timed_out, interrupted };
// Waits until fd can be read (or written), or the other end is closed. deadline_ns:
// CLOCK_MONOTONIC; < 0: none; 0: do not wait. Throws OsError, also for a negative descriptor, for
// which poll(2) would just wait.
Readiness stream_wait(int fd, bool to_write, int64_t deadline_ns);

}  // namespace shoal::os
