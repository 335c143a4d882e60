// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Queue: a plain C type over a channel without a name. put() encodes in the caller.
// get() decodes after the message was taken, so an object that cannot be decoded is lost, and the
// queue still works. Waits follow bindings/interp/wait.hpp; nothing here starts a thread or waits
// at exit.
//
// The drop-in also needs: ends that are closed in this process only (`_closed`, one bit per end),
// whether put() was called in this process (`_used`), and a put() that passes an object that cannot
// be pickled to `self._put_failed(error, object)` instead of raising (`_forgiving`).
// Design: docs/design/queue.md
#include <memory>

#include "bindings/channel/messages.hpp"
#include "bindings/interp/raised.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"
#include "channel/channel.hpp"

namespace shoal::bindings {

namespace {

using channel::Channel;
using channel::Received;
using channel::Sent;

struct QueueObject {
  SharedObject shared;
  Channel* channel;
  uint64_t max_items;  // 0: no limit
  uint64_t max_bytes;
  int closed;  // ends that were closed in this process
  bool used;   // put() was called in this process
  bool forgiving;
  bool joinable;  // objects received here will be marked as done
};

QueueObject& queue_object(PyObject* self) { return *reinterpret_cast<QueueObject*>(self); }
Channel& channel_of(PyObject* self) { return *queue_object(self).channel; }

// The member, or nullptr with an error set: this process is no member, or the end is closed here.
arena::Member* member_for(PyObject* self, QueueEnd end) {
  if ((queue_object(self).closed & end) == 0) [[likely]]
    return current_member();
  const Reference raised = Reference::take(PyObject_CallMethod(self, "_raise_closed", nullptr));
  if (PyErr_Occurred() == nullptr) PyErr_Format(PyExc_ValueError, "Queue %R is closed", self);
  return nullptr;
}

Reference error_class(const char* name) {
  const Reference module = Reference::take(PyImport_ImportModule("shoal.errors"));
  return Reference::take(module ? PyObject_GetAttrString(module.get(), name) : nullptr);
}

PyObject* raise_shut_down(PyObject* self) {
  const Reference type = error_class("QueueShutDown");
  if (type) PyErr_Format(type.get(), "%R was shut down", self);
  return nullptr;
}

PyObject* raise_consumer_died(PyObject* self, uint64_t lost) {
  const Reference type = error_class("ConsumerDied");
  if (type) {
    PyErr_Format(type.get(),
                 "%llu object%s taken from %R will not be marked by task_done(), because the"
                 " processes that took them have ended. They count as done from now on; put them"
                 " again if the work must be done",
                 static_cast<unsigned long long>(lost), lost == 1 ? "" : "s", self);
  }
  return nullptr;
}

// ---- putting

// Sends the message, which is freed if it cannot be sent. closed, full: no error is set.
// interrupted: an error is set.
Sent send(PyObject* self, arena::Member& member, arena::Handle message, int64_t deadline_ns) {
  Channel& channel = channel_of(self);
  Sent sent = Sent::full;
  Waited waited = Waited::done;
  try {
    sent = channel.try_send(member, message);
  } catch (const std::exception&) {
    set_python_error();
    waited = Waited::failed;
  }
  if (sent == Sent::full && waited == Waited::done && deadline_ns != 0) {
    waited = wait_in_slices(
        [&](int64_t slice_ns) {
          sent = channel.send(member, message, slice_ns);
          return sent == Sent::ok || sent == Sent::closed ? Slice::done : Slice::again;
        },
        deadline_ns);
  }
  if (waited != Waited::failed && sent == Sent::ok) return Sent::ok;
  channel::free_message(member, message);
  if (waited == Waited::failed) return Sent::interrupted;
  return sent == Sent::closed ? Sent::closed : Sent::full;
}

// For an object that could not be encoded: a forgiving queue passes the error to `_put_failed`.
// Not a MemoryError, for which the object is not to blame.
bool forgive(PyObject* self, PyObject* object) {
  if (!queue_object(self).forgiving || PyErr_ExceptionMatches(PyExc_Exception) == 0 ||
      PyErr_ExceptionMatches(PyExc_MemoryError) != 0) {
    return false;
  }
  const Reference error = take_raised();
  const Reference told =
      Reference::take(PyObject_CallMethod(self, "_put_failed", "OO", error.get(), object));
  return static_cast<bool>(told);
}

// Outcome of a put. failed: an error is set; dropped: the object could not be encoded, which the
// queue forgives.
enum class Put { ok, dropped, full, failed };

Put put_object(PyObject* self, PyObject* object, int64_t deadline_ns) {
  arena::Member* const member = member_for(self, kPutEnd);
  if (member == nullptr) return Put::failed;
  queue_object(self).used = true;
  const arena::Handle message = encode_message(object, *member);
  if (message == 0) return forgive(self, object) ? Put::dropped : Put::failed;
  const Sent sent = send(self, *member, message, deadline_ns);
  if (sent == Sent::ok) return Put::ok;
  if (sent == Sent::full) return Put::full;
  if (sent == Sent::closed) raise_shut_down(self);
  return Put::failed;
}

PyObject* put_until(PyObject* self, PyObject* object, int64_t deadline_ns) {
  const Put put = put_object(self, object, deadline_ns);
  if (put == Put::failed) return nullptr;
  if (put == Put::full) return raise_full();
  Py_RETURN_NONE;
}

PyObject* queue_put(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static const char* const names[] = {"obj", "block", "timeout"};
  PyObject* given[3] = {nullptr, Py_True, Py_None};
  if (!parse_fast("put", names, 3, args, count, keywords, given)) return nullptr;
  if (given[0] == nullptr) {
    PyErr_SetString(PyExc_TypeError, "put() missing 1 required positional argument: 'obj'");
    return nullptr;
  }
  int64_t deadline_ns = 0;
  if (!deadline_from(given[1], given[2], &deadline_ns)) return nullptr;
  return put_until(self, given[0], deadline_ns);
}

PyObject* queue_put_nowait(PyObject* self, PyObject* object) { return put_until(self, object, 0); }

PyObject* queue_put_many(PyObject* self, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"objects", "block", "timeout", nullptr};
  PyObject* objects = nullptr;
  PyObject* block = Py_True;
  PyObject* timeout = Py_None;
  int64_t deadline_ns = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|OO:put_many", const_cast<char**>(names),
                                   &objects, &block, &timeout) ||
      !deadline_from(block, timeout, &deadline_ns)) {
    return nullptr;
  }
  const Reference iterator = Reference::take(PyObject_GetIter(objects));
  if (!iterator) return nullptr;
  Py_ssize_t done = 0;
  Put put = Put::ok;
  while (put != Put::full && put != Put::failed) {
    const Reference object = Reference::take(PyIter_Next(iterator.get()));
    if (!object) break;
    put = PyErr_CheckSignals() < 0 ? Put::failed : put_object(self, object.get(), deadline_ns);
    if (put == Put::ok) ++done;
  }
  if (PyErr_Occurred() != nullptr) return nullptr;
  return put == Put::full && done == 0 ? raise_full() : PyLong_FromSsize_t(done);
}

