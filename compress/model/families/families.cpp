#include <array>

#include "compress/model/families/family.h"

namespace llmpress {
namespace {

constexpr std::array kFamilies = {
    Family{"llama", describe_llama},
    Family{"mistral", describe_mistral},
    Family{"qwen2", describe_qwen2},
    Family{"qwen3", describe_qwen3},
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

}  // namespace llmpress
