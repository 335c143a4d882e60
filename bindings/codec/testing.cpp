// SPDX-License-Identifier: Apache-2.0
//
// The codec for tests and benchmarks: messages that never leave the process. Not for users; the
// names begin with `codec_`.
// Design: docs/design/codec.md
#define PY_SSIZE_T_CLEAN
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bindings/interp/bind.hpp"
#include "codec/python/codec.hpp"
#include "os/clock.hpp"

namespace shoal::bindings {

namespace {

using codec::MessageBuilder;
using codec::MessageView;
namespace py = codec::python;

// A message whose attachments are in the arena, with the owner BLOCK(parent); its bytes are in
// private memory.
struct Contents {
  arena::Member* member = nullptr;
  arena::Handle parent = 0;
  std::vector<std::byte> bytes;
  std::vector<arena::Handle> attachments;

  ~Contents() {
    for (const arena::Handle handle : attachments) member->free_child(handle, parent);
    if (parent != 0) member->free(parent);
  }
  MessageView view() const noexcept {
    MessageView view;
    view.arena = &member->arena();
    view.member = member;
    view.bytes = bytes.data();
    view.size = bytes.size();
    view.attachments = attachments.data();
    view.n_attachments = attachments.size();
    view.parent = parent;
    return view;
  }
};

struct Message {
  PyObject_HEAD
  Contents* contents;
};

Contents& contents_of(PyObject* self) { return *reinterpret_cast<Message*>(self)->contents; }

void message_dealloc(PyObject* self) {
  delete reinterpret_cast<Message*>(self)->contents;
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* decode_view(const MessageView& view, int copy) {
  std::size_t end;
  PyObject* const object = py::decode(view, 0, &end, copy != 0 ? py::copy_out : py::move_out);
  if (object != nullptr && end != view.size) {
    Py_DECREF(object);
    PyErr_Format(PyExc_ValueError, "codec_decode: %zu bytes left over", view.size - end);
    return nullptr;
  }
  return object;
}

PyObject* message_decode(PyObject* self, PyObject* args) {
  int copy = 0;
  if (PyArg_ParseTuple(args, "|p", &copy) == 0) return nullptr;
  return decode_view(contents_of(self).view(), copy);
}

// Decodes other bytes with this message's attachments.
PyObject* message_decode_bytes(PyObject* self, PyObject* args) {
  const char* bytes;
  Py_ssize_t size;
  if (PyArg_ParseTuple(args, "y#", &bytes, &size) == 0) return nullptr;
  MessageView view = contents_of(self).view();
  // A buffer of exactly this size, so that a sanitizer notices an access behind it.
  const auto exact = std::make_unique<std::byte[]>(static_cast<std::size_t>(size));
  std::memcpy(exact.get(), bytes, static_cast<std::size_t>(size));
  view.bytes = exact.get();
  view.size = static_cast<std::size_t>(size);
  PyObject* const summary = py::summarize(view, 0, 200);
  if (summary == nullptr) return nullptr;
  Py_DECREF(summary);
  return py::decode(view, 0, nullptr, py::copy_out);
}

PyObject* message_summarize(PyObject* self, PyObject* args) {
  Py_ssize_t most = 200;
  if (PyArg_ParseTuple(args, "|n", &most) == 0) return nullptr;
  return py::summarize(contents_of(self).view(), 0, static_cast<std::size_t>(most));
}

PyObject* message_bytes(PyObject* self, void*) {
  const Contents& contents = contents_of(self);
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(contents.bytes.data()),
                                   static_cast<Py_ssize_t>(contents.bytes.size()));
}

PyObject* message_attachments(PyObject* self, void*) {
  return PyLong_FromSize_t(contents_of(self).attachments.size());
}

PyMethodDef message_methods[] = {
    {"decode", message_decode, METH_VARARGS, "decode(copy=False): the value"},
    {"decode_bytes", message_decode_bytes, METH_VARARGS, "decode_bytes(bytes): other bytes"},
    {"summarize", message_summarize, METH_VARARGS, "summarize(max_chars=200): a short text"},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef message_getset[] = {
    {"bytes", message_bytes, nullptr, "the message's own bytes", nullptr},
    {"attachments", message_attachments, nullptr, "how many blocks belong to it", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot message_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(message_dealloc)},
    {Py_tp_methods, message_methods},
    {Py_tp_getset, message_getset},
    {0, nullptr},
};

PyType_Spec message_spec = {"shoal._core.CodecMessage", sizeof(Message), 0, Py_TPFLAGS_DEFAULT,
                            message_slots};
PyTypeObject* message_type = nullptr;

PyObject* encoded(PyObject* object, bool move) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  MessageBuilder builder(member);
  builder.move_arrays = move;
  if (!py::encode(object, builder)) return nullptr;
  auto contents = std::make_unique<Contents>();
  contents->member = member;
  contents->parent = member->allocate(64);
  contents->bytes.assign(builder.bytes.data(), builder.bytes.data() + builder.bytes.size());
  contents->attachments = builder.attachments;
  for (const arena::Handle handle : contents->attachments) {
    member->give_to_block(handle, contents->parent);
  }
  builder.forget();
  auto* const message = PyObject_New(Message, message_type);
  if (message == nullptr) return nullptr;
  message->contents = contents.release();
  return reinterpret_cast<PyObject*>(message);
}

PyObject* encode_message(PyObject*, PyObject* object) { return encoded(object, false); }

// Encodes an object like a function's result: takes it out of the list, so that the only reference
// is the caller's.
PyObject* encode_result(PyObject*, PyObject* list) {
  if (!PyList_Check(list) || PyList_GET_SIZE(list) == 0) {
    PyErr_SetString(PyExc_TypeError, "a list with one object");
    return nullptr;
  }
  PyObject* const object = PyList_GET_ITEM(list, 0);
  Py_INCREF(object);
  PyObject* message = nullptr;
  if (PyList_SetSlice(list, 0, 1, nullptr) == 0) message = encoded(object, true);
  Py_DECREF(object);
  return message;
}

PyObject* to_word(PyObject*, PyObject* object) {
  std::uint64_t word;
  if (!py::to_word(object, &word)) Py_RETURN_NONE;
  return PyLong_FromUnsignedLongLong(word);
}

PyObject* from_word(PyObject*, PyObject* number) {
  const unsigned long long word = PyLong_AsUnsignedLongLongMask(number);
  return PyErr_Occurred() != nullptr ? nullptr : py::from_word(word);
}

PyObject* set_pickler(PyObject*, PyObject* args) {
  PyObject *dumps, *loads;
  if (PyArg_ParseTuple(args, "OO", &dumps, &loads) == 0) return nullptr;
  py::set_pickler(dumps == Py_None ? nullptr : dumps, loads == Py_None ? nullptr : loads);
  Py_RETURN_NONE;
}

// Nanoseconds of one encode, of one decode (copying), and of each direction as an inline word.
PyObject* benchmark(PyObject*, PyObject* args) {
  PyObject* object;
  Py_ssize_t rounds;
  if (PyArg_ParseTuple(args, "On", &object, &rounds) == 0) return nullptr;
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  MessageBuilder builder(member);
  const auto per_round = [&](std::int64_t begin) {
    return static_cast<double>(os::monotonic_ns() - begin) / static_cast<double>(rounds);
  };
  std::int64_t begin = os::monotonic_ns();
  for (Py_ssize_t i = 0; i < rounds; ++i) {
    builder.clear();
    if (!py::encode(object, builder)) return nullptr;
  }
  const double encode_ns = per_round(begin);
  MessageView view;
  view.arena = &member->arena();
  view.member = member;
  view.bytes = builder.bytes.data();
  view.size = builder.bytes.size();
  view.attachments = builder.attachments.data();
  view.n_attachments = builder.attachments.size();
  begin = os::monotonic_ns();
  for (Py_ssize_t i = 0; i < rounds; ++i) {
    PyObject* const decoded = py::decode(view, 0, nullptr, py::copy_out);
    if (decoded == nullptr) return nullptr;
    Py_DECREF(decoded);
  }
  const double decode_ns = per_round(begin);
  std::uint64_t word = 0;
  begin = os::monotonic_ns();
  bool has_word = true;
  for (Py_ssize_t i = 0; i < rounds && has_word; ++i) has_word = py::to_word(object, &word);
  const double to_word_ns = per_round(begin);
  begin = os::monotonic_ns();
  for (Py_ssize_t i = 0; i < rounds && has_word; ++i) Py_XDECREF(py::from_word(word));
  return Py_BuildValue("ddddn", encode_ns, decode_ns, has_word ? to_word_ns : 0.0,
                       has_word ? per_round(begin) : 0.0,
                       static_cast<Py_ssize_t>(builder.bytes.size()));
}

PyMethodDef functions[] = {
    {"codec_encode", encode_message, METH_O, "codec_encode(object) -> message"},
    {"codec_encode_result", encode_result, METH_O, "takes the first item out of a list: a result"},
    {"codec_to_word", to_word, METH_O, "the inline word, or None"},
    {"codec_from_word", from_word, METH_O, "the value of an inline word"},
    {"codec_set_pickler", set_pickler, METH_VARARGS, "codec_set_pickler(dumps, loads)"},
    {"codec_benchmark", benchmark, METH_VARARGS, "codec_benchmark(object, rounds)"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool bind_codec_for_test(PyObject* module) {
  PyObject* const type = PyType_FromSpec(&message_spec);
  if (type == nullptr) return false;
  message_type = reinterpret_cast<PyTypeObject*>(type);
  return PyModule_AddFunctions(module, functions) == 0;
}

}  // namespace shoal::bindings
