#!/usr/bin/env python3
"""Makes goldens/NAME: tiny random checkpoints and the logits that transformers
computes from them, for families_test.

    make_goldens.py [NAME...]      all rows, or those named; needs torch and
                                   transformers 5.24

A row is the family's model_type, the keys of its configuration, and what is
changed in the written config.json afterwards (old spellings; None removes a
key), and of the beginnings of tensors' names. The logits are computed from the folder as it then is. Weights are large
and norms far from 1, so that a part left out shows in the logits.
"""
import json
import pathlib
import sys
import tempfile
import zlib

import torch
import transformers
from safetensors.torch import load_file, save_file

TOKENS = 24
LARGEST_FOLDER = 40_000  # bytes
COMMON = dict(vocab_size=40, bos_token_id=1, eos_token_id=2, pad_token_id=0)
# hidden_size and so on in the names that most families use.
SIZES = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=16,
              rope_theta=100.0)
DEFAULT_ROPE = dict(rope_type="default", rope_theta=100.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8,
            rope_theta=100.0)
LATENT = dict(SIZES, num_key_value_heads=4, kv_lora_rank=10, q_lora_rank=12,
              qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=7,
              moe_intermediate_size=6, n_routed_experts=6, n_group=3,
              topk_group=2, num_experts_per_tok=2, first_k_dense_replace=1,
              routed_scaling_factor=1.7)

LATENT_ALL = {key: value for key, value in LATENT.items()
              if key != "first_k_dense_replace"}

# Written with the names that the tensors have in memory: experts in stacks.
AS_IN_MEMORY = {"mixtral_2", "phimoe_2", "qwen3_moe_2"}
# Written in float32: their checkpoints hold tables that bfloat16 would round.
IN_FLOAT32 = {"minimax"}
# Written with stacks of experts in MXFP4, as gpt-oss is published.
IN_MXFP4 = {"gpt_oss_mxfp4"}

LAYERS3 = dict(SIZES, num_hidden_layers=3)
MIXED3 = ["sliding_attention", "full_attention", "sliding_attention"]
GPT2 = dict(n_embd=16, n_layer=2, n_head=4, n_positions=32, n_inner=20)
GEMMA4 = dict(
    SIZES, num_hidden_layers=4, head_dim=4, global_head_dim=8,
    sliding_window=5, vocab_size_per_layer_input=40,
    layer_types=["sliding_attention", "full_attention"] * 2,
    rope_parameters=dict(
        full_attention=dict(rope_type="proportional", rope_theta=100.0,
                            partial_rotary_factor=0.5),
        sliding_attention=dict(rope_type="default", rope_theta=50.0)))
VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
              num_attention_heads=2, image_size=28, patch_size=14)
QWEN_VISION = dict(depth=1, hidden_size=8, embed_dim=8, num_heads=2,
                   intermediate_size=8, out_hidden_size=16, patch_size=2)
MROPE = dict(rope_type="default", rope_theta=100.0, mrope_section=[2, 1, 1])
LONG = dict(short_factor=[1.0, 1.5], long_factor=[2.0, 3.0])

