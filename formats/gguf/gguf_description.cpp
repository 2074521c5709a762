// config.json and tokenizer to metadata.
#include "compress/core/formatted.h"
#include "formats/checkpoints/config_reader.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_sink.h"
#include "formats/gguf/gguf_tokenizer.h"

namespace llmpress {

void GgufWriting::size(std::string_view name, std::size_t value) const {
  metadata.set(std::string(architecture) + "." + std::string(name),
               static_cast<std::uint32_t>(value));
}

void GgufWriting::number(std::string_view name, double value) const {
  metadata.set(std::string(architecture) + "." + std::string(name),
               static_cast<float>(value));
}

void GgufWriting::flag(std::string_view name, bool value) const {
  metadata.set(std::string(architecture) + "." + std::string(name), value);
}

namespace {

void write_key(const GgufWriting& out, const GgufKey& row) {
  if (row.real) {
    const auto value = out.config.number(row.ours);
    // Written as null it is off, which GGUF says by leaving the key out.
    if (!value && out.config.is_null(row.ours)) return;
    if (!value && !row.absent) out.config.invalid(row.ours, "a number");
    out.number(row.gguf, value.value_or(row.absent.value_or(0)));
    return;
  }
  const auto value = out.config.size(row.ours);
  if (!value && !row.absent) out.config.invalid(row.ours, "a size");
  out.size(row.gguf,
           value.value_or(static_cast<std::size_t>(row.absent.value_or(0))));
}

}  // namespace

GgufDescription describe_as_gguf(
    const std::map<std::string, std::string>& files,
    const std::string& origin) {
  const ConfigReader config =
      ConfigReader::parse(files.at("config.json"), config_place(origin));
  const GgufArchitecture& row = gguf_architecture_for(config);
  GgufDescription result{.metadata = GgufMetadata(origin)};
  GgufMetadata& m = result.metadata;
  m.set("general.architecture", std::string(row.name));
  m.set("general.type", std::string("model"));
  const GgufWriting out{.config = config,
                        .architecture = row.name,
                        .metadata = m,
                        .extra_tensors = result.tensors};
  for (const GgufKey& key : row.keys) write_key(out, key);
  row.write(out);
  const auto vocabulary = config.size("vocab_size");
  if (!vocabulary) config.invalid("vocab_size", "a size");
  out.size("vocab_size", *vocabulary);
  add_gguf_tokenizer(files, *vocabulary, m);
  return result;
}

}  // namespace llmpress
