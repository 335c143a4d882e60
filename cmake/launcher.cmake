# The command `shoal`: a small program that becomes Python (bindings/launcher/shoal.cpp). Needs
# cmake/python.cmake before it: it is for that interpreter's version.
add_executable(shoal_launcher "${PROJECT_SOURCE_DIR}/bindings/launcher/shoal.cpp")
set_target_properties(shoal_launcher PROPERTIES OUTPUT_NAME shoal
  RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/launcher")
target_compile_definitions(shoal_launcher PRIVATE
  "SHOAL_PYTHON_NAME=\"python${Python_VERSION_MAJOR}.${Python_VERSION_MINOR}\"")
target_compile_options(shoal_launcher PRIVATE -fno-exceptions -fno-rtti)
# Nothing of the C++ library is used, so nothing of it is loaded.
target_link_options(shoal_launcher PRIVATE LINKER:--as-needed)
target_link_libraries(shoal_launcher PRIVATE shoal_flags)

# scikit-build-core names the folder for commands; elsewhere the launcher is not installed.
if(SKBUILD_SCRIPTS_DIR)
  install(TARGETS shoal_launcher RUNTIME DESTINATION "${SKBUILD_SCRIPTS_DIR}" COMPONENT python)
endif()
