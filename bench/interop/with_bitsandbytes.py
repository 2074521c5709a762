"""bitsandbytes folders through transformers, and those that transformers writes with bitsandbytes."""

import bitsandbytes
import torch
from transformers import BitsAndBytesConfig

import in_transformers
from measure import Case
from versions import versions

PEER = versions("transformers", "bitsandbytes")
INT8 = "inputs are rounded to f16 there, then to int8 by row: one that lies between two steps falls to either side"
BFLOAT16 = "the library computes in bfloat16 on processors that have it"
WEIGHTS = {"options": ("weights",)}


def table(name, more=""):
    return f"[{{quantize: {{method: nf4, weights: {{type: {name}{more}}}}}}}]"


INT8_STAGE = "[{quantize: {method: llm_int8, llm_int8: {outliers: batch}}}]"
READS = [
    Case("NF4, blocks of 64, weights", table("nf4"), "format: bitsandbytes", **WEIGHTS),
    Case("NF4, blocks of 64, scales in 8 bits, weights", table("nf4", ", double_quant: true"), "format: bitsandbytes", **WEIGHTS),
    Case("NF4, blocks of 128, weights", table("nf4", ", block_size: 128"), "format: bitsandbytes", **WEIGHTS),
    Case("FP4, blocks of 64, weights", table("fp4"), "format: bitsandbytes", **WEIGHTS),
    Case("LLM.int8(), weights", INT8_STAGE, "format: bitsandbytes", **WEIGHTS),
    Case("NF4, blocks of 64", table("nf4"), "format: bitsandbytes", 2e-2, BFLOAT16),
    Case("LLM.int8()", INT8_STAGE, "format: bitsandbytes", 5e-2, INT8),
]

WRITES = [
    Case("NF4, weights", "load_in_4bit nf4", **WEIGHTS),
    Case("NF4, double quantization, weights", "load_in_4bit nf4 double", **WEIGHTS),
    Case("FP4, weights", "load_in_4bit fp4", **WEIGHTS),
    Case("LLM.int8(), weights", "load_in_8bit", **WEIGHTS),
    Case("NF4", "load_in_4bit nf4", bound=2e-2, reason=BFLOAT16),
    Case("LLM.int8()", "load_in_8bit", bound=5e-2, reason=INT8),
]


def plain(module):
    """The weight of a packed Linear, as the library decodes it."""
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        return bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    return module.weight.data.float() * module.weight.SCB[:, None] / 127


def logits(model, case):
    packed = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    for name, module in list(model.named_modules()):
        if "weights" in case.options and isinstance(module, packed):
            linear = torch.nn.Linear(module.in_features, module.out_features, module.bias is not None)
            linear.weight.data, linear.bias = plain(module), module.bias
            model.set_submodule(name, linear)
    return in_transformers.logits(model)


def load(artifact, case, _checkpoint):
    return logits(in_transformers.load(artifact), case)


def write(case, checkpoint, folder):
    words = case.stages.split()
    if "load_in_8bit" in words:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=words[1], bnb_4bit_compute_dtype=torch.float32,
                                    bnb_4bit_use_double_quant="double" in words)
    model = in_transformers.load(checkpoint, quantization_config=config)
    model.save_pretrained(folder + "/peer")
    return folder + "/peer", logits(model, case)
