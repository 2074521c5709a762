"""What loads where: writes artifacts with llmpress, loads each with transformers
and compares its perplexity with that of `llmpress eval`.

    python bench/interop/load_artifacts.py LLMPRESS [CASE...]

needs torch, transformers, compressed-tensors and safetensors (docs/artifacts.md has
the versions of its table). Each case is a recipe on the shipped model, and what is to come of
it:

    loads      the perplexity is that of `llmpress eval`, to 1 part in 1000 (in 100, if inputs are rounded or
               the loader runs in bfloat16)
    dequantize the same, with CompressedTensorsConfig(dequantize=True)
    refused    the loader raises, and llmpress has warned
"""

import json
import math
import os
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(ROOT, "models", "tinystories-3.7m")
TEXT = os.path.join(ROOT, "models", "text", "evaluation.txt")
CALIBRATION = os.path.join(ROOT, "models", "text", "calibration.txt")
CONTEXT, WINDOWS = 128, 4

W4 = "weights: {bits: 4, group_size: 32, symmetric: true}"
CASES = {
    # name: (stages, keys of output, expectation)
    "dense": ("[]", "", "loads"),
    "int4-symmetric": (f"[{{quantize: {{method: rtn, {W4}}}}}]", "", "loads"),
    "int3-symmetric": ("[{quantize: {method: rtn, weights: {bits: 3, group_size: 32, symmetric: true}}}]", "", "loads"),
    "int4-asymmetric": ("[{quantize: {method: rtn, weights: {bits: 4, group_size: 32}}}]", "", "dequantize"),
    "int4-head": (f"[{{quantize: {{method: rtn, {W4}, targets: ['re:.*proj', lm_head]}}}}]", "", "loads"),
    "int4-embedding": (f"[{{quantize: {{method: rtn, {W4}, targets: ['re:.*proj', model.embed_tokens]}}}}]", "", "refused"),
    "int8": ("[{quantize: {method: rtn, scheme: W8A8}}]", "", "loads"),
    "fp8": ("[{quantize: {method: rtn, scheme: FP8_DYNAMIC}}]", "", "loads"),
    "e5m2": ("[{quantize: {method: rtn, weights: {type: fp8_e5m2}}}]", "", "refused"),
    "nf4": ("[{quantize: {method: nf4}}]", "", "refused"),
    "llm_int8": ("[{quantize: {method: llm_int8}}]", "", "refused"),
    "hqq": ("[{quantize: {method: hqq, weights: {bits: 4, group_size: 32}}}]", "", "refused"),
    "act-order-static": (f"[{{quantize: {{method: gptq, act_order: true, {W4}}}}}]", "", "loads"),
    "act-order-group": (f"[{{quantize: {{method: gptq, act_order: true, static_groups: false, {W4}}}}}]", "", "refused"),
    "act-order-adapted": (f"[{{quantize: {{method: gptq, act_order: true, static_groups: false, {W4}}}}}]", "incompatible: adapt", "loads"),
    "ragged-groups": ("[{quantize: {method: rtn, weights: {bits: 4, group_size: 96, symmetric: true}}}]", "", "refused"),
    "ragged-adapted": ("[{quantize: {method: rtn, weights: {bits: 4, group_size: 96, symmetric: true}}}]", "incompatible: adapt", "loads"),
    "ragged-skipped": ("[{quantize: {method: rtn, weights: {bits: 4, group_size: 96, symmetric: true}}}]", "incompatible: skip", "loads"),
    "2of4-dense": ("[{prune: {method: magnitude, pattern: '2:4'}}]", "", "loads"),
    "2of4-sparse": ("[{prune: {method: magnitude, pattern: '2:4', storage: sparse}}]", "", "refused"),
    "bitmask": ("[{prune: {method: magnitude, sparsity: 0.5, storage: sparse}}]", "", "refused"),
    "q-ignored": (f"[{{quantize: {{method: rtn, {W4}, ignore: ['re:.*q_proj']}}}}]", "", "loads"),
    "auto": ("[{quantize: {method: auto, target_bits: 4.5, weights: {group_size: 32, symmetric: true}}}]", "", "loads"),
    "nvfp4": ("[{quantize: {method: rtn, weights: {type: nvfp4}}}]", "", "loads"),
    "mxfp4": ("[{quantize: {method: rtn, weights: {type: mxfp4}}}]", "", "loads"),
    # These four with gptqmodel and optimum installed, whose kernels decode to float16.
    "gptq-4": (f"[{{quantize: {{method: gptq, {W4}}}}}]", "format: gptq", "loads"),
    "gptq-3-asymmetric": ("[{quantize: {method: gptq, act_order: true, static_groups: false, weights: {bits: 3, group_size: 32}}}]",
                          "format: gptq", "loads"),
    "gptq-mixed": (f"[{{quantize: {{method: rtn, targets: ['re:.*mlp.*'], {W4}}}}}, "
                   "{quantize: {method: rtn, weights: {bits: 8, group_size: 64, symmetric: true}}}]", "format: gptq", "loads"),
    "awq": ("[{quantize: {method: awq, weights: {bits: 4, group_size: 32}}}]", "format: awq", "loads"),
    "pruned-kv-heads": ("[{prune: {method: kv_heads, kv_heads: 2}}]", "", "loads"),
    "pruned-heads": ("[{prune: {method: heads, sparsity: 0.25, importance: weights}}]", "", "refused"),
}
# Inputs rounded by token: a rounding that falls the other way moves the perplexity.
ROUNDED_INPUTS = {"int8", "fp8"}
# compressed-tensors decodes 4-bit floats to bfloat16 whatever the model's type is.
BFLOAT16 = {"nvfp4", "mxfp4"}


