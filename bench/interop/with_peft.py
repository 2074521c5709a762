"""Adapters: PEFT loads those that `tune` wrote, and llmpress those that PEFT saved, both beside the model."""

import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, PrefixTuningConfig, get_peft_model

import in_transformers
from measure import CALIBRATION, Case, token_ids
from versions import versions

PEER = versions("transformers", "peft")
UNSCALED = ("tinystories-3.7m", "qwen2")  # rows of Gemma's embedding are scaled: refused by llmpress


def tune(method, more="rank: 4, "):
    return (f"[{{tune: {{text: {CALIBRATION}, method: {method}, {more}steps: 4, sequence_length: 32, batch_size: 4, "
            "learning_rate: 0.01}}]")


READS = [Case(f"adapter of tune, {method}", tune(method), "format: peft") for method in ("lora", "rslora", "dora")]
READS += [
    Case("adapter of tune, prefix", tune("prefix", "num_virtual_tokens: 5, "), "format: peft"),
    Case("adapter of tune, prompt", tune("prompt", "num_virtual_tokens: 5, "), "format: peft", models=UNSCALED),
]

WRITES = [
    Case("LoRA, every Linear", "lora"),
    Case("LoRA, alpha over the root of the rank", "rslora"),
    Case("DoRA", "dora"),
    Case("LoRA, ranks and alphas of their own", "patterns"),
    Case("prompt", "prompt", models=UNSCALED),
    Case("prefix", "prefix"),
]
PATTERNS = {"rank_pattern": {"q_proj": 2, "down_proj": 6}, "alpha_pattern": {"v_proj": 3}}


def our_options(artifact, _case):
    return ["--adapter", artifact]


def logits(model):
    with torch.no_grad():
        found = model(input_ids=torch.tensor([token_ids()])).logits[0].float().numpy()
    return found[-len(token_ids()):]  # virtual tokens of a prompt have logits too


def load(artifact, _case, checkpoint):
    return logits(PeftModel.from_pretrained(in_transformers.load(checkpoint), artifact).eval())


def config_of(kind):
    if kind == "prompt":
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    if kind == "prefix":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    return LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False,
                      use_rslora=kind == "rslora", use_dora=kind == "dora", **(PATTERNS if kind == "patterns" else {}))


def write(case, checkpoint, folder):
    torch.manual_seed(1)
    model = get_peft_model(in_transformers.load(checkpoint), config_of(case.stages)).eval()
    model.save_pretrained(folder + "/adapter")
    return checkpoint, logits(model), "--adapter", folder + "/adapter"
