#!/usr/bin/env python3
"""Kills ranks of a run at random moments and lets another number of ranks go on.

    bench/scale/kill_ranks.py [--rounds 30] [--seed 1] [--ranks 3] [--llmpress build/release/llmpress]

A round starts RECIPE's run on so many ranks, kills one of them with SIGKILL (in every
second round all of them) at a random moment of what a whole run takes, looks for files
under their final names, and runs it again on 1 to 4 ranks: the SHA-256 of every file
must be that of an undisturbed run. Exit code 1 where one is not.
"""

import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def start(llmpress, recipe, ranks):
    command = [str(llmpress), "run", str(recipe), "--quiet", "--threads", "1"]
    if ranks > 1:
        command = ["mpirun", "--bind-to", "none", "-n", str(ranks)] + command
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def ranks_of(launcher):
    """The processes that mpirun started."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)
        except (OSError, NotADirectoryError):
            continue
        if fields[0].endswith("(llmpress") and int(fields[1].split()[1]) == launcher:
            found.append(int(entry.name))
    return found


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--llmpress", type=pathlib.Path, default=ROOT / "build/release/llmpress")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as work:
        output = pathlib.Path(work) / "out"
        recipe = pathlib.Path(work) / "recipe.yaml"
        recipe.write_text(
            f"model: {ROOT}/models/tinystories-3.7m\n"
            f"calibration: {{text: {ROOT}/models/text/calibration.txt, samples: 20, sequence_length: 512}}\n"
            f"output: {{path: {output}}}\n"
            "stages:\n  - quantize: {method: gptq, act_order: true, weights: {bits: 4, group_size: 32}}\n"
        )
        began = time.monotonic()
        if start(arguments.llmpress, recipe, arguments.ranks).wait() != 0:
            sys.exit("the undisturbed run failed")
        whole = time.monotonic() - began
        wanted = digests(output)
        shutil.rmtree(output)
        killed = 0
        for number in range(arguments.rounds):
            launcher = start(arguments.llmpress, recipe, arguments.ranks)
            time.sleep(chance.uniform(0.1, 1) * whole)
            victims = ranks_of(launcher.pid)
            everyone = number % 2 == 1
            for process in victims if everyone else chance.sample(victims, min(1, len(victims))):
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            interrupted = launcher.wait() != 0
            killed += interrupted
            if interrupted and output.exists() and digests(output) != wanted:
                print(f"round {number}: something half-written under its final name")
                wrong += 1
            again = chance.randint(1, 4)
            code = start(arguments.llmpress, recipe, again).wait()
            left = [path.name for path in pathlib.Path(work).iterdir() if path.name not in ("out", "recipe.yaml")]
            if code != 0 or digests(output) != wanted or left:
                print(f"round {number}: {again} ranks ended with {code}, left {left}, or other bytes")
                wrong += 1
            shutil.rmtree(output, ignore_errors=True)
        print(f"{arguments.rounds} rounds, {killed} runs killed before their end, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