// ---- getting

// ok: `*message` is this member's. closed, empty: no error is set. interrupted: an error is set.
Received receive(PyObject* self, arena::Member& member, arena::Handle* message,
                 int64_t deadline_ns) {
  Channel& channel = channel_of(self);
  Received received = Received::empty;
  try {
    received = channel.try_receive(member, message);
  } catch (const std::exception&) {
    set_python_error();
    return Received::interrupted;
  }
  if (received != Received::empty || deadline_ns == 0) return received;
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        received = channel.receive(member, message, slice_ns);
        return received == Received::ok || received == Received::closed ? Slice::done
                                                                        : Slice::again;
      },
      deadline_ns);
  if (waited == Waited::failed) return Received::interrupted;
  return received == Received::interrupted ? Received::empty : received;
}

PyObject* raise_for(PyObject* self, Received received) {
  if (received == Received::empty) return raise_empty();
  return received == Received::closed ? raise_shut_down(self) : nullptr;
}

// The object in a received message, which this process has in hand until task_done(). In a full
// arena there may be no memory to note that before the message has been freed.
PyObject* open_message(PyObject* self, arena::Member& member, arena::Handle message) {
  if (!queue_object(self).joinable) return decode_message(message, member);
  Channel& channel = channel_of(self);
  const bool noted = channel.try_take_in_hand(member);
  PyObject* const object = decode_message(message, member);
  if (!noted) channel.take_in_hand(member);
  return object;
}

