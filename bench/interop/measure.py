"""What every proof is made of: llmpress run as a program, its logits, and how far a peer's are from them."""

import dataclasses
import json
import os
import random
import subprocess

import numpy

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHIPPED = os.path.join(ROOT, "models", "tinystories-3.7m")
CALIBRATION = os.path.join(ROOT, "models", "text", "calibration.txt")
TOKENS = 64
VOCABULARY = 2048  # of the shipped model; the tiny checkpoints have its tokenizer

BY_NAME = ("qwen3_moe",)  # checkpoints for cases that name them

FLOAT32 = 1e-4  # of the largest logit: both compute in float32, and only sums are taken in another order


INT8_BOUND, FP8_BOUND = 5e-2, 1e-1
INT8_INPUTS = "inputs are rounded to int8: one that lies between two steps falls to either side"
FP8_INPUTS = ("inputs are rounded to FP8, whose steps are 1/16: one that lies between two falls to either side "
              "(llmpress's scalar and AVX2 kernels are up to 5e-2 from each other)")


@dataclasses.dataclass(frozen=True)
class Case:
    """A layout, and what a peer is to make of it."""

    layout: str
    stages: str = "[]"       # of the recipe that writes it, or what the peer's writer is told
    output: str = ""         # further keys of the recipe's output
    bound: float = FLOAT32   # of max |difference| / max |logit|
    reason: str = ""         # of a bound that is not FLOAT32, or of a refusal
    refused: bool = False    # the loader raises, and llmpress has warned
    models: tuple = ()       # of the checkpoints; none: all
    options: tuple = ()      # words to the loader


@dataclasses.dataclass
class Row:
    """What was measured. `moved` is what the layout itself did: the distance of its logits from the original model's."""

    direction: str  # "reads" or "writes": what the peer does
    peer: str
    layout: str
    model: str
    bound: float
    reason: str = ""
    difference: float | None = None
    moved: float | None = None
    error: str = ""
    refused: bool = False
    good: bool = False


class Failed(Exception):
    """A run of llmpress that did not end well."""


def program():
    return os.environ["LLMPRESS"]  # proof.py sets it


def run(program, *arguments):
    """Everything that the program printed."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise Failed(f"llmpress {arguments[0]}: {lines[-1]}")
    return done.stdout + done.stderr


def token_ids():
    numbers = random.Random(1)
    return [numbers.randrange(3, VOCABULARY) for _ in range(TOKENS)]


def read_logits(path):
    """The F32 tensor 'logits' of a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))["logits"]
        octets = file.read()
    begin, end = header["data_offsets"]
    return numpy.frombuffer(octets[begin:end], numpy.float32).reshape(header["shape"])


def our_logits(program, model, folder, *options):
    output = os.path.join(folder, "logits.safetensors")
    ids = ",".join(str(token) for token in token_ids())
    run(program, "logits", model, "--ids", ids, "--output", output, "--quiet", *options)
    return read_logits(output)


def write_artifact(program, checkpoint, case, folder, suffix=""):
    """Carries the recipe of a case out; the artifact's path, and whether llmpress said that loaders refuse it."""
    recipe, artifact = os.path.join(folder, "recipe.yaml"), os.path.join(folder, "artifact" + suffix)
    with open(recipe, "w") as file:
        file.write(f"calibration: {{text: {CALIBRATION}, samples: 8, sequence_length: 64}}\nstages: {case.stages}\n"
                   f"output: {{path: {artifact}{', ' if case.output else ''}{case.output}}}\n")
    log = run(program, "run", recipe, "--model", checkpoint)
    return artifact, "which only llmpress loads" in log or "transformers 5 refuses" in log


def distance(found, wanted):
    """max |found - wanted| / max |wanted|; infinite if a number is not finite or a shape differs."""
    found = numpy.asarray(found, numpy.float32)
    if found.shape != wanted.shape or not numpy.isfinite(found).all():
        return float("inf")
    return float(numpy.abs(found - wanted).max() / numpy.abs(wanted).max())


def log_probabilities(logits):
    top = logits.max(axis=1, keepdims=True)
    return logits - top - numpy.log(numpy.exp(logits - top).sum(axis=1, keepdims=True))


def judge(row):
    """Good: within the bound, and nearer to the layout's logits than the original model's are, if those are far enough."""
    if row.refused:
        row.good = row.difference is None and not row.error.startswith("unannounced")
    else:
        row.good = row.difference is not None and row.difference <= row.bound and (
            row.moved < max(row.bound, FLOAT32) or row.difference < row.moved)
    return row
