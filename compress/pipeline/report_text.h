// Numbers and small tables as a report writes them, shared by its writers.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "compress/pipeline/run_report.h"

namespace llmpress {

// "4.1070", with `digits` after the point.
std::string fixed(double value, int digits);
// "1.2e-03", for errors that span magnitudes; "0" for zero.
std::string scientific(double value);
// "14.69 MB".
std::string megabytes(std::size_t bytes);

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
