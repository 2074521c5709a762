// What config.json says twice. Where transformers 5 is clear about which counts
// it is followed, and a sentence says so; the rest is refused with the keys
// named.
#pragma once

#include <string>
#include <vector>

namespace llmpress {

// Sentences about contradictions that have a meaning. Throws
// Error(kCorruptFile) if the text is not a JSON object, kInvalidInput for
// contradictions without one. `where` stands in front of all of them.
std::vector<std::string> check_config(const std::string& config_json,
                                      const std::string& where);

}  // namespace llmpress
