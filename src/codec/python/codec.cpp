// SPDX-License-Identifier: Apache-2.0
#include "codec/python/codec.hpp"

#include <exception>
#include <string>

#include "codec/python/decode.hpp"
#include "codec/python/encode.hpp"
#include "codec/python/pickle.hpp"
#include "codec/summary.hpp"

namespace shoal::codec::python {

namespace {

void report_exception() noexcept {
  try {
    throw;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

void (*translate_exception)() noexcept = report_exception;

// Runs `body`, which may throw what allocating throws but leaves no Python frame in between.
template <class Body>
bool guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::exception&) {
    translate_exception();
  }
  return false;
}

}  // namespace

void set_exception_translation(void (*translate)() noexcept) noexcept {
  translate_exception = translate;
}

bool encode(PyObject* object, MessageBuilder& out) {
  const std::size_t bytes_before = out.bytes.size();
  const std::size_t attachments_before = out.attachments.size();
  bool good = guarded([&] { return Encoder(out, object).run(); });
  if (good) return true;
  out.roll_back(bytes_before, attachments_before);
  if (PyErr_Occurred() != nullptr) return false;
  good = guarded([&] { return encode_pickle(object, out); });
  if (!good) out.roll_back(bytes_before, attachments_before);
  return good;
}

PyObject* decode(const MessageView& view, std::size_t offset, std::size_t* end,
                 Ownership ownership) {
  PyObject* object = nullptr;
  guarded([&] {
    Decoder decoder(view, offset, ownership);
    object = decoder.value();
    if (end != nullptr) *end = decoder.offset();
    return true;
  });
  return object;
}

PyObject* summarize(const MessageView& view, std::size_t offset, std::size_t max_chars) {
  PyObject* text = nullptr;
  guarded([&] {
    const std::string summary = codec::summarize(view, offset, max_chars);
    text = PyUnicode_DecodeUTF8(summary.data(), static_cast<Py_ssize_t>(summary.size()), "replace");
    return true;
  });
  return text;
}

}  // namespace shoal::codec::python
