#include "compress/model/architecture.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "compress/core/formatted.h"
#include "compress/model/families/family.h"
#include "compress/model/families/wrappers.h"

namespace llmpress {
namespace {

// Keys that say nothing about the function that the weights compute, or that
// other readers look at.
constexpr std::string_view kOtherKeys[] = {
    "architectures",
    "auto_map",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "initializer_range",
    "pad_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "unk_token_id",
    "cache_implementation",
    "decoder_start_token_id",
    "pretraining_tp",
    "gradient_checkpointing",
    "quantization_config",
    "compression_config",
    "quantization",
    "tokenizer_class",
    "task_specific_params",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "return_dict",
    "router_aux_loss_coef",
    "router_z_loss_coef",
    "is_decoder",
    "bos_token_id",
    "eos_token_id",
    "model_type",
    "chunk_size_feed_forward",
    "add_cross_attention",
    "finetuning_task",
    "use_mamba_kernels",
    "attn_implementation",
    "model_max_length",
    "is_encoder_decoder",
    "cross_attention_hidden_size",
    "prefix",
    "tie_encoder_decoder",
    "torchscript",
    "use_bfloat16",
    "pruned_heads",
    // Old files carry settings of text generation.
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "tf_legacy_loss",
};

bool concerns_others(std::string_view key) {
  constexpr std::string_view kEndings[] = {"dropout", "_pdrop", "_version",
                                           "dropout_prob", "_jitter_noise"};
  return key.starts_with('_') || key.starts_with("output_") ||
         key.starts_with("unsloth") ||
         std::ranges::any_of(kEndings,
                             [&](auto end) { return key.ends_with(end); }) ||
         std::ranges::find(kOtherKeys, key) != std::end(kOtherKeys);
}

const Family& find_family(const ConfigReader& config) {
  const auto type = config.text("model_type");
  std::string known;
  for (const Family& family : families()) {
    if (type == family.model_type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  if (!type) config.invalid("model_type", "one of " + known);
  fail(ErrorCode::kUnsupported,
       "{}: model_type '{}' is not supported; known are {}", config.origin(),
       *type, known);
}

const Wrapper& find_wrapper(const ConfigReader& config) {
  const std::string type = config.text("model_type").value_or("");
  std::string known;
  for (const Wrapper& wrapper : wrappers()) {
    if (type == wrapper.model_type) return wrapper;
    known += (known.empty() ? "" : ", ") + std::string(wrapper.model_type);
  }
  fail(ErrorCode::kUnsupported,
       "{}: model_type '{}' with a text_config is not supported; known are {}",
       config.origin(), type, known);
}

// The decoder of `arch` inside of a larger model. A wrapper without the key
// shares the embedding with the head, unless the checkpoint has another one.
void wrap(const ConfigReader& config, const Wrapper& wrapper,
          Architecture& arch) {
  if (!wrapper.scales_logits &&
      (arch.logit_scale != 1 || arch.logit_softcap != 0)) {
    config.unsupported("text_config",
                       "a decoder that gives its logits as the "
                       "head computes them");
  }
  arch.tied_head = config.flag("tie_word_embeddings").value_or(true);
  place_wrapped(wrapper, arch);
}

void refuse_unread(const ConfigReader& config, const Family& family) {
  for (const std::string& key : config.unread()) {
    if (concerns_others(key)) continue;
    fail(ErrorCode::kUnsupported,
         "{}: '{}' is not understood for '{}', and may change what the model "
         "computes",
         config.origin(), key, family.model_type);
  }
}

}  // namespace

std::string Architecture::block_name(std::size_t layer) const {
  return block_prefix + std::to_string(layer);
}

std::string Architecture::linear_name(std::size_t layer,
                                      std::size_t linear) const {
  return block_name(layer) + "." + block(layer).linears.at(linear).name;
}

std::vector<std::string> Architecture::linear_names() const {
  std::vector<std::string> names;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    for (std::size_t l = 0; l < block(layer).linears.size(); ++l) {
      names.push_back(linear_name(layer, l));
    }
  }
  return names;
}

std::vector<std::vector<CacheSlot>> Architecture::cache_slots() const {
  std::vector<std::vector<CacheSlot>> slots;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    slots.push_back(block(layer).slots);
  }
  return slots;
}

Architecture parse_architecture(const std::string& config_json,
                                const std::string& origin) {
  const ConfigReader config =
      ConfigReader::parse(config_json, config_place(origin));
  const std::optional<ConfigReader> text = config.object("text_config");
  const ConfigReader& own = text ? *text : config;
  const Wrapper* const wrapper = text ? &find_wrapper(config) : nullptr;
  const Family& family = find_family(own);
  Architecture arch;
  arch.model_type = family.model_type;
  family.describe(own, arch);
  if (wrapper != nullptr) wrap(config, *wrapper, arch);
  arch.hf_class.block_prefix = arch.block_prefix;
  arch.hf_class.head = arch.head;
  std::vector<std::size_t> bos = own.sizes("bos_token_id");
  arch.eos_ids = own.sizes("eos_token_id");
  if (bos.empty()) bos = config.sizes("bos_token_id");
  if (arch.eos_ids.empty()) arch.eos_ids = config.sizes("eos_token_id");
  if (!bos.empty()) arch.bos_id = bos.front();
  if (!arch.eos_ids.empty()) arch.eos_id = arch.eos_ids.front();
  refuse_unread(own, family);
  return arch;
}

void move_tensors(Architecture& arch, const TensorPlaces& places) {
  for (std::string* const name :
       {&arch.embedding, &arch.position_embedding, &arch.embedding_projection,
        &arch.embedding_norm, &arch.final_norm, &arch.head_projection,
        &arch.block_prefix, &arch.layer_inputs.embedding,
        &arch.layer_inputs.projection, &arch.layer_inputs.norm}) {
    if (name->starts_with(arch.body)) {
      *name = places.body + name->substr(arch.body.size());
    }
  }
  arch.body = places.body;
  arch.head = places.head;
}

std::vector<std::string> known_families() {
  std::vector<std::string> names;
  for (const Family& family : families()) {
    names.emplace_back(family.model_type);
  }
  return names;
}

}  // namespace llmpress
