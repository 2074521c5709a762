"""Time of GPTQ, int4 in groups of 128, of a whole checkpoint beside llm-compressor or GPTQModel on the same processor.

    llmpress synth --like llama-1.1b --output random-1.1b      # or two blocks of it
    PEER/bin/python bench/peers/compare_gptq.py build/release/llmpress MODEL TEXT OUT [--samples 16] [--length 512]

PEER is the environment of llm-compressor or of GPTQModel: what can be imported is the peer. Every one gets the same
number of sequences of the same length, cut from TEXT, reads the model and writes an artifact into OUT. Prints wall and
processor seconds of both and the ratio.
"""

import argparse
import importlib.util
import os
import resource
import shutil
import subprocess
import time


def cost(work):
    def spent():
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    processor, wall = spent(), time.perf_counter()
    work()
    return time.perf_counter() - wall, spent() - processor


def ours(arguments):
    recipe = os.path.join(arguments.out, "gptq.yaml")
    with open(recipe, "w") as file:
        file.write(f"""model: {os.path.abspath(arguments.model)}
calibration: {{text: {os.path.abspath(arguments.text)}, samples: {arguments.samples}, sequence_length: {arguments.length}}}
stages: [{{quantize: {{method: gptq, weights: {{bits: 4, group_size: 128, symmetric: true}}}}}}]
output: {{path: {os.path.abspath(arguments.out)}/llmpress}}
""")
    subprocess.run([arguments.llmpress, "run", "-q", recipe], check=True, stdout=subprocess.DEVNULL)


def sequences(arguments):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    with open(arguments.text) as file:
        ids = tokenizer(file.read(arguments.samples * arguments.length * 16))["input_ids"]
    rows = [ids[i * arguments.length:(i + 1) * arguments.length] for i in range(arguments.samples)]
    return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]


def llm_compressor(arguments):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="auto", device_map="cpu")
    oneshot(model=model, dataset=Dataset.from_list(sequences(arguments)),
            recipe=GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"]),
            num_calibration_samples=arguments.samples, max_seq_length=arguments.length)
    model.save_pretrained(os.path.join(arguments.out, "peer"), save_compressed=True)


def with_padding_token(arguments):
    """The model's files once more, with a padding token, without which GPTQModel loads nothing and of which no
    sequence has any."""
    from transformers import AutoTokenizer
    folder = os.path.join(arguments.out, "padded")
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    if tokenizer.pad_token is not None:
        return arguments.model
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.save_pretrained(folder)
    for name in os.listdir(arguments.model):
        if not os.path.exists(os.path.join(folder, name)):
            os.symlink(os.path.join(os.path.abspath(arguments.model), name), os.path.join(folder, name))
    return folder


def gptqmodel(arguments):
    # On two processors it gives itself one worker, and then asks for two.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, os.cpu_count())))
    import torch
    from gptqmodel import GPTQModel
    from gptqmodel.quantization.config import GPTQConfig
    model = GPTQModel.load(with_padding_token(arguments), GPTQConfig(bits=4, group_size=128, sym=True), device="cpu",
                           dtype=torch.float32)
    model.quantize(sequences(arguments), batch_size=1)
    model.save(os.path.join(arguments.out, "peer"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("llmpress", "model", "text", "out"):
        parser.add_argument(name)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    arguments = parser.parse_args()
    for folder in ("peer", "llmpress"):
        shutil.rmtree(os.path.join(arguments.out, folder), ignore_errors=True)
    os.makedirs(arguments.out, exist_ok=True)
    peer = llm_compressor if importlib.util.find_spec("llmcompressor") else gptqmodel
    mine, theirs = cost(lambda: ours(arguments)), cost(lambda: peer(arguments))
    for name, (wall, processor) in (("llmpress", mine), (peer.__name__, theirs)):
        print(f"{name:16} {wall:7.1f} s, {processor:7.1f} s of processor time, {theirs[0] / wall:.2f}x")


if __name__ == "__main__":
    main()
