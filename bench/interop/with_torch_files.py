"""Plain numbers: what transformers, torch.save and h5py make of a model, and read of one."""

import json
import os
import shutil

import h5py
import torch

import in_hdf5
import in_transformers
from measure import Case
from versions import versions

PEER = versions("transformers", "torch", "h5py")


def cast(kind):
    return f"[{{quantize: {{method: rtn, weights: {{type: {kind}}}}}}}]"


READS = [
    Case("safetensors, f32", output="format: safetensors"),
    Case("safetensors, bf16", cast("bf16"), "format: safetensors"),
    Case("safetensors, f16", cast("f16"), "format: safetensors"),
    Case("safetensors, shards of 2 MB", cast("f16"), "format: safetensors, max_shard_size: 2MB"),
    Case("HDF5, f32", output="format: hdf5", options=("hdf5",)),
    Case("HDF5, f16", cast("f16"), "format: hdf5", options=("hdf5",)),
    Case("HDF5, bf16", cast("bf16"), "format: hdf5", options=("hdf5",)),
]
WRITES = [
    Case("torch.save, f32", "bin float32"),
    Case("torch.save, bf16", "bin bfloat16"),
    Case("torch.save, f16, two files", "bin float16 two"),
    Case("save_pretrained, shards of 2 MB", "safetensors"),
    Case("HDF5 of h5py, gzip", "hdf5"),
]


def load(artifact, case, _checkpoint):
    return in_transformers.logits(in_hdf5.load(artifact) if "hdf5" in case.options else in_transformers.load(artifact))


def write_bin(model, words, folder):
    tensors = {name: value.to(getattr(torch, words[1])) for name, value in model.state_dict().items()}
    names = sorted(tensors)
    parts = [names[::2], names[1::2]] if "two" in words else [names]
    index = {}
    for number, part in enumerate(parts, 1):
        path = f"pytorch_model-{number:05}-of-{len(parts):05}.bin" if len(parts) > 1 else "pytorch_model.bin"
        torch.save({name: tensors[name] for name in part}, os.path.join(folder, path))
        index.update((name, path) for name in part)
    if len(parts) > 1:
        with open(os.path.join(folder, "pytorch_model.bin.index.json"), "w") as file:
            json.dump({"metadata": {}, "weight_map": index}, file)
    model.load_state_dict(tensors)  # rounded as they are stored


def write_hdf5(model, checkpoint, path):
    with h5py.File(path, "w") as file, open(os.path.join(checkpoint, "config.json")) as config:
        file.attrs["config.json"] = config.read()
        for name, value in model.state_dict().items():
            file.create_dataset(name.replace(".", "/"), data=value.numpy(), compression="gzip")


def write(case, checkpoint, folder):
    words, path = case.stages.split(), os.path.join(folder, "peer")
    model = in_transformers.load(checkpoint)
    os.makedirs(path)
    if words[0] == "hdf5":
        write_hdf5(model, checkpoint, path + ".h5")
        return path + ".h5", in_transformers.logits(model)
    if words[0] == "bin":
        shutil.copy(os.path.join(checkpoint, "config.json"), path)
        write_bin(model, words, path)
    else:
        model.save_pretrained(path, max_shard_size="2MB")
    return path, in_transformers.logits(model)
