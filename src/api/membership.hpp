// SPDX-License-Identifier: Apache-2.0
//
// The membership that a public Session refers to, and the one place where errors of the core become
// errors of the public interface. Thread safe.
// Design: docs/design/channel.md
#pragma once

#include <exception>
#include <memory>

#include "arena/arena.hpp"
#include "os/error.hpp"
#include "shoal/error.hpp"

namespace shoal::detail {

struct Membership {
  std::shared_ptr<arena::Arena> arena;
  std::unique_ptr<arena::Member> member;
};

// Runs `use`; errors of the core are thrown on as public errors.
template <class Use>
decltype(auto) translated(Use&& use) {
  try {
    return use();
  } catch (const arena::MemoryExhausted& error) {
    throw OutOfMemory(error.what());
  } catch (const arena::CorruptArena& error) {
    throw Corrupt(error.what());
  } catch (const arena::NotAMember& error) {
    throw Error(error.what());
  } catch (const arena::TooManyMembers& error) {
    throw Error(error.what());
  } catch (const os::OsError& error) {
    throw SystemError(error.what(), error.error);
  }
}

}  // namespace shoal::detail
