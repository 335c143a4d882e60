// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Connection: a plain C type over one end of a channel::Pipe and its descriptor. A sent
// object becomes one frame in the standard library's format: a pickle, or the user's bytes. An
// object that is too large for a frame goes into a block. Its frame is a pickle that calls
// shoal._shared._pipes._arrived with a *note*, which names the block; a Connection of shoal knows
// the note by its token and calls nothing.
//
// If close() is called while other threads are in a method, the last of them lets go of the state.
// Waits follow bindings/interp/wait.hpp. Design: docs/design/pipe.md
#include <chrono>
#include <cstring>
#include <new>
#include <string_view>
#include <thread>

#include "bindings/channel/messages.hpp"
#include "bindings/channel/pipe_pickle.hpp"
#include "bindings/channel/small_pickle.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"
#include "channel/message.hpp"
#include "channel/pipe.hpp"
#include "os/error.hpp"
#include "os/stream.hpp"

namespace shoal::bindings {

namespace {

using channel::Frame;
using channel::Pipe;
using channel::Piped;

struct ConnectionObject {
  SharedObject shared;
  alignas(Pipe) std::byte pipe[sizeof(Pipe)];
  int fd;  // -1: closed
  uint32_t end;
  bool made;  // `pipe` holds a Pipe
  bool readable;
  bool writable;
  int busy;  // calls that use the state
};

ConnectionObject& connection(PyObject* self) { return *reinterpret_cast<ConnectionObject*>(self); }
Pipe& pipe_of(PyObject* self) { return *reinterpret_cast<Pipe*>(connection(self).pipe); }

void let_go_if_unused(PyObject* self) {
  ConnectionObject& object = connection(self);
  if (object.fd >= 0 || object.busy != 0 || object.shared.handle == 0) return;
  arena::Member* const member = member_if_any();
  if (member != nullptr) Pipe::let_go(*member, object.shared.handle);
  object.shared.handle = 0;
}

// While a Use exists the state stays, even if another thread closes the connection.
class Use {
 public:
  explicit Use(PyObject* self) : self_(self) { ++connection(self).busy; }
  ~Use() {
    --connection(self_).busy;
    let_go_if_unused(self_);
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  PyObject* self_;
};

// ---- notes: how a frame names a block

enum class Kind : uint32_t { object = 0, bytes = 1 };

struct Note {
  char mark[8];
  uint64_t token;
  uint64_t device;  // of the session's memory
  uint64_t inode;
  uint64_t state;
  uint64_t message;
  uint32_t slot;
  Kind kind;
};
static_assert(sizeof(Note) == 56);
constexpr std::string_view kMark = "shoal:1\n";
constexpr std::string_view kNoteBefore =
    "\x80\x04"
    "cshoal._shared._pipes\n_arrived\nC\x38";
constexpr std::string_view kNoteAfter = "\x85R.";
constexpr size_t kNoteBytes = kNoteBefore.size() + sizeof(Note) + kNoteAfter.size();

void write_note(const Note& note, std::byte* to) {
  std::memcpy(to, kNoteBefore.data(), kNoteBefore.size());
  std::memcpy(to += kNoteBefore.size(), &note, sizeof note);
  std::memcpy(to + sizeof note, kNoteAfter.data(), kNoteAfter.size());
}

bool read_note(const Pipe& pipe, const Frame& frame, Note* note) {
  if (frame.size != kNoteBytes ||
      std::memcmp(frame.data(), kNoteBefore.data(), kNoteBefore.size()) != 0) {
    return false;
  }
  std::memcpy(note, frame.data() + kNoteBefore.size(), sizeof *note);
  return std::memcmp(note->mark, kMark.data(), kMark.size()) == 0 && note->token == pipe.token() &&
         note->state == pipe.handle();
}

channel::Named named_by(const Pipe& pipe, const Frame& frame) noexcept {
  Note note;
  if (!read_note(pipe, frame, &note)) return {};
  return {note.message, note.slot};
}

// ---- checks

PyObject* raise_os_error(const char* text) {
  PyErr_SetString(PyExc_OSError, text);
  return nullptr;
}

bool is_open(PyObject* self) {
  if (connection(self).fd >= 0) [[likely]]
    return true;
  raise_os_error("handle is closed");
  return false;
}

bool may(PyObject* self, bool way, const char* refusal) {
  if (!is_open(self)) return false;
  if (way) [[likely]]
    return true;
  raise_os_error(refusal);
  return false;
}
bool may_read(PyObject* self) {
  return may(self, connection(self).readable, "connection is write-only");
}
bool may_write(PyObject* self) {
  return may(self, connection(self).writable, "connection is read-only");
}

// ---- sending

// Returns false. Replaces the error that is set if the cause is that another thread has closed the
// connection.
bool failed(PyObject* self) {
  if (connection(self).fd < 0 && PyErr_ExceptionMatches(PyExc_OSError) != 0) {
    raise_os_error("handle is closed");
  }
  return false;
}

// Tries once with the GIL, which is cheaper than releasing it; then waits without.
template <class Call>
bool call_pipe(PyObject* self, Call&& call, int64_t deadline_ns, Piped* result) {
  try {
    *result = call(0);
  } catch (const std::exception&) {
    set_python_error();
    return failed(self);
  }
  if (*result != Piped::again || deadline_ns == 0) return true;
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        *result = call(slice_ns);
        const bool again = *result == Piped::again || *result == Piped::interrupted;
        return again ? Slice::again : Slice::done;
      },
      deadline_ns);
  if (waited == Waited::timed_out) *result = Piped::again;
  return waited != Waited::failed || failed(self);
}

void raise_broken_pipe() {
  errno = EPIPE;
  PyErr_SetFromErrno(PyExc_OSError);
}

bool send_frame(PyObject* self, arena::Member& member, std::span<const std::byte> payload) {
  Pipe& pipe = pipe_of(self);
  Piped result = Piped::again;
  const auto call = [&](int64_t deadline_ns) { return pipe.send(member, payload, deadline_ns); };
  if (!call_pipe(self, call, -1, &result)) return false;
  if (result == Piped::ok) return true;
  raise_broken_pipe();
  return false;
}

// Parks the message and returns its slot. While too many are parked, waits until one is taken or
// the pipe is broken. -1 with an error set.
int park(PyObject* self, arena::Member& member, arena::Handle message) {
  Pipe& pipe = pipe_of(self);
  int slot = pipe.park(member, message);
  if (slot >= 0) return slot;
  const Waited waited = wait_in_slices(
      [&](int64_t) {
        slot = pipe.park(member, message);
        if (slot >= 0 || pipe.is_broken(member)) return Slice::done;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return Slice::again;
      },
      -1);
  if (waited == Waited::failed) {
    failed(self);
    return -1;
  }
  if (slot < 0) raise_broken_pipe();
  return slot;
}

// Sends a message that this member owns; it is freed if it cannot be sent.
bool send_message(PyObject* self, arena::Member& member, arena::Handle message, Kind kind) {
  Pipe& pipe = pipe_of(self);
  const int slot = park(self, member, message);
  if (slot < 0) {
    channel::free_message(member, message);
    return false;
  }
  const arena::Arena& arena = member.arena();
  Note note{{},
            pipe.token(),
            arena.fd_device(),
            arena.fd_inode(),
            pipe.handle(),
            message,
            static_cast<uint32_t>(slot),
            kind};
  std::memcpy(note.mark, kMark.data(), kMark.size());
  std::byte payload[kNoteBytes];
  write_note(note, payload);
  if (send_frame(self, member, payload)) return true;
  if (pipe.unpark(member, message, note.slot)) channel::free_message(member, message);
  return false;
}

PyObject* connection_send(PyObject* self, PyObject* object) {
  if (!may_write(self)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  const Use use(self);
  std::byte room[Pipe::kMostInFrame];
  Packed packed;
  if (!pack(object, *member, room, &packed)) return nullptr;
  if (connection(self).fd < 0) {  // closed by a hook of the object
    if (packed.message != 0) channel::free_message(*member, packed.message);
    return raise_os_error("handle is closed");
  }
  const bool sent = packed.message == 0 ? send_frame(self, *member, std::span(room, packed.size))
                                        : send_message(self, *member, packed.message, Kind::object);
  if (!sent) return nullptr;
  Py_RETURN_NONE;
}

// The part of the buffer to send. False with an error set.
bool part_of(const Py_buffer& buffer, Py_ssize_t offset, PyObject* given_size,
             std::span<const std::byte>* part) {
  const char* wrong = nullptr;
  if (offset < 0) {
    wrong = "offset is negative";
  } else if (buffer.len < offset) {
    wrong = "buffer length < offset";
  }
  Py_ssize_t size = buffer.len - offset;
  if (wrong == nullptr && given_size != Py_None) {
    size = PyNumber_AsSsize_t(given_size, PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred() != nullptr) return false;
    if (size < 0) {
      wrong = "size is negative";
    } else if (size > buffer.len - offset) {
      wrong = "buffer length < offset + size";
    }
  }
  if (wrong != nullptr) {
    PyErr_SetString(PyExc_ValueError, wrong);
    return false;
  }
  *part = {static_cast<const std::byte*>(buffer.buf) + offset, static_cast<size_t>(size)};
  return true;
}

bool send_part(PyObject* self, arena::Member& member, std::span<const std::byte> part) {
  if (part.size() <= Pipe::kMostInFrame) return send_frame(self, member, part);
  arena::Handle message = 0;
  try {
    message = channel::make_message(member, part, {});
  } catch (const std::exception&) {
    set_python_error();
    return false;
  }
  return send_message(self, member, message, Kind::bytes);
}

PyObject* connection_send_bytes(PyObject* self, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"buf", "offset", "size", nullptr};
  PyObject* from = nullptr;
  Py_ssize_t offset = 0;
  PyObject* size = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|nO:send_bytes", const_cast<char**>(names),
                                   &from, &offset, &size) ||
      !may_write(self)) {
    return nullptr;
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Py_buffer buffer;
  if (PyObject_GetBuffer(from, &buffer, PyBUF_SIMPLE) != 0) return nullptr;
  std::span<const std::byte> part;
  const Use use(self);
  const bool sent = part_of(buffer, offset, size, &part) && send_part(self, *member, part);
  PyBuffer_Release(&buffer);
  if (!sent) return nullptr;
  Py_RETURN_NONE;
}

