"""Models that llmpress wrote as HDF5, read by h5py and computed by transformers."""

import json
import os

import h5py
import numpy
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import in_transformers
import measure

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16}  # which HDF5 has not: they lie as 16-bit integers


def tensor(data):
    kind = data.attrs["dtype"]
    kind = TYPES.get(kind.decode() if isinstance(kind, bytes) else kind)
    values = data[()]
    return torch.from_numpy(values.view(numpy.int16)).view(kind) if kind else torch.from_numpy(values)


def load(path):
    with h5py.File(path) as file:
        config = json.loads(file.attrs["config.json"])
        tensors = {name: tensor(data) for name, data in file["tensors"].items()}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32,
                                             attn_implementation="eager")
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if set(missing) - {"lm_head.weight"} or [name for name in unexpected if name.endswith("weight")]:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()


def decoded_logits(program, path, folder):
    """Of the weights as llmpress decodes them, with inputs as they are, whatever the model says of their rounding."""
    output = os.path.join(folder, "decoded.h5")
    measure.run(program, "convert", path, output, "--format", "hdf5", "--type", "f32")
    return in_transformers.logits(load(output))
