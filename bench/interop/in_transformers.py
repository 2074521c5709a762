"""Models in transformers."""

import torch
from transformers import AutoModelForCausalLM

from measure import token_ids


def load(path, dtype=torch.float32, **options):
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager", **options).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([token_ids()]), use_cache=False).logits[0].float().numpy()
