// SPDX-License-Identifier: Apache-2.0
//
// What the functions of shoal's C++ interface throw. Everything derives from shoal::Error, which is
// a std::runtime_error; what is expected (a full channel, a time-out) is a return value instead.
#pragma once

#include <stdexcept>
#include <string>

namespace shoal {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The session's memory cannot grow: the message holds what was asked, what is in use, which limit.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// Shared memory, or a message, holds what no correct member writes.
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
