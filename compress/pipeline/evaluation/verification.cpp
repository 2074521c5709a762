#include "compress/pipeline/evaluation/verification.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "compress/model/block_weights.h"
#include "compress/model/model_check.h"
#include "compress/model/model_source.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/evaluation/base_comparison.h"
#include "compress/pipeline/evaluation/zero_points.h"

namespace llmpress {
namespace {

std::string_view word(FindingKind kind) {
  constexpr std::array<std::string_view, 3> kWords = {"error", "warning",
                                                      "note"};
  return kWords[static_cast<std::size_t>(kind)];
}

class Verifier {
 public:
  Verifier(const Checkpoint& checkpoint, const Architecture& arch,
           const Checkpoint* base, ThreadPool& pool)
      : checkpoint_(checkpoint),
        arch_(arch),
        result_{.path = checkpoint.path().string(),
                .tensors = checkpoint.tensors().tensors().size()},
        comparison_(checkpoint, base, arch, pool, result_) {}

  Verification run(const Progress& progress) {
    for (const std::string& note : checkpoint_.notes()) {
      add(FindingKind::kNote, "", note);
    }
    for (const std::string& problem : model_problems(checkpoint_, arch_)) {
      add(FindingKind::kError, "", problem);
    }
    for (std::size_t layer = 0; layer < arch_.layers; ++layer) {
      report(progress, {.phase = "verify",
                        .done = layer,
                        .total = arch_.layers,
                        .detail = arch_.block_name(layer)});
      verify_block(layer);
    }
    comparison_.finish();
    verify_ends();
    if (const auto problem = zeros_.problem()) {
      add(FindingKind::kError, "quantization_config", *problem);
    }
    find_unread();
    verify_tokenizer();
    report(progress,
           {.phase = "verify", .done = arch_.layers, .total = arch_.layers});
    return std::move(result_);
  }

 private:
  void add(FindingKind kind, std::string place, std::string message) {
    // What the structure misses is met again where it is read.
    const bool known =
        std::ranges::any_of(result_.findings, [&](const Finding& found) {
          return found.kind == kind &&
                 message.find(found.message) != std::string::npos;
        });
    if (known) return;
    result_.findings.push_back({kind, std::move(place), std::move(message)});
  }

  // Whether `read` went through; its error is a finding.
  template <typename Read>
  bool attempt(const std::string& place, const Read& read) {
    try {
      read();
      return true;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled) throw;
      add(FindingKind::kError, place, error.what());
      return false;
    }
  }

  void verify_block(std::size_t layer) {
    BlockWeights block;
    const std::size_t before = result_.findings.size();
    bool whole = true;
    for (std::size_t l = 0; l < arch_.block(layer).linears.size(); ++l) {
      const std::string name = arch_.linear_name(layer, l);
      whole &= attempt(name, [&] {
        LinearWeights linear = read_block_linear(checkpoint_, arch_, layer, l);
        check(linear.weight, name);
        zeros_.add(linear.weight);
        result_.linears.push_back(
            {.name = name, .type = describe(linear.weight)});
        block.linears.push_back(std::move(linear));
      });
    }
    const std::string place = arch_.block_name(layer);
    whole &= attempt(place, [&] {
      block.norms = read_block_norms(checkpoint_, arch_, layer);
    });
    whole &= attempt(place, [&] {
      block.parameters = read_block_parameters(checkpoint_, arch_, layer);
    });
    whole &=
        attempt(place, [&] { block.kv_scheme = checkpoint_.kv_scheme(place); });
    if (whole && result_.findings.size() == before) {
      comparison_.add(layer, block);
    }
  }

  void verify_ends() {
    for (const std::string* name :
         {&arch_.embedding, &arch_.embedding_projection, &arch_.head_projection,
          &arch_.head}) {
      if (name->empty() || (arch_.tied_head && name == &arch_.head)) continue;
      attempt(*name, [&] {
        const LinearWeights linear = checkpoint_.read_linear(*name);
        check(linear.weight, *name);
      });
    }
    for (const std::string* name :
         {&arch_.embedding_norm, &arch_.final_norm, &arch_.layer_inputs.norm}) {
      const std::string tensor = *name + ".weight";
      if (name->empty() || checkpoint_.tensors().find(tensor) == nullptr) {
        continue;
      }
      attempt(tensor, [&] { read_matrix(checkpoint_.tensors(), tensor); });
    }
  }

  void find_unread() {
    const UnreadTensors unread = unread_tensors(checkpoint_, arch_);
    for (const std::string& name : unread.of_decoder) {
      add(FindingKind::kWarning, name,
          formatted("no module of {} reads this tensor", arch_.model_type));
    }
    for (const auto& [module, count] : unread.of_modules) {
      add(module.starts_with(arch_.block_prefix) ? FindingKind::kWarning
                                                 : FindingKind::kNote,
          module,
          formatted("{} tensors that belong to no block of the decoder",
                    count));
    }
  }

  void verify_tokenizer() {
    const std::filesystem::path& path = checkpoint_.path();
    std::unique_ptr<Tokenizer> tokenizer;
    try {
      tokenizer = load_model_tokenizer(path);
    } catch (const Error& error) {
      add(error.code() == ErrorCode::kCorruptFile ? FindingKind::kError
                                                  : FindingKind::kWarning,
          "tokenizer", error.what());
    }
    if (tokenizer) {
      attempt("tokenizer",
              [&] { check_tokenizer(*tokenizer, arch_, path.string()); });
    }
    try {
      if (const auto chat = load_chat_template(path)) {
        render_chat(*chat, {{.role = "user", .content = "Hello"}}, std::tm{});
      }
    } catch (const Error& error) {
      add(FindingKind::kWarning, "chat template", error.what());
    }
  }

  const Checkpoint& checkpoint_;
  const Architecture& arch_;
  Verification result_;
  BaseComparison comparison_;
  ZeroPointGuess zeros_{};
};

}  // namespace

std::string to_line(const Finding& finding) {
  // Messages of readers name the place themselves.
  const bool named = finding.place.empty() ||
                     finding.message.find(finding.place) != std::string::npos;
  return formatted("{}: {}{}", word(finding.kind),
                   named ? "" : finding.place + ": ", finding.message);
}

std::size_t Verification::count(FindingKind kind) const {
  return static_cast<std::size_t>(
      std::ranges::count(findings, kind, &Finding::kind));
}

Verification verify(const Checkpoint& checkpoint, const Architecture& arch,
                    const Checkpoint* base, ThreadPool& pool,
                    const Progress& progress) {
  return Verifier(checkpoint, arch, base, pool).run(progress);
}

std::string to_json(const Verification& verification) {
  nlohmann::ordered_json findings = nlohmann::ordered_json::array();
  for (const Finding& f : verification.findings) {
    findings.push_back({{"kind", std::string(word(f.kind))},
                        {"place", f.place},
                        {"message", f.message}});
  }
  nlohmann::ordered_json linears = nlohmann::ordered_json::array();
  for (const VerifiedLinear& l : verification.linears) {
    linears.push_back({{"name", l.name}, {"type", l.type}});
    if (l.relative_error) linears.back()["relative_error"] = *l.relative_error;
  }
  return nlohmann::ordered_json(
             {{"path", verification.path},
              {"ok", verification.count(FindingKind::kError) == 0},
              {"errors", verification.count(FindingKind::kError)},
              {"warnings", verification.count(FindingKind::kWarning)},
              {"tensors", verification.tensors},
              {"findings", std::move(findings)},
              {"linears", std::move(linears)}})
      .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace llmpress
