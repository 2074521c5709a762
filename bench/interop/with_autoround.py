"""What auto-round writes, in its three packings, with a few steps of its learning."""

import os

from auto_round import AutoRound
from transformers import AutoTokenizer

import in_transformers
from measure import CALIBRATION, Case
from versions import versions

PEER = versions("auto-round", "transformers")
HALF = "it computes in float16"
LOOSE = {"bound": 2e-2, "reason": HALF, "models": ("tinystories-3.7m", "qwen2")}
WRITES = [
    Case("auto_round, 4 bits", "auto_round 4 sym", **LOOSE),
    Case("auto_round, 2 bits, zero points", "auto_round 2 asym", **LOOSE),
    Case("auto_gptq, 4 bits", "auto_gptq 4 sym", **LOOSE),
    Case("auto_awq, 4 bits, zero points", "auto_awq 4 asym", **LOOSE),
]


def write(case, checkpoint, folder):
    packing, bits, symmetric = case.stages.split()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with open(CALIBRATION) as file:
        lines = [line for line in file.read().splitlines() if len(line) > 200][:8]
    ids = [tokenizer(line, truncation=True, max_length=32, return_tensors="pt")["input_ids"] for line in lines]
    model = in_transformers.load(checkpoint)
    AutoRound(model, tokenizer, bits=int(bits), group_size=32, sym=symmetric == "sym", iters=2, nsamples=8, seqlen=32,
              batch_size=2, dataset=ids, device_map="cpu", enable_torch_compile=False, disable_opt_rtn=True
              ).quantize_and_save(os.path.join(folder, "peer"), format=packing)
    path = os.path.join(folder, "peer")
    if not os.path.exists(os.path.join(path, "config.json")):  # it names a folder within by the scheme
        path = os.path.join(path, next(iter(sorted(os.listdir(path)))))
    return path, in_transformers.logits(in_transformers.load(path))
