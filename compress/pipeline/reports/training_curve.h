// The curve of a training stage, for reports.
#pragma once

#include <string>
#include <vector>

#include "compress/pipeline/reports/training_report.h"

namespace llmpress {

// Loss against step: of the batches (means of stretches where there are many),
// of the evaluations, and the distance to the teacher where there is one.
std::string training_chart(const TrainingReport& report);

// Weights of several domains against step; "" for one text.
std::string domain_chart(const TrainingReport& report);

// Every evaluation: step, losses, learning rate.
std::vector<std::string> training_columns();
std::vector<std::vector<std::string>> training_rows(
    const TrainingReport& report);

}  // namespace llmpress