// ---- receiving

bool receive(PyObject* self, arena::Member& member, Frame& frame) {
  if (PyErr_CheckSignals() < 0) return false;  // before a frame is read, never after
  Pipe& pipe = pipe_of(self);
  Piped result = Piped::again;
  const auto call = [&](int64_t deadline_ns) {
    return pipe.receive(member, frame, deadline_ns, &named_by);
  };
  if (!call_pipe(self, call, -1, &result)) {
    pipe.abandon(member, frame);
    return false;
  }
  if (result == Piped::ok) return true;
  if (result == Piped::ended) {
    PyErr_SetNone(PyExc_EOFError);
  } else {
    raise_os_error("got end of file during message");
  }
  return false;
}

// Whether the message that the frame names was taken with the frame; false with an error set.
bool has_taken(const Frame& frame) {
  if (frame.took) return true;
  raise_os_error(
      "a message of this connection is gone: another process read the frame that names it");
  return false;
}

// The message's payload as bytes; frees the message. New reference.
PyObject* bytes_of_message(arena::Member& member, arena::Handle message) {
  PyObject* bytes = nullptr;
  try {
    const channel::Message found = channel::open_message(member.arena(), message);
    bytes = PyBytes_FromStringAndSize(reinterpret_cast<const char*>(found.bytes),
                                      static_cast<Py_ssize_t>(found.size));
  } catch (const std::exception&) {
    set_python_error();
  }
  channel::free_message(member, message);
  return bytes;
}

