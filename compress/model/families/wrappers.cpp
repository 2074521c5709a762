#include "compress/model/families/wrappers.h"

#include <array>
#include <string>

namespace llmpress {
namespace {

constexpr std::array kWrappers = {
    Wrapper{.model_type = "gemma3", .scales_logits = false},
    Wrapper{.model_type = "gemma4", .scales_logits = true},
    Wrapper{.model_type = "idefics3", .body = "model.text_model."},
    Wrapper{.model_type = "internvl"},
    Wrapper{.model_type = "lfm2_vl"},
    Wrapper{.model_type = "llama4",
            .body = "language_model.model.",
            .head = "language_model.lm_head"},
    Wrapper{.model_type = "llava"},
    Wrapper{.model_type = "llava_next"},
    Wrapper{.model_type = "llava_onevision"},
    Wrapper{.model_type = "mistral3"},
    Wrapper{.model_type = "qwen2_5_vl"},
    Wrapper{.model_type = "qwen2_vl"},
    Wrapper{.model_type = "qwen3_5"},
    Wrapper{.model_type = "qwen3_5_moe"},
    Wrapper{.model_type = "qwen3_vl"},
    Wrapper{.model_type = "smolvlm", .body = "model.text_model."},
    Wrapper{.model_type = "vipllava"},
};

}  // namespace

std::span<const Wrapper> wrappers() { return kWrappers; }

void place_wrapped(const Wrapper& wrapper, Architecture& arch) {
  move_tensors(arch, {.body = std::string(wrapper.body),
                      .head = std::string(wrapper.head)});
  arch.other_places = {
      {.body = "language_model.model.", .head = "language_model.lm_head"},
      {.body = "model.", .head = "lm_head"}};
  arch.config_object = "text_config";
}

}  // namespace llmpress
