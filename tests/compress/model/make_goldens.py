#!/usr/bin/env python3
"""Makes goldens/NAME: tiny random checkpoints and the logits that transformers
computes from them, for families_test.

    make_goldens.py [NAME...]      all rows, or those named; needs torch and
                                   transformers 5.24

A row is the family's model_type, the keys of its configuration, and what is
changed in the written config.json afterwards (old spellings; None removes a
key). The logits are computed from the folder as it then is. Weights are large
and norms far from 1, so that a part left out shows in the logits.
"""
import json
import pathlib
import sys
import tempfile
import zlib

import torch
import transformers
from safetensors.torch import save_file

TOKENS = 24
LARGEST_FOLDER = 40_000  # bytes
COMMON = dict(vocab_size=40, bos_token_id=1, eos_token_id=2, pad_token_id=0)
# hidden_size and so on in the names that most families use.
SIZES = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=16,
              rope_theta=100.0)
DEFAULT_ROPE = dict(rope_type="default", rope_theta=100.0)

ROWS = {
    "llama": ("llama", dict(SIZES, head_dim=6, attention_bias=True,
                            mlp_bias=True, rms_norm_eps=1e-3,
                            rope_parameters=LLAMA3), {}),
    "llama_2": ("llama", SIZES, dict(
        rope_parameters=None, rope_theta=50.0, torch_dtype="float32",
        rope_scaling=dict(type="linear", factor=2.0))),
    "mistral": ("mistral", dict(SIZES, sliding_window=5), {}),
    "qwen2": ("qwen2", dict(SIZES, num_hidden_layers=3, sliding_window=6,
                            use_sliding_window=True, max_window_layers=1), {}),
    "qwen3": ("qwen3", dict(SIZES, head_dim=10, attention_bias=True,
                            tie_word_embeddings=True), {}),
}


def randomize(model, generator):
    """Matrices of std 0.3; vectors as they start out, 0 or 1, and noise."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        start = 0 if parameter.dim() > 1 else parameter.data
        value = start + (0.3 if parameter.dim() > 1 else 0.2) * noise
        parameter.data = value.bfloat16().float()


def edit_config(folder, changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def make(name, goldens):
    model_type, keys, changes = ROWS[name]
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    config = transformers.AutoConfig.for_model(model_type,
                                               **{**COMMON, **keys})
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager")
    randomize(model, generator)
    folder = goldens / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        model.bfloat16().save_pretrained(temporary)
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes(
                pathlib.Path(temporary, file).read_bytes())
    edit_config(folder, changes)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(3, config.get_text_config().vocab_size, (1, TOKENS),
                        generator=generator)
    with torch.no_grad():
        logits = reference(ids, use_cache=False).logits[0].float()
    save_file({"input_ids": ids, "logits": logits.contiguous()},
              folder / "expected.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {size} bytes, largest logit {logits.abs().max():.3g}")
    if size > LARGEST_FOLDER:
        sys.exit(f"{name}: more than {LARGEST_FOLDER} bytes")


def main():
    transformers.utils.logging.disable_progress_bar()
    goldens = pathlib.Path(__file__).parent / "goldens"
    for name in sys.argv[1:] or ROWS:
        make(name, goldens)


if __name__ == "__main__":
    main()
