// SPDX-License-Identifier: Apache-2.0
#include "bindings/collections/shared_key.hpp"

#include <cmath>
#include <cstring>
#include <initializer_list>

#include "bindings/interp/bind.hpp"
#include "codec/python/codec.hpp"
#include "codec/writer.hpp"

namespace shoal::bindings {

namespace {

using codec::Buffer;
using codec::Tag;

constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
constexpr int kMostNested = 20;

uint64_t mix(uint64_t value) noexcept {
  value = (value ^ value >> 32) * kMultiplier;
  value = (value ^ value >> 29) * kMultiplier;
  return value ^ value >> 32;
}

uint64_t hash_bytes(const std::byte* bytes, size_t size, uint64_t seed) noexcept {
  uint64_t hash = seed ^ size * kMultiplier;
  uint64_t word = 0;
  for (; size >= sizeof word; size -= sizeof word, bytes += sizeof word) {
    std::memcpy(&word, bytes, sizeof word);
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  }
  word = 0;
  std::memcpy(&word, bytes, size);
  return mix(hash ^ word);
}

// Whether the object is of this type, or of a derived type that compares and hashes as it does.
bool acts_as(PyObject* object, PyTypeObject& type) {
  const PyTypeObject* const own = Py_TYPE(object);
  return own == &type ||
         (PyType_IsSubtype(Py_TYPE(object), &type) != 0 && own->tp_hash == type.tp_hash &&
          own->tp_richcompare == type.tp_richcompare);
}

enum class Canonical { yes, no, failed };

// Appends the canonical form. `exact` becomes false if the canonical form is another value.
class Writer {
 public:
  explicit Writer(Buffer& out) noexcept : out_(out) {}
  bool exact = true;
  bool is_number = false;  // the whole key is a number: equal numbers of all types hash alike

  Canonical write(PyObject* object, int depth) {
    if (object == Py_None) {
      codec::write_none(out_);
      return Canonical::yes;
    }
    if (acts_as(object, PyUnicode_Type)) return text(object);
    if (acts_as(object, PyLong_Type) || PyBool_Check(object)) {
      is_number = true;
      if (!PyLong_CheckExact(object)) exact = false;
      return integer(object);
    }
    if (acts_as(object, PyFloat_Type)) return real(object);
    if (acts_as(object, PyBytes_Type)) {
      if (!PyBytes_CheckExact(object)) exact = false;
      codec::write_raw(out_, Tag::kBytes, PyBytes_AS_STRING(object),
                       static_cast<size_t>(PyBytes_GET_SIZE(object)));
      return Canonical::yes;
    }
    if (acts_as(object, PyTuple_Type) && depth < kMostNested) return tuple(object, depth);
    return Canonical::no;
  }

 private:
  Canonical text(PyObject* object) {
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(object) < 0) return Canonical::failed;
#endif
    if (!PyUnicode_CheckExact(object)) exact = false;
    const auto kind = static_cast<size_t>(PyUnicode_KIND(object));
    const Tag tag = PyUnicode_IS_ASCII(object) ? Tag::kAscii
                    : kind == 1                ? Tag::kUcs1
                    : kind == 2                ? Tag::kUcs2
                                               : Tag::kUcs4;
    codec::write_raw(out_, tag, PyUnicode_DATA(object),
                     static_cast<size_t>(PyUnicode_GET_LENGTH(object)) * kind);
    return Canonical::yes;
  }

  Canonical integer(PyObject* object) {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow == 0) {
      if (value == -1 && PyErr_Occurred() != nullptr) return Canonical::failed;
      codec::write_int(out_, value);
      return Canonical::yes;
    }
    // A large int: written by the codec as a plain int, which has only one form.
    PyObject* const plain = PyLong_CheckExact(object) ? Py_NewRef(object) : PyNumber_Index(object);
    if (plain == nullptr) return Canonical::failed;
    codec::MessageBuilder builder;
    const bool done = codec::python::encode(plain, builder);
    if (done) out_.append(builder.bytes.data(), builder.bytes.size());
    Py_DECREF(plain);
    return done ? Canonical::yes : Canonical::failed;
  }

  Canonical real(PyObject* object) {
    const double value = PyFloat_AS_DOUBLE(object);
    if (std::isnan(value)) return Canonical::no;  // a NaN equals nothing
    is_number = true;
    if (!PyFloat_CheckExact(object)) exact = false;
    if (std::isinf(value) || value != std::floor(value)) {
      codec::write_float(out_, value);
      return Canonical::yes;
    }
    exact = false;
    PyObject* const whole = PyLong_FromDouble(value);
    const Canonical done = whole == nullptr ? Canonical::failed : integer(whole);
    Py_XDECREF(whole);
    return done;
  }

