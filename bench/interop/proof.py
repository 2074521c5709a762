"""Proves which loaders read what llmpress writes, and that llmpress reads what they write: scripts/test-peers.

    python3 bench/interop/proof.py [--program LLMPRESS] [--quick] [--only MODULE...] [--rows FOLDER] [--document FILE]

Needs nothing but Python itself: the peers are in environments of their own (environments.py), where worker.py runs the
cases of a module. Exit code 1 if a row is not as it should be, 3 if no peer could be installed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import document  # noqa: E402
import environments  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MODULES = {  # module: its environment
    "compressed_tensors": "transformers",
    "llm_compressor": "llmcompressor",
    "bitsandbytes": "transformers",
    "gguf": "transformers",
    "peft": "transformers",
    "torch_files": "transformers",
    "fp8": "transformers",
    "torchao": "torchao",
    "mlx": "mlx",
    "gptqmodel": "gptqmodel",
    "autoround": "autoround",
    "llama_cpp": "llama_cpp",
    "vllm": "vllm",
}
QUICK = {"transformers"}
ASKED_FOR = {"vllm"}  # takes half a gigabyte and a minute a row: only by --only


PEERS_ENVIRONMENT = {  # no network, no graphics processor, few messages, no compiling of kernels for a single run
    "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TORCHDYNAMO_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1",
    "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false", "LLM_COMPRESSOR_LOG_LEVEL": "ERROR", "GPTQMODEL_CPU_WORKERS": "2",
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def call(python, script, *arguments):
    """Runs a script of this folder; its messages are shown only if it fails."""
    with tempfile.TemporaryFile("w+") as messages:
        with tempfile.TemporaryDirectory() as folder:  # for the logs that some peers leave where they are
            done = subprocess.run([python, os.path.join(HERE, script), *arguments], stderr=messages,
                                  stdin=subprocess.DEVNULL, env={**os.environ, **PEERS_ENVIRONMENT}, cwd=folder)
        if done.returncode != 0:
            messages.seek(0)
            sys.stderr.write(messages.read()[-4000:])
        return done.returncode == 0


def run_module(module, python, arguments, models, rows):
    """Whether its rows could be measured at all."""
    command = ["worker.py", module, "--models", models, "--rows", os.path.join(rows, module + ".jsonl"),
               "--layout", arguments.layout]
    return call(python, *command, *(["--quick"] if arguments.quick else []))


def read_rows(folder):
    rows = []
    for module in MODULES:
        path = os.path.join(folder, module + ".jsonl")
        if os.path.exists(path):
            with open(path) as file:
                rows += [json.loads(line) for line in file]
    return rows


def prove(arguments, models, rows):
    """The modules that were left out, each with the reason, and those that broke."""
    skipped, broken = {}, []
    chosen = arguments.only or [
        name for name in MODULES if name not in ASKED_FOR and (not arguments.quick or MODULES[name] in QUICK)]
    if not call(environments.python_of("transformers"), "checkpoints.py", models):
        raise SystemExit("test-peers: the small checkpoints could not be made")
    for module in chosen:
        try:
            python = environments.python_of(MODULES[module])
        except (environments.Unreachable, environments.Unsatisfiable) as error:
            skipped[module] = str(error)
            print(f"left out: {module}: {error}", flush=True)
            if isinstance(error, environments.Unsatisfiable):
                broken.append(module)
            continue
        print(f"\n{module}", flush=True)
        if not run_module(module, python, arguments, models, rows):
            broken.append(module)
    return skipped, broken


def report(rows, broken):
    bad = [row for row in rows if not row["good"]]
    print(f"\n{len(rows)} rows, {len(bad)} not as they should be" + "".join(f"; {name} broke" for name in broken))
    for row in bad:
        print(f"  {row['peer']} {row['direction']} {row['layout']} of {row['model']}: "
              f"{row['error'] or row['difference']}")
    return 1 if bad or broken or not rows else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=os.environ.get("LLMPRESS", os.path.join(ROOT, "build/release/llmpress")))
    parser.add_argument("--quick", action="store_true", help="peers that install in a minute, fewer cases")
    parser.add_argument("--only", nargs="+", choices=list(MODULES), metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--layout", default="", help="only layouts with this in their name")
    parser.add_argument("--rows", help="keep what was measured there, one file a module")
    parser.add_argument("--document", help="write the table, of all rows that --rows holds")
    parser.add_argument("--offline-is-fine", action="store_true", help="exit code 0 if no peer can be installed")
    arguments = parser.parse_args()
    os.environ["LLMPRESS"] = os.path.abspath(arguments.program)
    with tempfile.TemporaryDirectory() as folder:
        rows = os.path.abspath(arguments.rows or os.path.join(folder, "rows"))
        os.makedirs(rows, exist_ok=True)
        try:
            skipped, broken = prove(arguments, os.path.join(folder, "models"), rows)
        except environments.Unreachable as error:
            print(f"test-peers: skipped, nothing was proven: {error}")
            return 0 if arguments.offline_is_fine else 3
        measured = read_rows(rows)
        if arguments.document:
            document.write(arguments.document, measured, skipped)
        return report(measured, broken)


if __name__ == "__main__":
    sys.exit(main())