PyObject* get_until(PyObject* self, int64_t deadline_ns) {
  arena::Member* const member = member_for(self, kGetEnd);
  if (member == nullptr) return nullptr;
  if (PyErr_CheckSignals() < 0) return nullptr;  // before a message is taken, never after
  arena::Handle message = 0;
  const Received received = receive(self, *member, &message, deadline_ns);
  if (received != Received::ok) return raise_for(self, received);
  return open_message(self, *member, message);
}

PyObject* queue_get(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  int64_t deadline_ns = 0;
  if (!parse_block("get", args, count, keywords, &deadline_ns)) return nullptr;
  return get_until(self, deadline_ns);
}

PyObject* queue_get_nowait(PyObject* self, PyObject*) { return get_until(self, 0); }

// Adds the objects received so far to the error that is set, so that they are not lost.
PyObject* raise_with_received(PyObject* objects) {
  Reference error = take_raised();
  if (PyObject_SetAttrString(error.get(), "received", objects) < 0) PyErr_Clear();
  put_raised(std::move(error));
  return nullptr;
}

PyObject* queue_get_many(PyObject* self, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"limit", "block", "timeout", nullptr};
  Py_ssize_t limit = 0;
  PyObject* block = Py_True;
  PyObject* timeout = Py_None;
  int64_t deadline_ns = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "n|OO:get_many", const_cast<char**>(names),
                                   &limit, &block, &timeout) ||
      !deadline_from(block, timeout, &deadline_ns)) {
    return nullptr;
  }
  if (limit < 1) return PyErr_Format(PyExc_ValueError, "limit must be at least 1, not %zd", limit);
  const Reference first = Reference::take(get_until(self, deadline_ns));
  Reference objects = Reference::take(first ? PyList_New(0) : nullptr);
  if (!objects || PyList_Append(objects.get(), first.get()) < 0) return nullptr;
  arena::Member* const member = current_member();
  while (member != nullptr && PyList_GET_SIZE(objects.get()) < limit) {
    arena::Handle message = 0;
    if (receive(self, *member, &message, 0) != Received::ok) break;
    const Reference object = Reference::take(open_message(self, *member, message));
    if (!object || PyList_Append(objects.get(), object.get()) < 0) {
      return raise_with_received(objects.get());
    }
  }
  if (PyErr_Occurred() == nullptr) return objects.release();
  return raise_with_received(objects.get());
}

// ---- state and the rest

PyObject* queue_qsize(PyObject* self, PyObject*) {
  return PyLong_FromUnsignedLongLong(channel_of(self).length());
}

PyObject* queue_empty(PyObject* self, PyObject*) {
  return PyBool_FromLong(channel_of(self).ring().seems_empty() ? 1 : 0);
}

PyObject* queue_full(PyObject* self, PyObject*) {
  return PyBool_FromLong(channel_of(self).ring().seems_to_fit(1) ? 0 : 1);
}

PyObject* queue_task_done(PyObject* self, PyObject*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  if (channel_of(self).mark_done(*member)) Py_RETURN_NONE;
  PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
  return nullptr;
}

PyObject* queue_join(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static const char* const names[] = {"timeout"};
  PyObject* given[1] = {Py_None};
  int64_t deadline_ns = 0;
  if (!parse_fast("join", names, 1, args, count, keywords, given) ||
      !deadline_from(given[0], &deadline_ns)) {
    return nullptr;
  }
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  uint64_t lost = 0;
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        return channel_of(self).wait_all_done(*member, &lost, slice_ns) == sync::WaitResult::ok
                   ? Slice::done
                   : Slice::again;
      },
      deadline_ns);
  if (waited == Waited::failed) return nullptr;
  if (lost != 0) return raise_consumer_died(self, lost);
  return PyBool_FromLong(waited == Waited::done ? 1 : 0);
}

