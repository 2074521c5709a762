"""Hugging Face's fp8 folders (DeepSeek's layout): 8-bit floats with `weight_scale_inv`, a scale a block."""

import json
import os

import torch
from safetensors.torch import save_file
from transformers import FineGrainedFP8Config

import in_transformers
import with_compressed_tensors as by_hand
from measure import Case
from versions import versions

# Its own products need a graphics processor; what they multiply is decoded here by transformers' dequantize=True, and
# inputs are rounded as those products do it.
PEER = versions("transformers") + " (dequantize=True)"
WRITES = [
    Case("fp8, blocks of 128 x 128, weights", options=("weights",)),
    Case("fp8, blocks of 128 x 128, inputs in groups of 128", options=("inputs",), bound=by_hand.FP8_BOUND,
         reason=by_hand.FP8_INPUTS),
]
BLOCK, LARGEST = 128, 448.0


def rounded(weight):
    """E4M3 [out, in] and the scales that multiply it, [blocks of rows, blocks of columns]."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3)) / LARGEST
    codes = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
    return codes.contiguous(), scale.contiguous()


def rounded_inputs(_module, inputs):
    groups = inputs[0].unflatten(-1, (-1, BLOCK))
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (((groups / scale).to(torch.float8_e4m3fn).to(inputs[0].dtype) * scale).flatten(-2),)


def write(case, checkpoint, folder):
    path = os.path.join(folder, "peer")
    model = in_transformers.load(checkpoint)
    tensors = {name: value.clone() for name, value in model.state_dict().items()
               if name != "lm_head.weight" or not model.config.tie_word_embeddings}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        tensors[name], tensors[name + "_scale_inv"] = rounded(tensors[name])
    os.makedirs(path)
    save_file(tensors, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    config = {**model.config.to_dict(), "quantization_config": {
        "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}}
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(config, file)
    loaded = in_transformers.load(path, quantization_config=FineGrainedFP8Config(dequantize=True))
    for name, module in loaded.named_modules():
        if "inputs" in case.options and name.endswith("_proj"):
            module.register_forward_pre_hook(rounded_inputs)
    return path, in_transformers.logits(loaded)
