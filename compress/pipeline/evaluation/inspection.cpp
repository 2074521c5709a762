#include "compress/pipeline/evaluation/inspection.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "compress/core/activation_grid.h"
#include "compress/model/block_weights.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"

namespace llmpress {
namespace {

double zero_fraction(const MatrixF& W) {
  return static_cast<double>(std::ranges::count(W.data(), 0.0f)) /
         static_cast<double>(std::max<std::size_t>(W.size(), 1));
}

// Of a block's Linear, by itself or in a stack.
bool is_part_of_linear(const std::string& tensor, const Architecture& arch) {
  const auto layer = layer_of(tensor, arch);
  return layer &&
         holds_linear(arch.block(*layer),
                      tensor.substr(arch.block_name(*layer).size() + 1));
}

TokenizerFacts tokenizer_facts(const std::filesystem::path& path) {
  try {
    const auto tokenizer = load_model_tokenizer(path);
    return {.kind = tokenizer->kind,
            .vocabulary = tokenizer->vocabulary_size(),
            .bos = tokenizer->bos_id,
            .eos = tokenizer->eos_id,
            .adds_bos = tokenizer->adds_bos,
            .sha256 = tokenizer->sha256};
  } catch (const Error& error) {
    return {.problem = error.what()};
  }
}

nlohmann::ordered_json json_of(const TokenizerFacts& t) {
  if (!t.problem.empty()) return {{"problem", t.problem}};
  nlohmann::ordered_json json = {{"kind", t.kind},
                                 {"vocabulary", t.vocabulary},
                                 {"adds_bos", t.adds_bos},
                                 {"sha256", t.sha256}};
  if (t.bos) json["bos_id"] = *t.bos;
  if (t.eos) json["eos_id"] = *t.eos;
  return json;
}

}  // namespace

Inspection inspect(const Checkpoint& checkpoint, const Architecture& arch) {
  Inspection inspection{.path = checkpoint.path().string(),
                        .format = std::string(checkpoint.format()),
                        .model_type = arch.model_type,
                        .layers = arch.layers,
                        .hidden = arch.hidden,
                        .vocabulary = arch.vocabulary,
                        .max_positions = arch.max_positions,
                        .size = measure_model(checkpoint, arch),
                        .metadata = checkpoint.tensors().metadata(),
                        .tokenizer = tokenizer_facts(checkpoint.path())};
  if (const auto chat = load_chat_template(checkpoint.path())) {
    inspection.chat_template = chat->name;
  }
  for (const TensorInfo& info : checkpoint.tensors().tensors()) {
    if (is_part_of_linear(info.name, arch)) continue;
    std::size_t elements = 1;
    for (const std::size_t d : info.shape) elements *= d;
    inspection.tensors.push_back(
        {.name = info.name,
         .type = std::string(facts(info.dtype).name),
         .shape = info.shape,
         .bytes = info.bytes,
         .bits_per_weight = elements == 0
                                ? 0
                                : 8.0 * static_cast<double>(info.bytes) /
                                      static_cast<double>(elements)});
  }
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    for (std::size_t l = 0; l < arch.block(layer).linears.size(); ++l) {
      const LinearWeights stored =
          read_block_linear(checkpoint, arch, layer, l);
      const PackedWeight& weight = stored.weight;
      inspection.tensors.push_back(
          {.name = arch.linear_name(layer, l),
           .type = describe(weight),
           .shape = {rows_of(weight), cols_of(weight)},
           .bytes = stored_bytes(weight),
           .bits_per_weight = bits_per_weight(weight),
           .sparsity = zero_fraction(dequantize(weight)),
           .linear = true,
           .inputs = describe_rounding(stored.input)});
    }
  }
  return inspection;
}

std::vector<TypeTotal> totals_by_type(const Inspection& inspection) {
  std::map<std::pair<bool, std::string>, TypeTotal> totals;
  for (const InspectedTensor& t : inspection.tensors) {
    TypeTotal& total = totals[{!t.linear, t.type}];
    total.type = t.type;
    ++total.tensors;
    total.bytes += t.bytes;
    std::size_t weights = 1;
    for (const std::size_t d : t.shape) weights *= d;
    total.weights += weights;
  }
  std::vector<std::pair<bool, TypeTotal>> sorted;
  for (auto& [key, total] : totals) sorted.emplace_back(key.first, total);
  std::ranges::stable_sort(sorted, [](const auto& a, const auto& b) {
    return a.first != b.first ? !a.first : a.second.bytes > b.second.bytes;
  });
  std::vector<TypeTotal> result;
  for (auto& [other, total] : sorted) result.push_back(std::move(total));
  return result;
}

std::string to_json(const Inspection& inspection) {
  nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
  for (const InspectedTensor& t : inspection.tensors) {
    tensors.push_back({{"name", t.name},
                       {"type", t.type},
                       {"shape", t.shape},
                       {"bytes", t.bytes},
                       {"bits_per_weight", t.bits_per_weight},
                       {"sparsity", t.sparsity},
                       {"linear", t.linear},
                       {"inputs", t.inputs}});
  }
  nlohmann::ordered_json types = nlohmann::ordered_json::array();
  for (const TypeTotal& t : totals_by_type(inspection)) {
    types.push_back({{"type", t.type},
                     {"tensors", t.tensors},
                     {"weights", t.weights},
                     {"bytes", t.bytes}});
  }
  const ModelSize& size = inspection.size;
  return nlohmann::ordered_json(
             {{"path", inspection.path},
              {"format", inspection.format},
              {"model_type", inspection.model_type},
              {"layers", inspection.layers},
              {"hidden", inspection.hidden},
              {"vocabulary", inspection.vocabulary},
              {"max_positions", inspection.max_positions},
              {"chat_template", !inspection.chat_template.empty()},
              {"tokenizer", json_of(inspection.tokenizer)},
              {"metadata", inspection.metadata},
              {"weight_bytes", size.weight_bytes},
              {"weights", size.weights},
              {"bits_per_weight", size.bits_per_weight()},
              {"linear_bytes", size.linear_bytes},
              {"linear_weights", size.linear_weights},
              {"linear_bits_per_weight", size.linear_bits_per_weight()},
              {"types", std::move(types)},
              {"tensors", std::move(tensors)}})
      .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace llmpress
