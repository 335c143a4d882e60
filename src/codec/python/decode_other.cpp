// SPDX-License-Identifier: Apache-2.0
//
// The decoder's rarer types: range, dates, numpy's arrays and scalars, pickles.
#include <cstring>

#include "codec/python/block.hpp"
#include "codec/python/dates.hpp"
#include "codec/python/decode.hpp"

namespace shoal::codec::python {

PyObject* Decoder::range() {
  if (++depth_ > kMaxDepth) return fail("nested too deeply");
  PyObject* numbers[3] = {};
  bool good = true;
  for (PyObject*& number : numbers) {
    number = good ? value() : nullptr;
    good = number != nullptr && PyLong_CheckExact(number);
  }
  PyObject* const range =
      good ? PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(&PyRange_Type), numbers[0],
                                          numbers[1], numbers[2], nullptr)
           : fail("bad range");
  for (PyObject* const number : numbers) Py_XDECREF(number);
  --depth_;
  return range;
}

namespace {

PyObject* zone_object(PyDateTime_CAPI* dates, const TimeParts& time) noexcept {  // borrowed
  return static_cast<Zone>(time.zone) == Zone::kUtc ? dates->TimeZone_UTC : Py_None;
}

}  // namespace

PyObject* Decoder::date() {
  PyDateTime_CAPI* const dates = dates_imported();
  if (dates == nullptr) return nullptr;
  DateParts date;
  if (!date.take(in_)) return fail("bad date");
  return dates->Date_FromDate(date.year, date.month, date.day, dates->DateType);
}

PyObject* Decoder::time() {
  PyDateTime_CAPI* const dates = dates_imported();
  if (dates == nullptr) return nullptr;
  TimeParts time;
  if (!time.take(in_)) return fail("bad time");
  return dates->Time_FromTimeAndFold(time.hour, time.minute, time.second,
                                     static_cast<int>(time.microsecond), zone_object(dates, time),
                                     time.fold, dates->TimeType);
}

PyObject* Decoder::date_time() {
  PyDateTime_CAPI* const dates = dates_imported();
  if (dates == nullptr) return nullptr;
  DateParts date;
  TimeParts time;
  if (!date.take(in_) || !time.take(in_)) return fail("bad datetime");
  return dates->DateTime_FromDateAndTimeAndFold(
      date.year, date.month, date.day, time.hour, time.minute, time.second,
      static_cast<int>(time.microsecond), zone_object(dates, time), time.fold, dates->DateTimeType);
}

PyObject* Decoder::time_delta() {
  PyDateTime_CAPI* const dates = dates_imported();
  if (dates == nullptr) return nullptr;
  DeltaParts delta;
  if (!delta.take(in_)) return fail("bad timedelta");
  return dates->Delta_FromDelta(delta.days, delta.seconds, delta.microseconds, 1, dates->DeltaType);
}

PyObject* Decoder::array(bool attached) {
  const Numpy* const numpy = Numpy::imported();
  if (numpy == nullptr) return nullptr;
  ArrayParts parts;
  if (!parts.take(in_)) return fail("bad array header");
  std::size_t item_size = element_size(parts.element);
  PyObject* dtype;
  if (parts.element == Element::kNamed) {
    dtype = numpy->dtype_from_text(parts.dtype_text, parts.dtype_size, &item_size);
    if (dtype == nullptr) return fail("unknown dtype");
  } else {
    dtype = numpy->dtype_of_element(parts.element);
    Py_INCREF(dtype);
  }
  DataPart data;
  std::size_t size;
  const bool good = parts.total(item_size, &size) &&
                    (attached ? data.take_attached(in_, view_) : data.take_raw(in_)) &&
                    data.size == size;
  PyObject* const array = good ? array_from(*numpy, dtype, parts, data) : fail("bad array data");
  Py_DECREF(dtype);
  return array;
}

PyObject* Decoder::array_from(const Numpy& numpy, PyObject* dtype, const ArrayParts& parts,
                              const DataPart& data) {
  PyObject* const block = owned_block(data);
  if (block == nullptr && PyErr_Occurred() != nullptr) return nullptr;
  Py_ssize_t shape[kMaxDimensions];
  for (std::size_t i = 0; i < parts.dimensions; ++i) {
    shape[i] = static_cast<Py_ssize_t>(parts.shape[i]);
  }
  void* const memory = block == nullptr ? nullptr : block_data(block);
  PyObject* const array =
      numpy.new_array(dtype, parts.dimensions, shape, parts.first_fastest, memory);
  if (array == nullptr) {
    Py_XDECREF(block);
    return nullptr;
  }
  if (block == nullptr) {
    if (data.size != 0) std::memcpy(array_fields(array)->data, data.bytes, data.size);
  } else if (!numpy.set_base(array, block)) {
    Py_DECREF(array);
    return nullptr;
  }
  return array;
}

PyObject* Decoder::scalar() {
  const Numpy* const numpy = Numpy::imported();
  if (numpy == nullptr) return nullptr;
  std::uint8_t element;
  const std::byte* bytes;
  if (!in_.take(element)) return fail("bad scalar");
  const std::size_t size = element_size(static_cast<Element>(element));
  if (size == 0 || !in_.take_bytes(bytes, size)) return fail("bad scalar");
  alignas(32) std::byte number[32];
  std::memcpy(number, bytes, size);
  return numpy->new_scalar(numpy->dtype_of_element(static_cast<Element>(element)), number);
}

PyObject* Decoder::pickle() {
  DataPart name, data;
  if (!name.take_raw(in_) || !data.take_chunk(in_, view_)) return fail("bad pickle");
  PyObject* pickled = owned_block(data);
  if (pickled == nullptr && PyErr_Occurred() == nullptr) {
    pickled = new_bytes(data.bytes, data.size);
  }
  if (pickled == nullptr) return nullptr;
  PyObject* const buffers = pickle_buffers();
  PyObject* const object = buffers == nullptr ? nullptr : unpickle(pickled, buffers);
  Py_XDECREF(buffers);
  Py_DECREF(pickled);
  return object;
}

PyObject* Decoder::pickle_buffers() {
  std::uint64_t count;
  if (!in_.take_size(count) || count > in_.left()) return fail("more buffers than bytes");
  PyObject* const buffers = PyList_New(0);
  if (buffers == nullptr) return nullptr;
  for (std::uint64_t i = 0; i < count; ++i) {
    DataPart data;
    PyObject* buffer = nullptr;
    if (!data.take_chunk(in_, view_)) {
      fail("bad buffer");
    } else {
      buffer = owned_block(data);
      if (buffer == nullptr && PyErr_Occurred() == nullptr) {
        buffer = new_byte_array(data.bytes, data.size);
      }
    }
    const bool good = buffer != nullptr && PyList_Append(buffers, buffer) == 0;
    Py_XDECREF(buffer);
    if (!good) {
      Py_DECREF(buffers);
      return nullptr;
    }
  }
  return buffers;
}

}  // namespace shoal::codec::python
