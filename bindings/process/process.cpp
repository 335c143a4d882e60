// SPDX-License-Identifier: Apache-2.0
//
// The session and the membership of this process. Both are created at first use, not at import:
// mapping the reserve has side effects (RLIMIT_AS, mlockall) that an import must not have.
//
// After a fork the child uses the inherited Member object: the child is a member already if the
// parent held counted blocks, otherwise it joins when current_member() is first called
// (arena/member.hpp, 3).
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <memory>
#include <string_view>

#include "arena/arena.hpp"
#include "bindings/interp/bind.hpp"
#include "os/cgroup.hpp"
#include "os/cpus.hpp"
#include "os/limits.hpp"
#include "os/process.hpp"
#include "os/watch.hpp"

namespace shoal::bindings {

namespace {

struct Process {
  std::shared_ptr<arena::Arena> arena;
  std::unique_ptr<arena::Member> member;
};

Process& process() {
  static auto* instance = new Process;  // never destroyed: arrays may outlive the module
  return *instance;
}

// One line for standard error, composed without allocation, for the child of a fork.
class Line {
 public:
  Line& operator<<(std::string_view text) noexcept {
    for (const char c : text)
      if (used_ < sizeof text_) text_[used_++] = c;
    return *this;
  }
  Line& operator<<(size_t number) noexcept {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    return *this << std::string_view(digits, static_cast<size_t>(end - digits));
  }
  void write() const noexcept { (void)!::write(STDERR_FILENO, text_, used_); }

 private:
  char text_[400];
  size_t used_ = 0;
};

// Runs in a fork's child after the arena's own handler. Reports the arrays that the child cannot
// access, and ends the child if it would see writes of other processes to its arrays: silently
// wrong numbers would be worse.
void tell_what_is_unseen() {
  if (!process().member) return;
  const arena::Member::Unseen& unseen = process().member->unseen();
  if (unseen.blocks == 0) return;
  Line line;
  line << "shoal: forked process " << static_cast<size_t>(getpid());
  if (unseen.exposed)
    line << " is ended: ";
  else
    line << " ends if it touches one of ";
  line << unseen.blocks << " arrays that its parent received from other processes";
  if (unseen.exposed) line << " would change under it";
  if (unseen.lost)
    line << ": the parent died while it forked, and they are gone.\n";
  else
    line << ": mapping them for it alone failed with errno " << static_cast<size_t>(unseen.error)
         << ". Raise vm.max_map_count, RLIMIT_DATA or RLIMIT_MEMLOCK, or hold fewer arrays.\n";
  line.write();
  if (unseen.exposed) _exit(1);
}

void tell_forked_children() {
  static const int once = pthread_atfork(nullptr, nullptr, tell_what_is_unseen);
  (void)once;
}

PyObject* session_fd(PyObject*, PyObject*) {
  arena::Arena* arena = current_member() == nullptr ? nullptr : current_arena();
  return arena == nullptr ? nullptr : PyLong_FromLong(arena->fd());
}

// Device and inode of the memory file, which identify the session; None while there is no session.
PyObject* session_identity(PyObject*, PyObject*) {
  if (current_arena() == nullptr) Py_RETURN_NONE;
  return Py_BuildValue("KK", static_cast<unsigned long long>(current_arena()->fd_device()),
                       static_cast<unsigned long long>(current_arena()->fd_inode()));
}

// Used instead of os.wait4, which imports `resource` by name at each call: the program may have a
// file of that name, and a module that is imported late may no longer be importable.
PyObject* wait4_with_peak(PyObject*, PyObject* arguments) {
  int pid = 0;
  int options = 0;
  if (!PyArg_ParseTuple(arguments, "ii", &pid, &options)) return nullptr;
  int status = 0;
  rusage usage = {};
  for (;;) {
    pid_t ended = -1;
    Py_BEGIN_ALLOW_THREADS
    ended = ::wait4(pid, &status, options, &usage);
    Py_END_ALLOW_THREADS
    if (ended >= 0) {
      const long long peak = static_cast<long long>(usage.ru_maxrss) * 1024;
      return Py_BuildValue("iiL", static_cast<int>(ended), status, peak);
    }
    if (errno != EINTR) return PyErr_SetFromErrno(PyExc_OSError);
    if (PyErr_CheckSignals() != 0) return nullptr;
  }
}

PyObject* incarnation(PyObject*, PyObject*) {
  arena::Member* member = current_member();
  return member == nullptr ? nullptr : PyLong_FromUnsignedLong(member->incarnation());
}

PyObject* join(PyObject*, PyObject* arguments) {
  int fd = -1;
  if (!PyArg_ParseTuple(arguments, "i", &fd) || !join_session(fd)) return nullptr;
  Py_RETURN_NONE;
}

PyObject* leave_session(PyObject*, PyObject*) {
  if (process().member) process().member->leave();
  Py_RETURN_NONE;
}

PyObject* usable_cpus(PyObject*, PyObject*) { return PyLong_FromLong(os::usable_cpus()); }

PyObject* arena_statistics(PyObject*, PyObject*) {
  if (current_member() == nullptr) return nullptr;
  const arena::Statistics now = current_arena()->statistics();
  return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K}", "reserve", now.reserve, "limit", now.limit,
                       "committed", now.committed, "in_use", now.in_use, "warm_free", now.warm_free,
                       "blocks_shared", now.blocks_record);
}

