"""What each family's artifacts are in transformers: quantizes every checkpoint of a folder with llmpress, loads the
artifact with transformers and compressed-tensors, and compares logits.

    python bench/interop/load_families.py LLMPRESS [--checkpoints FOLDER] [--only NAME,...] [--schemes NAME,...]
                                          [--summary]

needs torch, transformers, compressed-tensors, safetensors and h5py; scripts/test-peers-families installs the versions
that docs/models.md speaks of. FOLDER holds one Hugging Face checkpoint a folder (default: the goldens of
tests/compress/model). A number is max |difference| / max |logit| over 48 random tokens, of what llmpress computes from
the artifact against

    dequantized   llmpress, from the same weights in plain numbers (decoded here by compressed-tensors)
    transformers  transformers, from the artifact; "d" behind it: only with CompressedTensorsConfig(dequantize=True)
    plain         transformers, from the weights in plain numbers: says that the weights mean what they should also where
                  transformers does not load the artifact

Exit code 1 if a number is over BOUND (schemes that round inputs have none: a rounding that falls the other way moves
logits), or if llmpress warned of an artifact that loads, or did not of one that does not.
"""

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings

import h5py
import numpy
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, CompressedTensorsConfig

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDENS = os.path.join(ROOT, "tests", "compress", "model", "goldens")
TOKENS, SAMPLES = 48, 8
BOUND = 1e-3

# F32 scales: transformers decodes stacked experts, and with dequantize=True everything, in the type of the scales.
INT4 = "method: gptq, weights: {bits: 4, group_size: 16, symmetric: true, scale_dtype: f32}"
FP8 = "method: rtn, weights: {type: fp8, group_size: -1}"
EXPERTS = r"re:.*\.experts\..*"
SCHEMES = {  # name: quantize stages
    "int4": [f"{{{INT4}}}"],
    "int8": ["{method: rtn, scheme: W8A16}"],
    "fp8": [f"{{{FP8}}}"],
    "fp8_dynamic": ["{method: rtn, scheme: FP8_DYNAMIC}"],
    "int4_experts": [f"{{{INT4}, targets: ['{EXPERTS}']}}", f"{{{FP8}, ignore: ['{EXPERTS}', lm_head]}}"],
    "fp8_but_experts": [f"{{{FP8}, ignore: ['{EXPERTS}', lm_head]}}"],
    "int4_but_experts": [f"{{{INT4}, ignore: ['{EXPERTS}', lm_head]}}"],
    "int8_dynamic": ["{method: rtn, scheme: W8A8}"],
}
DEFAULT_SCHEMES = ["int4", "int8", "fp8", "fp8_dynamic"]
ROUNDED_INPUTS = {"fp8_dynamic", "int8_dynamic"}


def tool(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return done.stdout + done.stderr


def read_config(folder):
    with open(os.path.join(folder, "config.json")) as file:
        return json.load(file)


def write_ids(path, samples, tokens, vocabulary, seed):
    ids = numpy.random.default_rng(seed).integers(0, vocabulary, (samples, tokens))
    with h5py.File(path, "w") as file:
        file["input_ids"] = ids.astype(numpy.int32)
    return ids


def our_logits(program, model, ids_file):
    output = os.path.join(os.path.dirname(ids_file), "logits.safetensors")
    tool(program, "logits", model, "--ids", ids_file, "--output", output)
    return load_file(output)["logits"]


class NotLoaded(Exception):
    pass


def their_logits(model, ids, dequantize=False):
    """transformers' logits, or NotLoaded with the first weight that did not find its place."""
    config = read_config(model)
    kind = AutoModelForImageTextToText if "text_config" in config else AutoModelForCausalLM
    extra = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dequantize else {}
    try:
        loaded, info = kind.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
            output_loading_info=True, **extra)
    except Exception as error:  # whatever a loader may raise
        raise NotLoaded(str(error).strip().replace("\n", " ")[:160]) from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        keys = sorted(str(key) for key in info[what])
        if keys:
            raise NotLoaded(f"{len(keys)} {what.replace('_', ' ')}: {keys[0]}")
    with torch.no_grad():
        return loaded.eval()(input_ids=torch.tensor(ids), use_cache=False).logits[0].float()