  Canonical tuple(PyObject* object, int depth) {
    if (!PyTuple_CheckExact(object)) exact = false;
    const Py_ssize_t size = PyTuple_GET_SIZE(object);
    codec::write_tuple(out_, static_cast<uint64_t>(size));
    for (Py_ssize_t i = 0; i < size; ++i) {
      const Canonical done = write(PyTuple_GET_ITEM(object, i), depth + 1);
      if (done != Canonical::yes) return done;
    }
    is_number = false;
    return Canonical::yes;
  }

  Buffer& out_;
};

bool append_encoded(PyObject* object, Buffer& out) {
  codec::MessageBuilder builder;
  if (!codec::python::encode(object, builder)) return false;
  out.append(builder.bytes.data(), builder.bytes.size());
  return true;
}

bool hash_as_python_does(SharedKey& key, uint64_t seed) {
  const Py_hash_t hash = PyObject_Hash(key.object);
  if (hash == -1) return false;
  key.hash = mix(seed + static_cast<uint64_t>(hash));
  return true;
}

// Hashes of opaque keys that are the same in every process, whatever its hash seed, for types that
// are often keys: other numbers, dates without a zone, enumerations, UUIDs, classes and functions,
// and tuples and frozensets of keys. Equal keys must get equal hashes.
class PortableHash {
 public:
  explicit PortableHash(uint64_t seed) noexcept : seed_(seed) {}

  // no: the type is none of these. failed: an error is set.
  Canonical of(PyObject* object, int depth, uint64_t* hash) {
    if (depth > kMostNested) return Canonical::no;
    if (PyTuple_Check(object) && acts_as(object, PyTuple_Type)) return tuple(object, depth, hash);
    if (PyFrozenSet_CheckExact(object)) return set(object, depth, hash);
    Buffer bytes;
    Writer writer(bytes);
    const Canonical canonical = writer.write(object, depth);
    if (canonical == Canonical::failed) return canonical;
    if (canonical == Canonical::yes && !writer.is_number) {
      *hash = hash_bytes(bytes.data(), bytes.size(), seed_);
      return canonical;
    }
    if (canonical == Canonical::yes || is_number(object)) {
      const Py_hash_t found = PyObject_Hash(object);
      *hash = mix(seed_ + static_cast<uint64_t>(found));
      return found == -1 ? Canonical::failed : Canonical::yes;
    }
    if (is_from(object, "datetime")) return date(object, hash);
    if (is_named(object)) return by_names({{object, "__qualname__"}}, hash);
    if (!is_from_enum(object)) return Canonical::no;
    PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(object));
    return by_names({{type, "__qualname__"}, {object, "_name_"}}, hash);
  }

 private:
  static bool is_from(PyObject* object, const char* module) {
    const char* const name = Py_TYPE(object)->tp_name;  // has the module for types written in C
    const size_t length = std::strlen(module);
    if (std::strncmp(name, module, length) == 0 && name[length] == '.') return true;
    PyObject* const own =
        PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(object)), "__module__");
    const bool same = own != nullptr && PyUnicode_Check(own) &&
                      PyUnicode_CompareWithASCIIString(own, module) == 0;
    Py_XDECREF(own);
    PyErr_Clear();
    return same;
  }
  // Python's hash of numbers does not depend on the seed; a UUID's hash is that of its number.
  static bool is_number(PyObject* object) {
    if (PyComplex_CheckExact(object)) return true;
    const bool converts = PyFloat_Check(object) || PyIndex_Check(object) != 0 ||
                          (Py_TYPE(object)->tp_as_number != nullptr &&
                           Py_TYPE(object)->tp_as_number->nb_float != nullptr);
    if (converts && (is_from(object, "numpy") || is_from(object, "decimal"))) return true;
    return is_from(object, "fractions") || is_from(object, "uuid");
  }
  static bool is_from_enum(PyObject* object) {
    if (Py_TYPE(object)->tp_richcompare != PyBaseObject_Type.tp_richcompare) return false;
    PyObject* const meta = reinterpret_cast<PyObject*>(Py_TYPE(object));
    return std::strcmp(Py_TYPE(meta)->tp_name, "EnumType") == 0 ||
           std::strcmp(Py_TYPE(meta)->tp_name, "EnumMeta") == 0;
  }

  // Classes and functions: they are pickled by name, and lie at another address in each process.
  // Their module is not hashed: the name of the main module depends on how a process started.
  static bool is_named(PyObject* object) {
    const bool is_plain_type = PyType_Check(object) != 0 &&
                               Py_TYPE(object)->tp_hash == PyType_Type.tp_hash &&
                               Py_TYPE(object)->tp_richcompare == PyType_Type.tp_richcompare;
    return is_plain_type || PyFunction_Check(object) || PyCFunction_Check(object) != 0;
  }

  Canonical tuple(PyObject* object, int depth, uint64_t* hash) {
    uint64_t all = static_cast<uint64_t>(PyTuple_GET_SIZE(object)) + 1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) {
      uint64_t one = 0;
      const Canonical done = of(PyTuple_GET_ITEM(object, i), depth + 1, &one);
      if (done != Canonical::yes) return done;
      all = mix(all * kMultiplier + one);
    }
    *hash = all;
    return Canonical::yes;
  }

  Canonical set(PyObject* object, int depth, uint64_t* hash) {
    PyObject* const items = PySequence_List(object);
    if (items == nullptr) return Canonical::failed;
    uint64_t all = static_cast<uint64_t>(PyList_GET_SIZE(items)) ^ kMultiplier;
    Canonical done = Canonical::yes;
    for (Py_ssize_t i = 0; done == Canonical::yes && i < PyList_GET_SIZE(items); ++i) {
      uint64_t one = 0;
      done = of(PyList_GET_ITEM(items, i), depth + 1, &one);
      all += mix(one);  // independent of the order
    }
    Py_DECREF(items);
    *hash = mix(all);
    return done;
  }

  // Hashes what the codec writes, except for `fold`, which does not matter for equality.
  Canonical date(PyObject* object, uint64_t* hash) {
    codec::MessageBuilder builder;
    if (!codec::python::encode(object, builder)) {
      PyErr_Clear();
      return Canonical::no;
    }
    std::byte* const bytes = builder.bytes.data();
    const size_t size = builder.bytes.size();
    const auto tag = static_cast<Tag>(bytes[0]);
    if (tag != Tag::kDate && tag != Tag::kTimeDelta && tag != Tag::kTime && tag != Tag::kDateTime) {
      return Canonical::no;
    }
    if (tag == Tag::kTime || tag == Tag::kDateTime) {
      if (bytes[size - 1] != static_cast<std::byte>(codec::Zone::kNaive)) return Canonical::no;
      bytes[size - 2] = std::byte{0};
    }
    *hash = hash_bytes(bytes, size, seed_);
    return Canonical::yes;
  }

  struct Name {
    PyObject* object;
    const char* attribute;
  };
  Canonical by_names(std::initializer_list<Name> names, uint64_t* hash) {
    uint64_t all = seed_;
    bool named = true;
    for (const Name& name : names) {
      PyObject* const part = PyObject_GetAttrString(name.object, name.attribute);
      Py_ssize_t size = 0;
      const char* const text = part == nullptr || !PyUnicode_Check(part)
                                   ? nullptr
                                   : PyUnicode_AsUTF8AndSize(part, &size);
      named = named && text != nullptr;
      if (text != nullptr) {
        all = hash_bytes(reinterpret_cast<const std::byte*>(text), static_cast<size_t>(size), all);
      }
      Py_XDECREF(part);
    }
    PyErr_Clear();
    *hash = all;
    return named ? Canonical::yes : Canonical::no;
  }

  const uint64_t seed_;
};

