// Checkpoints of vision-language models, whose config.json holds that of the
// decoder as `text_config`: the decoder is a family like any other, with its
// tensors in another place.
#pragma once

#include <span>
#include <string_view>

#include "compress/model/architecture.h"

namespace llmpress {

struct Wrapper {
  std::string_view model_type;
  std::string_view body = "model.language_model.", head = "lm_head";
  bool scales_logits = false;  // by the decoder's factor and soft cap
};

std::span<const Wrapper> wrappers();

// Puts the decoder where the wrapper keeps it, as transformers 5 writes it or
// as older versions did.
void place_wrapped(const Wrapper& wrapper, Architecture& arch);

}  // namespace llmpress
