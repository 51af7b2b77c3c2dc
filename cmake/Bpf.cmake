# Headers as an author of programs has them: <holdfast/...>.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/bpf/include)
file(CREATE_LINK ${CMAKE_SOURCE_DIR}/bpf ${CMAKE_BINARY_DIR}/bpf/include/holdfast SYMBOLIC)

# bpf_object(NAME SOURCE) compiles SOURCE to build/bpf/NAME.bpf.o.
# bpf_skeleton(NAME) makes NAME.skel.h from that object, in build/bpf.
function(bpf_object NAME SOURCE)
  set(out ${CMAKE_BINARY_DIR}/bpf/${NAME}.bpf.o)
  get_filename_component(dir ${out} DIRECTORY)
  file(MAKE_DIRECTORY ${dir})
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CLANG} -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter
            -I${CMAKE_SOURCE_DIR}/bpf -I${CMAKE_BINARY_DIR}/bpf/include
            -I/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}
            -MD -MF ${out}.d -c ${SOURCE} -o ${out}
    COMMAND ${LLVM_STRIP} -g ${out}
    DEPENDS ${SOURCE}
    DEPFILE ${out}.d
    COMMENT "BPF ${NAME}")
  set_property(GLOBAL APPEND PROPERTY HOLDFAST_BPF_FILES ${out})
endfunction()

function(bpf_skeleton NAME)
  set(object ${CMAKE_BINARY_DIR}/bpf/${NAME}.bpf.o)
  set(out ${CMAKE_BINARY_DIR}/bpf/${NAME}.skel.h)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${BPFTOOL} gen skeleton ${object} name ${NAME}_bpf > ${out}
    DEPENDS ${object}
    COMMENT "skeleton ${NAME}")
  set_property(GLOBAL APPEND PROPERTY HOLDFAST_BPF_FILES ${out})
endfunction()