def tool(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def perplexity(model, ids):
    with torch.no_grad():
        logits = model(ids).logits.float()
    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    return math.exp(nll.item())


def load(folder, dequantize, dtype):
    config = CompressedTensorsConfig(dequantize=True) if dequantize else None
    extra = {"quantization_config": config} if config else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **extra).eval()


def run_case(program, name, folder):
    stages, output, expected = CASES[name]
    recipe, out = os.path.join(folder, name + ".yaml"), os.path.join(folder, name)
    with open(recipe, "w") as file:
        file.write(
            f"calibration: {{text: {CALIBRATION}, samples: 4, sequence_length: 64}}\n"
            f"stages: {stages}\noutput: {{path: {out}{', ' if output else ''}{output}}}\n")
    code, log = tool(program, "run", recipe, "--model", MODEL)
    if code != 0:
        return "run failed: " + log.strip().splitlines()[-1]
    warned = "which only llmpress loads" in log or "transformers 5 refuses" in log
    results = os.path.join(folder, name + ".json")
    tool(program, "eval", out, "--text", TEXT, "--context", str(CONTEXT),
         "--max-windows", str(WINDOWS), "--json", results)
    with open(results) as file:
        ours = json.load(file)["perplexity"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    with open(TEXT) as file:
        ids = tokenizer(file.read()[:20000])["input_ids"][: CONTEXT * WINDOWS]
    ids = torch.tensor(ids).reshape(WINDOWS, CONTEXT)
    dtype = torch.bfloat16 if name in BFLOAT16 else torch.float32
    try:
        theirs = perplexity(load(out, expected == "dequantize", dtype), ids)
    except Exception as error:  # whatever a loader may raise
        what = str(error).strip().replace("\n", " ")[:100]
        found = "refused" + ("" if warned else " without a warning") + ": " + what
        return ("as expected, " if expected == "refused" and warned else "UNEXPECTED, ") + found
    same = abs(theirs / ours - 1) < (1e-2 if name in ROUNDED_INPUTS | BFLOAT16 else 1e-3)
    text = f"perplexity {theirs:.3f}, llmpress {ours:.3f}"
    good = same and expected in ("loads", "dequantize") and not (warned and expected == "loads")
    return ("as expected, " if good else "UNEXPECTED, ") + text


def main():
    program, names = sys.argv[1], sys.argv[2:] or list(CASES)
    transformers.logging.set_verbosity_error()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            result = run_case(program, name, folder)
            failed += not result.startswith("as expected")
            print(f"{name:20s} {result}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