PyObject* object_of_message(arena::Member& member, arena::Handle message, Kind kind) {
  return kind == Kind::bytes ? load_pickle(bytes_of_message(member, message))
                             : decode_message(message, member);
}

// shoal._shared._pipes.NAME(argument); steals the reference.
PyObject* call_python(const char* name, PyObject* argument) {
  if (argument == nullptr) return nullptr;
  PyObject* const module = PyImport_ImportModule("shoal._shared._pipes");
  PyObject* const result =
      module == nullptr ? nullptr : PyObject_CallMethod(module, name, "(O)", argument);
  Py_XDECREF(module);
  Py_DECREF(argument);
  return result;
}

PyObject* bytes_of_frame(const Frame& frame) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(frame.data()),
                                   static_cast<Py_ssize_t>(frame.size));
}

PyObject* object_of_frame(const Frame& frame) {
  PyObject* const object = read_small_pickle({frame.data(), static_cast<size_t>(frame.size)});
  if (object != nullptr || PyErr_Occurred() != nullptr) return object;
  return load_pickle(bytes_of_frame(frame));
}

PyObject* connection_recv(PyObject* self, PyObject*) {
  if (!may_read(self)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Frame frame;
  Note note;
  {
    const Use use(self);
    if (!receive(self, *member, frame)) return nullptr;
    if (!read_note(pipe_of(self), frame, &note)) return object_of_frame(frame);
    if (!has_taken(frame)) return nullptr;
  }
  return object_of_message(*member, note.message, note.kind);
}

PyObject* receive_bytes(PyObject* self) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  Frame frame;
  Note note;
  {
    const Use use(self);
    if (!receive(self, *member, frame)) return nullptr;
    if (!read_note(pipe_of(self), frame, &note)) return bytes_of_frame(frame);
    if (!has_taken(frame)) return nullptr;
  }
  if (note.kind == Kind::bytes) return bytes_of_message(*member, note.message);
  return call_python("_pickled", decode_message(note.message, *member));
}

