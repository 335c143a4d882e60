// SPDX-License-Identifier: Apache-2.0
//
// The command `shoal`. `shoal run prog.py` becomes `python prog.py` without starting an interpreter
// first: the launcher sets SHOAL_RUN in the environment and replaces itself. In all other cases
// (other sub-commands, --help, wrong usage, no start-up file found) it executes the command written
// in Python, `shoal-python` in the same folder, which does the same and more, but slower.
//
// 1. Links only the C library, so it costs well under a millisecond.
// 2. The environment reaches the program unchanged (a shell would drop variables whose names are
//    not identifiers), and so do arguments, descriptors, signal settings and the process id.
//
// Design: docs/design/drop_in.md, "The launcher"
#include <fcntl.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace {

constexpr int kCannotStart = 1;
constexpr const char* kStartUpFile = "shoal_boot.pth";

// A path of bounded length. Empty if there is no such path, or if it does not fit.
struct Path {
  char text[PATH_MAX] = {};

  bool empty() const { return text[0] == '\0'; }
  bool can(int mode) const { return !empty() && access(text, mode) == 0; }
};

template <typename... Parts>
Path join(const char* first, Parts... parts) {
  Path joined;
  size_t length = 0;
  for (const char* part : {first, parts...}) {
    const size_t added = std::strlen(part);
    if (length + added >= sizeof joined.text) return Path{};
    std::memcpy(joined.text + length, part, added + 1);
    length += added;
  }
  return joined;
}

Path folder_of(const Path& file) {
  Path folder = file;
  char* slash = std::strrchr(folder.text, '/');
  if (slash == nullptr) return join(".");
  *slash = '\0';
  return folder;
}

Path resolved(const char* path) {
  Path real;
  if (realpath(path, real.text) == nullptr) real.text[0] = '\0';
  return real;
}

// ---- Which interpreter --------------------------------------------------------------------------

struct Installation {
  Path python;
  Path script;  // the command in Python: `shoal-python`
};

// The interpreter named in a script's first lines, as installers write them:
//   #!/usr/bin/python3
//   #!/bin/sh
//   '''exec' "/a path/with blanks or too long for the kernel/python3" "$0" "$@"
Path interpreter_in(char* text) {
  constexpr const char* kThroughShell = "#!/bin/sh\n'''exec' ";
  const size_t prefix = std::strlen(kThroughShell);
  const char* end = "\n";
  char* begin = text + 2;
  if (std::strncmp(text, kThroughShell, prefix) == 0) {
    begin = text + prefix;
    end = *begin == '"' ? "\"" : *begin == '\'' ? "'" : " ";
    if (*end != ' ') ++begin;
  } else if (std::strncmp(text, "#!", 2) != 0) {
    return Path{};
  }
  begin[std::strcspn(begin, end)] = '\0';
  return *begin == '/' ? join(begin) : Path{};
}