// Frees what dead members held; returns the number of dead members.
PyObject* reap(PyObject*, PyObject*) {
  arena::Member* const member = current_member();
  if (member == nullptr) return nullptr;
  try {
    return PyLong_FromLong(arena::reap_all_dead(member->arena(), *member));
  } catch (const std::exception&) {
    set_python_error();
    return nullptr;
  }
}

PyObject* purge(PyObject*, PyObject*) {
  if (current_member() == nullptr) return nullptr;
  try {
    current_member()->purge();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
  Py_RETURN_NONE;
}

// Number of out-of-memory kills in this process's cgroup; 0 if there is no such count.
PyObject* oom_kills(PyObject*, PyObject*) {
  try {
    return PyLong_FromUnsignedLongLong(os::oom_kills(os::find_cgroup("memory")));
  } catch (...) {
    PyErr_Clear();
    return PyLong_FromLong(0);
  }
}

PyObject* limit_behind(PyObject*, PyObject* number) {
  const long error = PyLong_AsLong(number);
  if (error == -1 && PyErr_Occurred() != nullptr) return nullptr;
  return PyUnicode_FromString(os::limit_behind(static_cast<int>(error)).c_str());
}

// Arranges that this process is killed when the parent's thread that forked it ends; kills it
// immediately if the parent has ended already.
PyObject* die_with_parent(PyObject*, PyObject* parent) {
  const long pid = PyLong_AsLong(parent);
  if (pid == -1 && PyErr_Occurred()) return nullptr;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != pid) raise(SIGKILL);
  Py_RETURN_NONE;
}

// A descriptor that is readable once the process has ended.
PyObject* watch_process(PyObject*, PyObject* number) {
  const long pid = PyLong_AsLong(number);
  if (pid == -1 && PyErr_Occurred() != nullptr) return nullptr;
  const int fd = os::watch_process(static_cast<pid_t>(pid));
  return fd >= 0 ? PyLong_FromLong(fd) : PyErr_SetFromErrno(PyExc_OSError);
}

PyObject* signal_process(PyObject*, PyObject* arguments) {
  int fd = -1;
  int pid = 0;
  int number = 0;
  if (!PyArg_ParseTuple(arguments, "iii", &fd, &pid, &number)) return nullptr;
  if (os::signal_watched(fd, pid, number) == 0) Py_RETURN_NONE;
  return PyErr_SetFromErrno(PyExc_OSError);
}

PyMethodDef methods[] = {
    {"session_fd", session_fd, METH_NOARGS, "File descriptor of the session's memory."},
    {"session_identity", session_identity, METH_NOARGS,
     "An identity, the same in all processes of the session; None before it exists."},
    {"incarnation", incarnation, METH_NOARGS, "This process's member number; joins if needed."},
    {"join_session", join, METH_VARARGS, "join_session(fd): join an existing session."},
    {"leave_session", leave_session, METH_NOARGS, "Give back all that this process holds."},
    {"usable_cpus", usable_cpus, METH_NOARGS, "CPUs by affinity and cgroup quota, at least 1."},
    {"arena_statistics", arena_statistics, METH_NOARGS, "Bytes of the session's memory by use."},
    {"limit_behind", limit_behind, METH_O,
     "limit_behind(errno): the limit that was reached, and what to do; \"\" if there is none."},
    {"oom_kills", oom_kills, METH_NOARGS, "Out-of-memory kills in this process's cgroup so far."},
    {"die_with_parent", die_with_parent, METH_O,
     "die_with_parent(pid): be killed when the process that forked this one ends."},
    {"watch_process", watch_process, METH_O,
     "watch_process(pid): a descriptor that is readable once the process has ended."},
    {"signal_process", signal_process, METH_VARARGS,
     "signal_process(watched, pid, signal): signal the process that the descriptor watches."},
    {"wait4", wait4_with_peak, METH_VARARGS,
     "wait4(pid, options): (pid, wait status, peak memory in bytes)."},
    {"reap", reap, METH_NOARGS, "Give back what dead processes held; returns their number."},
    {"purge", purge, METH_NOARGS, "Return free memory that has been idle to the system."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

arena::Arena* current_arena() noexcept { return process().arena.get(); }

arena::Member* current_member() {
  Process& self = process();
  if (self.member && self.member->incarnation() != 0) return self.member.get();
  try {
    if (!self.arena) self.arena = arena::Arena::create();
    if (self.member) {
      self.member->rejoin();
    } else {
      self.member = arena::Member::join(self.arena, arena::MemberKind::process);
      tell_forked_children();
    }
    return self.member.get();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

arena::Member* member_if_any() noexcept {
  arena::Member* const member = process().member.get();
  return member != nullptr && member->incarnation() != 0 ? member : nullptr;
}

bool join_session(int fd) {
  Process& self = process();
  if (self.arena) {
    PyErr_SetString(PyExc_RuntimeError, "this process already belongs to a shoal session");
    return false;
  }
  try {
    self.arena = arena::Arena::attach(fd);
    return current_member() != nullptr;
  } catch (...) {
    set_python_error();
    return false;
  }
}

// The thread whose id is the process id; in a fork's child that is the thread that forked, for
// Python as well as for the kernel.
bool is_main_thread() { return ::syscall(SYS_gettid) == getpid(); }

bool bind_process(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace shoal::bindings
