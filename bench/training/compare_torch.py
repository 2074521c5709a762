#!/usr/bin/env python3
"""Trains one model with llmpress and with PyTorch, in turn, and prints tokens a
second, peak memory and the losses of both.

    compare_torch.py LLMPRESS MODEL TEXT [--steps N] [--batch N] [--length N]
                     [--threads N] [--repeats N] [--recompute] [--isa avx2]

Both see the same number of tokens of the same shape in float32, with AdamW and
clipping; the first steps of PyTorch are not counted (llmpress has no warm-up to
leave out). --isa avx2 holds both to AVX2. Needs torch and transformers; each
run is a process of its own.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time


def torch_environment(isa):
    if isa != "avx2":
        return dict(os.environ)
    return {**os.environ, "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def run_torch(args):
    import torch
    import transformers
    torch.set_num_threads(args.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32)
    model.train()
    if args.recompute:
        model.gradient_checkpointing_enable()
    ids = torch.tensor(tokenizer(pathlib.Path(args.text).read_text())["input_ids"])
    size = args.batch * args.length
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4,
                                  betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    begin = None
    for step in range(args.steps + 2):
        if step == 2:
            begin = time.perf_counter()
        first = step * size % (len(ids) - size)
        batch = ids[first:first + size].view(args.batch, args.length)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_second": args.steps * size / seconds,
                      "peak_mib": peak, "loss": losses[-1]}))


def run_llmpress(args, folder):
    recipe = folder / "train.yaml"
    recipe.write_text(f"""
model: {pathlib.Path(args.model).resolve()}
stages:
  - train:
      text: {pathlib.Path(args.text).resolve()}
      steps: {args.steps}
      sequence_length: {args.length}
      batch_size: {args.batch}
      learning_rate: 1e-4
      keep_activations: {"false" if args.recompute else "true"}
      evaluate_every: {args.steps + 1}
      evaluate_sequences: 1
output: {{path: {folder / "out"}, format: safetensors}}
report: {folder / "report"}
""")
    usage = folder / "usage"
    isa = ["--isa", args.isa] if args.isa else []
    subprocess.run(["/usr/bin/time", "-f", "%M", "-o", usage, args.llmpress,
                    "run", recipe, "--no-resume", "--quiet", "--threads",
                    str(args.threads), *isa], check=True,
                   stdout=subprocess.DEVNULL)
    report = json.loads((folder / "report/report.json").read_text())
    training = report["variants"][0]["training"][0]
    tokens = args.steps * args.batch * args.length
    return {"tokens_per_second": tokens / training["seconds"],
            "peak_mib": int(usage.read_text().split()[-1]) / 1024,
            "loss": training["progress"]["curve"][-1]["loss"]["total"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("llmpress")
    parser.add_argument("model")
    parser.add_argument("text")
    for name, value in (("steps", 20), ("batch", 16), ("length", 256),
                        ("threads", 2), ("repeats", 3)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--isa", choices=["avx2"])
    parser.add_argument("--torch-only", action="store_true",
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch_only:
        return run_torch(args)
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for _ in range(args.repeats):
            ours = run_llmpress(args, folder)
            theirs = json.loads(subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--torch-only"],
                check=True, capture_output=True, text=True,
                env=torch_environment(args.isa)).stdout)
            ratios.append(ours["tokens_per_second"]
                          / theirs["tokens_per_second"])
            for who, row in (("llmpress", ours), ("torch", theirs)):
                print(f"{who:9} {row['tokens_per_second']:8.0f} tokens/s "
                      f"{row['peak_mib']:8.0f} MiB  loss {row['loss']:.4f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