void close_connection(PyObject* self, bool and_descriptor) {
  ConnectionObject& object = connection(self);
  const int fd = object.fd;
  object.fd = -1;
  pipe_of(self).forget_descriptor();
  if (fd >= 0 && and_descriptor) os::stream_close(fd);
  let_go_if_unused(self);
}

PyObject* connection_recv_bytes(PyObject* self, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"maxlength", nullptr};
  PyObject* given = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O:recv_bytes", const_cast<char**>(names),
                                   &given) ||
      !may_read(self)) {
    return nullptr;
  }
  Py_ssize_t most = PY_SSIZE_T_MAX;
  if (given != Py_None) {
    most = PyNumber_AsSsize_t(given, PyExc_OverflowError);
    if (most == -1 && PyErr_Occurred() != nullptr) return nullptr;
    if (most < 0) {
      PyErr_SetString(PyExc_ValueError, "negative maxlength");
      return nullptr;
    }
  }
  PyObject* const bytes = receive_bytes(self);
  if (bytes == nullptr || PyBytes_GET_SIZE(bytes) <= most) return bytes;
  Py_DECREF(bytes);
  if (connection(self).writable) {
    connection(self).readable = false;
  } else {
    close_connection(self, true);
  }
  return raise_os_error("bad message length");
}

PyObject* connection_poll(PyObject* self, PyObject* const* args, Py_ssize_t count,
                          PyObject* keywords) {
  static const char* const names[] = {"timeout"};
  PyObject* given[1] = {nullptr};
  int64_t deadline_ns = 0;
  if (!parse_fast("poll", names, 1, args, count, keywords, given) || !may_read(self) ||
      (given[0] != nullptr && !deadline_from(given[0], &deadline_ns))) {
    return nullptr;
  }
  const Use use(self);
  Pipe& pipe = pipe_of(self);
  Piped result = Piped::again;
  const auto call = [&](int64_t slice_ns) { return pipe.poll(slice_ns); };
  if (!call_pipe(self, call, deadline_ns, &result)) return nullptr;
  return PyBool_FromLong(result == Piped::ok ? 1 : 0);
}

