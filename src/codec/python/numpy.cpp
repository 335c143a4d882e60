// SPDX-License-Identifier: Apache-2.0
#include "codec/python/numpy.hpp"

#include <cctype>
#include <cstring>
#include <initializer_list>
#include <string_view>

#include "codec/python/reference.hpp"

namespace shoal::codec::python {

namespace {

// Entries of numpy's function table (the same numbers in numpy 1 and 2).
enum TableEntry : std::size_t {
  kAbiVersion = 0,
  kArrayType = 2,
  kCopyInto = 50,
  kScalar = 60,
  kScalarAsCtype = 62,
  kNewFromDescr = 94,
  kSetBaseObject = 282,
};
constexpr unsigned kAbiOfNumpy1 = 0x01000009;
constexpr unsigned kAbiOfNumpy2 = 0x02000000;

using AbiVersionFunction = unsigned (*)();
using ScalarFunction = PyObject* (*)(void*, PyObject*, PyObject*);
using ScalarAsCtypeFunction = void (*)(PyObject*, void*);
using NewFromDescrFunction = PyObject* (*)(PyTypeObject*, PyObject*, int, const Py_ssize_t*,
                                           const Py_ssize_t*, void*, int, PyObject*);
using CopyIntoFunction = int (*)(PyObject*, PyObject*);
using SetBaseObjectFunction = int (*)(PyObject*, PyObject*);

template <class Function>
Function entry(void** table, TableEntry number) noexcept {
  return reinterpret_cast<Function>(table[number]);
}

// In the order of Element.
constexpr const char* kDtypeNames[] = {
    "",        "bool",       "int8",      "int16",      "int32",       "int64",
    "uint8",   "uint16",     "uint32",    "uint64",     "float16",     "float32",
    "float64", "longdouble", "complex64", "complex128", "clongdouble",
};

// object.name; null with an error set if there is no such attribute. Null for a null object.
Reference attribute(PyObject* object, const char* name) {
  return Reference::take(object == nullptr ? nullptr : PyObject_GetAttrString(object, name));
}

bool attribute_is(PyObject* object, const char* name, PyObject* expected) noexcept {
  const Reference value = attribute(object, name);
  if (!value) PyErr_Clear();
  return value.get() == expected;
}

Py_ssize_t number_attribute(PyObject* object, const char* name) noexcept {
  const Reference value = attribute(object, name);
  const Py_ssize_t number = value ? PyLong_AsSsize_t(value.get()) : -1;
  if (number == -1) PyErr_Clear();
  return number;
}

// True for "<M8[ns]", "|S12", ">f8": a byte order, a kind of fixed-size element, digits, an
// optional unit.
bool is_plain_dtype_text(const char* text, std::size_t size) noexcept {
  if (size < 3 || size > 40) return false;
  if (std::string_view("<>|=").find(text[0]) == std::string_view::npos) return false;
  if (std::string_view("MmSUiufcb").find(text[1]) == std::string_view::npos) return false;
  std::size_t i = 2;
  while (i < size && std::isdigit(static_cast<unsigned char>(text[i])) != 0) ++i;
  if (i == 2 || i > 12) return false;
  if (i == size) return true;
  if (text[i] != '[' || text[size - 1] != ']') return false;
  for (++i; i + 1 < size; ++i) {
    if (std::isalnum(static_cast<unsigned char>(text[i])) == 0 && text[i] != '/') return false;
  }
  return true;
}

}  // namespace

const Numpy* Numpy::usable_ = nullptr;

const Numpy* Numpy::find() noexcept {
  static PyObject* name = nullptr;
  if (name == nullptr && (name = PyUnicode_InternFromString("numpy")) == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  PyObject* const modules = PyImport_GetModuleDict();  // borrowed
  PyObject* const module = PyDict_GetItemWithError(modules, name);
  if (module == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  return state(module);
}

const Numpy* Numpy::import() noexcept {
  const Reference module = Reference::take(PyImport_ImportModule("numpy"));
  if (!module) return nullptr;
  const Numpy* const numpy = state(module.get());
  if (numpy == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "shoal: this version of numpy has an unknown interface");
  }
  return numpy;
}

// While numpy's import is still running, it has no function table yet: bind() fails, and a later
// call tries again.
const Numpy* Numpy::state(PyObject* module) noexcept {
  static Numpy numpy;
  static bool refused = false;
  if (usable_ != nullptr || refused) return usable_;
  if (numpy.bind(module)) {
    refused = !numpy.probe();
    if (!refused) usable_ = &numpy;
  }
  PyErr_Clear();
  return usable_;
}

bool Numpy::bind_table(PyObject* module) noexcept {
  for (const char* const core_name : {"_core", "core"}) {  // numpy 2, numpy 1
    const Reference core = attribute(module, core_name);
    const Reference umath = attribute(core.get(), "_multiarray_umath");
    const Reference capsule = attribute(umath.get(), "_ARRAY_API");
    // The capsule lives as long as numpy's module, which is never unloaded.
    if (capsule) table_ = static_cast<void**>(PyCapsule_GetPointer(capsule.get(), nullptr));
    if (table_ != nullptr) return true;
    PyErr_Clear();
  }
  return false;
}

bool Numpy::bind(PyObject* module) noexcept {
  if (!bind_table(module)) return false;
  const unsigned abi = entry<AbiVersionFunction>(table_, kAbiVersion)();
  if (abi != kAbiOfNumpy1 && abi != kAbiOfNumpy2) return false;
  array_type_ = entry<PyTypeObject*>(table_, kArrayType);
  dtype_type_ = PyObject_GetAttrString(module, "dtype");
  if (dtype_type_ == nullptr) return false;
  for (std::uint8_t i = 1; i < kPlain; ++i) {
    PyObject* const dtype = PyObject_CallFunction(dtype_type_, "s", kDtypeNames[i]);
    if (dtype == nullptr) return false;
    PyObject* const type = PyObject_GetAttrString(dtype, "type");
    if (type == nullptr || !PyType_Check(type)) return false;
    dtypes_[i] = dtype;
    scalar_types_[i] = reinterpret_cast<PyTypeObject*>(type);
  }
  return true;
}

// Makes an array and checks that its fields are at the expected offsets.
bool Numpy::probe() noexcept {
  for (std::uint8_t i = 1; i < kPlain; ++i) {
    const auto size = static_cast<Py_ssize_t>(element_size(static_cast<Element>(i)));
    if (number_attribute(dtypes_[i], "itemsize") != size) return false;
  }
  const Py_ssize_t shape[2] = {3, 5};
  PyObject* const dtype = dtype_of_element(Element::kFloat64);
  const Reference array = Reference::take(new_array(dtype, 2, shape, true, nullptr));
  if (!array) return false;
  const ArrayFields* const fields = array_fields(array.get());
  const bool good =
      Py_TYPE(array.get()) == array_type_ && fields->dimensions == 2 && fields->dtype == dtype &&
      fields->shape[0] == 3 && fields->shape[1] == 5 && fields->strides[0] == 8 &&
      fields->strides[1] == 24 && fields->base == nullptr &&
      (fields->flags & (kArrayCContiguous | kArrayFContiguous)) == kArrayFContiguous &&
      (fields->flags & kArrayWritable) != 0 && fields->weak_references == nullptr;
  if (!good) return false;
  const Reference interface = attribute(array.get(), "__array_interface__");
  PyObject* const data = interface ? PyDict_GetItemString(interface.get(), "data") : nullptr;
  return data != nullptr && PyTuple_Check(data) && PyTuple_GET_SIZE(data) == 2 &&
         PyLong_AsVoidPtr(PyTuple_GET_ITEM(data, 0)) == fields->data;
}

PyObject* Numpy::new_array(PyObject* dtype, int dimensions, const Py_ssize_t* shape,
                           bool first_fastest, void* data) const noexcept {
  int flags = first_fastest ? kArrayFContiguous : 0;
  if (data != nullptr) {
    flags =
        (first_fastest ? kArrayFContiguous : kArrayCContiguous) | kArrayAligned | kArrayWritable;
  }
  Py_INCREF(dtype);  // stolen by the call
  return entry<NewFromDescrFunction>(table_, kNewFromDescr)(array_type_, dtype, dimensions, shape,
                                                            nullptr, data, flags, nullptr);
}

bool Numpy::copy_elements(PyObject* array, void* to) const noexcept {
  const ArrayFields* const fields = array_fields(array);
  const Reference copy =
      Reference::take(new_array(fields->dtype, fields->dimensions, fields->shape, false, to));
  return copy && entry<CopyIntoFunction>(table_, kCopyInto)(copy.get(), array) == 0;
}

bool Numpy::set_base(PyObject* array, PyObject* base) const noexcept {
  return entry<SetBaseObjectFunction>(table_, kSetBaseObject)(array, base) == 0;
}

PyObject* Numpy::new_scalar(PyObject* dtype, void* element) const noexcept {
  return entry<ScalarFunction>(table_, kScalar)(element, dtype, nullptr);
}

void Numpy::scalar_bytes(PyObject* scalar, void* out) const noexcept {
  entry<ScalarAsCtypeFunction>(table_, kScalarAsCtype)(scalar, out);
}

PyObject* Numpy::dtype_from_text(const std::byte* text, std::size_t size,
                                 std::size_t* item_size) const {
  char copy[64];
  if (size >= sizeof copy) return nullptr;
  std::memcpy(copy, text, size);
  copy[size] = '\0';
  if (!is_plain_dtype_text(copy, size)) return nullptr;
  Reference dtype = Reference::take(PyObject_CallFunction(dtype_type_, "s", copy));
  const Py_ssize_t bytes = number_attribute(dtype.get(), "itemsize");
  if (bytes < 0 || !attribute_is(dtype.get(), "hasobject", Py_False) ||
      !attribute_is(dtype.get(), "names", Py_None)) {
    PyErr_Clear();
    return nullptr;
  }
  *item_size = static_cast<std::size_t>(bytes);
  return dtype.release();
}

PyObject* Numpy::text_of_dtype(PyObject* dtype, std::size_t* item_size) const {
  if (!attribute_is(dtype, "hasobject", Py_False) || !attribute_is(dtype, "names", Py_None) ||
      !attribute_is(dtype, "subdtype", Py_None) || !attribute_is(dtype, "metadata", Py_None)) {
    return nullptr;
  }
  const Reference text = attribute(dtype, "str");
  Reference ascii = Reference::take(text ? PyUnicode_AsASCIIString(text.get()) : nullptr);
  // A dtype that another package has added to numpy can have the text of a different dtype: compare
  // with the dtype that numpy makes of the text.
  const Reference again = Reference::take(
      ascii ? dtype_from_text(reinterpret_cast<const std::byte*>(PyBytes_AS_STRING(ascii.get())),
                              static_cast<std::size_t>(PyBytes_GET_SIZE(ascii.get())), item_size)
            : nullptr);
  if (again && PyObject_RichCompareBool(again.get(), dtype, Py_EQ) == 1) return ascii.release();
  PyErr_Clear();
  return nullptr;
}

}  // namespace shoal::codec::python
