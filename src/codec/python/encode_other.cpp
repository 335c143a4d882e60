// SPDX-License-Identifier: Apache-2.0
//
// The encoder's rarer types: sets, bytearray, complex, range, dates, numpy's arrays and scalars.
#include <span>

#include "codec/python/block.hpp"
#include "codec/python/dates.hpp"
#include "codec/python/encode.hpp"

namespace shoal::codec::python {

bool Encoder::other(PyObject* object, bool sole) {
  PyTypeObject* const type = Py_TYPE(object);
  if (type == &PySet_Type) return set(object, Tag::kSet);
  if (type == &PyFrozenSet_Type) return set(object, Tag::kFrozenSet);
  if (type == &PyByteArray_Type) {
    return raw(object, Tag::kByteArray, Tag::kByteArrayAttached, PyByteArray_AS_STRING(object),
               PyByteArray_GET_SIZE(object));
  }
  if (type == &PyComplex_Type) return has_no_registration(type) && complex(object);
  if (type == &PyRange_Type) return has_no_registration(type) && range(object);
  if (const Numpy* const numpy = Numpy::if_loaded()) {
    if (type == numpy->array_type())
      return has_no_registration(type) && array(*numpy, object, sole);
    Element element;
    if (numpy->element_of_scalar(type, &element)) {
      return has_no_registration(type) && scalar(*numpy, object, element);
    }
  }
  bool done = false;
  return date_like(object, &done) && done;
}

bool Encoder::complex(PyObject* object) {
  if (meet(object) == Met::kReferenced) return true;
  const Py_complex number = reinterpret_cast<PyComplexObject*>(object)->cval;
  write_complex(bytes_, number.real, number.imag);
  return true;
}

bool Encoder::range(PyObject* object) {
  if (meet(object) == Met::kReferenced) return true;
  bytes_.put_tag(Tag::kRange);
  for (const char* const name : {"start", "stop", "step"}) {
    PyObject* const number = PyObject_GetAttrString(object, name);
    const bool good = number != nullptr && PyLong_CheckExact(number) && integer(number);
    Py_XDECREF(number);
    if (!good) return false;
  }
  return true;
}

namespace {

// Finds the zone of a time or datetime. False if only pickle can encode the zone.
bool zone_of(PyDateTime_CAPI* dates, PyObject* zone, Zone* out) noexcept {
  *out = zone == Py_None ? Zone::kNaive : Zone::kUtc;
  return zone == Py_None || zone == dates->TimeZone_UTC;
}

void write_date(Buffer& out, PyObject* object) {
  out.put(static_cast<std::uint16_t>(PyDateTime_GET_YEAR(object)));
  out.put(static_cast<std::uint8_t>(PyDateTime_GET_MONTH(object)));
  out.put(static_cast<std::uint8_t>(PyDateTime_GET_DAY(object)));
}

void write_time(Buffer& out, int hour, int minute, int second, int microsecond, int fold,
                Zone zone) {
  out.put(static_cast<std::uint8_t>(hour));
  out.put(static_cast<std::uint8_t>(minute));
  out.put(static_cast<std::uint8_t>(second));
  out.put(static_cast<std::uint32_t>(microsecond));
  out.put(static_cast<std::uint8_t>(fold));
  out.put(static_cast<std::uint8_t>(zone));
}

}  // namespace

bool Encoder::date_like(PyObject* object, bool* done) {
  PyDateTime_CAPI* const dates = dates_if_loaded();
  if (dates == nullptr) return true;
  PyTypeObject* const type = Py_TYPE(object);
  Zone zone = Zone::kNaive;
  if (type == dates->DateTimeType) {
    if (!zone_of(dates, PyDateTime_DATE_GET_TZINFO(object), &zone)) return true;
  } else if (type == dates->TimeType) {
    if (!zone_of(dates, PyDateTime_TIME_GET_TZINFO(object), &zone)) return true;
  } else if (type != dates->DateType && type != dates->DeltaType) {
    return true;
  }
  if (!has_no_registration(type)) return true;
  *done = true;
  if (meet(object) == Met::kReferenced) return true;
  if (type == dates->DeltaType) {
    bytes_.put_tag(Tag::kTimeDelta);
    bytes_.put(static_cast<std::int32_t>(PyDateTime_DELTA_GET_DAYS(object)));
    bytes_.put(static_cast<std::int32_t>(PyDateTime_DELTA_GET_SECONDS(object)));
    bytes_.put(static_cast<std::int32_t>(PyDateTime_DELTA_GET_MICROSECONDS(object)));
  } else if (type == dates->DateType) {
    bytes_.put_tag(Tag::kDate);
    write_date(bytes_, object);
  } else if (type == dates->DateTimeType) {
    bytes_.put_tag(Tag::kDateTime);
    write_date(bytes_, object);
    write_time(bytes_, PyDateTime_DATE_GET_HOUR(object), PyDateTime_DATE_GET_MINUTE(object),
               PyDateTime_DATE_GET_SECOND(object), PyDateTime_DATE_GET_MICROSECOND(object),
               PyDateTime_DATE_GET_FOLD(object), zone);
  } else {
    bytes_.put_tag(Tag::kTime);
    write_time(bytes_, PyDateTime_TIME_GET_HOUR(object), PyDateTime_TIME_GET_MINUTE(object),
               PyDateTime_TIME_GET_SECOND(object), PyDateTime_TIME_GET_MICROSECOND(object),
               PyDateTime_TIME_GET_FOLD(object), zone);
  }
  return true;
}

bool Encoder::scalar(const Numpy& numpy, PyObject* object, Element element) {
  if (meet(object) == Met::kReferenced) return true;
  alignas(32) std::byte number[32];
  static_assert(2 * sizeof(long double) <= sizeof number);
  numpy.scalar_bytes(object, number);
  bytes_.put_tag(Tag::kScalar);
  bytes_.put(static_cast<std::uint8_t>(element));
  bytes_.append(number, element_size(element));
  return true;
}

bool Encoder::array(const Numpy& numpy, PyObject* object, bool sole) {
  if (array_fields(object)->dimensions > kMaxDimensions) return false;
  return meet(object) == Met::kReferenced || array_elements(numpy, object, sole);
}

bool Encoder::array_elements(const Numpy& numpy, PyObject* object, bool sole) {
  const ArrayFields* const fields = array_fields(object);
  const bool contiguous = (fields->flags & (kArrayCContiguous | kArrayFContiguous)) != 0;
  const bool first_fastest = contiguous && (fields->flags & kArrayCContiguous) == 0;
  Element element = Element::kNamed;
  std::size_t item_size;
  PyObject* text = nullptr;
  if (numpy.element_of_dtype(fields->dtype, &element)) {
    item_size = element_size(element);
  } else if ((text = numpy.text_of_dtype(fields->dtype, &item_size)) == nullptr) {
    return false;
  }
  const std::span<const Py_ssize_t> shape(fields->shape,
                                          static_cast<std::size_t>(fields->dimensions));
  std::size_t size = item_size;
  for (const Py_ssize_t extent : shape) size *= static_cast<std::size_t>(extent);
  const bool in_line = size < kAttachFrom || out_.member == nullptr;
  write_array_header(bytes_, in_line ? Tag::kArray : Tag::kArrayAttached, element, first_fastest,
                     shape);
  if (text != nullptr) {
    bytes_.put_raw(PyBytes_AS_STRING(text), static_cast<std::size_t>(PyBytes_GET_SIZE(text)));
    Py_DECREF(text);
  }
  if (!in_line) {
    PyObject* const block = sole && contiguous ? whole_block_of(numpy, object, size) : nullptr;
    put_off(contiguous ? fields->data : nullptr, size, object, block);
  } else if (contiguous) {
    bytes_.put_raw(fields->data, size);
  } else {
    bytes_.put_size(size);
    pending_.push_back(Pending{bytes_.size(), true, nullptr, size, object, nullptr});
    Py_INCREF(object);
    bytes_.extend(size);
  }
  return true;
}

}  // namespace shoal::codec::python
