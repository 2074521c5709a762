#include "recipes/train_section.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "recipes/selection_section.h"
#include "recipes/settings_section.h"
#include "recipes/stage_reader.h"
#include "recipes/texts_section.h"
#include "recipes/words.h"

namespace llmpress {
namespace {

using Path = std::filesystem::path;

constexpr std::size_t kMaxSeed = std::size_t{1} << 62;

// With the place of the stage in front.
template <class Config>
void check_at(const SourcePosition& position, const Config& config) {
  try {
    check(config);
  } catch (const Error& error) {
    fail_at(position, error.what());
  }
}

StudentConfig read_student(const YamlNode& node, const Path& folder) {
  const Section section(node, "student");
  StudentConfig student;
  student.every = section.count("every", student.every, 1, 1 << 20);
  student.config = path_at(section, "config", folder);
  student.seed = section.count("seed", student.seed, 0, kMaxSeed);
  if (section.has("every") && section.has("config")) {
    section.refuse("every", "contradicts 'config', which gives random weights");
  }
  if (section.has("seed") && !section.has("config")) {
    section.refuse("seed", "belongs to 'config'");
  }
  return student;
}

// `stage` holds the defaults.
TrainStage read_training(const Section& section, const Path& folder,
                         std::string_view name, TrainStage stage) {
  stage.position = section.position();
  if (name == "tune") {
    read_text(section, folder, stage);
  } else {
    read_texts(section, folder, stage);
  }
  read_settings(section, train_settings(), name, stage.config);
  check_at(stage.position, stage.config);
  const bool held_out = stage.domains.empty()
                            ? !stage.held_out.empty()
                            : !stage.domains.front().held_out.empty();
  if (stage.config.patience != 0 && !held_out) {
    section.refuse("patience", "needs 'held_out'");
  }
  return stage;
}

QuantizationAware read_aware(const YamlNode& node) {
  const Section section(node, "quantization_aware");
  QuantizationAware aware;
  aware.learn_scales = section.boolean("learn_scales", aware.learn_scales);
  aware.activations = section.boolean("activations", aware.activations);
  aware.kv_cache =
      section.choice<KvCacheType>("kv_cache", aware.kv_cache, kKvCacheWords);
  return aware;
}

// "all", or one or several parts.
std::vector<LearningPart> read_parts(const Section& section) {
  std::vector<LearningPart> parts;
  const std::vector<std::string> words = section.texts("learn");
  if (words == std::vector<std::string>{std::string(kEverything)}) return parts;
  for (const std::string& word : words) {
    const auto* const row =
        std::ranges::find(kLearningWords, word, &Named<LearningPart>::name);
    if (row == std::end(kLearningWords)) {
      section.refuse("learn", "has '" + word +
                                  "'; wants all, or some of scales, zeros, "
                                  "norms, biases");
    }
    if (std::ranges::count(words, word) > 1) {
      section.refuse("learn", "has '" + word + "' twice");
    }
    parts.push_back(row->value);
  }
  if (section.has("learn") && parts.empty()) {
    section.refuse("learn", "is empty: nothing would learn");
  }
  return parts;
}

// Of a student, which may be made anew.
TrainStage read_training_of_student(const Section& section, const Path& folder,
                                    std::string_view name) {
  TrainStage stage = read_training(section, folder, name, {});
  stage.learn = read_parts(section);
  if (const YamlNode* const student = section.find("student")) {
    stage.student = read_student(*student, folder);
  }
  if (const YamlNode* const aware = section.find("quantization_aware")) {
    stage.aware = read_aware(*aware);
    if (!stage.learn.empty()) {
      section.refuse("learn",
                     "does not go with 'quantization_aware', where "
                     "everything learns");
    }
    if (stage.config.keep_zeros) {
      section.refuse("keep_zeros", "does not go with 'quantization_aware'");
    }
  }
  return stage;
}

// What a stored teacher does not hold.
void check_cache(const Section& section, const DistillConfig& loss) {
  if (loss.top_k == 0) {
    section.refuse("teacher_cache",
                   "needs 'top_k' above 0: that many a token "
                   "are stored");
  }
  if (loss.hidden > 0 || loss.relation > 0) {
    section.refuse("teacher_cache",
                   "does not go with 'hidden' and 'relation', which look into "
                   "the teacher");
  }
  if (loss.on_policy > 0) {
    section.refuse("teacher_cache",
                   "does not go with 'on_policy': nobody knows beforehand what "
                   "the student writes");
  }
}

void write_student(YamlWriter& out, const StudentConfig& student) {
  if (student == StudentConfig{}) return;
  out.open("student");
  if (student.config.empty()) {
    out.count("every", student.every);
  } else {
    out.text("config", student.config.string());
    out.count("seed", student.seed);
  }
  out.close();
}

void write_aware(YamlWriter& out, const QuantizationAware& aware) {
  out.open("quantization_aware");
  out.boolean("learn_scales", aware.learn_scales);
  out.boolean("activations", aware.activations);
  out.word("kv_cache", name_of<KvCacheType>(kKvCacheWords, aware.kv_cache));
  out.close();
}

void write_training(YamlWriter& out, const TrainStage& stage) {
  write_texts(out, stage);
  write_settings(out, train_settings(), stage.config);
  if (!stage.learn.empty()) {
    std::vector<std::string> parts;
    for (const LearningPart part : stage.learn) {
      parts.emplace_back(name_of<LearningPart>(kLearningWords, part));
    }
    out.texts("learn", parts);
  }
  write_student(out, stage.student);
  if (stage.aware) write_aware(out, *stage.aware);
}

}  // namespace

TrainStage read_train(const YamlNode& node, const Path& folder) {
  return read_training_of_student(Section(node, "train"), folder, "train");
}

DistillStage read_distill(const YamlNode& node, const Path& folder) {
  const Section section(node, "distill");
  DistillStage stage{
      .train = read_training_of_student(section, folder, "distill"),
      .position = node.position};
  read_settings(section, distill_settings(), "distill", stage.loss);
  check_at(node.position, stage.loss);
  stage.teacher = path_at(section, "teacher", folder);
  stage.teacher_cache = path_at(section, "teacher_cache", folder);
  if (!stage.teacher_cache.empty()) check_cache(section, stage.loss);
  if (stage.train.domains.empty()) return stage;
  if (!stage.teacher_cache.empty()) {
    section.refuse("teacher_cache", "does not go with 'domains'");
  }
  if (stage.loss.cross_entropy == 0 && stage.train.domain_rate > 0) {
    section.refuse("domain_rate",
                   "needs 'cross_entropy' above 0: weights follow that loss");
  }
  return stage;
}

TuneStage read_tune(const YamlNode& node, const Path& folder) {
  const Section section(node, "tune");
  TuneStage stage{.position = node.position};
  stage.train = read_training(section, folder, "tune", std::move(stage.train));
  if (stage.train.config.keep_zeros) {
    section.refuse("keep_zeros",
                   "does not go with an adapter: what begins as 0 would stay "
                   "so");
  }
  read_settings(section, tune_settings(), "tune", stage.adapter);
  if (stage.adapter.method == AdapterKind::kDiffPruning &&
      stage.train.config.patience != 0) {
    section.refuse("patience",
                   "does not go with 'diff_pruning', which decides what stays "
                   "after two thirds of the steps");
  }
  if (!stage.adapter.is_virtual()) {
    stage.layers = read_selection(section);
    return stage;
  }
  for (const char* const key : {"targets", "ignore"}) {
    if (!section.has(key)) continue;
    section.refuse(key,
                   "does not go with virtual tokens, which are no part of "
                   "a Linear");
  }
  if (stage.train.config.attention_dropout > 0) {
    section.refuse("attention_dropout", "does not go with virtual tokens");
  }
  return stage;
}

void write_body(YamlWriter& out, const TrainStage& stage) {
  write_training(out, stage);
}

void write_body(YamlWriter& out, const DistillStage& stage) {
  write_training(out, stage.train);
  write_settings(out, distill_settings(), stage.loss);
  if (!stage.teacher.empty()) out.text("teacher", stage.teacher.string());
  if (!stage.teacher_cache.empty()) {
    out.text("teacher_cache", stage.teacher_cache.string());
  }
}

void write_body(YamlWriter& out, const TuneStage& stage) {
  write_training(out, stage.train);
  write_settings(out, tune_settings(), stage.adapter);
  if (stage.adapter.is_virtual()) return;
  out.texts("targets", stage.layers.targets);
  out.texts("ignore", stage.layers.ignore);
}

}  // namespace llmpress
