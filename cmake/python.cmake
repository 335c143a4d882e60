# The extension module shoal._core, and with SHOAL_TESTING its twin shoal._core_testing.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(
  COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
  OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE nanobind_ROOT
  COMMAND_ERROR_IS_FATAL ANY)
find_package(nanobind CONFIG REQUIRED)

file(GLOB shoal_binding_sources CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/bindings/*.cpp"
  "${PROJECT_SOURCE_DIR}/src/codec/python/*.cpp")
list(FILTER shoal_binding_sources EXCLUDE REGEX "_test\\.cpp$")

function(shoal_add_module name core)
  nanobind_add_module(${name} NB_STATIC NB_DOMAIN shoal NOMINSIZE ${shoal_binding_sources})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  # Not our headers: their warnings are not ours either.
  target_include_directories(${name} SYSTEM PRIVATE ${Python_INCLUDE_DIRS} "${NB_DIR}/include")
  target_compile_definitions(${name} PRIVATE SHOAL_MODULE_NAME=${name} PY_SSIZE_T_CLEAN=)
  target_link_libraries(${name} PRIVATE ${core} shoal_flags)
  # The C++ library comes along, as far as it is used: to load the shared one takes three times as long
  # as to load this module, and a program of pure Python has it in memory for nothing. libgcc stays
  # shared: CPython up to 3.13 ends daemon threads by pthread_exit, which unwinds with the shared libgcc,
  # and a frame of ours that was linked with another copy makes that abort.
  target_link_options(${name} PRIVATE -static-libstdc++ LINKER:--exclude-libs,ALL)
endfunction()

if(shoal_binding_sources)
  shoal_add_module(_core shoal_core)
  install(TARGETS _core LIBRARY DESTINATION shoal COMPONENT python)
  file(GLOB shoal_path_files "${PROJECT_SOURCE_DIR}/python/*.pth")
  if(shoal_path_files)
    install(FILES ${shoal_path_files} DESTINATION "." COMPONENT python)
  endif()
  if(SHOAL_TESTING)
    shoal_add_module(_core_testing shoal_core_testing)
  endif()
else()
  message(WARNING "bindings/ has no sources: the extension is not built")
endif()
