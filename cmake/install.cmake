# What a C++ program needs for find_package(shoal): the public headers, the library and its
# description. Component "cpp", so that the Python wheel does not carry it:
#   cmake --install build --component cpp --prefix <where>
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

add_library(shoal_public INTERFACE)
target_link_libraries(shoal_public INTERFACE shoal_core)
add_library(shoal::shoal ALIAS shoal_public)
set_target_properties(shoal_public PROPERTIES EXPORT_NAME shoal)
set_target_properties(shoal_core PROPERTIES EXPORT_NAME core)

set(shoal_config_folder "${CMAKE_INSTALL_LIBDIR}/cmake/shoal")
install(TARGETS shoal_public shoal_core EXPORT shoalTargets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT cpp)
install(EXPORT shoalTargets NAMESPACE shoal:: DESTINATION "${shoal_config_folder}" COMPONENT cpp)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/shoal" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  COMPONENT cpp FILES_MATCHING PATTERN "*.hpp")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/shoalConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/shoalConfig.cmake" INSTALL_DESTINATION "${shoal_config_folder}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/shoalConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/shoalConfig.cmake" "${PROJECT_BINARY_DIR}/shoalConfigVersion.cmake"
  DESTINATION "${shoal_config_folder}" COMPONENT cpp)
