# What every target of this project has in common, and the two helpers that make targets.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# No -DNDEBUG difference between builds: asserts guard our own invariants only and are cheap.
set(CMAKE_CXX_FLAGS_RELEASE "-O3")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")

find_program(DEEPSEEK_CCACHE ccache)
if(DEEPSEEK_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${DEEPSEEK_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${DEEPSEEK_CCACHE})
endif()

add_library(deepseek_options INTERFACE)
target_include_directories(deepseek_options INTERFACE ${CMAKE_SOURCE_DIR})
# Op structs leave optional operands out on purpose; -Wrestrict of g++ 12 misfires on std::string
# concatenation (GCC bug 105651).
target_compile_options(deepseek_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-missing-field-initializers -ffp-contract=fast -fno-math-errno>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
if(DEEPSEEK_WERROR)
  target_compile_options(deepseek_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(DEEPSEEK_SANITIZE)
  target_compile_options(deepseek_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(deepseek_options INTERFACE -fsanitize=address,undefined)
endif()

# deepseek_layer(NAME dir DEPENDS targets...): the static library deepseek_<NAME> of the folder's
# sources. Its DEPENDS are the layers below it; nothing else can be linked, so a forbidden include
# fails to link as well as to lint.
function(deepseek_layer name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  if(sources)
    add_library(deepseek_${name} STATIC ${sources})
    target_link_libraries(deepseek_${name} PUBLIC deepseek_options ${ARG_DEPENDS})
  else()
    add_library(deepseek_${name} INTERFACE)
    target_link_libraries(deepseek_${name} INTERFACE deepseek_options ${ARG_DEPENDS})
  endif()
endfunction()

# deepseek_test(NAME dir LABELS ... DEPENDS ...): one doctest binary of the folder's sources.
function(deepseek_test name)
  cmake_parse_arguments(ARG "" "" "LABELS;DEPENDS;SOURCES" ${ARGN})
  set(sources ${ARG_SOURCES})
  if(NOT sources)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  endif()
  if(NOT sources)
    return()
  endif()
  string(REPLACE "/" "_" target test_${name})
  add_executable(${target} EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(${target} PRIVATE deepseek_test_support ${ARG_DEPENDS})
  target_compile_options(${target} PRIVATE -O1)
  add_dependencies(build_tests ${target})
  add_test(NAME ${name} COMMAND ${target})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 900
    ENVIRONMENT "DEEPSEEK_SOURCE_DIR=${CMAKE_SOURCE_DIR};DEEPSEEK_BUILD_DIR=${CMAKE_BINARY_DIR}")
endfunction()
