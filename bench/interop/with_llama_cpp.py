"""GGUF files through llama.cpp, and those that its quantizer writes."""

import ctypes
import os

import llama_cpp
import numpy

import families
import measure
from measure import Case, token_ids

PEER = f"llama.cpp of llama-cpp-python {llama_cpp.__version__}"
SUFFIX = ".gguf"
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0"]
INT8 = "it rounds activations to int8, in blocks of 32 or 256, wherever weights are blocks"
HALF = "it rounds activations to the type of the weights"
LOOSE = {"bound": 1e-1, "reason": INT8}


def rounded(kind):
    return f"[{{quantize: {{method: rtn, weights: {{type: {kind}}}}}}}]"


READS = [
    Case("f32", output="format: gguf", models=("tinystories-3.7m", "qwen2")),
    Case("f32, GELU", output="format: gguf", bound=1e-3, reason="its GELU is a table of float16", models=("gemma2",)),
    Case("f32, a family", output="format: gguf", models=tuple(
        name for name in families.FAMILIES if name not in families.GELU + families.GEMMA4_MODELS)),
    Case("f32, a family with GELU", output="format: gguf", bound=1e-3, models=families.GELU,
         reason="its GELU is that of tanh, in a table of float16"),
    Case("f32, a family that norms what GELU gives", output="format: gguf", bound=5e-3, models=families.GEMMA4_MODELS,
         reason="its GELU is a table of float16"),
    Case("f16", rounded("f16"), "format: gguf", 2e-2, HALF),
    Case("bf16", rounded("bf16"), "format: gguf", 5e-2, HALF),
    *[Case(kind, rounded(kind), "format: gguf", **LOOSE) for kind in TYPES],
    Case("mxfp4", rounded("mxfp4"), "format: gguf", **LOOSE),
    Case("q4_k, GPTQ on its grid", "[{quantize: {method: gptq, weights: {type: q4_k}}}]", "format: gguf", **LOOSE),
]
WRITES = [Case(name.lower(), name, **LOOSE) for name in (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_S", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0")]


def load(artifact, _case, _checkpoint):
    model = llama_cpp.Llama(artifact, n_ctx=128, n_batch=128, logits_all=True, verbose=False, n_threads=2,
                            n_threads_batch=2, type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
                            flash_attn=False, yarn_attn_factor=-1.0, yarn_beta_fast=-1.0, yarn_beta_slow=-1.0)
    model.eval(token_ids())
    logits = numpy.array(model.scores[:len(token_ids())], numpy.float32)
    model.close()
    return logits


def write(case, checkpoint, folder):
    plain, path = os.path.join(folder, "plain.gguf"), os.path.join(folder, "peer.gguf")
    measure.run(measure.program(), "convert", checkpoint, plain, "--format", "gguf", "--type", "f32")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + case.stages), 2
    if llama_cpp.llama_model_quantize(plain.encode(), path.encode(), ctypes.byref(settings)) != 0:
        raise RuntimeError("llama_model_quantize failed")
    return path, load(path, case, checkpoint)
