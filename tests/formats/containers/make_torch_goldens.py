#!/usr/bin/env python3
"""Makes goldens/*.bin of torch_file_test.cpp with torch.save (torch 2.15).

The reduce_*.bin would run a command in torch.load(weights_only=False): it makes
a file llmpress_pickle_ran in the current folder.
"""
import os
import pathlib
import subprocess

import torch

FOLDER = pathlib.Path(__file__).parent / "goldens"


def tensors(with_float8):
    f32 = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 2
    state = {
        "f32": f32,
        "transposed": f32.t(),
        "tail": f32.flatten()[3:],
        "f16": torch.tensor([1.0, -2.0], dtype=torch.float16),
        "bf16": torch.tensor([3.0, -4.0], dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.tensor([7.0])),
        "scalar": torch.tensor(9.0),
        "i64": torch.tensor([5, -6]),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
    }
    if with_float8:
        state["f8"] = torch.tensor([1.0]).to(torch.float8_e4m3fn)
    return state


class Reduced:
    def __init__(self, call, argument):
        self.call, self.argument = call, argument

    def __reduce__(self):
        return self.call, (self.argument,)


def main():
    FOLDER.mkdir(exist_ok=True)
    torch.save(tensors(True), FOLDER / "zip.bin")
    torch.save(tensors(True), FOLDER / "protocol4.bin", pickle_protocol=4)
    torch.save(tensors(False), FOLDER / "legacy.bin",
               _use_new_zipfile_serialization=False)
    command = "touch llmpress_pickle_ran"
    for name, call, argument in [
        ("system", os.system, command),
        ("eval", eval, f"__import__('os').system('{command}')"),
        ("popen", subprocess.Popen, command.split()),
    ]:
        torch.save({"w": Reduced(call, argument)},
                   FOLDER / f"reduce_{name}.bin")


if __name__ == "__main__":
    main()
