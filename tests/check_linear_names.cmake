# Fails when a file outside the families of models and the formats knows a Linear
# or a norm of some model by name: what a block is made of is asked of its program.
set(names "q_proj|k_proj|v_proj|o_proj|qkv_proj|gate_proj|up_proj|down_proj|gate_up_proj|c_attn|c_proj|c_fc|fc1|fc2|query_key_value|dense_h_to_4h|in_proj|out_proj|lm_head|embed_tokens|input_layernorm|post_attention_layernorm")
file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/compress/*.cpp ${ROOT}/compress/*.h
  ${ROOT}/quantizers/*.cpp ${ROOT}/quantizers/*.h ${ROOT}/pruning/*.cpp ${ROOT}/pruning/*.h
  ${ROOT}/lora/*.cpp ${ROOT}/lora/*.h ${ROOT}/recipes/*.cpp ${ROOT}/recipes/*.h)
# Where the defaults of a description stand.
list(FILTER files EXCLUDE REGEX "^compress/model/(families/.*|architecture\\.h)$")
foreach(file ${files})
  file(STRINGS ${ROOT}/${file} lines REGEX "${names}")
  foreach(line ${lines})
    string(REGEX REPLACE "//.*" "" code "${line}")
    if(code MATCHES "${names}")
      message(SEND_ERROR "${file} knows a module by name: ${line}")
    endif()
  endforeach()
endforeach()
