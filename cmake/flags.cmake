# Compiler flags, in one place: warnings, sanitizers, hardening.
add_library(bk_flags INTERFACE)
target_include_directories(bk_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_features(bk_flags INTERFACE c_std_17)
target_compile_definitions(bk_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64)
target_compile_options(bk_flags INTERFACE
    -Wall -Wextra -Wconversion -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wundef
    $<$<BOOL:${BK_WERROR}>:-Werror>)
if(BK_SANITIZE)
    target_compile_options(bk_flags INTERFACE -fsanitize=${BK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(bk_flags INTERFACE -fsanitize=${BK_SANITIZE})
    # the leak checker attaches to the process with ptrace, which an undumpable process refuses
    target_compile_definitions(bk_flags INTERFACE BK_KEEP_DUMPABLE)
endif()
if(BK_FUZZ)
    target_compile_options(bk_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(BK_COVERAGE)
    target_compile_options(bk_flags INTERFACE --coverage -fprofile-update=atomic) # threads count too
    target_link_options(bk_flags INTERFACE --coverage)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_options(bk_flags INTERFACE
        -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fPIE
        $<$<STREQUAL:${CMAKE_SYSTEM_PROCESSOR},x86_64>:-fcf-protection>)
    target_link_options(bk_flags INTERFACE -pie -Wl,-z,relro,-z,now,-z,noexecstack)
endif()
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
