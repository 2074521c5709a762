"""GGUF files: transformers reads them with the package gguf, and that package writes them from an f32 file."""

import os

import gguf
from transformers import AutoConfig

import in_transformers
import measure
from measure import Case
from versions import versions

PEER = versions("transformers", "gguf")
SUFFIX = ".gguf"
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0"]


def rounded(kind):
    return f"[{{quantize: {{method: rtn, weights: {{type: {kind}}}}}}}]"


READS = [
    Case("f32", output="format: gguf"),
    Case("bf16", rounded("bf16"), "format: gguf"),
    *[Case(kind, rounded(kind), "format: gguf") for kind in TYPES],
    Case("mxfp4", rounded("mxfp4"), "format: gguf"),
    Case("q4_0 of integers in groups", "[{quantize: {method: gptq, weights: {bits: 4, group_size: 32, symmetric: true}}}]",
         "format: gguf"),
    Case("q4_k, GPTQ on its grid", "[{quantize: {method: gptq, weights: {type: q4_k}}}]", "format: gguf"),
]


WRITES = [Case(kind, kind) for kind in ("bf16", "f16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "tq2_0")]


def load(artifact, _case, _checkpoint):
    folder, name = os.path.split(artifact)
    config = AutoConfig.from_pretrained(folder, gguf_file=name)
    if config.model_type == "gemma2":  # of which GGUF holds nothing: 256 is taken there, the head's size by llama.cpp
        config.query_pre_attn_scalar = config.head_dim
    return in_transformers.logits(in_transformers.load(folder, gguf_file=name, config=config))


def copy_metadata(reader, writer):
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)


def write(case, checkpoint, folder):
    """Every matrix rounded by the package, from the f32 file that llmpress made of the checkpoint."""
    plain, path = os.path.join(folder, "plain.gguf"), os.path.join(folder, "peer.gguf")
    measure.run(measure.program(), "convert", checkpoint, plain, "--format", "gguf", "--type", "f32")
    reader = gguf.GGUFReader(plain)
    writer = gguf.GGUFWriter(path, reader.get_field("general.architecture").contents())
    copy_metadata(reader, writer)
    kind = gguf.GGMLQuantizationType[case.stages.upper()]
    for item in reader.tensors:
        values = item.data.reshape([int(size) for size in reversed(item.shape)])
        if values.ndim == 2:
            writer.add_tensor(item.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(item.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, load(path, case, checkpoint)
