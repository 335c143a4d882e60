// SPDX-License-Identifier: Apache-2.0
//
// shoal._core.Channel: a plain C type over channel::Channel. send() encodes in the caller, and
// raises there if the object cannot be pickled. receive() decodes; an object that cannot be decoded
// raises and is lost, and the channel still works.
// Design: docs/design/channel.md
#include "channel/channel.hpp"
#include "bindings/channel/messages.hpp"
#include "bindings/interp/wait.hpp"
#include "bindings/shared/shared_object.hpp"

namespace shoal::bindings {

namespace {

using channel::Received;
using channel::Sent;

struct ChannelObject {
  PyObject_HEAD
  channel::Channel* channel;
};

channel::Channel& channel_of(PyObject* self) {
  return *reinterpret_cast<ChannelObject*>(self)->channel;
}

// False, with an error set, when the channel was removed.
bool is_usable(PyObject* self) {
  if (reinterpret_cast<ChannelObject*>(self)->channel != nullptr) return true;
  PyErr_SetString(PyExc_ValueError, "the channel was removed");
  return false;
}

PyObject* raise_closed(PyObject* self) {
  PyErr_Format(PyExc_EOFError, "the channel \"%s\" is closed", channel_of(self).name().c_str());
  return nullptr;
}

PyObject* channel_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"name", "items", "bytes", "mode", nullptr};
  const char* name = nullptr;
  Py_ssize_t name_size = 0;
  unsigned long long items = 1024;
  unsigned long long bytes = 0;
  const char* mode = "either";
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "s#|KKs:Channel", const_cast<char**>(names),
                                   &name, &name_size, &items, &bytes, &mode)) {
    return nullptr;
  }
  const std::string how = mode;
  if (how != "either" && how != "create" && how != "existing") {
    PyErr_SetString(PyExc_ValueError, "mode must be 'either', 'create' or 'existing'");
    return nullptr;
  }
  arena::Member* const member = current_member();
  PyObject* const self = member == nullptr ? nullptr : type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  try {
    using Open = channel::Channel::Open;
    auto channel =
        channel::Channel::open(*member, std::string(name, static_cast<size_t>(name_size)),
                               how == "create"     ? Open::create
                               : how == "existing" ? Open::existing
                                                   : Open::either,
                               {items, bytes});
    reinterpret_cast<ChannelObject*>(self)->channel = channel.release();
  } catch (const std::exception&) {
    set_python_error();
    Py_DECREF(self);
    return nullptr;
  }
  if (reinterpret_cast<ChannelObject*>(self)->channel != nullptr) return self;
  Py_DECREF(self);
  return PyErr_Format(how == "create" ? PyExc_FileExistsError : PyExc_FileNotFoundError,
                      how == "create" ? "channel \"%s\" exists" : "no channel \"%s\"", name);
}

void channel_dealloc(PyObject* self) {
  delete reinterpret_cast<ChannelObject*>(self)->channel;
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* channel_send(PyObject* self, PyObject* args, PyObject* keywords) {
  if (!is_usable(self)) return nullptr;
  static const char* names[] = {"object", "block", "timeout", nullptr};
  PyObject* object = nullptr;
  int block = 1;
  PyObject* timeout = nullptr;
  int64_t deadline_ns = 0;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|pO:send", const_cast<char**>(names), &object,
                                   &block, &timeout) ||
      (block != 0 && !deadline_from(timeout, &deadline_ns))) {
    return nullptr;
  }
  arena::Member* const member = current_member();
  const arena::Handle message = member == nullptr ? 0 : encode_message(object, *member);
  if (message == 0) return nullptr;
  Sent sent = Sent::full;
  Waited waited = Waited::done;
  try {
    sent = channel_of(self).try_send(*member, message);
  } catch (const std::exception&) {
    set_python_error();
    waited = Waited::failed;
  }
  if (sent == Sent::full && waited == Waited::done && deadline_ns != 0) {
    waited = wait_in_slices(
        [&](int64_t slice_ns) {
          sent = channel_of(self).send(*member, message, slice_ns);
          return sent == Sent::ok || sent == Sent::closed ? Slice::done : Slice::again;
        },
        deadline_ns);
  }
  if (sent == Sent::ok && waited == Waited::done) Py_RETURN_NONE;
  channel::free_message(*member, message);
  if (waited == Waited::failed) return nullptr;
  return sent == Sent::closed ? raise_closed(self) : raise_full();
}

