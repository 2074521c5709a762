"""torchao's tensors in safetensors, as transformers saves them (TorchAoConfig)."""

import json
import os

import torch
import torchao.quantization as ao
from safetensors.torch import save_file
from torchao.prototype.gptq.api import _int4_row_dequantize_zp, _int4_row_quantize_zp_precomputed_qparams
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization.quantize_.workflows import QuantizeTensorToFloat8Kwargs
from transformers import TorchAoConfig

import in_transformers
from measure import FP8_BOUND, FP8_INPUTS, INT8_BOUND, INT8_INPUTS, Case
from versions import versions

PEER = versions("transformers", "torchao")
NO_PRODUCT = "its product needs a graphics processor: torchao makes, saves and decodes the tensors, and torch multiplies"
INT8 = {"bound": INT8_BOUND, "reason": INT8_INPUTS}
WRITES = [
    Case("Int8WeightOnlyConfig", "int8"),
    Case("Int8WeightOnlyConfig, groups of 64", "int8 groups"),
    Case("Int8DynamicActivationInt8WeightConfig", "int8 dynamic", **INT8),
    Case("Int8DynamicActivationInt8WeightConfig, inputs with zero points", "int8 dynamic asymmetric", **INT8),
    Case("Float8WeightOnlyConfig", "float8"),
    Case("IntxWeightOnlyConfig, 4 bits in groups of 32", "intx int4 32"),
    Case("IntxWeightOnlyConfig, 3 bits in groups of 64, zero points", "intx int3 64 asymmetric"),
    Case("Int8DynamicActivationIntxWeightConfig, 4 bits", "intx int4 32 dynamic", **INT8),
    Case("Int4Tensor, groups of 64", "by hand int4", reason=NO_PRODUCT),
    Case("Float8Tensor a row, inputs by row", "by hand float8", reason=FP8_INPUTS + "; " + NO_PRODUCT, bound=FP8_BOUND),
]


def config_of(words):
    mapping = ao.MappingType.ASYMMETRIC if "asymmetric" in words else ao.MappingType.SYMMETRIC
    if words[0] == "float8":
        return ao.Float8WeightOnlyConfig()
    if words[0] == "intx":
        dtype, group = getattr(torch, words[1]), ao.PerGroup(int(words[2]))
        if "dynamic" in words:
            return ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=group)
        return ao.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=group, mapping_type=mapping)
    if "dynamic" in words:
        return ao.Int8DynamicActivationInt8WeightConfig(act_mapping_type=mapping)
    return ao.Int8WeightOnlyConfig(granularity=ao.PerGroup(64) if "groups" in words else ao.PerRow())


def int4(weight, group=64):
    """The tensor, and what it decodes to; torchao's own maker of codes packs them with a library for graphics processors."""
    rows = weight.reshape(-1, group)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    scale = (high - low).clamp(min=1e-6) / 15
    parts = [part.view(weight.shape[0], -1).t().contiguous() for part in (scale, low + 8 * scale)]
    codes = _int4_row_quantize_zp_precomputed_qparams(weight, *parts, group)
    packed = torch.bitwise_or(torch.bitwise_and(codes[:, ::2], 15), torch.bitwise_left_shift(codes[:, 1::2], 4)).contiguous()
    tensor = ao.Int4Tensor(packed, *parts, block_size=[1, group], shape=weight.shape)
    return tensor, _int4_row_dequantize_zp(codes, *parts, group)


def float8(weight):
    tensor = ao.Float8Tensor.from_hp(weight, act_quant_kwargs=QuantizeTensorToFloat8Kwargs(granularity=ao.PerRow()))
    return tensor, tensor.dequantize()


def rounded(_module, inputs):
    return (ao.Float8Tensor.from_hp(inputs[0]).dequantize(),)


def write_by_hand(kind, checkpoint, path):
    model = in_transformers.load(checkpoint)
    tensors = {name: value.clone() for name, value in model.state_dict().items()
               if name != "lm_head.weight" or not model.config.tie_word_embeddings}
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            tensors[name + ".weight"], module.weight.data = (int4 if kind == "int4" else float8)(module.weight.data)
            if kind == "float8":
                module.register_forward_pre_hook(rounded)
    os.makedirs(path)
    flat, metadata = flatten_tensor_state_dict(tensors)
    save_file(flat, os.path.join(path, "model.safetensors"), metadata={**metadata, "format": "pt"})
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump({**model.config.to_dict(), "quantization_config": {"quant_method": "torchao"}}, file)
    return in_transformers.logits(model)


def write(case, checkpoint, folder):
    path, words = os.path.join(folder, "peer"), case.stages.split()
    if words[:2] == ["by", "hand"]:
        return path, write_by_hand(words[2], checkpoint, path)
    model = in_transformers.load(checkpoint, quantization_config=TorchAoConfig(config_of(words)))
    model.save_pretrained(path)
    return path, in_transformers.logits(in_transformers.load(path))
