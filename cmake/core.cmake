# shoal_core: every layer but the Python half of the codec. shoal_core_testing: the same sources
# with the kill points and schedules of src/testing compiled in.
set(shoal_layers os arena sync channel codec pool collections trace api)

set(shoal_core_globs "")
set(shoal_test_globs "")
foreach(layer IN LISTS shoal_layers)
  list(APPEND shoal_core_globs "${PROJECT_SOURCE_DIR}/src/${layer}/*.cpp")
endforeach()
file(GLOB shoal_core_sources CONFIGURE_DEPENDS ${shoal_core_globs})
list(FILTER shoal_core_sources EXCLUDE REGEX "_test\\.cpp$")
file(GLOB shoal_testing_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/testing/*.cpp")
list(FILTER shoal_testing_sources EXCLUDE REGEX "_test\\.cpp$")

# A target without sources cannot be linked, so a bare tree builds one empty object.
set(shoal_empty_source "${PROJECT_BINARY_DIR}/empty.cpp")
file(GENERATE OUTPUT "${shoal_empty_source}" CONTENT "")

function(shoal_add_core name)
  add_library(${name} STATIC ${ARGN} "${shoal_empty_source}")
  target_include_directories(${name} PUBLIC
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>"
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
    "$<INSTALL_INTERFACE:include>")
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_link_libraries(${name} PUBLIC Threads::Threads PRIVATE $<BUILD_INTERFACE:shoal_flags>)
endfunction()

shoal_add_core(shoal_core ${shoal_core_sources})
add_library(shoal::core ALIAS shoal_core)
if(SHOAL_TESTING)
  shoal_add_core(shoal_core_testing ${shoal_core_sources} ${shoal_testing_sources})
  target_compile_definitions(shoal_core_testing PUBLIC SHOAL_TESTING=1)
endif()
