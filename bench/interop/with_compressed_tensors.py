"""compressed-tensors folders through transformers."""

import torch
from transformers import CompressedTensorsConfig

import in_transformers
from measure import FP8_BOUND, FP8_INPUTS, INT8_BOUND, INT8_INPUTS, Case
from versions import versions

PEER = versions("transformers", "compressed-tensors")


def ints(bits, group=32, symmetric="true", method="rtn", more=""):
    return (f"[{{quantize: {{method: {method}{more}, weights: {{bits: {bits}, group_size: {group}, "
            f"symmetric: {symmetric}, scale_dtype: f32}}}}}}]")


def scheme(name):
    return f"[{{quantize: {{method: rtn, scheme: {name}}}}}]"


def of_type(name):
    return f"[{{quantize: {{method: rtn, weights: {{type: {name}}}}}}}]"


BFLOAT16 = "the loader decodes 4-bit floats to bfloat16 and the model computes in it"
BFLOAT16_BOUND = 5e-2
ORDER = ", act_order: true"
MAGNITUDE = "[{{prune: {{method: magnitude, {}}}}}]"


def refused(layout, stages, reason, **more):
    return Case(layout, stages, refused=True, reason=reason, **more)


READS = [
    Case("plain numbers"),
    *[Case(f"pack-quantized, {bits} bits", ints(bits)) for bits in (2, 3, 4, 5, 6, 7, 8)],
    Case("pack-quantized, 4 bits, a scale a row", ints(4, -1)),
    Case("pack-quantized, 4 bits, act-order with static groups", ints(4, method="gptq", more=ORDER)),
    Case("pack-quantized, 4 bits, act-order, adapted",
         ints(4, method="gptq", more=ORDER + ", static_groups: false"), "incompatible: adapt"),
    Case("pack-quantized, 4 bits, groups of 96, adapted", ints(4, 96), "incompatible: adapt"),
    Case("pack-quantized, 4 bits, head too", ints(4).replace("weights:", "targets: ['re:.*proj', lm_head], weights:")),
    Case("pack-quantized, 4 bits; q in plain numbers", ints(4).replace("weights:", "ignore: ['re:.*q_proj'], weights:")),
    Case("pack-quantized, widths by auto",
         "[{quantize: {method: auto, target_bits: 4.5, weights: {group_size: 32, symmetric: true, scale_dtype: f32}}}]"),
    Case("pack-quantized, 4 bits, zero points, dequantize=True", ints(4, symmetric="false"), options=("dequantize",)),
    Case("pack-quantized, 8 bits, zero points, dequantize=True", ints(8, symmetric="false"), options=("dequantize",)),
    Case("int-quantized, W8A16", scheme("W8A16")),
    Case("int-quantized, W8A8", scheme("W8A8"), bound=INT8_BOUND, reason=INT8_INPUTS),
    Case("pack-quantized, W4A8", scheme("W4A8"), bound=INT8_BOUND, reason=INT8_INPUTS),
    Case("float-quantized, FP8 a tensor, plain inputs", "[{quantize: {method: rtn, weights: {type: fp8, group_size: 0}}}]"),
    Case("float-quantized, FP8 a row, plain inputs", of_type("fp8")),
    Case("float-quantized, FP8 a block of 128 x 128, plain inputs",
         "[{quantize: {method: rtn, weights: {type: fp8, block_size: [128, 128]}}}]"),
    Case("float-quantized, FP8 (static inputs)", scheme("FP8"), bound=FP8_BOUND, reason=FP8_INPUTS),
    Case("float-quantized, FP8_DYNAMIC", scheme("FP8_DYNAMIC"), bound=FP8_BOUND, reason=FP8_INPUTS),
    Case("float-quantized, FP8_BLOCK", scheme("FP8_BLOCK"), bound=FP8_BOUND, reason=FP8_INPUTS),
    Case("nvfp4-pack-quantized", of_type("nvfp4"), bound=BFLOAT16_BOUND, reason=BFLOAT16, options=("bfloat16",)),
    Case("mxfp4-pack-quantized", of_type("mxfp4"), bound=BFLOAT16_BOUND, reason=BFLOAT16, options=("bfloat16",)),
    Case("2:4, zeros written out", MAGNITUDE.format("pattern: '2:4'")),
    Case("fewer key/value heads", "[{prune: {method: kv_heads, kv_heads: 2}}]", models=("tinystories-3.7m", "qwen2")),
    refused("pack-quantized, embedding", ints(4).replace("weights:", "targets: ['re:.*proj', model.embed_tokens], weights:"),
            "no quantized embeddings", models=("tinystories-3.7m", "qwen2")),
    refused("pack-quantized, act-order by groups", ints(4, method="gptq", more=ORDER + ", static_groups: false"),
            "actorder: group was removed"),
    refused("pack-quantized, groups of 96", ints(4, 96), "groups have to divide the inputs"),
    refused("FP8 E5M2", of_type("fp8_e5m2"), "taken for E4M3, so it has a format of its own"),
    refused("2:4, sparse", MAGNITUDE.format("pattern: '2:4', storage: sparse"), "sparse decompression was dropped"),
    refused("bitmask, sparse", MAGNITUDE.format("sparsity: 0.5, storage: sparse"), "sparse decompression was dropped"),
    refused("NF4", "[{quantize: {method: nf4}}]", "its place is format: bitsandbytes"),
    refused("LLM.int8()", "[{quantize: {method: llm_int8}}]", "its place is format: bitsandbytes"),
    refused("heads pruned to a count that does not divide the hidden size",
            "[{prune: {method: heads, sparsity: 0.25, importance: weights}}]", "LlamaConfig refuses", models=("tinystories-3.7m",)),
    refused("HQQ", "[{quantize: {method: hqq, weights: {bits: 4, group_size: 32}}}]", "real zero points are unknown"),
]


def load(artifact, case, _checkpoint):
    extra = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if "dequantize" in case.options else {}
    dtype = torch.bfloat16 if "bfloat16" in case.options else torch.float32
    return in_transformers.logits(in_transformers.load(artifact, dtype, **extra))
