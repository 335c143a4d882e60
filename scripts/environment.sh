# Sourced by the other scripts: the interpreter, and the folders that belong to it.
#   python  the interpreter's path          venv   its private environment
#   tag     its version, such as 3.13.0     build  its CMake build folder
#   compiler_cache  CMake's options for ccache if it is installed; builds share its results
# SHOAL_VENVS and SHOAL_BUILDS move the folders (needed for a tree that two systems use).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
python=$(scripts/find_python.sh)
tag=$("$python" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
venvs=${SHOAL_VENVS:-.venvs}
builds=${SHOAL_BUILDS:-build}
mkdir -p "$venvs" "$builds"
venvs=$(realpath "$venvs") builds=$(realpath "$builds")
venv=$venvs/$tag
build=$builds/$tag

compiler_cache=()
if command -v ccache >/dev/null; then
  compiler_cache=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  export CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=1
fi

# Waits until no other script holds this interpreter's lock: `make test` in two terminals must not
# write to one build folder together.
exclusively() {
  [ -n "${SHOAL_LOCKED:-}" ] && return
  export SHOAL_LOCKED=1
  exec {lock}>"$venvs/$tag.lock"
  flock "$lock"
}
