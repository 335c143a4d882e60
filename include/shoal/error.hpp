// SPDX-License-Identifier: Apache-2.0
//
// What the functions of shoal's C++ interface throw. All classes derive from shoal::Error, which is
// a std::runtime_error; expected outcomes (a full channel, a time-out) are return values instead.
#pragma once

#include <stdexcept>
#include <string>

namespace shoal {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The session's memory cannot grow. The text says how much was asked for, how much is in use, and
// which limit applies.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// Shared memory, or a message, has contents that no correct member writes.
class Corrupt : public Error {
 public:
  using Error::Error;
};

// A system call failed; `code` is its errno.
class SystemError : public Error {
 public:
  SystemError(const std::string& what, int error) : Error(what), code(error) {}
  int code;
};

// The message holds a value that has no form in C++ (a class instance, a set, a date ...).
class NotPlain : public Error {
 public:
  using Error::Error;
};

}  // namespace shoal