// The interpreter for which an installer wrote the script.
Path recorded_interpreter(const Path& script) {
  char text[PATH_MAX + 64] = {};
  const int fd = open(script.text, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Path{};
  const ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  return length > 2 ? interpreter_in(text) : Path{};
}

// The installation whose folder for commands is `bin`. A virtual environment's own interpreter
// comes first: the environment may have been moved since the installer recorded the path.
Installation find_installation(const Path& bin) {
  Installation found;
  found.script = join(bin.text, "/shoal-python");
  if (!found.script.can(R_OK)) found.script = Path{};
  if (join(bin.text, "/../pyvenv.cfg").can(F_OK)) found.python = join(bin.text, "/python");
  if (!found.python.can(X_OK)) found.python = recorded_interpreter(found.script);
  if (!found.python.can(X_OK)) found.python = join(bin.text, "/" SHOAL_PYTHON_NAME);
  if (!found.python.can(X_OK)) found.python = Path{};
  return found;
}

Installation find_installation() {
  const char* self = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  // Installers of applications put links to this command in other folders.
  Installation found = find_installation(folder_of(resolved(self)));
  return found.python.empty() ? find_installation(folder_of(join(self))) : found;
}

bool is_start_up_file_below(const char* prefix, const char* packages) {
  return join(prefix, "/lib/" SHOAL_PYTHON_NAME, packages, kStartUpFile).can(R_OK);
}

// True if the start-up file is in one of the usual package folders. False does not prove that it is
// missing: only the interpreter knows all folders.
bool sees_start_up_file(const Path& python) {
  constexpr const char* kPackages = "/site-packages/";
  const Path prefix = join(folder_of(python).text, "/..");
  if (is_start_up_file_below(prefix.text, kPackages)) return true;
  if (join(prefix.text, "/pyvenv.cfg").can(F_OK)) return false;
  const char* home = std::getenv("HOME");
  const char* user = std::getenv("PYTHONUSERBASE");
  return is_start_up_file_below(join(folder_of(resolved(python.text)).text, "/..").text,
                                kPackages) ||
         is_start_up_file_below("/usr/local", "/dist-packages/") ||
         (user != nullptr && is_start_up_file_below(user, kPackages)) ||
         (user == nullptr && home != nullptr &&
          is_start_up_file_below(join(home, "/.local").text, kPackages));
}

// ---- Command line -------------------------------------------------------------------------------

struct Run {
  bool explain = false;
  bool heal = false;
  int program = 0;  // its place in argv; 0: no plain run
};

bool is(const char* argument, const char* word) { return std::strcmp(argument, word) == 0; }

bool begins_a_program(const char* argument, bool is_last) {
  if (argument[0] != '-' || is(argument, "-")) return true;
  const bool takes_what_follows = argument[1] == 'm' || argument[1] == 'c';
  return takes_what_follows && (argument[2] != '\0' || !is_last);
}

Run parse(int argc, char** argv) {
  Run run;
  if (argc < 3 || !is(argv[1], "run")) return run;
  for (int at = 2; at < argc; ++at) {
    if (is(argv[at], "--explain")) {
      run.explain = true;
    } else if (is(argv[at], "--heal")) {
      run.heal = true;
    } else {
      run.program = begins_a_program(argv[at], at + 1 == argc) ? at : 0;
      return run;
    }
  }
  return run;
}

// As `environment()` of python/shoal/cli/run.py.
void set_environment(const Run& run) {
  setenv("SHOAL_RUN", "1", 1);
  unsetenv("SHOAL_EXPLAIN");
  unsetenv("SHOAL_HEAL");
  if (run.heal) setenv("SHOAL_HEAL", "1", 1);
  if (run.explain) {
    char pid[24];  // also the program's pid: it replaces this process
    std::snprintf(pid, sizeof pid, "%ld", static_cast<long>(getpid()));
    setenv("SHOAL_EXPLAIN", pid, 1);
  }
}

// ---- Replacing this process ---------------------------------------------------------------------

// Returns only if the interpreter cannot be started.
int become(Path& python, char** command) {
  command[0] = python.text;
  execv(python.text, command);
  std::fprintf(stderr, "shoal: cannot start %s: %s\n", python.text, std::strerror(errno));
  return kCannotStart;
}

int become_program(Installation& found, const Run& run, char** argv) {
  set_environment(run);
  return become(found.python, argv + run.program - 1);
}

int become_command_in_python(Installation& found, int argc, char** argv) {
  char module_option[] = "-m";
  char module[] = "shoal";
  const bool has_script = !found.script.empty();
  auto** command = static_cast<char**>(std::calloc(static_cast<size_t>(argc) + 3, sizeof(char*)));
  if (command == nullptr) return kCannotStart;
  char** next = command + 1;
  *next++ = has_script ? found.script.text : module_option;
  if (!has_script) *next++ = module;
  for (int at = 1; at < argc; ++at) *next++ = argv[at];
  return become(found.python, command);
}

}  // namespace

int main(int argc, char** argv) {
  Installation found = find_installation();
  if (found.python.empty()) {
    std::fputs("shoal: the Python for which shoal was installed is gone (" SHOAL_PYTHON_NAME
               "). Install shoal again: pip install --force-reinstall shoal\n",
               stderr);
    return kCannotStart;
  }
  const Run run = parse(argc, argv);
  if (run.program > 0 && sees_start_up_file(found.python)) return become_program(found, run, argv);
  return become_command_in_python(found, argc, argv);
}
