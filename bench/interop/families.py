"""Small random models of the families that GGUF knows, with settings that llama.cpp has and a class does not take by itself.

NAME: (model_type, settings). They have the shipped model's vocabulary and tokenizer, so that ids and texts fit.
"""

import copy

from measure import VOCABULARY

ROPE = {"rope_type": "default", "rope_theta": 50000.0}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
DENSE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, **HEADS, "rope_parameters": ROPE}
MIXED = {**DENSE, "num_experts_per_tok": 2}
LATENT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4,
          "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 24,
          "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 3, "first_k_dense_replace": 1,
          "rope_parameters": ROPE}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32,
        "mscale": 0.7, "mscale_all_dim": 0.7}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 50000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
MIXER = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16}
SINGLE = {"hidden_size": 64, **HEADS, "head_dim": 16, "intermediate_size": 96, "mamba_num_heads": 8, "mamba_head_dim": 16,
          "n_groups": 2, "ssm_state_size": 16}
DELTA = {**DENSE, "head_dim": 16, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
         "linear_key_head_dim": 16, "linear_value_head_dim": 16, "rope_parameters": {
             **ROPE, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1], "mrope_interleaved": True}}
GEMMA4 = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, **HEADS, "head_dim": 16, "sliding_window": 16,
          "vocab_size_per_layer_input": VOCABULARY, "layer_types": ["sliding_attention", "full_attention"] * 2,
          "rope_parameters": {
              "full_attention": {"rope_type": "proportional", "rope_theta": 50000.0, "partial_rotary_factor": 0.5},
              "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}

FAMILIES = {
    "cohere": ("cohere", {**DENSE, "logit_scale": 0.25}),
    "cohere, 64 layers": ("cohere", {**DENSE, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 64,
                                     "use_qk_norm": True, "logit_scale": 0.25}),
    "deepseek_v2": ("deepseek_v2", {**LATENT, "n_shared_experts": 2, "routed_scaling_factor": 1.5,
                                    "topk_method": "greedy", "rope_parameters": YARN}),
    "deepseek_v2, no query latent": ("deepseek_v2", {**LATENT, "q_lora_rank": None, "n_shared_experts": 1,
                                                     "topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", {**LATENT, "n_shared_experts": 1, "n_group": 4, "topk_group": 2,
                                    "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}}),
    "glm4_moe_lite": ("glm4_moe_lite", {**LATENT, "n_shared_experts": 1, "mlp_layer_types": ["dense", "sparse", "sparse"]}),
    "exaone4": ("exaone4", {**DENSE, "sliding_window": None, "layer_types": ["full_attention"] * 3,
                            "rope_parameters": LLAMA3}),
    "exaone4, 64 layers": ("exaone4", {**DENSE, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 64,
                                       "sliding_window": 16, "sliding_window_pattern": 4,
                                       "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 16}),
    "falcon, one key": ("falcon", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": True,
                                   "parallel_attn": True, "bias": False, "activation": "gelu"}),
    "falcon, two norms": ("falcon", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                                     "num_kv_heads": 2, "new_decoder_architecture": True, "bias": False}),
    "gpt_neox": ("gpt_neox", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                              "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}),
    "gpt_neox, in sequence": ("gpt_neox", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                                           "num_attention_heads": 4, "use_parallel_residual": False,
                                           "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25}}),
    "bloom": ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
    "llama4_text": ("llama4_text", {**MIXED, "head_dim": 16, "intermediate_size_mlp": 96, "intermediate_size": 32,
                                    "num_hidden_layers": 4, "num_local_experts": 4, "interleave_moe_layer_step": 2,
                                    "attention_chunk_size": 8192, "rope_parameters": LLAMA3}),
    "ministral3": ("ministral3", {**DENSE, "head_dim": 16, "sliding_window": None, "rope_parameters": {
        **YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 20.0, "beta_slow": 2.0, "llama_4_scaling_beta": 0.2}}),
    "nemotron": ("nemotron", {**DENSE, "hidden_act": "relu2", "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}),
    "olmoe": ("olmoe", {**MIXED, "num_key_value_heads": 4, "intermediate_size": 32, "num_experts": 8}),
    "olmo": ("olmo", {**DENSE, "clip_qkv": 1.5}),
    "olmo3": ("olmo3", {**DENSE, "num_hidden_layers": 4, "sliding_window": 16, "layer_types":
                        ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
                        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}),
    "arcee": ("arcee", {**DENSE, "head_dim": 16}),
    "jais2": ("jais2", {**DENSE, "head_dim": 16}),
    "ernie4_5": ("ernie4_5", {**DENSE, "head_dim": 16}),
    "glm": ("glm", {**DENSE, "head_dim": 16, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}),
    "seed_oss": ("seed_oss", {**DENSE, "head_dim": 24, "attention_bias": True, "attention_out_bias": False}),
    "qwen3_next": ("qwen3_next", {
        **MIXED, "head_dim": 16, "num_hidden_layers": 4, "moe_intermediate_size": 32, "num_experts": 8,
        "shared_expert_intermediate_size": 48, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16, "linear_value_head_dim": 16, "norm_topk_prob": True,
        "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}),
    "granitemoe": ("granitemoe", {**MIXED, "intermediate_size": 32, "num_local_experts": 4, "attention_multiplier": 0.2,
                                  "embedding_multiplier": 2.0, "residual_multiplier": 0.7, "logits_scaling": 3.0}),
    "granitemoeshared": ("granitemoeshared", {**MIXED, "intermediate_size": 32, "num_local_experts": 4,
                                              "shared_intermediate_size": 48, "attention_multiplier": 0.2}),
    "dots1": ("dots1", {**MIXED, "num_key_value_heads": 4, "head_dim": 16, "n_routed_experts": 8, "n_shared_experts": 1,
                        "moe_intermediate_size": 32, "first_k_dense_replace": 1, "norm_topk_prob": True,
                        "routed_scaling_factor": 1.5}),
    "glm4_moe": ("glm4_moe", {**MIXED, "head_dim": 16, "n_routed_experts": 8, "n_shared_experts": 1, "n_group": 4,
                              "topk_group": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
                              "use_qk_norm": True, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}),
    "solar_open": ("solar_open", {**MIXED, "head_dim": 16, "n_routed_experts": 8, "n_shared_experts": 1,
                                  "moe_intermediate_size": 32, "intermediate_size": 96}),
    "exaone_moe": ("exaone_moe", {**MIXED, "head_dim": 16, "num_hidden_layers": 4, "num_experts": 8, "num_shared_experts": 1,
                                  "moe_intermediate_size": 32, "sliding_window": 16, "first_k_dense_replace": 1,
                                  "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}),
    "ernie4_5_moe": ("ernie4_5_moe", {**MIXED, "moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 1,
                                      "moe_intermediate_size": 32, "moe_layer_start_index": 1}),
    "minimax_m2": ("minimax_m2", {**MIXED, "head_dim": 16, "intermediate_size": 32, "num_local_experts": 8}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {**DENSE, "head_dim": 16}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {**DENSE, "head_dim": 16, "intermediate_size": 32, "num_experts": 4, "moe_topk": 2}),
    "mamba": ("mamba", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16}),
    "falcon_mamba": ("falcon_mamba", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16, "intermediate_size": 128,
                                      "mixer_rms_eps": 1e-5}),
    "mamba2": ("mamba2", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16, "num_heads": 8, "head_dim": 16,
                          "n_groups": 1}),
    "mamba2, groups": ("mamba2", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16, "num_heads": 8, "head_dim": 16,
                                  "n_groups": 4}),
    "bamba": ("bamba", {**DENSE, **MIXER, "attn_layer_indices": [1]}),
    "granitemoehybrid": ("granitemoehybrid", {
        **MIXED, **MIXER, "layer_types": ["mamba", "attention", "mamba"], "num_local_experts": 4, "intermediate_size": 32,
        "shared_intermediate_size": 48, "attention_multiplier": 0.2, "embedding_multiplier": 2.0, "residual_multiplier": 0.7,
        "logits_scaling": 3.0}),
    "granitemoehybrid, dense": ("granitemoehybrid", {
        **DENSE, **MIXER, "layer_types": ["mamba", "attention", "mamba"], "num_local_experts": 0,
        "position_embedding_type": "rope", "shared_intermediate_size": 48, "attention_multiplier": 0.2}),
    "granitemoehybrid, attention": ("granitemoehybrid", {
        **DENSE, **MIXER, "layer_types": ["attention"] * 3, "num_local_experts": 0, "position_embedding_type": "rope",
        "shared_intermediate_size": 48, "attention_multiplier": 0.2}),
    "jamba": ("jamba", {"hidden_size": 64, "intermediate_size": 96, **HEADS, "num_experts_per_tok": 2, "num_hidden_layers": 4,
                        "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
                        "expert_layer_offset": 0, "mamba_dt_rank": 4}),
    "nemotron_h": ("nemotron_h", {**SINGLE, "layers_block_type": [
        "linear_attention", "full_attention", "mlp", "linear_attention", "mlp"]}),
    "nemotron_h, experts": ("nemotron_h", {
        **SINGLE, "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"], "n_routed_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 48,
        "moe_latent_size": 32, "routed_scaling_factor": 1.5}),
    "falcon_h1": ("falcon_h1", {
        **DENSE, **MIXER, "head_dim": 16, "mamba_d_ssm": 128, "attention_in_multiplier": 1.2, "attention_out_multiplier": 0.8,
        "embedding_multiplier": 5.7, "key_multiplier": 0.7, "lm_head_multiplier": 0.5, "mlp_multipliers": [1.3, 0.7],
        "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.6, "ssm_multipliers": [0.4, 0.3, 0.5, 0.6, 0.4]}),
    "falcon_h1, tied": ("falcon_h1", {
        **DENSE, **MIXER, "head_dim": 16, "mamba_d_ssm": 128, "embedding_multiplier": 5.7, "lm_head_multiplier": 0.5,
        "mlp_multipliers": [1.3, 0.7], "tie_word_embeddings": True}),
    "falcon_h1, norms": ("falcon_h1", {**DENSE, **MIXER, "head_dim": 16, "mamba_d_ssm": 128, "mamba_rms_norm": True,
                                       "mamba_norm_before_gate": False}),
    "gpt_bigcode": ("gpt_bigcode", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "gpt_bigcode, all keys": ("gpt_bigcode", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 96,
                                              "multi_query": False}),
    "qwen3_5": ("qwen3_5_text", DELTA),
    "qwen3_5, experts": ("qwen3_5_moe_text", {
        **DELTA, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48}),
    "gemma4": ("gemma4_text", {**GEMMA4, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 16,
                               "use_double_wide_mlp": True, "final_logit_softcapping": 20.0,
                               "per_layer_config": {"1": {"head_dim": 32}, "3": {"head_dim": 32}}}),
    "gemma4, values of keys": ("gemma4_text", {
        **GEMMA4, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True,
        "per_layer_config": {l: {"head_dim": 32, "num_key_value_heads": 1} for l in ("1", "3")}}),
    # The norm of lightning attention has this epsilon whatever the key says, but in llama.cpp.
    "minimax": ("minimax", {**MIXED, "rms_norm_eps": 1e-6, "head_dim": 16, "intermediate_size": 32, "num_local_experts": 4,
                            "num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2,
                            "full_attn_alpha_factor": 1.3, "linear_attn_alpha_factor": 1.3, "mlp_alpha_factor": 1.3}),
    "qwen2_5_vl": ("qwen2", {**DENSE}),
    "qwen3_vl": ("qwen3", {**DENSE, "head_dim": 16}),
    "lfm2": ("lfm2", {**DENSE, "layer_types": ["conv", "full_attention", "conv"]}),
    "lfm2_moe": ("lfm2_moe", {**MIXED, "layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1,
                              "num_experts": 4, "moe_intermediate_size": 32}),
}
# Whose experts mlx-lm has in stacks of its own. Widths are of whole groups of 32 and 64.
STACKS = {
    "gpt_oss": ("gpt_oss", {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, **HEADS, "head_dim": 32,
                            "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16, "rope_parameters": ROPE}),
    "llama4": ("llama4", {
        "text_config": {"hidden_size": 128, "intermediate_size": 64, "intermediate_size_mlp": 192, "num_hidden_layers": 4,
                        **HEADS, "head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 1, "rms_norm_eps": 1e-6,
                        "interleave_moe_layer_step": 2, "attention_chunk_size": 8192, "rope_parameters": ROPE,
                        "max_position_embeddings": 512, "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2,
                        "pad_token_id": None, "initializer_range": 0.08},
        "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "image_size": 28, "patch_size": 14, "projector_input_dim": 32, "projector_output_dim": 32,
                          "vision_output_dim": 32}}),
}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "initializer_range": 0.08}
WITHOUT_CONTEXT = {"bloom", "mpt", "mamba", "falcon_mamba", "mamba2", "gpt_bigcode"}
# Decoders that no class of a language model has by itself: what the class of the same function is made of, and what
# config.json says in its place. (llama.cpp's qwen2vl has no epsilon, whatever its key says.)
DECODERS = {
    "qwen2_5_vl": {"model_type": "qwen2_5_vl_text", "rms_norm_eps": 1e-12,
                   "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]}},
    "qwen3_vl": {"model_type": "qwen3_vl_text", "rope_scaling": {"rope_type": "default", "mrope_section": [3, 3, 2]}},
}
GELU = ("bloom", "falcon, one key", "falcon, two norms", "gpt_neox", "gpt_neox, in sequence", "mpt", "gpt_bigcode",
        "gpt_bigcode, all keys")
GEMMA4_MODELS = ("gemma4", "gemma4, values of keys")


def settings(kind, own):
    """All that a configuration is made of; a copy, since classes change what they are given."""
    own = copy.deepcopy(own)
    return {**ENDS, **({} if kind in WITHOUT_CONTEXT else {"max_position_embeddings": 512}), **own}
