#include "compress/model/tensor_places.h"

#include <algorithm>
#include <array>
#include <set>

#include "compress/model/model_check.h"
#include "formats/checkpoints/tied_head.h"

namespace llmpress {
namespace {

void find_places(const Checkpoint& checkpoint, Architecture& arch) {
  if (checkpoint.has_linear(arch.embedding)) return;
  for (const TensorPlaces& places : arch.other_places) {
    Architecture moved = arch;
    move_tensors(moved, places);
    if (!checkpoint.has_linear(moved.embedding)) continue;
    arch = std::move(moved);
    return;
  }
}

// "vision_tower" of "model.vision_tower.encoder.layers.0.mlp.fc1.weight"; empty
// for a tensor that lies in no other module.
std::string outermost_module(std::string name) {
  constexpr std::string_view kModel = "model.";
  if (name.starts_with(kModel)) name.erase(0, kModel.size());
  const std::size_t dot = name.find('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

// A router whose tensor has one name and whose module has another.
void add_renamed(const BlockSpec& block, const std::string& files,
                 const std::string& of_class, ModuleNames& names) {
  constexpr std::string_view kSuffix = ".weight";
  for (const LinearSpec& linear : block.linears) {
    const auto& storage = linear.storage;
    if (!storage || storage->index || storage->transposed ||
        !storage->tensor.ends_with(kSuffix)) {
      continue;
    }
    names.of_class[files + "." + linear.name] =
        of_class + "." +
        storage->tensor.substr(0, storage->tensor.size() - kSuffix.size());
  }
}

bool is_read_by_block(const BlockSpec& block, const std::string& rest) {
  // What rounds keys and values, and what classes compute and yet keep beside
  // their weights: masks of GPT-2 and GPT-NeoX, decays of MiniMax.
  constexpr std::array<std::string_view, 12> kBuffers = {
      ".k_scale",      ".v_scale",     ".q_scale",       ".k_zero_point",
      ".v_zero_point", "attn.bias",    "attention.bias", ".masked_bias",
      ".slope_rate",   ".query_decay", ".key_decay",     ".diagonal_decay"};
  return written_with_block(block, rest) ||
         std::ranges::find(block.parameters, rest, &ParameterSpec::name) !=
             block.parameters.end() ||
         std::ranges::any_of(
             kBuffers, [&](std::string_view b) { return rest.ends_with(b); });
}

bool is_read_by_ends(const Architecture& arch, const std::string& tensor) {
  for (const std::string* module :
       {&arch.embedding, &arch.position_embedding, &arch.embedding_projection,
        &arch.embedding_norm, &arch.layer_inputs.embedding,
        &arch.layer_inputs.projection, &arch.layer_inputs.norm,
        &arch.final_norm, &arch.head_projection, &arch.head}) {
    if (!module->empty() && tensor.starts_with(*module + ".")) return true;
  }
  return false;
}

// "model.layers.61" of a tensor of a block that is not counted, or the module
// beside the decoder that the tensor lies in; empty: in neither.
std::string module_beside(const Architecture& arch, const std::string& tensor) {
  if (tensor.starts_with(arch.block_prefix)) {
    return tensor.substr(0, tensor.find('.', arch.block_prefix.size()));
  }
  const std::string module = outermost_module(tensor);
  return module == outermost_module(arch.embedding + ".") ? "" : module;
}

bool head_is_embedding(const Checkpoint& checkpoint, const Architecture& arch) {
  const TensorInfo* const head = dense_matrix(checkpoint, arch.head);
  const TensorInfo* const embedding = dense_matrix(checkpoint, arch.embedding);
  if (head == nullptr || embedding == nullptr) return true;
  return head->shape == embedding->shape &&
         same_values(checkpoint.tensors(), *head, *embedding);
}

}  // namespace

Architecture read_architecture(const Checkpoint& checkpoint) {
  Architecture arch =
      parse_architecture(checkpoint.config_json(), checkpoint.path().string());
  find_places(checkpoint, arch);
  if (arch.tied_head) arch.tied_head = head_is_embedding(checkpoint, arch);
  return arch;
}

void use_places_of(const Architecture& from, Architecture& to) {
  to.embedding = from.embedding;
  to.embedding_norm = from.embedding_norm;
  to.embedding_projection = from.embedding_projection;
  to.position_embedding = from.position_embedding;
  to.final_norm = from.final_norm;
  to.head_projection = from.head_projection;
  to.head = from.head;
  to.block_prefix = from.block_prefix;
}

bool is_metadata_tensor(std::string_view name) {
  constexpr std::array<std::string_view, 3> kSuffixes = {
      ".weight_shape", ".shape", "rotary_emb.inv_freq"};
  return name.find(".quant_state.bitsandbytes__") != std::string_view::npos ||
         std::any_of(kSuffixes.begin(), kSuffixes.end(),
                     [&](std::string_view s) { return name.ends_with(s); });
}

std::optional<std::size_t> layer_of(const std::string& tensor,
                                    const Architecture& arch) {
  if (!tensor.starts_with(arch.block_prefix)) return std::nullopt;
  const std::size_t dot = tensor.find('.', arch.block_prefix.size());
  if (dot == std::string::npos) return std::nullopt;
  const std::string number =
      tensor.substr(arch.block_prefix.size(), dot - arch.block_prefix.size());
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    if (std::to_string(layer) == number) return layer;
  }
  return std::nullopt;
}

ModuleNames module_names(const Checkpoint& checkpoint,
                         const Architecture& arch) {
  ModuleNames names;
  const std::string& of_class = arch.hf_class.block_prefix;
  if (arch.block_prefix != of_class) {
    names.of_class[arch.block_prefix] = of_class;
  }
  if (arch.head != arch.hf_class.head) {
    names.of_class[arch.head] = arch.hf_class.head;
  }
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    add_renamed(arch.block(layer), arch.block_name(layer),
                of_class + std::to_string(layer), names);
  }
  if (arch.config_object.empty()) return names;
  std::set<std::string> beside;
  for (const TensorInfo& info : checkpoint.tensors().tensors()) {
    if (info.shape.size() == 2) beside.insert(outermost_module(info.name));
  }
  for (const std::string& own :
       {arch.block_prefix, of_class, arch.embedding + ".", arch.head + "."}) {
    beside.erase(outermost_module(own));
  }
  beside.erase("");
  for (const std::string& module : beside) {
    names.ignore.push_back("re:(.*\\.)?" + module + "\\..*");
  }
  return names;
}

UnreadTensors unread_tensors(const Checkpoint& checkpoint,
                             const Architecture& arch) {
  UnreadTensors unread;
  for (const TensorInfo& info : checkpoint.tensors().tensors()) {
    const std::string& name = info.name;
    if (is_metadata_tensor(name) || is_read_by_ends(arch, name)) continue;
    if (const auto layer = layer_of(name, arch)) {
      const std::string rest = name.substr(arch.block_name(*layer).size() + 1);
      if (!is_read_by_block(arch.block(*layer), rest)) {
        unread.of_decoder.push_back(name);
      }
      continue;
    }
    const std::string module = module_beside(arch, name);
    if (module.empty()) {
      unread.of_decoder.push_back(name);
    } else {
      ++unread.of_modules[module];
    }
  }
  return unread;
}

bool holds_linear(const BlockSpec& block, const std::string& rest) {
  // "mlp.gate.e_score_correction_bias" is no part of the Linear "mlp.gate".
  if (std::ranges::find(block.parameters, rest, &ParameterSpec::name) !=
      block.parameters.end()) {
    return false;
  }
  return std::ranges::any_of(block.linears, [&](const LinearSpec& linear) {
    if (rest.starts_with(linear.name + ".")) return true;
    if (!linear.storage) return false;
    const std::string& tensor = linear.storage->tensor;
    return rest == tensor || rest == tensor + "_blocks" ||
           rest == tensor + "_scales" || rest == linear.storage->bias_tensor;
  });
}

bool written_with_block(const BlockSpec& block, const std::string& rest) {
  if (holds_linear(block, rest)) return true;
  return std::ranges::any_of(block.norms, [&](const NormSpec& norm) {
    return rest == norm.name + ".weight" || rest == norm.name + ".bias";
  });
}

}  // namespace llmpress
