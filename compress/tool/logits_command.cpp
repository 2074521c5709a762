#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <memory>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/heap_reuse.h"
#include "compress/model/decoder.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/tool/adapter_arguments.h"
#include "compress/tool/commands.h"
#include "compress/tool/prepack_option.h"
#include "compress/tool/session.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"

namespace llmpress {
namespace {

struct LogitsArguments {
  SessionOptions session{};
  std::filesystem::path model{}, output{};
  std::string ids{};
  bool incremental = false, prepack = false;
  InputPrecision inputs = InputPrecision::kExact;
  AdapterArguments adapters{.scale_option = "--adapter-scale"};
};

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::kInvalidInput, what);
}

// "5,17,8".
std::vector<TokenId> parse_ids(const std::string& text) {
  std::vector<TokenId> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    TokenId id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || (next != end && *next != ',')) {
      fail(ErrorCode::kInvalidArgument,
           "--ids: '{}' is neither a file nor token ids with commas between",
           text);
    }
    ids.push_back(id);
    if (next == end) return ids;
    at = next + 1;
  }
}

template <class T>
std::vector<TokenId> to_ids(std::span<const std::byte> bytes,
                            const std::string& where) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  std::vector<TokenId> ids;
  for (const T value : values) {
    if (value < 0 || value > std::numeric_limits<std::int32_t>::max()) {
      invalid(formatted("{}: {} is no token id", where, value));
    }
    ids.push_back(static_cast<TokenId>(value));
  }
  return ids;
}

// One sequence [tokens] or [1, tokens].
std::vector<TokenId> read_ids(const std::string& path) {
  const auto tensors = open_tensors(path);
  const TensorInfo& info = tensors->require("input_ids");
  const std::string where = path + ": 'input_ids'";
  if (info.shape.size() > 2 || (info.shape.size() == 2 && info.shape[0] != 1)) {
    invalid(where + " holds more than one sequence");
  }
  const TensorBytes data = tensors->read(info);
  if (info.dtype == DType::kI64) return to_ids<std::int64_t>(data.bytes, where);
  if (info.dtype == DType::kI32) return to_ids<std::int32_t>(data.bytes, where);
  invalid(where + " is not of 32- or 64-bit integers");
}

MatrixF whole(const Decoder& decoder, std::span<const TokenId> ids,
              ThreadPool& pool) {
  const Segment all{ids.size(), 0, nullptr};
  const MatrixF hidden = decoder.forward(ids, {&all, 1}, pool);
  return decoder.ends().logits(hidden.view(), pool);
}

MatrixF token_by_token(const Decoder& decoder, std::span<const TokenId> ids,
                       ThreadPool& pool) {
  MatrixF logits(ids.size(), decoder.architecture().vocabulary);
  KvCache cache = decoder.make_cache(ids.size());
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const Segment one{1, cache.tokens(), &cache};
    const MatrixF hidden = decoder.forward(ids.subspan(t, 1), {&one, 1}, pool);
    const MatrixF row = decoder.ends().logits(hidden.view(), pool);
    std::ranges::copy(row.data(), logits.row(t).begin());
  }
  return logits;
}

void write_logits(const std::filesystem::path& path, const MatrixF& logits) {
  NamedTensor tensor{.name = "logits",
                     .dtype = DType::kF32,
                     .shape = {logits.rows(), logits.cols()}};
  tensor.bytes.resize(bytes_of(DType::kF32, logits.size()));
  encode_floats(DType::kF32, logits.data(), tensor.bytes);
  write_file_atomically(
      path, write_safetensors({&tensor, 1},
                              {{"format", "pt"},
                               {std::string(kVersionKey), LLMPRESS_VERSION}}));
}

void write(const LogitsArguments& arguments) {
  Session session(arguments.session);
  const HeapReuse reuse;
  std::vector<InputPath> inputs{{"the model", arguments.model},
                                {"the token ids", arguments.ids}};
  add_inputs(arguments.adapters, inputs);
  const OutputGuard guard(
      inputs, {{"the output", arguments.output, OutputKind::kSafetensors}});
  log_notes(guard, session);
  std::error_code too_long;  // a list of many ids is no name of a file
  const std::vector<TokenId> ids =
      std::filesystem::exists(arguments.ids, too_long)
          ? read_ids(arguments.ids)
          : parse_ids(arguments.ids);
  if (ids.empty()) invalid("--ids: there is not one token id");
  if (arguments.prepack) {
    check_prepack_possible(!arguments.adapters.paths.empty(), false,
                           session.isa());
  }
  const auto checkpoint = open_checkpoint(arguments.model);
  const Architecture arch = read_architecture(*checkpoint);
  AdaptersBeside beside;
  if (!arguments.adapters.paths.empty()) {
    beside = keep_beside(*checkpoint, arch, weighted(arguments.adapters),
                         session.isa(), session.pool());
    for (const std::string& note : beside.notes) session.log(note);
  }
  std::shared_ptr<const PrepackedWeights> prepacked;
  if (arguments.prepack) prepacked = open_prepacked(*checkpoint, {}, session);
  const Decoder decoder(beside.checkpoint ? *beside.checkpoint : *checkpoint,
                        {.isa = session.isa(),
                         .progress = session.progress(),
                         .companion = beside.companion,
                         .prepacked = prepacked,
                         .inputs = arguments.inputs,
                         .pool = &session.pool()});
  write_logits(arguments.output,
               arguments.incremental
                   ? token_by_token(decoder, ids, session.pool())
                   : whole(decoder, ids, session.pool()));
  session.log(
      formatted("logits of {} tokens in {}", ids.size(), arguments.output));
}

}  // namespace

void add_logits_command(CLI::App& app) {
  auto arguments = std::make_shared<LogitsArguments>();
  CLI::App* command = app.add_subcommand(
      "logits", "logits of token ids, to compare with other programs");
  command->add_option("model", arguments->model, "model or artifact")
      ->required();
  command
      ->add_option("--ids", arguments->ids,
                   "token ids with commas between, or a safetensors or HDF5 "
                   "file with integers 'input_ids' [tokens] or [1, tokens]")
      ->required();
  command
      ->add_option("--output", arguments->output,
                   "a safetensors file: F32 'logits' [tokens, vocabulary]")
      ->required();
  command->add_flag("--incremental", arguments->incremental,
                    "token by token with the cache, not all at once");
  add_activations_option(*command, arguments->inputs);
  add_prepack_option(*command, arguments->prepack);
  add_beside_options(*command, arguments->adapters);
  add_session_options(*command, arguments->session);
  command->footer(
      "Example:\n  llmpress logits ./my-model --ids 5,17,8 --output "
      "logits.safetensors");
  command->callback([arguments] { write(*arguments); });
}

}  // namespace llmpress
