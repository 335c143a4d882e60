#!/usr/bin/env bash
# Prints the interpreter to use: $PYTHON when it is set, else the newest CPython from 3.10 to 3.15
# on the machine, looked for on PATH and beside it (pyenv, /usr/local, /opt).
#   find_python.sh          one path
#   find_python.sh --all    one path for each minor version, newest first; ignores $PYTHON
set -euo pipefail

# Prints "3.13.0 /path/to/python3.13" for a usable candidate, nothing for any other (a pyenv shim
# of a version that is not active, PyPy, a free-threaded build). A virtual environment stands for
# the interpreter it was made from.
describe() {
  "$1" -I -c '
import sys, sysconfig
ok = (sys.implementation.name == "cpython" and (3, 10) <= sys.version_info < (3, 16)
      and not sysconfig.get_config_var("Py_GIL_DISABLED"))
path = getattr(sys, "_base_executable", None) or sys.executable
print("%d.%d.%d" % sys.version_info[:3], path) if ok else sys.exit(1)' 2>/dev/null
}

candidates() {
  local minor folder
  for minor in 15 14 13 12 11 10; do
    type -aP "python3.$minor" || true
    for folder in /usr/local/bin /opt/python*/bin "${HOME:-/root}"/.pyenv/versions/*/bin; do
      [ -x "$folder/python3.$minor" ] && printf '%s\n' "$folder/python3.$minor"
    done
  done
  type -aP python3 || true
}

all() {
  local candidate
  candidates | while read -r candidate; do describe "$candidate" || true; done |
    sort -t. -k2,2nr -k3,3nr -s | awk '{split($1, v, "."); if (!seen[v[2]]++) print $2}'
}

# Prints one line about an interpreter that cannot be used, and what to do; `make` shows it.
refuse() { # the value of PYTHON
  local what
  if ! type -P "$1" >/dev/null; then
    what=": no such command"
  elif ! what=$("$1" -c '
import platform, sys
print(" is %s %s%s" % (platform.python_implementation(), platform.python_version(),
    ", free-threaded" if "free-threading" in sys.version else ""))' 2>/dev/null); then
    what=" does not run as Python does"
  fi
  echo "PYTHON=$1$what. shoal needs CPython 3.10 to 3.15: leave PYTHON out to have the newest one here," \
    "or name one, as in: make PYTHON=$(all | head -1 | grep . || echo /path/to/python3.13)" >&2
  exit 1
}

if [ "${1:-}" = --all ]; then
  all
elif [ -n "${PYTHON:-}" ]; then
  # A name such as python3.10 or 3.10 that PATH does not give may still be beside PATH.
  found=$(describe "$PYTHON" | grep .) || found=$(all | grep "/python3[.]${PYTHON##*3.}\$" | sed 's/^/. /') ||
    refuse "$PYTHON"
  echo "${found#* }"
else
  found=$(all | head -1)
  [ -n "$found" ] || {
    echo "No CPython from 3.10 to 3.15 found. Install one (Debian, Ubuntu: apt-get install" \
      "python3 python3-venv python3-dev) or name it: make PYTHON=/path/to/python3.13" >&2
    exit 1
  }
  echo "$found"
fi