def distance(found, wanted):
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def group_of(module, config):
    """The scheme of a module; a target that names it goes before a pattern, and that before a class."""
    for group in config.config_groups.values():
        if module in group.targets:
            return group
    for group in config.config_groups.values():
        if any(t.startswith("re:") and re.match(t[3:], module) for t in group.targets):
            return group
    return next(group for group in config.config_groups.values() if "Linear" in group.targets)


def transposed_modules(config):
    """Modules that transformers keeps as [in, out]."""
    if config["model_type"] != "gpt2":
        return set()
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    return {name for name, module in built.named_modules() if isinstance(module, transformers.pytorch_utils.Conv1D)}


def stack_experts(tensors, source, model_type):
    """Puts experts that the source has in one tensor back into one."""
    for name, stack in source.items():
        if name in tensors:
            continue
        at = re.match(r"(.*?\.)(experts\.|)(gate_up_proj|down_proj|input_linear|output_linear)(_bias|\.weight|)$", name)
        if at is None:
            raise RuntimeError(f"'{name}' is in the checkpoint, not in the artifact")
        kind = "bias" if at[4] == "_bias" else "weight"

        def part(expert, projection):
            return tensors.pop(f"{at[1]}experts.{expert}.{projection}.{kind}")

        matrices = []
        for expert in range(stack.shape[0]):
            if at[3] in ("down_proj", "output_linear"):
                matrix = part(expert, "down_proj")
            else:
                halves = part(expert, "gate_proj"), part(expert, "up_proj")
                matrix = torch.stack(halves, 1).flatten(0, 1) if model_type == "gpt_oss" else torch.cat(halves)
            matrices.append(matrix.T if model_type in ("gpt_oss", "llama4_text") and kind == "weight" else matrix)
        tensors[name] = torch.stack(matrices).contiguous()