ROWS = {
    "llama": ("llama", dict(SIZES, head_dim=6, attention_bias=True,
                            mlp_bias=True, rms_norm_eps=1e-3,
                            rope_parameters=LLAMA3), {}),
    "llama_2": ("llama", SIZES, dict(
        rope_parameters=None, rope_theta=50.0, torch_dtype="float32",
        rope_scaling=dict(type="linear", factor=2.0))),
    "mistral": ("mistral", dict(SIZES, sliding_window=5), {}),
    "ministral3": ("ministral3", dict(
        SIZES, head_dim=6, sliding_window=9, rope_parameters=dict(
            YARN, mscale=1.0, mscale_all_dim=0.5, llama_4_scaling_beta=0.5,
            original_max_position_embeddings=8)), {}),
    "qwen2": ("qwen2", dict(LAYERS3, sliding_window=6, use_sliding_window=True,
                            max_window_layers=1), {}),
    "qwen3": ("qwen3", dict(SIZES, head_dim=10, attention_bias=True,
                            tie_word_embeddings=True), {}),
    "mixtral": ("mixtral", dict(SIZES, head_dim=6, num_local_experts=3,
                                sliding_window=6), {}),
    "mixtral_2": ("mixtral", dict(SIZES, num_local_experts=3), dict(
        rope_parameters=None, rope_theta=50.0)),
    "phimoe": ("phimoe", dict(
        SIZES, num_local_experts=4, attention_bias=True, lm_head_bias=True,
        router_jitter_noise=0.2, sliding_window=9, rope_parameters=dict(
            rope_type="longrope", rope_theta=100.0, short_factor=[1.5, 2.0],
            long_factor=[3.0, 4.0], short_mscale=1.2, long_mscale=1.2,
            original_max_position_embeddings=8)), {}),
    "phimoe_2": ("phimoe", dict(SIZES, num_local_experts=3), {}),
    "qwen2_moe": ("qwen2_moe", dict(
        SIZES, num_hidden_layers=4, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=6, shared_expert_intermediate_size=9,
        decoder_sparse_step=2, norm_topk_prob=True, use_sliding_window=True,
        sliding_window=5, max_window_layers=2), dict(layer_types=None)),
    "qwen2_moe_2": ("qwen2_moe", dict(
        SIZES, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=6,
        shared_expert_intermediate_size=9, qkv_bias=False,
        mlp_only_layers=[0]), {}),
    "qwen3_moe": ("qwen3_moe", dict(
        SIZES, head_dim=10, num_local_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=6, attention_bias=True, use_sliding_window=True,
        sliding_window=7, tie_word_embeddings=True), dict(
            num_experts=4, num_local_experts=None)),
    "qwen3_moe_2": ("qwen3_moe", dict(
        SIZES, head_dim=4, num_local_experts=5, num_experts_per_tok=3,
        moe_intermediate_size=8, norm_topk_prob=True), {}),
    "olmoe": ("olmoe", dict(SIZES, num_experts=3, num_experts_per_tok=2,
                            clip_qkv=0.7, attention_bias=True,
                            norm_topk_prob=True), {}),
    "glm4_moe": ("glm4_moe", dict(
        SIZES, num_hidden_layers=3, head_dim=8, use_qk_norm=True,
        attention_bias=True, moe_intermediate_size=6, n_routed_experts=6,
        n_group=3, topk_group=2, num_experts_per_tok=2, n_shared_experts=2,
        routed_scaling_factor=1.7), dict(rope_parameters=None,
                                           rope_theta=100.0)),
    "deepseek_v2": ("deepseek_v2", dict(
        LATENT, topk_method="group_limited_greedy", attention_bias=True,
        mlp_bias=True, rope_parameters=dict(YARN, mscale=0.7,
                                            mscale_all_dim=1.5)), {}),
    "deepseek_v3": ("deepseek_v3", dict(
        LATENT, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0)),
        dict(topk_method="noaux_tc", scoring_func="sigmoid",
             moe_layer_freq=1)),
    "deepseek_v3_2": ("deepseek_v3", dict(
        LATENT, q_lora_rank=None, rope_interleave=False, attention_bias=True,
        norm_topk_prob=False, n_shared_experts=2), {}),
    "gpt_oss": ("gpt_oss", dict(
        SIZES, num_hidden_layers=3, head_dim=6, num_local_experts=4,
        num_experts_per_tok=2, intermediate_size=9, sliding_window=5,
        swiglu_limit=0.8, swiglu_alpha=1.3,
        rope_parameters=dict(YARN, truncate=False)), {}),
    "gpt_oss_2": ("gpt_oss", dict(
        SIZES, num_local_experts=3, num_experts_per_tok=2, head_dim=8,
        intermediate_size=8, attention_bias=False), dict(
            rope_parameters=None, rope_theta=100.0, layer_types=None)),
    "gpt_oss_mxfp4": ("gpt_oss", dict(
        SIZES, hidden_size=32, num_local_experts=3, num_experts_per_tok=2,
        head_dim=8, intermediate_size=32), dict(
            quantization_config=dict(
                quant_method="mxfp4",
                modules_to_not_convert=["model.layers.*.self_attn",
                                        "model.layers.*.mlp.router",
                                        "model.embed_tokens", "lm_head"]))),
    "llama4_text": ("llama4_text", dict(
        SIZES, num_hidden_layers=4, head_dim=6, num_local_experts=3,
        num_experts_per_tok=2, intermediate_size=8, intermediate_size_mlp=20,
        interleave_moe_layer_step=2, no_rope_layers=[1, 0, 1, 1],
        attention_chunk_size=7, floor_scale=4, attn_scale=0.3,
        attention_bias=True, rope_parameters=dict(
            LLAMA3, low_freq_factor=1.0, high_freq_factor=1.0)), {}),
    "llama4_text_2": ("llama4_text", dict(
        SIZES, head_dim=4, num_local_experts=2, intermediate_size=8,
        use_qk_norm=False,
        intermediate_size_mlp=20, attn_temperature_tuning=False,
        no_rope_layer_interval=2), dict(no_rope_layers=[], layer_types=None,
                                        moe_layers=None)),
    "qwen3_2": ("qwen3", dict(SIZES, head_dim=8), dict(
        rope_parameters=None, rope_theta=100.0,
        original_max_position_embeddings=64,
        rope_scaling=dict(type="yarn", factor=4.0,
                          original_max_position_embeddings=8))),
    "gemma": ("gemma", dict(SIZES, head_dim=6, attention_bias=True), dict(
        hidden_act="gelu", rope_parameters=None, rope_theta=100.0)),
    "gemma2": ("gemma2", dict(
        LAYERS3, head_dim=6, sliding_window=5, attn_logit_softcapping=2.0,
        final_logit_softcapping=1.5, query_pre_attn_scalar=9), {}),
    "gemma3_text": ("gemma3_text", dict(
        LAYERS3, head_dim=6, sliding_window=5, layer_types=MIXED3,
        query_pre_attn_scalar=9, final_logit_softcapping=2.0,
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=2.0,
                                rope_theta=200.0),
            sliding_attention=dict(rope_type="default", rope_theta=50.0))),
                    {}),
    "gemma3_text_2": ("gemma3_text", dict(LAYERS3, head_dim=6,
                                          sliding_window=5), dict(
        layer_types=None, sliding_window_pattern=2, rope_parameters=None,
        rope_theta=300.0, rope_local_base_freq=20.0,
        rope_scaling=dict(rope_type="linear", factor=4.0))),
    "gemma4_text": ("gemma4_text", dict(
        GEMMA4, hidden_size_per_layer_input=4, num_kv_shared_layers=2,
        use_double_wide_mlp=True), {}),
    "gemma4_text_2": ("gemma4_text", dict(
        GEMMA4, hidden_size_per_layer_input=0, attention_k_eq_v=True,
        num_global_key_value_heads=1, attention_bias=True,
        final_logit_softcapping=2.0), {}),
    "phi": ("phi", dict(SIZES, qk_layernorm=True), {}),
    "phi3": ("phi3", dict(
        SIZES, num_attention_heads=2, num_key_value_heads=1, sliding_window=9,
        rope_parameters=dict(LONG, rope_type="longrope", rope_theta=100.0,
                             partial_rotary_factor=0.5),
        original_max_position_embeddings=8), {}),
    "phi3_2": ("phi3", dict(SIZES, original_max_position_embeddings=32), dict(
        rope_parameters=None, rope_theta=100.0,
        rope_scaling=dict(LONG, type="longrope"))),
    "gpt2": ("gpt2", dict(GPT2, scale_attn_by_inverse_layer_idx=True), {}),
    "gpt2_2": ("gpt2", dict(GPT2, n_inner=None, tie_word_embeddings=False),
               dict(n_ctx=32), {"transformer.": ""}),
    "gptj": ("gptj", dict(GPT2, n_head=2, rotary_dim=4), dict(rotary=True)),
    "gpt_neox": ("gpt_neox", dict(SIZES, num_attention_heads=2), {}),
    "gpt_neox_2": ("gpt_neox", dict(
        SIZES, num_attention_heads=2, use_parallel_residual=False,
        attention_bias=False), dict(
        rope_parameters=None, rotary_pct=0.5, rotary_emb_base=50)),
    "opt": ("opt", dict(SIZES, ffn_dim=20), {}),
    "opt_2": ("opt", dict(SIZES, ffn_dim=20, do_layer_norm_before=False,
                          word_embed_proj_dim=8), {}),
    "bloom": ("bloom", dict(hidden_size=18, n_layer=2, n_head=3), {}),
    "bloom_2": ("bloom", dict(
        hidden_size=16, n_layer=2, n_head=4, tie_word_embeddings=False,
        apply_residual_connection_post_layernorm=True), dict(
            hidden_size=None, n_embed=16), {"transformer.": ""}),
    "falcon": ("falcon", dict(SIZES, num_kv_heads=2, ffn_hidden_size=20,
                              new_decoder_architecture=True, bias=True), {}),
    "falcon_2": ("falcon", dict(SIZES, ffn_hidden_size=20,
                                tie_word_embeddings=False), {}),
    "falcon_3": ("falcon", dict(SIZES, ffn_hidden_size=20, multi_query=False,
                                parallel_attn=False), {}),
    "falcon_4": ("falcon", dict(SIZES, num_kv_heads=4, ffn_hidden_size=20,
                                new_decoder_architecture=True,
                                num_ln_in_parallel_attn=1), {}),
    "stablelm": ("stablelm", dict(
        SIZES, num_attention_heads=2, num_key_value_heads=1, qk_layernorm=True,
        use_parallel_residual=True, use_qkv_bias=True), {}),
    "stablelm_2": ("stablelm", dict(SIZES, num_attention_heads=2), dict(
        rope_parameters=None, rope_theta=100.0, partial_rotary_factor=0.5)),
    "olmo2": ("olmo2", dict(SIZES, attention_bias=True), {}),
    "olmo3": ("olmo3", dict(LAYERS3, layer_types=MIXED3, sliding_window=5,
                            attention_bias=True), {}),
    "olmo3_2": ("olmo3", dict(LAYERS3, layer_types=MIXED3, sliding_window=5),
                dict(rope_parameters=None, rope_theta=300.0,
                     rope_scaling=dict(
                         rope_type="yarn", factor=4.0, attention_factor=1.5,
                         original_max_position_embeddings=16))),
    "granite": ("granite", dict(
        SIZES, attention_bias=True, mlp_bias=True, embedding_multiplier=3.0,
        logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.3),
                {}),
    "cohere2": ("cohere2", dict(LAYERS3, sliding_window=5, attention_bias=True,
                                logit_scale=0.5), dict(
        layer_types=None, sliding_window_pattern=2)),
    "starcoder2": ("starcoder2", dict(SIZES, sliding_window=5), {}),
    "glm": ("glm", dict(SIZES, head_dim=8), {}),
    "glm4": ("glm4", dict(SIZES, head_dim=8), {}),
    "smollm3": ("smollm3", dict(
        LAYERS3, no_rope_layers=[1, 0, 1], use_sliding_window=True,
        sliding_window=5, mlp_bias=True, attention_bias=True), {}),
    "exaone4": ("exaone4", dict(LAYERS3, sliding_window=5, head_dim=6),
                dict(layer_types=None, sliding_window_pattern=2)),
    "exaone4_2": ("exaone4", dict(SIZES, sliding_window=None,
                                  layer_types=["full_attention"] * 2), {}),
    "cohere": ("cohere", dict(
        SIZES, head_dim=6, use_qk_norm=True, attention_bias=True,
        logit_scale=0.5, layer_norm_eps=1e-3, tie_word_embeddings=False), {}),
    "cohere_2": ("cohere", SIZES, dict(
        rope_parameters=None, rope_theta=100.0,
        rope_scaling=dict(type="linear", factor=2.0))),
    "olmo": ("olmo", dict(SIZES, head_dim=6, clip_qkv=0.7,
                          attention_bias=True), {}),
    "olmo_2": ("olmo", dict(SIZES, tie_word_embeddings=True), {}),
    "nemotron": ("nemotron", dict(
        SIZES, head_dim=8, attention_bias=True, mlp_bias=True,
        norm_eps=1e-3), {}),
    "nemotron_2": ("nemotron", dict(SIZES, head_dim=8, hidden_act="gelu"),
                   dict(rope_parameters=None, rope_theta=100.0,
                        partial_rotary_factor=0.25)),
    "arcee": ("arcee", dict(
        SIZES, head_dim=6, attention_bias=True, mlp_bias=True,
        rms_norm_eps=1e-3, rope_parameters=dict(YARN)), {}),
    "jais2": ("jais2", dict(SIZES, head_dim=6, layer_norm_eps=1e-3,
                            rope_parameters=LLAMA3), {}),
    "jais2_2": ("jais2", dict(SIZES, attention_bias=False, mlp_bias=False,
                              tie_word_embeddings=True), {}),
    "seed_oss": ("seed_oss", dict(
        SIZES, head_dim=6, attention_out_bias=True, mlp_bias=True,
        rms_norm_eps=1e-3), {}),
    "seed_oss_2": ("seed_oss", dict(SIZES, head_dim=None,
                                    attention_bias=False,
                                    tie_word_embeddings=True), {}),
    "ernie4_5": ("ernie4_5", dict(
        SIZES, head_dim=6, use_bias=True, rms_norm_eps=1e-3), {}),
    "ernie4_5_2": ("ernie4_5", dict(SIZES, head_dim=None,
                                    tie_word_embeddings=False), {}),
    "helium": ("helium", dict(
        SIZES, head_dim=4, attention_bias=True, mlp_bias=True,
        rms_norm_eps=1e-3, tie_word_embeddings=True), {}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", dict(
        SIZES, head_dim=6, attention_bias=True, rms_norm_eps=1e-3,
        tie_word_embeddings=True), {}),
    "hunyuan_v1_dense_2": ("hunyuan_v1_dense", dict(SIZES, head_dim=4), dict(
        rope_parameters=None, rope_theta=100.0, use_qk_norm=True,
        rope_scaling=dict(type="dynamic", alpha=50.0, factor=1.0,
                          beta_fast=32, beta_slow=1))),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", dict(
        SIZES, intermediate_size=7, head_dim=6, num_experts=4,
        moe_topk=[1, 3], attention_bias=True), {}),
    "hunyuan_v1_moe_2": ("hunyuan_v1_moe", dict(
        SIZES, intermediate_size=7, head_dim=4, num_experts=3, moe_topk=2,
        tie_word_embeddings=True), dict(
            num_shared_expert=[1, 1], moe_intermediate_size=[7, 7],
            rope_parameters=None, rope_theta=100.0,
            rope_scaling=dict(type="dynamic", alpha=50.0, factor=1.0))),
    "granitemoe": ("granitemoe", dict(
        SIZES, intermediate_size=7, num_local_experts=4,
        num_experts_per_tok=3, attention_bias=True, embedding_multiplier=2.0,
        logits_scaling=3.0, residual_multiplier=0.7, attention_multiplier=0.4,
        rms_norm_eps=1e-3), {}),
    "granitemoeshared": ("granitemoeshared", dict(
        SIZES, intermediate_size=7, num_local_experts=3,
        shared_intermediate_size=9, embedding_multiplier=2.0,
        logits_scaling=3.0, residual_multiplier=0.7, attention_multiplier=0.4,
        tie_word_embeddings=True), {}),
    "granitemoeshared_2": ("granitemoeshared", dict(
        SIZES, intermediate_size=7, num_local_experts=3), {}),
    "dots1": ("dots1", dict(
        LAYERS3, head_dim=6, attention_bias=True, moe_intermediate_size=6,
        n_routed_experts=6, n_group=3, topk_group=2, num_experts_per_tok=2,
        n_shared_experts=2, first_k_dense_replace=1, max_window_layers=2,
        sliding_window=5, routed_scaling_factor=1.7, norm_topk_prob=True),
              dict(layer_types=None, scoring_func="noaux_tc")),
    "dots1_2": ("dots1", dict(
        SIZES, moe_intermediate_size=6, n_routed_experts=4,
        num_experts_per_tok=2, n_shared_experts=1,
        layer_types=["full_attention"] * 2, sliding_window=None), {}),
    "exaone_moe": ("exaone_moe", dict(
        LAYERS3, head_dim=6, moe_intermediate_size=6, num_experts=6,
        n_group=3, topk_group=2, num_experts_per_tok=2, num_shared_experts=2,
        sliding_window=5, sliding_window_pattern=3,
        mlp_layer_types=["sparse", "dense", "sparse"]), dict(
            layer_types=None)),
    "exaone_moe_2": ("exaone_moe", dict(
        SIZES, head_dim=4, moe_intermediate_size=6, num_experts=4,
        num_experts_per_tok=2, norm_topk_prob=False, routed_scaling_factor=1.5,
        layer_types=["full_attention", "sliding_attention"],
        sliding_window=7), dict(mlp_layer_types=None)),
    "solar_open": ("solar_open", dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, head_dim=6,
        attention_bias=True, moe_intermediate_size=6, n_routed_experts=6,
        n_group=3, topk_group=2, num_experts_per_tok=2, n_shared_experts=2,
        routed_scaling_factor=1.7), {}),
    "ernie4_5_moe": ("ernie4_5_moe", dict(
        SIZES, num_hidden_layers=4, use_bias=True, moe_intermediate_size=6,
        moe_num_experts=4, moe_k=2, moe_num_shared_experts=2,
        moe_layer_start_index=1, moe_layer_end_index=2,
        tie_word_embeddings=False), {}),
    "ernie4_5_moe_2": ("ernie4_5_moe", dict(
        SIZES, moe_intermediate_size=6, moe_num_experts=3, moe_k=2,
        moe_num_shared_experts=0, moe_layer_interval=2,
        moe_layer_start_index=0), {}),
    "minimax_m2": ("minimax_m2", dict(
        SIZES, intermediate_size=7, head_dim=8, num_local_experts=4,
        num_experts_per_tok=2), dict(
            rope_parameters=None, rope_theta=100.0, rotary_dim=4)),
    "lfm2_moe": ("lfm2_moe", dict(
        LAYERS3, conv_bias=True, conv_L_cache=4, moe_intermediate_size=6,
        num_experts=4, num_experts_per_tok=2, num_dense_layers=1,
        routed_scaling_factor=1.7, norm_eps=1e-3,
        layer_types=["conv", "full_attention", "conv"]), {}),
    "lfm2_moe_2": ("lfm2_moe", dict(
        SIZES, moe_intermediate_size=6, num_experts=3, num_experts_per_tok=2,
        num_dense_layers=0, use_expert_bias=False, norm_topk_prob=False,
        layer_types=["full_attention", "conv"], tie_word_embeddings=False),
        dict(tie_embedding=False, tie_word_embeddings=True)),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, head_dim=8,
        attention_bias=True, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=5, linear_value_head_dim=6,
        linear_conv_kernel_dim=3, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=6, shared_expert_intermediate_size=9,
        layer_types=["linear_attention", "full_attention"]), {}),
    "flex_olmo": ("flex_olmo", dict(
        SIZES, intermediate_size=7, num_experts=4, num_experts_per_tok=2,
        attention_bias=True, norm_topk_prob=True, rms_norm_eps=1e-3), {}),
    "flex_olmo_2": ("flex_olmo", dict(
        SIZES, intermediate_size=7, num_experts=3, num_experts_per_tok=2,
        tie_word_embeddings=True), {}),
    "gpt_bigcode": ("gpt_bigcode", dict(GPT2, tie_word_embeddings=False), {}),
    "gpt_bigcode_2": ("gpt_bigcode", dict(
        GPT2, n_inner=None, multi_query=False, scale_attn_weights=False,
        layer_norm_epsilon=1e-3), {}, {"transformer.": ""}),
    "mpt": ("mpt", dict(d_model=18, n_heads=3, n_layers=2, max_seq_len=64), {}),
    "mpt_2": ("mpt", dict(
        d_model=16, n_heads=4, n_layers=2, max_seq_len=64,
        tie_word_embeddings=False, layer_norm_epsilon=1e-3,
        attn_config=dict(clip_qkv=0.7, softmax_scale=0.3)), {}),
    "codegen": ("codegen", dict(GPT2, n_head=8, rotary_dim=2, n_embd=32), {}),
    "codegen_2": ("codegen", dict(GPT2, n_head=2, rotary_dim=4, n_inner=None),
                  dict(scale_attn_weights=True)),
    "vaultgemma": ("vaultgemma", dict(
        LAYERS3, head_dim=6, sliding_window=5, attn_logit_softcapping=2.0,
        final_logit_softcapping=1.5, query_pre_attn_scalar=9,
        attention_bias=True), {}),
    "exaone": ("exaone", dict(SIZES, head_dim=6, attention_bias=True,
                              mlp_bias=True, rms_norm_eps=1e-3,
                              rope_parameters=LLAMA3), {}),
    "exaone_2": ("exaone", dict(SIZES, tie_word_embeddings=True), dict(
        num_hidden_layers=None, num_layers=2, rms_norm_eps=None,
        layer_norm_epsilon=1e-3, hidden_act=None, activation_function="gelu",
        rope_parameters=None, rope_theta=100.0)),
    "persimmon": ("persimmon", dict(
        SIZES, num_attention_heads=2, layer_norm_eps=1e-3), {}),
    "persimmon_2": ("persimmon", dict(
        SIZES, num_attention_heads=2, qk_layernorm=False,
        tie_word_embeddings=True), dict(
            rope_parameters=None, rope_theta=100.0, partial_rotary_factor=0.25)),
    "cwm": ("cwm", dict(
        LAYERS3, head_dim=6, sliding_window=5, mlp_bias=True,
        rms_norm_eps=1e-3, rope_parameters=LLAMA3), dict(layer_types=None)),
    "ministral": ("ministral", dict(
        LAYERS3, head_dim=6, layer_types=MIXED3, sliding_window=5), {}),
    "ministral_2": ("ministral", dict(
        SIZES, head_dim=4, sliding_window=7, tie_word_embeddings=True), dict(
            layer_types=None, rope_parameters=None, rope_theta=100.0)),
    "glm4_moe_lite": ("glm4_moe_lite", dict(
        LATENT_ALL, num_hidden_layers=3, moe_intermediate_size=5,
        attention_bias=True, n_shared_experts=2,
        mlp_layer_types=["sparse", "dense", "sparse"],
        rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0)), {}),
    "glm4_moe_lite_2": ("glm4_moe_lite", dict(
        LATENT_ALL, q_lora_rank=None,
        rope_interleave=False, norm_topk_prob=False, rms_norm_eps=1e-3,
        tie_word_embeddings=True), dict(mlp_layer_types=None,
                                        first_k_dense_replace=1)),
    "gpt_neo": ("gpt_neo", dict(
        hidden_size=16, num_layers=4, num_heads=4, intermediate_size=20,
        window_size=5, max_position_embeddings=32,
        attention_types=[[["global", "local"], 1], [["local"], 2]],
        layer_norm_epsilon=1e-3, tie_word_embeddings=False), {}),
    "mamba": ("mamba", dict(
        hidden_size=16, num_hidden_layers=2, state_size=5, expand=2,
        conv_kernel=3, use_bias=True, time_step_rank=3,
        layer_norm_epsilon=1e-3, tie_word_embeddings=False), {}),
    "mamba_2": ("mamba", dict(
        hidden_size=20, num_hidden_layers=2, state_size=5, expand=1,
        use_conv_bias=False), dict(time_step_rank="auto",
                                   intermediate_size=None)),
    "falcon_mamba": ("falcon_mamba", dict(
        hidden_size=16, num_hidden_layers=2, state_size=5, expand=2,
        conv_kernel=3, use_bias=True, mixer_rms_eps=1e-2), dict(expand=16)),
    "bamba": ("bamba", dict(
        LAYERS3, attn_layer_indices=[1], mamba_n_heads=4, mamba_n_groups=2,
        mamba_d_state=5, mamba_d_conv=3, mamba_chunk_size=8,
        mamba_proj_bias=True, attention_bias=True, mlp_bias=True,
        time_step_limit=[0.7, 1.6], rms_norm_eps=1e-3), {}),
    "bamba_2": ("bamba", dict(
        SIZES, attn_layer_indices=[0], mamba_n_heads=4, mamba_n_groups=1,
        mamba_d_state=5, mamba_chunk_size=8, mamba_conv_bias=False,
        tie_word_embeddings=True), dict(
            rope_parameters=None, rope_theta=100.0, attn_rotary_emb=2,
            mamba_d_head="auto", z_loss_coefficient=1e-4)),
    # Decoders inside of vision-language models.
    "gemma3": ("gemma3", dict(
        text_config=dict(COMMON, **LAYERS3, sliding_window=5, head_dim=4),
        vision_config=VISION, mm_tokens_per_image=4), {}),
    "mistral3": ("mistral3", dict(
        text_config=dict(COMMON, **SIZES, model_type="mistral",
                         sliding_window=None),
        vision_config=dict(VISION, model_type="pixtral"),
        tie_word_embeddings=False), {}, {
            "lm_head.": "language_model.lm_head.",
            "model.language_model.": "language_model.model."}),
    "qwen2_5_vl": ("qwen2_5_vl", dict(
        text_config=dict(COMMON, **SIZES, head_dim=4, rope_parameters=dict(
            MROPE, mrope_section=[1, 1, 0])),
        vision_config=QWEN_VISION), {}),
    "qwen3_vl": ("qwen3_vl", dict(
        text_config=dict(COMMON, **SIZES, head_dim=8, rope_parameters=MROPE),
        vision_config=dict(QWEN_VISION, deepstack_visual_indexes=[0],
                           num_position_embeddings=4)), {}),
    "lfm2": ("lfm2", dict(
        SIZES, num_hidden_layers=3, conv_bias=True, conv_L_cache=4,
        block_auto_adjust_ff_dim=False,
        layer_types=["conv", "full_attention", "conv"]), {}),
    "mamba2": ("mamba2", dict(
        hidden_size=16, num_hidden_layers=2, num_heads=4, head_dim=8,
        n_groups=2, state_size=6, conv_kernel=3, use_bias=True, expand=2,
        chunk_size=8, time_step_limit=[0.7, 1.6]), {}),
    "falcon_h1": ("falcon_h1", dict(
        SIZES, head_dim=6, mamba_d_ssm=24, mamba_n_heads=4, mamba_d_head=6,
        mamba_n_groups=2, mamba_d_state=5, mamba_d_conv=3, mamba_chunk_size=8,
        mamba_proj_bias=True, projectors_bias=True, attention_bias=True,
        mlp_bias=True, time_step_limit=[0.7, 1.6], key_multiplier=0.7,
        attention_in_multiplier=1.2, attention_out_multiplier=0.8,
        ssm_in_multiplier=1.3, ssm_out_multiplier=0.6,
        ssm_multipliers=[0.9, 1.1, 0.8, 1.2, 1.4], mlp_multipliers=[1.3, 0.7],
        embedding_multiplier=1.7, lm_head_multiplier=0.5), {}),
    "falcon_h1_2": ("falcon_h1", dict(
        SIZES, mamba_d_ssm=None, mamba_n_heads=4, mamba_n_groups=2,
        mamba_d_state=5, mamba_chunk_size=8, mamba_rms_norm=True,
        mamba_norm_before_gate=True, mamba_conv_bias=False,
        ssm_in_multiplier=1.3), dict(mamba_d_head="auto")),
    "falcon_h1_3": ("falcon_h1", dict(
        SIZES, mamba_d_ssm=24, mamba_n_heads=4, mamba_n_groups=2,
        mamba_d_state=5, mamba_chunk_size=8, mamba_rms_norm=True,
        mamba_norm_before_gate=False), {}),
    "nemotron_h": ("nemotron_h", dict(
        hidden_size=16, layers_block_type=[
            "linear_attention", "full_attention", "mlp", "moe"],
        intermediate_size=20, num_attention_heads=4, num_key_value_heads=2,
        head_dim=6, mamba_num_heads=4, mamba_head_dim=6, n_groups=2,
        ssm_state_size=5, conv_kernel=3, chunk_size=8, use_bias=True,
        mlp_bias=True, time_step_min=0.9, n_routed_experts=4, n_group=2,
        topk_group=1, moe_intermediate_size=7, moe_latent_size=10,
        moe_shared_expert_intermediate_size=9, routed_scaling_factor=1.5,
        max_position_embeddings=64), {}),
    "nemotron_h_2": ("nemotron_h", dict(
        hidden_size=16, layers_block_type=["linear_attention", "moe"],
        intermediate_size=20, num_attention_heads=4, num_key_value_heads=2,
        head_dim=6, mamba_num_heads=4, mamba_head_dim=6, n_groups=2,
        ssm_state_size=5, chunk_size=8, n_routed_experts=4,
        moe_intermediate_size=7, moe_shared_expert_intermediate_size=9,
        norm_topk_prob=False), dict(
            layers_block_type=None, hybrid_override_pattern="ME")),
    "qwen3_next": ("qwen3_next", dict(
        SIZES, head_dim=8, attention_bias=True, linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=5,
        linear_value_head_dim=6, linear_conv_kernel_dim=3,
        layer_types=["linear_attention", "full_attention"], num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=6,
        shared_expert_intermediate_size=9, mlp_only_layers=[1]), {}),
    "qwen3_5_text": ("qwen3_5_text", dict(
        SIZES, head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=5, linear_value_head_dim=6,
        layer_types=["linear_attention", "full_attention"],
        tie_word_embeddings=True), dict(
            layer_types=None, full_attention_interval=2,
            partial_rotary_factor=0.5, rope_theta=100.0,
            rope_parameters=None)),
    "granitemoehybrid": ("granitemoehybrid", dict(
        SIZES, layer_types=["linear_attention", "full_attention"],
        mamba_n_heads=4, mamba_n_groups=2, mamba_d_state=5, mamba_d_conv=3,
        mamba_chunk_size=8, mamba_proj_bias=True, num_local_experts=3,
        shared_intermediate_size=9, embedding_multiplier=2.0,
        logits_scaling=3.0, residual_multiplier=0.7,
        attention_multiplier=0.4, time_step_limit=[0.7, 1.6]),
        dict(layer_types=["mamba", "attention"])),
    "granitemoehybrid_2": ("granitemoehybrid", dict(
        SIZES, layer_types=["linear_attention", "full_attention"],
        mamba_n_heads=4, mamba_n_groups=2, mamba_d_state=5,
        mamba_chunk_size=8, num_local_experts=0, shared_intermediate_size=20,
        attention_bias=True, position_embedding_type="rope",
        rope_parameters=DEFAULT_ROPE), {}),
    "jamba": ("jamba", dict(
        SIZES, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=0, num_experts=3, mamba_d_state=5, mamba_d_conv=3,
        mamba_dt_rank=3, mamba_proj_bias=True), {}),
    "jamba_2": ("jamba", dict(
        SIZES, attn_layer_period=2, attn_layer_offset=1, num_experts=1,
        mamba_d_state=5, mamba_conv_bias=False), dict(mamba_dt_rank="auto")),
    "recurrent_gemma": ("recurrent_gemma", dict(
        hidden_size=16, intermediate_size=20, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, lru_width=12,
        attention_window_size=5, conv1d_width=3, attention_bias=True,
        logits_soft_cap=3.0, block_types=["recurrent", "attention"]), {}),
    "minimax": ("minimax", dict(
        SIZES, intermediate_size=7, head_dim=6, num_local_experts=3, block_size=8,
        layer_types=["linear_attention", "full_attention"], sliding_window=5,
        linear_attn_alpha_factor=1.3, linear_attn_beta_factor=0.7,
        full_attn_alpha_factor=0.9, full_attn_beta_factor=1.2,
        mlp_alpha_factor=1.1, mlp_beta_factor=0.6), {}),
    "rwkv": ("rwkv", dict(
        hidden_size=16, attention_hidden_size=20, intermediate_size=24,
        num_hidden_layers=4, rescale_every=2, layer_norm_epsilon=0.1), {}),
}


