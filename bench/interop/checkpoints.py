"""The models that layouts are made of: the shipped one, and random ones of two other families; and one of each family that
a peer's file format has, in the folder `families` beside them."""

import json
import os
import shutil

import torch
import transformers

import families
from measure import SHIPPED, VOCABULARY

# Every matrix is of whole blocks of 256, the largest of any layout.
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8,
         "num_key_value_heads": 4, "vocab_size": VOCABULARY, "max_position_embeddings": 512, "bos_token_id": 1,
         "eos_token_id": 2, "pad_token_id": None, "initializer_range": 0.06}
FAMILIES = {
    "qwen2": {"tie_word_embeddings": False},                                     # biases; a head of its own
    "gemma2": {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32,  # four norms, soft caps, windows
               "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    "qwen3_moe": {"tie_word_embeddings": False, "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 256, "decoder_sparse_step": 1, "norm_topk_prob": True, "mlp_only_layers": []},
}


def add_older_names(path):
    """Keys of transformers 4 beside those of 5: what other programs look for."""
    with open(path) as file:
        config = json.load(file)
    decoder = config.get("text_config", config)
    rope = decoder.get("rope_parameters") or {}
    if "rope_theta" in rope:
        decoder["rope_theta"] = rope["rope_theta"]
        decoder.setdefault("rope_scaling", None)
    if "num_local_experts" in config and config["model_type"] != "gpt_oss":
        config["num_experts"] = config["num_local_experts"]
    with open(path, "w") as file:
        json.dump(config, file, indent=2)


def become_decoder(path, other):
    """config.json of a decoder that computes the same, its base of the rotary embedding beside its sections."""
    with open(path) as file:
        config = json.load(file)
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    with open(path, "w") as file:
        json.dump({**config, **other}, file, indent=2)


def scatter(model):
    """Norms and biases, which begin alike; and what decides between experts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=generator)


def make(config, folder):
    torch.manual_seed(1)
    auto = transformers.AutoModelForImageTextToText if hasattr(config, "text_config") else transformers.AutoModelForCausalLM
    model = auto.from_config(config).float()
    scatter(model)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        shutil.copy(os.path.join(SHIPPED, name), folder)


def make_all(folder):
    configs = {name: transformers.AutoConfig.for_model(name, **SHAPE, **settings) for name, settings in FAMILIES.items()}
    for name, (kind, settings) in families.FAMILIES.items():
        configs[os.path.join("families", name)] = transformers.AutoConfig.for_model(
            kind, vocab_size=VOCABULARY, **families.settings(kind, settings))
    for name, (kind, settings) in families.STACKS.items():
        usual = {} if "text_config" in settings else {"vocab_size": VOCABULARY, **families.settings(kind, {})}
        configs[os.path.join("families", name)] = transformers.AutoConfig.for_model(kind, **usual, **settings)
    for name, config in configs.items():
        path = os.path.join(folder, name)
        if not os.path.exists(os.path.join(path, "config.json")):
            make(config, path)
            if name in FAMILIES or os.path.basename(name) in families.STACKS:
                add_older_names(os.path.join(path, "config.json"))
            if os.path.basename(name) in families.DECODERS:
                become_decoder(os.path.join(path, "config.json"), families.DECODERS[os.path.basename(name)])


if __name__ == "__main__":
    import sys
    transformers.logging.set_verbosity_error()
    make_all(sys.argv[1])
