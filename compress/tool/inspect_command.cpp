#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "compress/core/formatted.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/evaluation/inspection.h"
#include "compress/pipeline/evaluation/tensor_values.h"
#include "compress/tool/commands.h"
#include "compress/tool/console.h"
#include "compress/tool/session.h"

namespace llmpress {
namespace {

struct InspectArguments {
  SessionOptions session{};
  std::filesystem::path path{};
  std::string tensor{};
  bool json = false;
};

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text;
  for (const std::size_t d : shape) {
    text += formatted("{}{}", text.empty() ? "" : " x ", d);
  }
  return text;
}

double bits_per_weight(std::size_t bytes, std::size_t weights) {
  return weights == 0
             ? 0
             : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

// One line: whatever it holds, and of long texts the beginning.
std::string shortened(std::string text) {
  constexpr std::size_t kWidth = 100;
  std::ranges::replace(text, '\n', ' ');
  if (text.size() <= kWidth) return text;
  return formatted("{}... ({} octets)", text.substr(0, kWidth), text.size());
}

void print_tokenizer(const TokenizerFacts& t) {
  if (!t.problem.empty()) {
    print("tokenizer: %s\n", t.problem.c_str());
    return;
  }
  print("tokenizer: %s, %zu ids", t.kind.c_str(), t.vocabulary);
  if (t.bos) print(", bos %zu%s", *t.bos, t.adds_bos ? " (added)" : "");
  if (t.eos) print(", eos %zu", *t.eos);
  print(", sha256 %s\n", t.sha256.c_str());
}

void print_tensors(const Inspection& inspection) {
  for (const InspectedTensor& t : inspection.tensors) {
    print("  %-48s %-18s %-20s %10s  %7.3f bits", t.name.c_str(),
          shape_text(t.shape).c_str(), t.type.c_str(),
          human_bytes(t.bytes).c_str(), t.bits_per_weight);
    if (!t.inputs.empty()) print("  inputs %s", t.inputs.c_str());
    print(t.sparsity >= 0.01 ? "  %.1f %% zeros\n" : "\n", 100 * t.sparsity);
  }
}

void print_inspection(const Inspection& inspection) {
  print("%s: %s, %s\n", inspection.path.c_str(), inspection.model_type.c_str(),
        inspection.format.c_str());
  print("%zu blocks, hidden %zu, vocabulary %zu, %zu positions\n",
        inspection.layers, inspection.hidden, inspection.vocabulary,
        inspection.max_positions);
  print_tensors(inspection);
  for (const TypeTotal& t : totals_by_type(inspection)) {
    print("%-20s %6zu tensors %14zu weights %10s  %7.3f bits\n", t.type.c_str(),
          t.tensors, t.weights, human_bytes(t.bytes).c_str(),
          bits_per_weight(t.bytes, t.weights));
  }
  print("Linears of the blocks: %zu weights, %s, %.3f bits per weight\n",
        inspection.size.linear_weights,
        human_bytes(inspection.size.linear_bytes).c_str(),
        inspection.size.linear_bits_per_weight());
  print("whole model: %zu weights, %s, %.3f bits per weight\n",
        inspection.size.weights,
        human_bytes(inspection.size.weight_bytes).c_str(),
        inspection.size.bits_per_weight());
  print_tokenizer(inspection.tokenizer);
  if (!inspection.chat_template.empty()) {
    print("chat template: in %s\n", inspection.chat_template.c_str());
  }
  for (const auto& [key, value] : inspection.metadata) {
    print("metadata: %s = %s\n", key.c_str(), shortened(value).c_str());
  }
}

// A bar for each number, the longest of kWidth.
void print_bar(std::size_t count, std::size_t largest) {
  constexpr std::size_t kWidth = 50;
  const std::size_t length =
      largest == 0 ? 0 : (count * kWidth + largest - 1) / largest;
  print("%12zu  %s\n", count, std::string(length, '#').c_str());
}

void print_values(const TensorValues& v) {
  print("%s: %s, %s\n", v.name.c_str(), shape_text(v.shape).c_str(),
        v.type.c_str());
  print("from %.6g to %.6g, mean %.6g, standard deviation %.6g\n", v.lowest,
        v.highest, v.mean, v.deviation);
  print("%zu numbers, %zu of them 0, %zu not finite\n", v.count, v.zeros,
        v.non_finite);
  const std::size_t most =
      v.histogram.empty() ? 0 : std::ranges::max(v.histogram);
  const double width =
      (v.highest - v.lowest) / static_cast<double>(kHistogramBins);
  for (std::size_t bin = 0; bin < v.histogram.size(); ++bin) {
    print("%12.5g ", v.lowest + static_cast<double>(bin) * width);
    print_bar(v.histogram[bin], most);
  }
  if (v.codes.empty()) return;
  print("codes:\n");
  const std::size_t most_used = std::ranges::max(v.codes);
  for (std::size_t code = 0; code < v.codes.size(); ++code) {
    print("%12zu ", code);
    print_bar(v.codes[code], most_used);
  }
}

void inspect_path(const InspectArguments& arguments) {
  Session session(arguments.session);
  const auto checkpoint = open_checkpoint(arguments.path);
  const Architecture arch = read_architecture(*checkpoint);
  for (const std::string& note : checkpoint->notes()) session.log(note);
  if (!arguments.tensor.empty()) {
    const TensorValues values =
        measure_values(*checkpoint, arch, arguments.tensor);
    if (arguments.json) {
      print("%s\n", to_json(values).c_str());
    } else {
      print_values(values);
    }
    return;
  }
  const Inspection inspection = inspect(*checkpoint, arch);
  if (arguments.json) {
    print("%s\n", to_json(inspection).c_str());
  } else {
    print_inspection(inspection);
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand(
      "inspect", "tensors, packed types, bytes and bits per weight");
  command->add_option("path", arguments->path, "model or artifact")->required();
  command->add_option("--tensor", arguments->tensor,
                      "the values of this Linear or tensor: range, histogram, "
                      "how often each code occurs");
  command->add_flag("--json", arguments->json, "print JSON");
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress inspect ./my-model-w4\n  llmpress inspect "
      "./my-model-w4 --tensor model.norm.weight");
  command->callback([arguments] { inspect_path(*arguments); });
}

}  // namespace llmpress
