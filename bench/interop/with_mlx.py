"""MLX's folders: mlx-lm on the processor, and what it quantizes."""

import contextlib
import io
import pathlib

import mlx.core as mx
import numpy
from mlx_lm.convert import convert
from mlx_lm.utils import load_model

from measure import Case, token_ids
from versions import versions

PEER = versions("mlx", "mlx-lm")
OUTPUT = "format: mlx"
MODELS = {"models": ("tinystories-3.7m", "qwen2")}  # mlx-lm's Gemma 2 has no sliding windows
MIXTURES = {"models": ("qwen3_moe", "gpt_oss", "llama4")}
LOADED = {"models": ("qwen3_moe", "llama4")}  # of gpt-oss mlx-lm takes what is published, in MXFP4, not plain numbers
mx.set_default_device(mx.cpu)


def of_type(name):
    return f"[{{quantize: {{method: rtn, weights: {{type: {name}}}}}}}]"


def ints(bits, symmetric="true"):
    dtype = "f32" if symmetric == "true" else "f16"
    return (f"[{{quantize: {{method: rtn, weights: {{bits: {bits}, group_size: 32, symmetric: {symmetric}, "
            f"scale_dtype: {dtype}}}}}}}]")


READS = [
    Case("plain numbers", output="format: safetensors", **MODELS),
    *[Case(f"affine, {bits} bits", ints(bits), OUTPUT, **MODELS) for bits in (2, 3, 4, 5, 6, 8)],
    Case("affine, 4 bits, zero points", ints(4, symmetric="false"), OUTPUT, **MODELS),
    Case("mxfp4", of_type("mxfp4"), OUTPUT, **MODELS),
    Case("affine, 4 bits, stacks of experts", ints(4), OUTPUT, **MIXTURES),
    Case("affine, 8 bits with zero points, stacks of experts", ints(8, symmetric="false"), OUTPUT, **MIXTURES),
    Case("mxfp4, stacks of experts", of_type("mxfp4"), OUTPUT, **MIXTURES),
]
WRITES = [
    *[Case(f"affine, {bits} bits, groups of {group}", f"affine {bits} {group}", **MODELS)
      for bits, group in ((3, 64), (4, 32), (6, 64), (8, 128))],
    Case("mxfp4", "mxfp4 4 32", **MODELS),
    Case("mxfp8", "mxfp8 8 32", **MODELS),
    Case("nvfp4", "nvfp4 4 16", **MODELS),
    Case("affine, 4 bits, stacks of experts", "affine 4 64", **LOADED),
    Case("mxfp8, stacks of experts", "mxfp8 8 32", **LOADED),
    Case("nvfp4, stacks of experts", "nvfp4 4 16", **LOADED),
]


def load(artifact, _case, _checkpoint):
    model, _ = load_model(pathlib.Path(artifact))
    return numpy.array(model(mx.array([token_ids()]))[0].astype(mx.float32))


def write(case, checkpoint, folder):
    mode, bits, group = case.stages.split()
    with contextlib.redirect_stdout(io.StringIO()):
        convert(checkpoint, folder + "/peer", quantize=True, q_group_size=int(group), q_bits=int(bits), q_mode=mode, dtype="float32")
    return folder + "/peer", load(folder + "/peer", case, checkpoint)
