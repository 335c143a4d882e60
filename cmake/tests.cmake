# One GoogleTest program a layer, shoal_<layer>_tests, from src/<layer>/*_test.cpp; `ctest -L sync`
# runs one layer's.
# GoogleTest is compiled from its sources where they are there, so that it has our sanitizers.
set(shoal_googletest_sources "/usr/src/googletest" CACHE PATH "Sources of GoogleTest")
if(EXISTS "${shoal_googletest_sources}/CMakeLists.txt")
  set(INSTALL_GTEST OFF)
  set(BUILD_GMOCK OFF)
  add_subdirectory("${shoal_googletest_sources}" googletest EXCLUDE_FROM_ALL SYSTEM)
  add_library(shoal_gtest_main ALIAS gtest_main)
else()
  find_package(GTest REQUIRED)
  add_library(shoal_gtest_main ALIAS GTest::gtest_main)
endif()

enable_testing()
include(GoogleTest)
foreach(layer IN LISTS shoal_layers ITEMS testing)
  file(GLOB layer_tests CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${layer}/*_test.cpp")
  if(layer_tests)
    add_executable(shoal_${layer}_tests ${layer_tests})
    target_link_libraries(shoal_${layer}_tests PRIVATE
      shoal_core_testing shoal_gtest_main shoal_flags)
    # Each test runs in a process of its own, under CTest's watchdog.
    gtest_discover_tests(shoal_${layer}_tests
      TEST_PREFIX "${layer}." DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
      PROPERTIES TIMEOUT 600 LABELS ${layer})
  endif()
endforeach()