bool make(PyObject* object, uint64_t seed, bool to_find, SharedKey& key) {
  key.object = object;
  Writer writer(key.bytes);
  const Canonical canonical = writer.write(object, 0);
  if (canonical == Canonical::failed) return false;
  if (canonical == Canonical::yes) {
    key.kind = collections::KeyKind::canonical;
    if (writer.is_number) {
      if (!hash_as_python_does(key, seed)) return false;
    } else if (PyTuple_Check(object)) {  // hashed like an opaque tuple that may equal it
      if (PortableHash(seed).of(object, 0, &key.hash) != Canonical::yes) return false;
    } else {
      key.hash = hash_bytes(key.bytes.data(), key.bytes.size(), seed);
    }
    return to_find || writer.exact || append_encoded(object, key.shown);
  }
  key.kind = collections::KeyKind::opaque;
  key.bytes.clear();
  if (PyObject_Hash(object) == -1) return false;  // TypeError for an unhashable object
  const Canonical portable = PortableHash(seed).of(object, 0, &key.hash);
  if (portable == Canonical::failed) return false;
  key.is_portable = portable == Canonical::yes;
  if (!key.is_portable && !hash_as_python_does(key, seed)) return false;
  return to_find || append_encoded(object, key.bytes);
}

}  // namespace

bool make_key(PyObject* object, uint64_t seed, bool to_find, SharedKey& out) {
  try {
    return make(object, seed, to_find, out);
  } catch (const std::exception&) {
    set_python_error();
    return false;
  }
}

uint64_t hash_fingerprint() {
  static uint64_t known = 0;
  if (known == 0) {
    PyObject* const text = PyUnicode_FromString("a text whose hash depends on the seed");
    const Py_hash_t hash = text == nullptr ? 0 : PyObject_Hash(text);
    Py_XDECREF(text);
    PyErr_Clear();
    // Before CPython 3.12 the hash of None depends on the address at which the interpreter lies.
    known = mix(static_cast<uint64_t>(hash) + static_cast<uint64_t>(PyObject_Hash(Py_None))) | 1;
  }
  return known;
}

}  // namespace shoal::bindings