def write_plain(artifact, checkpoint, output):
    """The artifact's weights in plain numbers, as compressed-tensors decodes them, where the checkpoint has them."""
    config = read_config(artifact)
    scheme = QuantizationConfig.model_validate(config.pop("quantization_config"))
    tensors = load_file(os.path.join(artifact, "model.safetensors"))
    transposed = transposed_modules(config)

    def is_transposed(module):  # the files may leave "transformer." out
        return any(name == module or name.endswith("." + module) for name in transposed)

    for module in sorted({n.removesuffix(".weight_scale") for n in tensors if n.endswith(".weight_scale")}):
        group = group_of(module, scheme)
        parts = {name[len(module) + 1:]: tensors.pop(name) for name in list(tensors)
                 if name.startswith(module + ".") and name != module + ".bias"}
        # It decodes in the type of the scales: the values are exact in float32 only.
        parts = {name: part.float() if part.dtype in (torch.float16, torch.bfloat16) else part
                 for name, part in parts.items()}
        decoder = BaseCompressor.get_value_from_registry(group.format)
        weight = decoder.decompress(parts, group)["weight"].to(torch.float32)
        tensors[module + ".weight"] = (weight.T if is_transposed(module) else weight).contiguous()
    if config["model_type"] in ("gpt_oss", "granitemoe", "granitemoehybrid", "granitemoeshared", "llama4_text"):
        stack_experts(tensors, load_file(os.path.join(checkpoint, "model.safetensors")), config["model_type"])
    os.makedirs(output)
    save_file(tensors, os.path.join(output, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(output, "config.json"), "w") as file:
        json.dump(config, file)


def run_case(program, checkpoint, scheme, folder):
    config = read_config(checkpoint)
    decoder = config.get("text_config", config)
    vocabulary = decoder["vocab_size"]
    tokens = min(TOKENS, *(decoder.get(key) or TOKENS for key in ("max_position_embeddings", "n_positions")))
    calibration, ids_file = os.path.join(folder, "calibration.h5"), os.path.join(folder, "ids.h5")
    write_ids(calibration, SAMPLES, tokens, vocabulary, 1)
    ids = write_ids(ids_file, 1, tokens, vocabulary, 2)
    recipe, artifact, plain = (os.path.join(folder, name) for name in ("recipe.yaml", "artifact", "plain"))
    stages = ", ".join(f"{{quantize: {stage}}}" for stage in SCHEMES[scheme])

    def run(incompatible, stages):
        with open(recipe, "w") as file:
            file.write(f"calibration: {{text: {calibration}, samples: {SAMPLES}, sequence_length: {tokens}}}\n"
                       f"stages: [{stages}]\noutput: {{path: {artifact}, incompatible: {incompatible}}}\n")
        return tool(program, "run", recipe, "--model", checkpoint)

    try:
        log = run("refuse", stages)
    except RuntimeError:  # widths that 16 does not divide
        log = run("refuse", stages.replace("group_size: 16", "group_size: -1"))
    row = {"warned": any("transformers" in line and "vLLM fuses" not in line for line in log.splitlines()),
           "alone": read_config(artifact)["quantization_config"]["ignore"], "why": {}}
    ours = our_logits(program, artifact, ids_file)
    write_plain(artifact, checkpoint, plain)

    def measure(name, logits):
        try:
            row[name] = distance(ours, logits())
        except (NotLoaded, RuntimeError) as error:
            row[name] = None
            row["why"][name] = str(error)

    measure("dequantized", lambda: our_logits(program, plain, ids_file))
    measure("transformers", lambda: their_logits(artifact, ids))
    row["direct"] = row["transformers"] is not None
    if not row["direct"]:
        row["why"]["as it is"] = row["why"].pop("transformers")
        measure("transformers", lambda: their_logits(artifact, ids, dequantize=True))
    measure("plain", lambda: their_logits(plain, ids))
    return row


def is_good(row, scheme):
    numbers = [row["dequantized"], row["plain"]] + ([] if row["transformers"] is None else [row["transformers"]])
    if row["direct"] == row["warned"] or None in numbers:
        return False
    return scheme in ROUNDED_INPUTS or max(numbers) <= BOUND


def number(value):
    return "no" if value is None else f"{value:.0e}".replace("e-0", "e-")


def loaded(row):
    return number(row["transformers"]) + ("" if row["direct"] or row["transformers"] is None else " d")


def left_alone(row):
    """Modules in plain numbers, with * for layers and experts."""
    return sorted({re.sub(r"^.*(layers|h|blocks)\.\*\.", "", re.sub(r"\.\d+(?=\.)", ".*", name))
                   for name in row["alone"]})


def print_row(name, scheme, row):
    why = "; ".join(f"{what}: {reason}" for what, reason in row["why"].items())
    cells = [name, scheme, number(row["dequantized"]), loaded(row), number(row["plain"]),
             "" if is_good(row, scheme) else "**not as it should be** ", why]
    print("| " + " | ".join(cells[:5]) + " | " + cells[5] + cells[6] + " |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--checkpoints", default=GOLDENS)
    parser.add_argument("--only")
    parser.add_argument("--schemes", default=",".join(DEFAULT_SCHEMES))
    parser.add_argument("--summary", action="store_true", help="one row a checkpoint: transformers' numbers")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    names = arguments.only.split(",") if arguments.only else sorted(
        name for name in os.listdir(arguments.checkpoints)
        if os.path.exists(os.path.join(arguments.checkpoints, name, "config.json")))
    schemes = arguments.schemes.split(",")
    head = ["checkpoint", *schemes, "left alone"] if arguments.summary else [
        "checkpoint", "scheme", "dequantized", "transformers", "plain", ""]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    bad = 0
    for name in names:
        rows = {}
        for scheme in schemes:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
                try:
                    checkpoint = os.path.join(arguments.checkpoints, name)
                    rows[scheme] = run_case(arguments.program, checkpoint, scheme, folder)
                except RuntimeError as error:  # the run itself, or weights that cannot be put back
                    rows[scheme] = {"dequantized": None, "transformers": None, "plain": None, "direct": False,
                                    "warned": False, "alone": [], "why": {"run": str(error)}}
            bad += not is_good(rows[scheme], scheme)
            if not arguments.summary:
                print_row(name, scheme, rows[scheme])
        if arguments.summary:
            alone = ", ".join(f"`{module}`" for module in left_alone(rows[schemes[0]]))
            print("| " + " | ".join([name, *(loaded(rows[s]) for s in schemes), alone]) + " |", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
