// SPDX-License-Identifier: Apache-2.0
#include "bindings/channel/messages.hpp"

#include <exception>
#include <memory>
#include <span>

#include "bindings/interp/bind.hpp"
#include "channel/message.hpp"
#include "codec/python/codec.hpp"

namespace shoal::bindings {

namespace {

// One builder per thread. It keeps its memory from message to message, unless it has become large.
thread_local std::unique_ptr<codec::MessageBuilder> idle_builder;
constexpr size_t kKeepBytes = size_t{1} << 20;

PyObject* raise_from_queue(const char* name) {
  // Not "queue": the program may have a module of that name.
  PyObject* const queue = PyImport_ImportModule("shoal._shared._queues");
  PyObject* const type = queue == nullptr ? nullptr : PyObject_GetAttrString(queue, name);
  if (type != nullptr) PyErr_SetNone(type);
  Py_XDECREF(type);
  Py_XDECREF(queue);
  return nullptr;
}

}  // namespace

std::unique_ptr<codec::MessageBuilder> take_builder(arena::Member& member) {
  std::unique_ptr<codec::MessageBuilder> builder = std::move(idle_builder);
  if (builder == nullptr) builder = std::make_unique<codec::MessageBuilder>();
  builder->member = &member;
  return builder;
}

void return_builder(std::unique_ptr<codec::MessageBuilder> builder) {
  builder->clear();
  if (builder->bytes.capacity() <= kKeepBytes) idle_builder = std::move(builder);
}

arena::Handle encode_message(PyObject* object, arena::Member& member) {
  arena::Handle message = 0;
  try {
    std::unique_ptr<codec::MessageBuilder> builder = take_builder(member);
    if (codec::python::encode(object, *builder)) {
      message = channel::make_message(
          member, std::span(builder->bytes.data(), builder->bytes.size()), builder->attachments);
      builder->forget();
    }
    return_builder(std::move(builder));
  } catch (const std::exception&) {
    set_python_error();
  }
  return message;
}

PyObject* decode_message(arena::Handle message, arena::Member& member) {
  codec::MessageView view;
  PyObject* object = nullptr;
  try {
    const channel::Message found = channel::open_message(member.arena(), message);
    view = {&member.arena(),        &member, found.bytes, found.size, found.attachments,
            found.attachment_count, message};
  } catch (const std::exception&) {
    set_python_error();
  }
  if (view.parent != 0) {
    object = codec::python::decode(view, 0, nullptr, codec::python::move_out);
  }
  channel::free_message(member, message);
  return object;
}

PyObject* raise_empty() { return raise_from_queue("Empty"); }
PyObject* raise_full() { return raise_from_queue("Full"); }

}  // namespace shoal::bindings