PyObject* descriptor_of(PyObject* self, int (Channel::*descriptor)(arena::Member&, int64_t)) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  int fd = -1;
  const Waited waited = wait_in_slices(
      [&](int64_t slice_ns) {
        fd = (channel_of(self).*descriptor)(*member, slice_ns);
        return fd < 0 ? Slice::again : Slice::done;
      },
      os::monotonic_ns() + channel::Bell::kLongPatienceNs);
  if (waited == Waited::failed) return nullptr;
  if (waited == Waited::done) return PyLong_FromLong(fd);
  PyErr_SetString(PyExc_RuntimeError, channel::Bell::kHeldUp);
  return nullptr;
}

PyObject* queue_fileno(PyObject* self, PyObject*) {
  return descriptor_of(self, &Channel::descriptor);
}

PyObject* queue_space_fileno(PyObject* self, PyObject*) {
  return descriptor_of(self, &Channel::space_descriptor);
}

// _look_after(end): calls Channel::look_after(); returns whether that end is ready.
PyObject* queue_look_after(PyObject* self, PyObject* end) {
  const long which = PyLong_AsLong(end);
  if (which == -1 && PyErr_Occurred() != nullptr) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  const auto look = [&](int64_t) {
    channel_of(self).look_after(*member);
    return Slice::done;
  };
  if (wait_in_slices(look, 0) == Waited::failed) return nullptr;
  const bool ready = which == kGetEnd ? channel_of(self).is_ready_to_receive()
                                      : channel_of(self).is_ready_to_send();
  return PyBool_FromLong(ready ? 1 : 0);
}

PyObject* queue_shutdown(PyObject* self, PyObject*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  channel_of(self).close(*member);
  Py_RETURN_NONE;
}

PyObject* queue_statistics(PyObject* self, PyObject*) {
  const channel::ChannelStatistics s = channel_of(self).statistics();
  return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsK}", "length", s.length, "bytes", s.bytes, "put",
                       s.sent, "got", s.received, "unfinished", s.unfinished, "put_sleeps",
                       s.send_sleeps, "get_sleeps", s.receive_sleeps, "maxsize", s.item_limit,
                       "maxbytes", s.byte_limit, "segments", channel_of(self).ring().segments());
}

PyObject* queue_get_maxsize(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong(queue_object(self).max_items);
}
PyObject* queue_get_maxbytes(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong(queue_object(self).max_bytes);
}
PyObject* queue_get_closed(PyObject* self, void*) {
  return PyLong_FromLong(queue_object(self).closed);
}
int queue_set_closed(PyObject* self, PyObject* value, void*) {
  const long ends = value == nullptr ? long{kBothEnds} : PyLong_AsLong(value);
  if (ends == -1 && PyErr_Occurred() != nullptr) return -1;
  queue_object(self).closed = static_cast<int>(ends) & kBothEnds;
  return 0;
}
PyObject* queue_get_used(PyObject* self, void*) {
  return PyBool_FromLong(queue_object(self).used ? 1 : 0);
}

PyObject* queue_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"maxsize", "maxbytes", "handle", "forgiving", "joinable", nullptr};
  long long items = 0;
  long long bytes = 0;
  unsigned long long handle = 0;
  int forgiving = 0;
  int joinable = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "|LLKpp:Queue", const_cast<char**>(names),
                                   &items, &bytes, &handle, &forgiving, &joinable)) {
    return nullptr;
  }
  const channel::Ring::Limits limits{items > 0 ? static_cast<uint64_t>(items) : 0,
                                     bytes > 0 ? static_cast<uint64_t>(bytes) : 0};
  const auto create = [&](arena::Arena& arena, arena::Handle block) {
    Channel::create_state(arena, block, limits);
  };
  const auto check = [](arena::Arena&, arena::Handle) {};
  PyObject* const self = handle == 0 ? new_shared(type, Channel::state_size(limits), create)
                                     : attach(type, handle, check);
  if (self == nullptr) return nullptr;
  QueueObject& object = queue_object(self);
  try {
    object.channel = Channel::at(*current_member(), object.shared.handle).release();
  } catch (const std::exception&) {
    set_python_error();
    Py_DECREF(self);
    return nullptr;
  }
  const channel::ChannelStatistics facts = object.channel->statistics();
  object.max_items = facts.item_limit;
  object.max_bytes = facts.byte_limit;
  object.forgiving = forgiving != 0;
  object.joinable = joinable != 0;
  return self;
}

