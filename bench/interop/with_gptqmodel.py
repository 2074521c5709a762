"""GPTQ and AWQ folders: GPTQModel loads them by itself and through transformers, and writes its own."""

import os

import torch
from gptqmodel import BACKEND, GPTQModel
from gptqmodel.quantization.config import FORMAT, AWQConfig, GPTQConfig
from transformers import AutoTokenizer

import in_transformers
from measure import CALIBRATION, Case
from versions import versions

PEER = versions("gptqmodel", "transformers", "optimum")
HALF = "it computes in float16"
LOOSE = {"bound": 2e-2, "reason": HALF}
# By its own loader; it pads Qwen2 with a token that a small vocabulary has not.
PADDED = {**LOOSE, "models": ("tinystories-3.7m", "gemma2")}


def gptq(bits, symmetric="true", group=32, more=""):
    return (f"[{{quantize: {{method: gptq{more}, weights: {{bits: {bits}, group_size: {group}, "
            f"symmetric: {symmetric}, scale_dtype: f16}}}}}}]")


ORDER = ", act_order: true, static_groups: false"
MIXED = ("[{quantize: {method: rtn, targets: ['re:.*mlp.*'], weights: {bits: 4, group_size: 32, symmetric: true}}}, "
         "{quantize: {method: rtn, targets: ['re:.*self_attn.*'], weights: {bits: 8, group_size: 64, symmetric: true}}}]")
AWQ = "[{quantize: {method: awq, weights: {bits: 4, group_size: 32}}}]"


def through_transformers(case):
    return Case(case.layout + ", through transformers", case.stages, case.output, options=("transformers",), **LOOSE)


BASE = [
    *[Case(f"gptq, {bits} bits", gptq(bits), "format: gptq", **PADDED) for bits in (2, 3, 4, 8)],
    *[Case(f"gptq_v2, {bits} bits, zero points", gptq(bits, "false"), "format: gptq", **PADDED) for bits in (2, 3, 4, 8)],
    Case("gptq, 4 bits, a scale a row", gptq(4, group=-1), "format: gptq", **PADDED),
    Case("gptq, 4 bits, act-order", gptq(4, more=ORDER), "format: gptq", **PADDED),
    Case("gptq_v2, 3 bits, zero points, act-order", gptq(3, "false", more=ORDER), "format: gptq", **PADDED),
    Case("gptq, 4 and 8 bits", MIXED, "format: gptq", **PADDED),
    Case("awq, 4 bits, zero points", AWQ, "format: awq", **PADDED),
]
READS = BASE + [through_transformers(case) for case in BASE if case.layout in (
    "gptq, 4 bits", "gptq_v2, 3 bits, zero points, act-order", "awq, 4 bits, zero points")]  # and no `dynamic`
WRITTEN = ("tinystories-3.7m",)  # it pads Qwen2 with a token that a small vocabulary has not
WRITES = [
    Case("gptq, 4 bits", "gptq 4", **LOOSE, models=WRITTEN),
    Case("gptq, 3 bits", "gptq 3", **LOOSE, models=WRITTEN),
    Case("gptq, 8 bits", "gptq 8", **LOOSE, models=WRITTEN),
    Case("gptq, 4 bits, act-order", "gptq 4 desc_act", **LOOSE, models=WRITTEN),
    Case("gptq_v2, 4 bits, zero points", "gptq 4 asym v2", **LOOSE, models=WRITTEN),
    Case("awq, 4 bits, zero points", "awq", **LOOSE, models=WRITTEN),
]


def load(artifact, case, _checkpoint):
    if "transformers" in case.options:
        return in_transformers.logits(in_transformers.load(artifact))
    backend = BACKEND.AWQ_TORCH if case.output.endswith("awq") or "awq" in case.stages else BACKEND.GPTQ_TORCH
    model = GPTQModel.load(artifact, device="cpu", backend=backend, dtype=torch.float16)
    return in_transformers.logits(model.model.eval())


def calibration(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with open(CALIBRATION) as file:
        lines = [line for line in file.read().splitlines() if len(line) > 200][:8]
    return [{key: value[:64] for key, value in tokenizer(line).items() if key in ("input_ids", "attention_mask")}
            for line in lines]


def config_of(words):
    if words[0] == "awq":
        return AWQConfig(bits=4, group_size=32, sym=False, format=FORMAT.GEMM)
    return GPTQConfig(bits=int(words[1]), group_size=32, sym="asym" not in words, desc_act="desc_act" in words,
                      format=FORMAT.GPTQ_V2 if "v2" in words else FORMAT.GPTQ, act_group_aware=False)


def write(case, checkpoint, folder):
    path = os.path.join(folder, "peer")
    words = case.stages.split()
    dtype = torch.float16 if words[0] == "awq" else torch.float32  # its AWQ packs nothing else
    model = GPTQModel.load(checkpoint, config_of(words), device="cpu", dtype=dtype)
    model.quantize(calibration(checkpoint), batch_size=1)
    model.save(path)
    return path, load(path, case, checkpoint)
