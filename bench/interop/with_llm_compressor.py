"""compressed-tensors folders with the versions that llm-compressor pins, and those that it writes."""

from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier

import in_transformers
import with_compressed_tensors as by_hand
from measure import CALIBRATION, Case
from versions import versions

PEER = versions("llmcompressor", "transformers", "compressed-tensors")
load = by_hand.load
READS = [
    Case("pack-quantized, 4 bits", by_hand.ints(4)),
    *[Case(f"pack-quantized, {bits} bits, zero points", by_hand.ints(bits, symmetric="false")) for bits in (3, 4, 8)],
    Case("pack-quantized, 4 bits, zero points, a scale a row", by_hand.ints(4, -1, "false")),
]
INT8 = {"bound": by_hand.INT8_BOUND, "reason": by_hand.INT8_INPUTS}
FP8 = {"bound": by_hand.FP8_BOUND, "reason": by_hand.FP8_INPUTS}
FP4 = {"bound": by_hand.BFLOAT16_BOUND, "reason": by_hand.BFLOAT16, "options": ("bfloat16",)}
WRITES = [
    Case("W4A16", "W4A16"),
    Case("W4A16_ASYM", "W4A16_ASYM"),
    Case("W4A16, GPTQ", "gptq W4A16"),
    Case("W8A16", "W8A16"),
    Case("W8A8", "W8A8", **INT8),
    Case("FP8_DYNAMIC", "FP8_DYNAMIC", **FP8),
    Case("FP8", "FP8", **FP8),
    Case("FP8_BLOCK", "FP8_BLOCK", **FP8),
    Case("NVFP4A16", "NVFP4A16", **FP4),
    Case("MXFP4A16", "MXFP4A16", **FP4),
    Case("MXFP8A16", "MXFP8A16", **FP4),
]


def calibration():
    with open(CALIBRATION) as file:
        lines = [line for line in file.read().splitlines() if len(line) > 200][:8]
    return lines


def write(case, checkpoint, folder):
    scheme = case.stages.split()[-1]
    kind = GPTQModifier if "gptq" in case.stages else QuantizationModifier
    model = in_transformers.load(checkpoint)
    learns = "gptq" in case.stages or scheme == "FP8"
    extra = {}
    if learns:
        from datasets import Dataset
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        ids = [tokenizer(text, truncation=True, max_length=64)["input_ids"] for text in calibration()]
        extra = {"dataset": Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(i) for i in ids]}),
                 "num_calibration_samples": len(ids), "max_seq_length": 64}
    oneshot(model=model, recipe=kind(targets="Linear", scheme=scheme, ignore=["lm_head"]), **extra)
    model.save_pretrained(folder + "/peer", save_compressed=True)
    return folder + "/peer", load(folder + "/peer", case, checkpoint)
