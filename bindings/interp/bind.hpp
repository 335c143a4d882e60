// SPDX-License-Identifier: Apache-2.0
//
// Shared by the files of the binding module `shoal._core`: the process's session and member, the
// table from C++ errors to Python exceptions, and one registration function per file.
//
// Rules: every function here needs an attached thread state (the GIL). Functions that can wait are
// plain C methods, release the GIL, and leave no `noexcept` frame or `catch (...)` under a Python
// call.
// Design: docs/design/bindings.md
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN  // CPython 3.10 to 3.12 need it for "y#"
#endif
#include <Python.h>

#include "arena/arena.hpp"
#include "bindings/interp/reference.hpp"

namespace shoal::codec {
struct MessageBuilder;
}

namespace shoal::bindings {

// This process's member. Creates or joins the session at the first call (never at import), and
// joins again in the child of a fork. nullptr with a Python error set when that fails.
arena::Member* current_member();

// As current_member(), but never joins: nullptr, without an error, if this process is not a member.
arena::Member* member_if_any() noexcept;

// The arena of this process's session, or nullptr (no error set) if this process has no session
// yet.
arena::Arena* current_arena() noexcept;

// Joins the session whose memory file is `fd` (an exec'd child). False with a Python error set on
// failure, or when this process already has a session.
bool join_session(int fd);

// Turns the C++ exception being handled into a Python exception. Call it inside `catch (...)` only.
void set_python_error() noexcept;

// Converts a function with any signature of the C API to the type that method tables store.
template <class F>
PyCFunction method(F* function) noexcept {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

// True if this thread is Python's main thread. Only the main thread runs signal handlers, so only
// it waits in slices.
bool is_main_thread();

// Encodes a result or an argument. Meanwhile `hooks` are this thread's encoding hooks, which the
// pickler uses (shoal._pickling._codec).
bool encode_with(PyObject* hooks, PyObject* value, codec::MessageBuilder& out);

// One per file; each adds its types and functions to the module, or returns false with an error
// set.
bool bind_process(PyObject* module);
bool bind_fork_hook(PyObject* module);
bool bind_pool_client(PyObject* module);
bool bind_pool_worker(PyObject* module);
bool bind_pool_supervisor(PyObject* module);
bool bind_channel(PyObject* module);
bool bind_queue(PyObject* module);
bool bind_pipe(PyObject* module);
bool bind_sync(PyObject* module);
bool bind_collections(PyObject* module);
bool bind_file_mapping(PyObject* module);
bool bind_opcodes(PyObject* module);
bool bind_codec_for_test(PyObject* module);
bool bind_constants(PyObject* module);
bool bind_testing(PyObject* module);

}  // namespace shoal::bindings
