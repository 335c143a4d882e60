# Sourced by the scripts that people watch. step prints what the script is doing and how long that
# took. The command's output is shown only if it fails, below one line that says what to do about
# it.
#   step "building the core" cmake --build folder

step() { # name, command...
  local name=$1 began=$EPOCHREALTIME log
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/shoal-step.XXXXXX" 2>/dev/null) || {
    echo "No file can be made in ${TMPDIR:-/tmp}: free some space there, or set TMPDIR to another folder." >&2
    return 1
  }
  [ ! -t 1 ] || printf '  %-36s ...' "$name"
  if "$@" >"$log" 2>&1 </dev/null; then
    [ ! -t 1 ] || printf '\r'
    printf '  %-36s %6.1f s\n' "$name" "$(seconds_since "$began")"
    rm -f "$log"
    return
  fi
  [ ! -t 1 ] || printf '\r'
  printf '  %-36s failed after %.1f s\n' "$name" "$(seconds_since "$began")"
  explain_failure "$name" "$log" >&2
  rm -f "$log"
  return 1
}

seconds_since() { # an $EPOCHREALTIME
  awk -v now="$EPOCHREALTIME" -v then="$1" 'BEGIN { print now - then }'
}

# Explains problems of the machine or network in one line; any other output is shown unchanged.
explain_failure() { # name, log
  local name=$1 log=$2
  if grep -qE 'No space left on device|Disk quota exceeded' "$log"; then
    echo "No disk space left while $name: free some in $PWD and ${TMPDIR:-/tmp}, or set SHOAL_VENVS," \
      "SHOAL_BUILDS and TMPDIR to folders on another disk."
  elif grep -qE 'NewConnectionError|ConnectTimeout|Connection to .* timed out|ReadTimeoutError|Max retries exceeded|Temporary failure in name resolution|Name or service not known|ProxyError|SSLError|Network is unreachable' "$log"; then
    echo "No package index can be reached while $name: look at the network, or set PIP_INDEX_URL or" \
      "HTTPS_PROXY, and run the same command again."
  elif grep -qE 'No matching distribution found|Could not find a version' "$log"; then
    grep -E 'No matching distribution found' "$log" | tail -1
    echo "The package index has no such package for $("$python" -V 2>&1): choose another interpreter" \
      "(make PYTHON=python3.13), or another index (PIP_INDEX_URL)."
  elif grep -qE 'Killed signal|Killed$|virtual memory exhausted|Cannot allocate memory' "$log"; then
    echo "Out of memory while $name: run again with CMAKE_BUILD_PARALLEL_LEVEL=1."
  else
    tail -40 "$log"
  fi
}

# Ends the script before any work if the disk has too little space.
need_space() { # megabytes, folder
  local free
  free=$(df -Pm "$2" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$1" ] || {
    echo "Only $free MB are free in $2, and about $1 MB are needed: free some, or set SHOAL_VENVS and" \
      "SHOAL_BUILDS to folders on another disk." >&2
    exit 1
  }
}
