// LayerReport as JSON text and back, for the blocks of an unfinished run.
#pragma once

#include <string>
#include <vector>

#include "compress/pipeline/reports/run_report.h"

namespace llmpress {

std::string layers_to_json(const std::vector<LayerReport>& layers);
// Throws Error(kCorruptFile) with `origin`.
std::vector<LayerReport> layers_from_json(const std::string& text,
                                          const std::string& origin);

}  // namespace llmpress
