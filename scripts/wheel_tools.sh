# Sourced after environment.sh and steps.sh: the tools for a release, in a separate environment.
#   release_python  that environment's interpreter; its pip serves others by --python
#   fresh_environment FOLDER INTERPRETER   an empty environment: neither pip nor this tree in it
#   smoke WHEEL INTERPRETER                installs the wheel into such an environment and tests it
"$python" -I -c 'import ensurepip, venv' 2>/dev/null || {
  echo "$python has no venv module. Install it (Debian, Ubuntu: apt-get install python3-venv), or choose" \
    "another interpreter: make wheels PYTHON=python3.13" >&2
  exit 1
}
tools=$venvs/release-$tag
release_python=$tools/bin/python
stamp=$({ echo "$python"; cat scripts/requirements-wheels.txt; } | sha256sum)
make_release_tools() {
  rm -rf "$tools"
  "$python" -I -m venv "$tools"
  "$release_python" -m pip install -q --disable-pip-version-check --retries 2 -r scripts/requirements-wheels.txt
}
if [ "$(cat "$tools/.stamp" 2>/dev/null)" != "$stamp" ]; then
  step "installing release tools" make_release_tools
  echo "$stamp" >"$tools/.stamp"
fi

fresh_environment() {
  rm -rf "$1"
  "$2" -I -m venv --without-pip "$1"
}

smoke() {
  local place
  place=$(mktemp -d)
  fresh_environment "$place/venv" "$2"
  "$release_python" -m pip --python "$place/venv/bin/python" install -q --disable-pip-version-check "$1"
  cp tests/install/smoke.py "$place"
  (cd "$place" && env -u PYTHONPATH -u SHOAL_RUN "$place/venv/bin/python" -I smoke.py)
  rm -rf "$place"
}
