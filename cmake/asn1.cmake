# The ASN.1 module, compiled from format/bk.asn by libtasn1's own compiler (package libtasn1-bin).
find_program(ASN1PARSER asn1Parser REQUIRED)
set(BK_ASN1_C ${CMAKE_BINARY_DIR}/generated/bk_asn1.c)
add_custom_command(OUTPUT ${BK_ASN1_C}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/generated
    COMMAND ${ASN1PARSER} -o ${BK_ASN1_C} -n bk_asn1_module ${CMAKE_SOURCE_DIR}/format/bk.asn
    DEPENDS ${CMAKE_SOURCE_DIR}/format/bk.asn
    COMMENT "Compiling format/bk.asn" VERBATIM)
# generated code tests HAVE_CONFIG_H without asking whether it is defined
set_source_files_properties(${BK_ASN1_C} PROPERTIES COMPILE_OPTIONS "-Wno-undef")