def randomize(model, generator):
    """Matrices of std 0.3; vectors as they start out, 0 or 1, and noise."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        start = 0 if parameter.dim() > 1 else parameter.data
        value = start + (0.3 if parameter.dim() > 1 else 0.2) * noise
        parameter.data = value.bfloat16().float()
    for name, buffer in model.named_buffers():
        if name.endswith(("e_score_correction_bias", "expert_bias")):
            buffer.data = 0.3 * torch.randn(buffer.shape, generator=generator)
        elif name.endswith("layer_scalar"):
            buffer.data = torch.tensor([0.7])


def edit_config(folder, changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def rename_tensors(folder, beginnings):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for old, new in beginnings.items():
        tensors = {new + key[len(old):] if key.startswith(old) else key: tensor
                   for key, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def pack_stacks(folder, generator):
    """Random codes of E2M1 in groups of 32 inputs with scales around 1/8:
    `_blocks` U8 [experts, outputs, groups, 16], `_scales` U8 (E8M0)."""
    path = folder / "model.safetensors"
    packed = {}
    for key, tensor in load_file(path).items():
        if not key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            packed[key] = tensor
            continue
        experts, inputs, outputs = tensor.shape
        groups = (experts, outputs, inputs // 32)
        packed[key + "_blocks"] = torch.randint(
            0, 256, (*groups, 16), generator=generator, dtype=torch.uint8)
        packed[key + "_scales"] = torch.randint(
            122, 126, groups, generator=generator, dtype=torch.uint8)
    save_file(packed, path, metadata={"format": "pt"})


def make(name, goldens):
    model_type, keys, changes, *beginnings = ROWS[name]
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    common = {} if "text_config" in keys else COMMON
    config = transformers.AutoConfig.for_model(model_type,
                                               **{**common, **keys})
    auto_class = (transformers.AutoModelForImageTextToText
                  if "text_config" in keys
                  else transformers.AutoModelForCausalLM)
    model = auto_class.from_config(
        config, attn_implementation="eager")
    randomize(model, generator)
    folder = goldens / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        if name not in IN_FLOAT32:
            model = model.bfloat16()
        model.save_pretrained(temporary)
        if name in AS_IN_MEMORY:
            save_file(model.state_dict(),
                      pathlib.Path(temporary, "model.safetensors"),
                      metadata={"format": "pt"})
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes(
                pathlib.Path(temporary, file).read_bytes())
    edit_config(folder, changes)
    if name in IN_MXFP4:
        pack_stacks(folder, generator)
    for renamed in beginnings:
        rename_tensors(folder, renamed)
    reference = auto_class.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager",
        experts_implementation="eager").eval()
    ids = torch.randint(3, config.get_text_config().vocab_size, (1, TOKENS),
                        generator=generator)
    with torch.no_grad():
        logits = reference(ids, use_cache=False).logits[0].float()
    save_file({"input_ids": ids, "logits": logits.contiguous()},
              folder / "expected.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {size} bytes, largest logit {logits.abs().max():.3g}")
    if size > LARGEST_FOLDER:
        sys.exit(f"{name}: more than {LARGEST_FOLDER} bytes")


def main():
    transformers.utils.logging.disable_progress_bar()
    goldens = pathlib.Path(__file__).parent / "goldens"
    for name in sys.argv[1:] or ROWS:
        make(name, goldens)


if __name__ == "__main__":
    main()
