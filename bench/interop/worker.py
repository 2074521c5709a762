"""Carries out the cases of one module in the Python that has its peer.

    LLMPRESS=PROGRAM python bench/interop/worker.py MODULE --models FOLDER --rows FILE [--quick]

A module has a name `PEER`, and either or both of

    READS, load(artifact, case, checkpoint)   cases that llmpress writes and the peer loads: the peer's logits
    WRITES, write(case, checkpoint, folder)   cases that the peer writes: what llmpress is to load, the peer's logits,
                                              and options of `llmpress logits`
"""

import argparse
import dataclasses
import importlib
import json
import os
import tempfile
import warnings

import measure


def checkpoints(folder):
    """By name; and those among them that a case has which names none."""
    usual = {"tinystories-3.7m": measure.SHIPPED}
    usual.update((name, os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name != "families")
    others = os.path.join(folder, "families")
    by_name = {name: os.path.join(others, name) for name in os.listdir(others)}
    return {**usual, **by_name}, [name for name in usual if name not in measure.BY_NAME]


def first_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


class Worker:
    def __init__(self, arguments):
        self.program = measure.program()
        self.module = importlib.import_module("with_" + arguments.module)
        self.checkpoints, self.usual = checkpoints(arguments.models)
        self.originals = {}

    def original(self, name):
        if name not in self.originals:
            with tempfile.TemporaryDirectory() as folder:
                self.originals[name] = self.comparable(
                    measure.our_logits(self.program, self.checkpoints[name], folder))
        return self.originals[name]

    def ours(self, case, model, folder, options):
        if "weights" in case.options:
            import in_hdf5  # not every environment has h5py
            return in_hdf5.decoded_logits(self.program, model, folder)
        return self.comparable(measure.our_logits(self.program, model, folder, *options))

    def comparable(self, logits):
        """As the peer gives them: logits, or logarithms of probabilities of all tokens but the first."""
        return measure.log_probabilities(logits[:-1]) if getattr(self.module, "LOG_PROBABILITIES", False) else logits

    def read(self, row, case, folder):
        """llmpress writes, the peer loads."""
        artifact, warned = measure.write_artifact(
            self.program, self.checkpoints[row.model], case, folder, getattr(self.module, "SUFFIX", ""))
        options = getattr(self.module, "our_options", lambda *_: ())(artifact, case)
        ours = self.ours(case, self.checkpoints[row.model] if options else artifact, folder, options)
        row.moved = measure.distance(ours, self.original(row.model))
        try:
            row.difference = measure.distance(self.module.load(artifact, case, self.checkpoints[row.model]), ours)
        except Exception as error:  # whatever a loader may raise
            row.error = ("" if warned or not case.refused else "unannounced: ") + first_line(error)
        if warned and not case.refused:
            row.difference, row.error = None, "llmpress warned that it would be refused"

    def write(self, row, case, folder):
        """The peer writes, llmpress loads."""
        checkpoint = self.checkpoints[row.model]
        path, theirs, *options = self.module.write(case, checkpoint, folder)
        ours = self.ours(case, path, folder, options)
        row.moved = measure.distance(ours, self.original(row.model))
        row.difference = measure.distance(theirs, ours)

    def measure(self, direction, case, name):
        row = measure.Row(direction, self.module.PEER, case.layout, name, case.bound, case.reason, refused=case.refused)
        with tempfile.TemporaryDirectory() as folder:
            try:
                (self.read if direction == "reads" else self.write)(row, case, folder)
            except Exception as error:  # a peer's writer may raise whatever it likes
                row.error = first_line(error)
        return measure.judge(row)

    def rows(self, only, count):
        for direction, cases in (("reads", getattr(self.module, "READS", ())),
                                 ("writes", getattr(self.module, "WRITES", ()))):
            for case in cases:
                for name in list(case.models or self.usual)[:count]:
                    if only in case.layout:
                        yield self.measure(direction, case, name)


def text_of(row):
    found = row.error if row.difference is None else f"{row.difference:.1e} of {row.bound:.0e}, moved {row.moved:.1e}"
    return f"{'good' if row.good else 'BAD ':4s} {row.direction:6s} {row.layout:52s} {row.model:17s} {found}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--models", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--quick", action="store_true", help="of each case, the first two checkpoints")
    parser.add_argument("--layout", default="", help="only layouts with this in their name")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with open(arguments.rows, "w") as file:
        for row in Worker(arguments).rows(arguments.layout, 2 if arguments.quick else None):
            print(text_of(row), flush=True)
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