PyObject* channel_receive(PyObject* self, PyObject* args, PyObject* keywords) {
  if (!is_usable(self)) return nullptr;
  int64_t deadline_ns = 0;
  if (!block_arguments(args, keywords, "|pO:receive", &deadline_ns)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  if (PyErr_CheckSignals() < 0) return nullptr;  // before a message is taken, never after
  arena::Handle message = 0;
  Received received = Received::empty;
  try {
    received = channel_of(self).try_receive(*member, &message);
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
  if (received == Received::empty && deadline_ns != 0) {
    const Waited waited = wait_in_slices(
        [&](int64_t slice_ns) {
          received = channel_of(self).receive(*member, &message, slice_ns);
          return received == Received::ok || received == Received::closed ? Slice::done
                                                                          : Slice::again;
        },
        deadline_ns);
    if (waited == Waited::failed) return nullptr;
  }
  if (received == Received::closed) return raise_closed(self);
  if (received != Received::ok) return raise_empty();
  return decode_message(message, *member);
}

PyObject* channel_close(PyObject* self, PyObject*) {
  if (!is_usable(self)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  channel_of(self).close(*member);
  Py_RETURN_NONE;
}

PyObject* channel_remove(PyObject* self, PyObject*) {
  if (!is_usable(self)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  try {
    const bool removed = channel_of(self).remove(*member);
    delete reinterpret_cast<ChannelObject*>(self)->channel;
    reinterpret_cast<ChannelObject*>(self)->channel = nullptr;
    return PyBool_FromLong(removed ? 1 : 0);
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
}

PyObject* channel_fileno(PyObject* self, PyObject*) {
  if (!is_usable(self)) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  try {
    return PyLong_FromLong(channel_of(self).descriptor(*member));
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
}

PyObject* channel_statistics(PyObject* self, PyObject*) {
  if (!is_usable(self)) return nullptr;
  const channel::ChannelStatistics s = channel_of(self).statistics();
  return Py_BuildValue("{sKsKsKsKsKsKsKsKsO}", "length", s.length, "bytes", s.bytes, "sent", s.sent,
                       "received", s.received, "send_sleeps", s.send_sleeps, "receive_sleeps",
                       s.receive_sleeps, "item_limit", s.item_limit, "byte_limit", s.byte_limit,
                       "closed", s.closed ? Py_True : Py_False);
}

Py_ssize_t channel_length(PyObject* self) {
  if (!is_usable(self)) return -1;
  return static_cast<Py_ssize_t>(channel_of(self).length());
}

PyObject* channel_get_name(PyObject* self, void*) {
  if (!is_usable(self)) return nullptr;
  return PyUnicode_DecodeUTF8(channel_of(self).name().data(),
                              static_cast<Py_ssize_t>(channel_of(self).name().size()), "replace");
}

PyObject* channel_get_closed(PyObject* self, void*) {
  if (!is_usable(self)) return nullptr;
  return PyBool_FromLong(channel_of(self).is_closed() ? 1 : 0);
}

PyMethodDef channel_methods[] = {
    {"send", method(channel_send), METH_VARARGS | METH_KEYWORDS,
     "send(object, block=True, timeout=None)\n\nRaises queue.Full, EOFError when closed."},
    {"receive", method(channel_receive), METH_VARARGS | METH_KEYWORDS,
     "receive(block=True, timeout=None)\n\nRaises queue.Empty, EOFError when closed and empty."},
    {"close", channel_close, METH_NOARGS, "close()\n\nNothing more can be sent."},
    {"remove", channel_remove, METH_NOARGS,
     "remove() -> bool\n\nCloses it, frees the messages in it, and takes its name away."},
    {"fileno", channel_fileno, METH_NOARGS,
     "fileno() -> int\n\nReadable while there may be messages: for select and asyncio."},
    {"statistics", channel_statistics, METH_NOARGS, "statistics() -> dict"},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef channel_getset[] = {
    {"name", channel_get_name, nullptr, "Its name in the session.", nullptr},
    {"closed", channel_get_closed, nullptr, "Whether it was closed.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot channel_slots[] = {{Py_tp_new, reinterpret_cast<void*>(&channel_new)},
                               {Py_tp_dealloc, reinterpret_cast<void*>(&channel_dealloc)},
                               {Py_tp_methods, channel_methods},
                               {Py_tp_getset, channel_getset},
                               {Py_sq_length, reinterpret_cast<void*>(&channel_length)},
                               {0, nullptr}};
PyType_Spec channel_spec = {"shoal._core.Channel", sizeof(ChannelObject), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, channel_slots};

}  // namespace

bool bind_channel(PyObject* module) {
  channel::register_reap_hooks();
  return add_type(module, channel_spec);
}

}  // namespace shoal::bindings
