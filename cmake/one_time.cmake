# SHOAL_ONE_TIME_BUILD: for a build that is made once and thrown away, as `pip install`, a wheel and
# the demo are. It takes a third of the processor time and gives the same library; a build that is
# repeated after each change is better off without it, since one changed line costs a whole batch.
#
# Two thirds of the time of a plain build go into reading headers. So each target reads those of the
# standard library once (a precompiled header), and the core's sources are compiled in batches
# (a "unity build": one compilation of several files).

set(shoal_common_headers
  <algorithm> <array> <atomic> <bit> <cerrno> <chrono> <climits> <cstddef> <cstdint> <cstdio>
  <cstdlib> <cstring> <exception> <functional> <memory> <new> <optional> <span> <stdexcept> <string>
  <string_view> <type_traits> <utility> <vector>)
target_precompile_headers(shoal_core PRIVATE ${shoal_common_headers})

# Files of one batch share their unnamed namespaces. These use names that a neighbour uses too, so
# each is compiled by itself; the build says "redefinition" or "ambiguous" when the list lacks one.
set(shoal_not_in_batches
  arena/page_search.cpp channel/ring.cpp channel/ring_segments.cpp collections/map.cpp
  collections/sequence.cpp pool/worker.cpp sync/condition.cpp)
list(TRANSFORM shoal_not_in_batches PREPEND "${PROJECT_SOURCE_DIR}/src/")
set_source_files_properties(${shoal_not_in_batches} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
set_target_properties(shoal_core PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 7)

if(TARGET _core)
  # Not in batches: each file of the bindings has a table of the same name.
  target_precompile_headers(_core PRIVATE <Python.h> ${shoal_common_headers} bindings/interp/bind.hpp)
endif()
