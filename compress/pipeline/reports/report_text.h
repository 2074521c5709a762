// Numbers and small tables as a report writes them, shared by its writers.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/pipeline/reports/run_report.h"

namespace llmpress {

// One line of the table of models: cells in the order of model_columns().
std::vector<std::string> model_columns();
std::vector<std::vector<std::string>> model_rows(const RunReport& report);

std::vector<std::string> layer_columns();
std::vector<std::vector<std::string>> layer_rows(
    const std::vector<LayerReport>& layers);

// How the numbers were made: protocol, context, windows, hashes.
std::vector<std::pair<std::string, std::string>> provenance_rows(
    const RunReport& report);

}  // namespace llmpress
