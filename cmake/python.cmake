# The extension module shoal._core, and with SHOAL_TESTING its twin shoal._core_testing.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
file(GLOB_RECURSE shoal_binding_sources CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/bindings/*.cpp"
  "${PROJECT_SOURCE_DIR}/src/codec/python/*.cpp")
list(FILTER shoal_binding_sources EXCLUDE REGEX "_test\\.cpp$|/bindings/launcher/")

function(shoal_add_module name core)
  Python_add_library(${name} MODULE WITH_SOABI ${shoal_binding_sources})
  set_target_properties(${name} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${name} PRIVATE -ffunction-sections -fdata-sections)
  target_link_options(${name} PRIVATE LINKER:--gc-sections $<$<CONFIG:Release>:LINKER:-s>)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  # Not our headers: their warnings are not ours either.
  target_include_directories(${name} SYSTEM PRIVATE ${Python_INCLUDE_DIRS})
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
