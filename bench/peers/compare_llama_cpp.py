"""Speed of llmpress beside llama.cpp on one GGUF file, by turns.

    llmpress synth --like llama-1.1b --output random-1.1b
    llmpress convert random-1.1b m.gguf --format gguf --type q4_0
    python bench/peers/compare_llama_cpp.py build/release/llmpress m.gguf --threads 2

Needs llama-cpp-python, built for this machine, in the Python that runs it. Prints
tokens a second of a prompt and of tokens generated one by one (medians over the
rounds), their ratio, and the processor's name.
"""

import argparse
import json
import random
import statistics
import subprocess
import time

from llama_cpp import Llama, __version__


def time_llama(model, prompt, generate):
    rng = random.Random(1)
    tokens = [rng.randrange(model.n_vocab() - 1) for _ in range(max(prompt, generate))]
    model.reset()
    start = time.perf_counter()
    model.eval(tokens[:prompt])
    prompt_speed = prompt / (time.perf_counter() - start)
    model.reset()
    model.eval(tokens[:1])
    start = time.perf_counter()
    for token in tokens[:generate]:
        model.eval([token])
    return prompt_speed, generate / (time.perf_counter() - start)


def time_ours(arguments, activations):
    command = [arguments.llmpress, "bench", "-q", "-r", "1", "-p", str(arguments.prompt),
               "-n", str(arguments.generate), "--threads", str(arguments.threads),
               "--activations", activations, "--json", "-", arguments.model]
    if arguments.isa:
        command += ["--isa", arguments.isa]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    speeds = [row["tokens_per_second"] for row in report["rows"]]
    return speeds[0], speeds[1], report["processor"], report["isa"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llmpress")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isa", default="")
    arguments = parser.parse_args()
    peer = Llama(arguments.model, n_ctx=arguments.prompt + arguments.generate + 8, n_batch=512,
                 n_threads=arguments.threads, n_threads_batch=arguments.threads, verbose=False)
    time_llama(peer, 8, 1)
    speeds = {"llama.cpp": [], "stored": [], "int8": []}
    for _ in range(arguments.rounds):
        speeds["llama.cpp"].append(time_llama(peer, arguments.prompt, arguments.generate))
        for activations in ("stored", "int8"):
            *two, processor, isa = time_ours(arguments, activations)
            speeds[activations].append(two)
    print(f"{processor}, {arguments.threads} threads, llmpress {isa}, "
          f"llama-cpp-python {__version__}: {arguments.model}")
    base = [statistics.median(column) for column in zip(*speeds["llama.cpp"])]
    for name, rows in speeds.items():
        label = name if name == "llama.cpp" else f"llmpress, activations {name}"
        medians = [statistics.median(column) for column in zip(*rows)]
        print(f"  {label:32} prompt {medians[0]:8.1f} ({medians[0] / base[0]:.2f}x)   "
              f"generate {medians[1]:7.1f} ({medians[1] / base[1]:.2f}x)")


if __name__ == "__main__":
    main()
