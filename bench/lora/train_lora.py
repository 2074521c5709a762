#!/usr/bin/env python3
"""Trains small adapters of a Llama model with PyTorch alone, for tests and figures.

    python3 bench/lora/train_lora.py --model models/tinystories-3.7m \\
        --text models/text/calibration.txt --output out/adapters --steps 300

writes one PEFT folder a kind (lora, rslora, dora), each with `reference.safetensors`: token ids of
a few prompts and the logits of base + adapter, computed here by the definitions of the papers
(arXiv:2106.09685, 2312.03732, 2402.09353) and unmerged, independent of llmpress. Needs python3-torch,
nothing else: safetensors and the BPE tokenizer are read below.
"""
import argparse
import json
import math
import os
import struct

import numpy as np
import torch

DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
TARGETS = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


def read_safetensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        values = np.frombuffer(data[begin:end], DTYPES[info["dtype"]])
        tensors[name] = torch.from_numpy(values.reshape(info["shape"]).copy())
    return tensors


def write_safetensors(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(tensors):
        values = tensors[name].detach().contiguous().numpy()
        kind = next(k for k, d in DTYPES.items() if d == values.dtype)
        raw = values.tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


class Tokenizer:
    """BPE with byte fallback whose merges never reach across a word's start."""

    def __init__(self, path):
        with open(path) as file:
            model = json.load(file)["model"]
        self.vocab = model["vocab"]
        merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        self.ranks = {tuple(m): i for i, m in enumerate(merges)}
        assert not any("\u2581" in (a + b)[1:] for a, b in self.ranks), "merges across words"
        self.words = {}

    def word(self, word):
        if word in self.words:
            return self.words[word]
        parts = list(word)
        while len(parts) > 1:
            pairs = [(self.ranks.get(p, math.inf), i) for i, p in enumerate(zip(parts, parts[1:]))]
            rank, i = min(pairs)
            if rank == math.inf:
                break
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        ids = []
        for part in parts:
            if part in self.vocab:
                ids.append(self.vocab[part])
            else:
                ids += [self.vocab["<0x%02X>" % b] for b in part.encode()]
        self.words[word] = ids
        return ids

    def encode(self, text):
        ids = [self.vocab["<s>"]]
        for word in ("\u2581" + text.replace(" ", "\u2581")).split("\u2581")[1:]:
            ids += self.word("\u2581" + word)
        return ids


class Adapter:
    """A and B of one Linear, and DoRA's magnitude."""

    def __init__(self, weight, rank, scaling, dora, generator):
        out, width = weight.shape
        bound = 1 / math.sqrt(width)  # Kaiming uniform, a = sqrt(5)
        self.A = (torch.rand(rank, width, generator=generator) * 2 - 1) * bound
        self.B = torch.zeros(out, rank)
        self.scaling = scaling
        self.m = weight.norm(dim=1) if dora else None
        for p in self.parameters():
            p.requires_grad_(True)

    def parameters(self):
        return [self.A, self.B] + ([] if self.m is None else [self.m])

    def __call__(self, x, weight):
        change = (x @ self.A.T @ self.B.T) * self.scaling
        if self.m is None:
            return x @ weight.T + change
        norm = (weight + self.scaling * (self.B @ self.A)).norm(dim=1).detach()
        return (self.m / norm) * (x @ weight.T + change)


class Llama:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as file:
            self.config = json.load(file)
        self.w = read_safetensors(os.path.join(folder, "model.safetensors"))
        self.adapters = {}

    def linear(self, name, x):
        weight = self.w[name + ".weight"]
        adapter = self.adapters.get(name)
        return x @ weight.T if adapter is None else adapter(x, weight)

    def norm(self, name, x):
        scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return x * scale * self.w[name + ".weight"]

    def rope(self, x):
        half = x.shape[-1] // 2
        angles = torch.arange(x.shape[-2]).double()[:, None] * (
            self.config["rope_theta"] ** (-torch.arange(half).double() / half))
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def logits(self, tokens):
        c = self.config
        heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
        batch, n = tokens.shape
        x = self.w["model.embed_tokens.weight"][tokens]
        mask = torch.full((n, n), -math.inf, dtype=x.dtype).triu(1)
        for layer in range(c["num_hidden_layers"]):
            p = "model.layers.%d." % layer
            h = self.norm(p + "input_layernorm", x)
            q, k, v = (self.linear(p + "self_attn." + s, h).view(batch, n, count, -1).transpose(1, 2)
                       for s, count in (("q_proj", heads), ("k_proj", kv), ("v_proj", kv)))
            q, k = self.rope(q), self.rope(k).repeat_interleave(heads // kv, 1)
            v = v.repeat_interleave(heads // kv, 1)
            mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask, -1) @ v
            x = x + self.linear(p + "self_attn.o_proj", mixed.transpose(1, 2).reshape(batch, n, -1))
            h = self.norm(p + "post_attention_layernorm", x)
            gate = torch.nn.functional.silu(self.linear(p + "mlp.gate_proj", h))
            x = x + self.linear(p + "mlp.down_proj", gate * self.linear(p + "mlp.up_proj", h))
        head = "model.embed_tokens" if c["tie_word_embeddings"] else "lm_head"
        return self.norm("model.norm", x) @ self.w[head + ".weight"].T


def train(model, tokens, args, kind, generator):
    scaling = args.alpha / (math.sqrt(args.rank) if kind == "rslora" else args.rank)
    suffixes = tuple("." + t + ".weight" for t in args.targets.split(","))
    model.adapters = {
        name[:-len(".weight")]: Adapter(weight, args.rank, scaling, kind == "dora", generator)
        for name, weight in sorted(model.w.items()) if name.endswith(suffixes)}
    parameters = [p for a in model.adapters.values() for p in a.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=args.rate)
    for step in range(args.steps):
        starts = torch.randint(len(tokens) - args.context, (args.batch,), generator=generator)
        batch = torch.stack([tokens[s:s + args.context] for s in starts])
        logits = model.logits(batch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = args.rate * (1 - step / args.steps)
        optimizer.step()
        if args.verbose and step % 50 == 0:
            print("%s step %d loss %.4f" % (kind, step, loss.item()), flush=True)


def save(model, args, kind, prompts):
    folder = os.path.join(args.output, kind)
    os.makedirs(folder, exist_ok=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": args.rank, "lora_alpha": args.alpha,
              "use_rslora": kind == "rslora", "use_dora": kind == "dora", "bias": "none",
              "target_modules": args.targets.split(","), "lora_dropout": 0.0,
              "base_model_name_or_path": args.model, "init_lora_weights": True}
    with open(os.path.join(folder, "adapter_config.json"), "w") as file:
        json.dump(config, file, indent=2, sort_keys=True)
    tensors = {}
    for name, adapter in model.adapters.items():
        prefix = "base_model.model." + name
        tensors[prefix + ".lora_A.weight"] = adapter.A
        tensors[prefix + ".lora_B.weight"] = adapter.B
        if adapter.m is not None:
            tensors[prefix + ".lora_magnitude_vector"] = adapter.m
    write_safetensors(os.path.join(folder, "adapter_model.safetensors"), tensors)
    # In double, so that the reference is not the limit of the comparison.
    double = Llama(args.model)
    double.w = {name: w.double() for name, w in model.w.items()}
    for name, adapter in model.adapters.items():
        copy = Adapter.__new__(Adapter)
        copy.A, copy.B, copy.scaling = adapter.A.double(), adapter.B.double(), adapter.scaling
        copy.m = None if adapter.m is None else adapter.m.double()
        double.adapters[name] = copy
    reference = {}
    with torch.no_grad():
        for i, ids in enumerate(prompts):
            reference["tokens.%d" % i] = torch.tensor(ids)
            reference["logits.%d" % i] = double.logits(torch.tensor(ids)[None])[0].float()
    write_safetensors(os.path.join(folder, "reference.safetensors"), reference)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, help="plain text to train on")
    parser.add_argument("--output", required=True, help="folder for one adapter a kind")
    parser.add_argument("--kinds", default="lora,rslora,dora")
    parser.add_argument("--targets", default=TARGETS)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", action="append", help="for reference logits; may stand several times")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer(os.path.join(args.model, "tokenizer.json"))
    with open(args.text) as file:
        tokens = torch.tensor(tokenizer.encode(file.read()))
    prompts = args.prompt or ["Once upon a time", "The dog was very sad because",
                              "Lily went to the park with her mom.\nThey saw a big tree"]
    model = Llama(args.model)
    for kind in args.kinds.split(","):
        train(model, tokens, args, kind, torch.Generator().manual_seed(args.seed))
        save(model, args, kind, [tokenizer.encode(p) for p in prompts])


if __name__ == "__main__":
    main()
