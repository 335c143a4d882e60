# Sourced after environment.sh: puts the pinned style tools, in a separate environment, on PATH.
exclusively
scripts/setup
tools=$venvs/tools-$tag
stamp=$({ echo "$python"; cat scripts/requirements-check.txt; } | sha256sum)
if [ "$(cat "$tools/.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "Setting up ${tools/#$PWD\//}"
  rm -rf "$tools"
  "$python" -I -m venv "$tools"
  "$tools/bin/python" -m pip install -q --disable-pip-version-check -r scripts/requirements-check.txt
  echo "$stamp" >"$tools/.stamp"
fi
PATH="$tools/bin:$venv/bin:$PATH"
mapfile -t cpp_files < <(find src include bindings examples bench fuzz -name '*.[ch]pp' 2>/dev/null | sort)
python_folders=()
for folder in python tests bench examples scripts fuzz; do
  if [ -d "$folder" ]; then python_folders+=("$folder"); fi
done