void queue_dealloc(PyObject* self) {
  std::unique_ptr<Channel> channel(queue_object(self).channel);
  arena::Member* const member = channel == nullptr ? nullptr : member_if_any();
  if (member != nullptr) {
    channel->let_go(*member);
    queue_object(self).shared.handle = 0;  // sync_dealloc() must not drop the hold again
  }
  channel.reset();
  sync_dealloc(self);
}

PyMethodDef queue_methods[] = {
    {"put", method(queue_put), METH_FASTCALL | METH_KEYWORDS,
     "put(obj, block=True, timeout=None)\n\nEncodes and puts an object; queue.Full when there is no"
     " room in time."},
    {"get", method(queue_get), METH_FASTCALL | METH_KEYWORDS,
     "get(block=True, timeout=None)\n\nThe oldest object; queue.Empty when there is none in time."},
    {"put_nowait", queue_put_nowait, METH_O, "put_nowait(obj)\n\n`put(obj, block=False)`."},
    {"get_nowait", queue_get_nowait, METH_NOARGS, "get_nowait()\n\n`get(block=False)`."},
    {"put_many", method(queue_put_many), METH_VARARGS | METH_KEYWORDS,
     "put_many(objects, block=True, timeout=None) -> int\n\nPuts each of the objects; stops at the"
     " first\nfor which there is no room in time. Returns how many were put; queue.Full if none."},
    {"get_many", method(queue_get_many), METH_VARARGS | METH_KEYWORDS,
     "get_many(limit, block=True, timeout=None) -> list\n\nWaits for one object as get() does, then"
     " takes\nmore without waiting, at most `limit` in all. An object that cannot be decoded raises"
     " its error;\nits attribute `received` has the objects before it."},
    {"qsize", queue_qsize, METH_NOARGS, "qsize() -> int\n\nThe exact number of objects in it."},
    {"empty", queue_empty, METH_NOARGS, "empty() -> bool\n\nWhether it is empty now."},
    {"full", queue_full, METH_NOARGS, "full() -> bool\n\nWhether put() would wait for room now."},
    {"_task_done", queue_task_done, METH_NOARGS, nullptr},
    {"_join", method(queue_join), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"fileno", queue_fileno, METH_NOARGS,
     "fileno() -> int\n\nA descriptor that is readable while there are objects, for select and"
     " asyncio.\nWith several readers another process may take the object first."},
    {"_space_fileno", queue_space_fileno, METH_NOARGS, nullptr},
    {"_look_after", queue_look_after, METH_O, nullptr},
    {"_shutdown", queue_shutdown, METH_NOARGS, nullptr},
    {"statistics", queue_statistics, METH_NOARGS,
     "statistics() -> dict\n\nNumber of objects and bytes, puts, gets, sleeps, and the limits."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef queue_getset[] = {
    SHOAL_HANDLE_GETTERS,
    {"maxsize", queue_get_maxsize, nullptr, "Most objects it holds; 0: no limit.", nullptr},
    {"maxbytes", queue_get_maxbytes, nullptr, "Most bytes it holds; 0: no limit.", nullptr},
    {"_closed", queue_get_closed, queue_set_closed, nullptr, nullptr},
    {"_used", queue_get_used, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyType_Slot queue_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&queue_new)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(&queue_dealloc)},
                             {Py_tp_methods, queue_methods},
                             {Py_tp_getset, queue_getset},
                             {0, nullptr}};
PyType_Spec queue_spec = {"shoal._core.Queue", sizeof(QueueObject), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, queue_slots};

}  // namespace

bool bind_queue(PyObject* module) { return add_type(module, queue_spec); }

}  // namespace shoal::bindings
