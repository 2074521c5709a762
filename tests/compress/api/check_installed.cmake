# Installs BUILD into WORK, builds the example against what is there, and runs it.
set(prefix ${WORK}/installed)
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    message(FATAL_ERROR "${ARGN}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/compress/api/example -B ${WORK}/example -G ${GENERATOR}
  -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_CXX_FLAGS=${FLAGS} -D CMAKE_PREFIX_PATH=${prefix})
run(${CMAKE_COMMAND} --build ${WORK}/example)
run(${WORK}/example/example ${prefix}/share/llmpress/recipes/w4a16_rtn.yaml
  ${SOURCE}/models/tinystories-3.7m ${WORK}/artifact ${TEXT})
foreach(wanted "bits per weight" "logits of" "perplexity [0-9]" "Once upon a time")
  if(NOT output MATCHES "${wanted}")
    message(FATAL_ERROR "the example did not print '${wanted}':\n${output}")
  endif()
endforeach()
# Nothing of the libraries inside is shown to the program.
run(nm --dynamic --defined-only ${prefix}/lib/libllmpress.so)
if(output MATCHES "cblas_|openblas|run_recipe")
  message(FATAL_ERROR "libllmpress.so shows symbols that are not of its interface:\n${output}")
endif()