// ---- the rest

PyObject* connection_fileno(PyObject* self, PyObject*) {
  return is_open(self) ? PyLong_FromLong(connection(self).fd) : nullptr;
}

PyObject* connection_close(PyObject* self, PyObject*) {
  close_connection(self, true);
  Py_RETURN_NONE;
}

PyObject* get_descriptor(PyObject* self, void*) {
  if (connection(self).fd < 0) Py_RETURN_NONE;
  return PyLong_FromLong(connection(self).fd);
}

// Only None can be set: other code has taken over the descriptor.
int set_descriptor(PyObject* self, PyObject* value, void*) {
  if (value != Py_None) {
    PyErr_SetString(PyExc_AttributeError, "the descriptor of a connection can only become None");
    return -1;
  }
  close_connection(self, false);
  return 0;
}

PyObject* get_closed(PyObject* self, void*) {
  return PyBool_FromLong(connection(self).fd < 0 ? 1 : 0);
}
PyObject* get_readable(PyObject* self, void*) {
  return PyBool_FromLong(connection(self).readable ? 1 : 0);
}
PyObject* get_writable(PyObject* self, void*) {
  return PyBool_FromLong(connection(self).writable ? 1 : 0);
}
PyObject* get_end(PyObject* self, void*) { return PyLong_FromUnsignedLong(connection(self).end); }

bool flag_from(PyObject* value, bool* flag) {
  const int truth = value == nullptr ? -1 : PyObject_IsTrue(value);
  if (truth < 0) return false;
  *flag = truth != 0;
  return true;
}
int set_readable(PyObject* self, PyObject* value, void*) {
  return flag_from(value, &connection(self).readable) ? 0 : -1;
}
int set_writable(PyObject* self, PyObject* value, void*) {
  return flag_from(value, &connection(self).writable) ? 0 : -1;
}

// Connection(handle, end, fd, readable, writable): takes over the descriptor; -1: only holds the
// state.
PyObject* connection_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"handle", "end", "fd", "readable", "writable", nullptr};
  unsigned long long handle = 0;
  unsigned int end = 0;
  int fd = -1;
  int readable = 1;
  int writable = 1;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "KIipp:Connection", const_cast<char**>(names),
                                   &handle, &end, &fd, &readable, &writable)) {
    return nullptr;
  }
  const auto check = [](arena::Arena&, arena::Handle) {};
  PyObject* const self = attach(type, handle, check);
  if (self == nullptr) return nullptr;
  ConnectionObject& object = connection(self);
  object.fd = -1;
  try {
    new (object.pipe) Pipe(current_member()->arena(), handle, end, fd);
  } catch (const std::exception&) {
    set_python_error();
    Py_DECREF(self);
    return nullptr;
  }
  object.made = true;
  object.fd = fd;
  object.end = end;
  object.readable = readable != 0;
  object.writable = writable != 0;
  return self;
}

void connection_dealloc(PyObject* self) {
  ConnectionObject& object = connection(self);
  if (object.made) {
    close_connection(self, true);
    let_go_if_unused(self);
  }
  sync_dealloc(self);
}

