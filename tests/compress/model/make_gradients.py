#!/usr/bin/env python3
"""Makes goldens/NAME/gradients.json: what torch.autograd says of the mean
cross-entropy of each golden's tokens, for gradients_of_families_test.

    make_gradients.py [NAME...]    all goldens, or those named; needs torch and
                                   transformers 5.24

For every tensor of the checkpoint two numbers: the gradient's norm, and its
product with a fixed direction, d_i = (2654435761 i mod 2^32) / 2^31 - 1 over the
elements in their order. A golden whose tensors are not named as transformers
writes them is passed over. For those in STEPS also the norm of the whole
gradient, and what one step of AdamW makes of the weights: the same two numbers.
"""
import json
import pathlib
import sys
import tempfile

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file


STEPS = {"llama", "gemma2", "gpt2", "mixtral"}


def direction(size):
    index = torch.arange(size, dtype=torch.int64)
    return ((index * 2654435761) % 2**32).double() / 2**31 - 1


def names_of(path):
    with safe_open(path, "pt") as file:
        return set(file.keys())


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    auto_class = (transformers.AutoModelForImageTextToText
                  if "text_config" in config
                  else transformers.AutoModelForCausalLM)
    model = auto_class.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager",
        experts_implementation="eager")
    return model.eval()  # no dropout


def run_backward(model, folder):
    ids = load_file(folder / "expected.safetensors")["input_ids"]
    logits = model(ids, use_cache=False).logits[0].float()
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    loss.backward()
    if model.config.model_type == "rwkv":
        undo_halving(model)
    return loss.item()


def undo_halving(model):
    """Where it only infers, RWKV halves what some weights hold."""
    for index, block in enumerate(model.rwkv.blocks):
        factor = 2 ** (index // model.config.rescale_every)
        block.attention.output.weight.grad /= factor
        block.feed_forward.value.weight.grad /= factor


def tensors_of(model):
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        return load_file(pathlib.Path(temporary, "model.safetensors"))


def gradients(folder):
    model = load(folder)
    loss = run_backward(model, folder)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.zero_()
        for parameter in model.parameters():
            gradient = parameter.grad
            parameter.copy_(torch.zeros_like(parameter) if gradient is None
                            else gradient)
    return loss, tensors_of(model)


def step(folder):
    model = load(folder)
    run_backward(model, folder)
    parameters = list(model.parameters())
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
    groups = [{"params": [p for p in parameters if p.ndim > 1],
               "weight_decay": 0.1},
              {"params": [p for p in parameters if p.ndim == 1],
               "weight_decay": 0.0}]
    # Some gradients are 0 but for rounding (the bias of keys): epsilon is above
    # what they are.
    torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-5).step()
    return {"norm": float(f"{norm:.9g}"), "tensors": rows(tensors_of(model))}


def rows(tensors):
    found = {}
    for name in sorted(tensors):
        values = tensors[name].double().flatten()
        along = values @ direction(values.numel())
        found[name] = [float(f"{values.norm().item():.9g}"),
                       float(f"{along.item():.9g}")]
    return found


def make(folder):
    loss, tensors = gradients(folder)
    if set(tensors) != names_of(folder / "model.safetensors"):
        print(f"{folder.name}: passed over, its tensors have other names")
        return
    content = {"loss": float(f"{loss:.9g}"), "tensors": rows(tensors)}
    if folder.name in STEPS:
        content["step"] = step(folder)
    text = json.dumps(content, separators=(",", ":"))
    (folder / "gradients.json").write_text(text.replace("],", "],\n") + "\n")
    print(f"{folder.name}: loss {loss:.6f}, {len(tensors)} tensors")


def main():
    transformers.utils.logging.disable_progress_bar()
    goldens = pathlib.Path(__file__).parent / "goldens"
    names = sys.argv[1:] or sorted(f.name for f in goldens.iterdir())
    for name in names:
        try:
            make(goldens / name)
        except Exception as error:  # a family that has no backward there
            print(f"{name}: passed over, {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
