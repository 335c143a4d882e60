# shoal_flags: warnings and sanitizers for shoal's own targets (never for GoogleTest).
find_package(Threads REQUIRED)

add_library(shoal_flags INTERFACE)
# Type objects and method tables of the C API name only the fields that they set.
target_compile_options(shoal_flags INTERFACE
  -Wall -Wextra -Wno-missing-field-initializers -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual
  -Wundef -Wvla -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(shoal_flags INTERFACE -Wthread-safety)
else()
  target_compile_options(shoal_flags INTERFACE -Wduplicated-cond -Wlogical-op)
endif()
if(SHOAL_WERROR)
  target_compile_options(shoal_flags INTERFACE -Werror)
endif()

if(SHOAL_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(SHOAL_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(SHOAL_SANITIZE)
  message(FATAL_ERROR "SHOAL_SANITIZE is \"${SHOAL_SANITIZE}\": want address, thread or nothing")
endif()