PyMethodDef connection_methods[] = {
    {"send", connection_send, METH_O, "send(obj)\n\nEncodes and sends an object."},
    {"recv", connection_recv, METH_NOARGS,
     "recv()\n\nThe next object; EOFError when the other end is closed everywhere."},
    {"send_bytes", method(connection_send_bytes), METH_VARARGS | METH_KEYWORDS,
     "send_bytes(buf, offset=0, size=None)\n\nSends bytes, or a part of them, as one message."},
    {"recv_bytes", method(connection_recv_bytes), METH_VARARGS | METH_KEYWORDS,
     "recv_bytes(maxlength=None) -> bytes\n\nThe next message. If it is longer than maxlength:"
     " OSError, and\nthe connection cannot be read any more."},
    {"poll", method(connection_poll), METH_FASTCALL | METH_KEYWORDS,
     "poll(timeout=0.0) -> bool\n\nWhether there is a message, or the other end is closed"
     " everywhere.\nNone waits for ever."},
    {"fileno", connection_fileno, METH_NOARGS,
     "fileno() -> int\n\nReadable exactly while there is a message, or the other end is closed"
     " everywhere."},
    {"close", connection_close, METH_NOARGS, "close()\n\nCloses this process's copy."},
    {"_close", connection_close, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef connection_getset[] = {
    {"closed", get_closed, nullptr, "Whether it was closed.", nullptr},
    {"readable", get_readable, nullptr, "Whether it can receive.", nullptr},
    {"writable", get_writable, nullptr, "Whether it can send.", nullptr},
    {"_readable", get_readable, set_readable, nullptr, nullptr},
    {"_writable", get_writable, set_writable, nullptr, nullptr},
    {"_handle", get_descriptor, set_descriptor, nullptr, nullptr},
    {"_end", get_end, nullptr, nullptr, nullptr},
    {"_state", sync_peek_handle, nullptr, nullptr, nullptr},
    {"_state_kept", sync_get_handle, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot connection_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&connection_new)},
                                  {Py_tp_dealloc, reinterpret_cast<void*>(&connection_dealloc)},
                                  {Py_tp_methods, connection_methods},
                                  {Py_tp_getset, connection_getset},
                                  {0, nullptr}};
PyType_Spec connection_spec = {"shoal._core.Connection", sizeof(ConnectionObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, connection_slots};

// Makes a pipe: (state, descriptor, descriptor). The caller holds the state until let_go_pipe().
PyObject* open_pipe(PyObject*, PyObject* both_ways) {
  const int both = PyObject_IsTrue(both_ways);
  arena::Member* const member = both < 0 ? nullptr : current_member();
  const arena::Handle state = member == nullptr ? 0 : new_state(*member, Pipe::state_size(both));
  if (state == 0) return nullptr;
  Pipe::create_state(member->arena(), state, both != 0);
  int first = -1;
  int second = -1;
  try {
    os::stream_open(both != 0, &first, &second);
    member->share(state);
  } catch (const std::exception&) {
    set_python_error();
    if (first >= 0) os::stream_close(first);
    if (second >= 0) os::stream_close(second);
    member->free(state);
    return nullptr;
  }
  return Py_BuildValue("Kii", static_cast<unsigned long long>(state), first, second);
}

PyObject* let_go_pipe(PyObject*, PyObject* handle) {
  const arena::Handle state = PyLong_AsUnsignedLongLong(handle);
  arena::Member* const member = PyErr_Occurred() != nullptr ? nullptr : current_member();
  if (member == nullptr) return nullptr;
  Pipe::let_go(*member, state);
  Py_RETURN_NONE;
}

// The object that a note names, for readers other than Connection. LookupError if it is gone, or
// not of this session.
PyObject* take_noted(PyObject*, PyObject* bytes) {
  Note note;
  if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != sizeof note) {
    PyErr_SetString(PyExc_ValueError, "not a note written by a shoal pipe");
    return nullptr;
  }
  std::memcpy(&note, PyBytes_AS_STRING(bytes), sizeof note);
  arena::Member* const member = member_if_any();
  const bool here = member != nullptr && member->arena().fd_device() == note.device &&
                    member->arena().fd_inode() == note.inode;
  if (!here || !Pipe::take_from(*member, note.state, note.message)) {
    PyErr_SetString(PyExc_LookupError, here ? "it was received already" : "not of this session");
    return nullptr;
  }
  return object_of_message(*member, note.message, note.kind);
}

PyMethodDef functions[] = {{"open_pipe", open_pipe, METH_O, nullptr},
                           {"let_go_pipe", let_go_pipe, METH_O, nullptr},
                           {"take_noted", take_noted, METH_O, nullptr},
                           {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_pipe(PyObject* module) {
  return add_type(module, connection_spec) && PyModule_AddFunctions(module, functions) == 0;
}

}  // namespace shoal::bindings
