#!/usr/bin/env python3
"""Compares an adapter that llmpress wrote, beside its base, with peft's on the same numbers.

    python3 bench/lora/compare_peft.py --llmpress build/release/llmpress \\
        --model ./my-model --adapter out/adapter --text held-out.txt

`peft` loads the adapter (LoRA, rsLoRA, DoRA, prefix or prompt tuning) beside the model in transformers, in float32; `llmpress logits --adapter`
runs the same token ids. Fails if the largest difference is above --tolerance of the largest logit,
or if the adapter changes nothing. A base that llmpress packed as compressed-tensors (`pack-quantized`)
is decoded here in float32 first. Needs torch, transformers, peft, safetensors and compressed-tensors.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def decoded(folder):
    """The dense tensors of a folder, packed integers times their scales in float32."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(folder, name)))
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file).get("quantization_config")
    if config is None:
        return tensors
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    bits = {group["weights"]["num_bits"] for group in config["config_groups"].values()}
    (bits,) = bits
    dense = {}
    for name, values in tensors.items():
        stem, _, part = name.rpartition(".")
        if part in ("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"):
            continue
        if part != "weight_packed":
            dense[name] = values
            continue
        out, columns = (int(n) for n in tensors[stem + ".weight_shape"])
        codes = unpack_from_int32(values, bits, torch.Size((out, columns))).float()
        scales = tensors[stem + ".weight_scale"].float()
        groups = scales.shape[1]
        codes = codes.view(out, groups, columns // groups)
        if stem + ".weight_zero_point" in tensors:
            zeros = unpack_from_int32(tensors[stem + ".weight_zero_point"], bits,
                                      torch.Size((out, groups)), packed_dim=0)
            codes = codes - zeros.float()[:, :, None]
        dense[stem + ".weight"] = (codes * scales[:, :, None]).view(out, columns)
    return dense


def load_base(folder):
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(
        {name: values.float() for name, values in decoded(folder).items()}, strict=False)
    left = [name for name in missing if name != "lm_head.weight" or not config.tie_word_embeddings]
    if left or unexpected:
        sys.exit(f"the base does not fit: missing {left}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()


def llmpress_logits(args, ids):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "logits.safetensors")
        tokens = os.path.join(folder, "ids.safetensors")
        save_file({"input_ids": torch.tensor(ids)}, tokens)
        subprocess.run([args.llmpress, "logits", args.model, "--adapter", args.adapter, "--ids",
                        tokens, "--output", path], check=True, stdout=subprocess.DEVNULL)
        return load_file(path)["logits"]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llmpress", required=True, help="the program")
    parser.add_argument("--model", required=True, help="the base, dense or packed by llmpress")
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    torch.manual_seed(0)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    with open(args.text, encoding="utf-8") as file:
        ids = tokenizer(file.read(20 * args.tokens))["input_ids"][:args.tokens]
    model = load_base(args.model)
    with torch.no_grad():
        base = model(torch.tensor([ids])).logits[0]
        adapted = PeftModel.from_pretrained(model, args.adapter).eval()
        # Behind the rows of a prompt's virtual tokens, if there are some.
        wanted = adapted(torch.tensor([ids])).logits[0][-len(ids):]
    found = llmpress_logits(args, ids)
    largest = wanted.abs().max().item()
    difference = (found - wanted).abs().max().item() / largest
    change = (wanted - base).abs().max().item() / largest
    print(f"{args.adapter}: {len(ids)} tokens, largest difference {difference:.2e} of the largest "
          f"logit; the adapter changes logits by {change:.2e} of it")
    if difference > args.tolerance or change < 100 * args.tolerance:
        sys.exit("FAILED")


if __name__ == "__main__":
    main()
