#include "compress/surgery/kept_layers.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kDefaultMaxWindowLayers = 28;  // of Qwen2 and Qwen3

class LayerKeys {
 public:
  LayerKeys(Json& config, const Architecture& arch,
            std::span<const std::size_t> kept)
      : config_(config), arch_(arch), kept_(kept) {}

  void rewrite() {
    write_out_cycle("block_types");
    write_out_steps();
    for (const char* key :
         {"layer_types", "mlp_layer_types", "layers_block_type",
          "no_rope_layers", "block_types"}) {
      keep_entries(key);
    }
    keep_letters("hybrid_override_pattern");
    for (const char* key :
         {"mlp_only_layers", "moe_layers", "full_attn_idxs"}) {
      renumber(key);
    }
    renumber_object("per_layer_config");
    if (config_.contains("first_k_dense_replace")) {
      count("first_k_dense_replace", 0);
    }
    if (config_.value("use_sliding_window", false)) {
      count("max_window_layers", kDefaultMaxWindowLayers);
    }
    config_[arch_.keys.layers] = kept_.size();
  }

 private:
  Json* list(const char* key) {
    const auto at = config_.find(key);
    return at != config_.end() && at->is_array() ? &*at : nullptr;
  }

  void keep_entries(const char* key) {
    Json* const all = list(key);
    if (all == nullptr || all->size() < arch_.layers) return;
    Json left = Json::array();
    for (const std::size_t layer : kept_) left.push_back(all->at(layer));
    *all = left;
  }

  void keep_letters(const char* key) {
    const auto at = config_.find(key);
    if (at == config_.end() || !at->is_string()) return;
    const auto all = at->get<std::string>();
    if (all.size() != arch_.layers) return;
    std::string left;
    for (const std::size_t layer : kept_) left += all[layer];
    *at = left;
  }

  void renumber(const char* key) {
    Json* const all = list(key);
    if (all == nullptr) return;
    Json left = Json::array();
    for (std::size_t l = 0; l < kept_.size(); ++l) {
      if (std::ranges::find(*all, Json(kept_[l])) != all->end()) {
        left.push_back(l);
      }
    }
    *all = left;
  }

  void renumber_object(const char* key) {
    const auto at = config_.find(key);
    if (at == config_.end() || !at->is_object()) return;
    Json left = Json::object();
    for (std::size_t l = 0; l < kept_.size(); ++l) {
      const auto of_layer = at->find(std::to_string(kept_[l]));
      if (of_layer != at->end()) left[std::to_string(l)] = *of_layer;
    }
    *at = left;
  }

  // Of the first so many layers.
  void count(const char* key, std::size_t fallback) {
    const auto first = config_.value(key, fallback);
    config_[key] =
        std::ranges::count_if(kept_, [&](std::size_t l) { return l < first; });
  }

  void write_out_cycle(const char* key) {
    Json* const cycle = list(key);
    if (cycle == nullptr || cycle->empty()) return;
    Json all = Json::array();
    for (std::size_t l = 0; l < arch_.layers; ++l) {
      all.push_back(cycle->at(l % cycle->size()));
    }
    *cycle = all;
  }

  // Every nth layer, from the (n - 1)th on, has experts.
  std::vector<std::size_t> layers_of_step(std::size_t step, bool mixed) const {
    std::vector<std::size_t> layers;
    for (std::size_t l = 0; l < arch_.layers; ++l) {
      if (((l + 1) % step == 0) == mixed) layers.push_back(l);
    }
    return layers;
  }

  void write_out_steps() {
    const auto sparse = config_.value("decoder_sparse_step", std::size_t{1});
    if (sparse > 1) {
      Json dense = layers_of_step(sparse, false);
      if (const Json* const named = list("mlp_only_layers")) {
        dense.insert(dense.end(), named->begin(), named->end());
      }
      config_["mlp_only_layers"] = dense;
      config_["decoder_sparse_step"] = 1;
    }
    const auto mixed =
        config_.value("interleave_moe_layer_step", std::size_t{1});
    if (mixed > 1 && list("moe_layers") == nullptr) {
      config_["moe_layers"] = layers_of_step(mixed, true);
    }
  }

  Json& config_;
  const Architecture& arch_;
  std::span<const std::size_t> kept_;
};

}  // namespace

std::string config_of_layers(const std::string& config_json,
                             const Architecture& arch,
                             std::span<const std::size_t> kept) {
  if (arch.layer_inputs.width > 0) {
    fail(ErrorCode::kUnsupported,
         "its blocks read columns of a table that holds those of all blocks");
  }
  Json config = Json::parse(config_json);
  LayerKeys(config, arch, kept).rewrite();
  return config.dump(2);
}

void check_kept_layers(const Architecture& before, const Architecture& after,
                       std::span<const std::size_t> kept) {
  bool same = after.layers == kept.size() && after.ropes == before.ropes;
  for (std::size_t l = 0; same && l < kept.size(); ++l) {
    same = same_program(after.block(l), before.block(kept[l]));
  }
  if (same) return;
  fail(ErrorCode::kUnsupported,
       "what its config.json says of a block follows from the block's place, "
       "and would be wrong once blocks before it are gone; where the family "
       "has 'layer_types', one entry a layer says it");
}

}  // namespace llmpress
