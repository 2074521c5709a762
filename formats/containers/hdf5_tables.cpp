#include "formats/containers/hdf5_tables.h"

#include <array>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/hdf5_file.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/atomic_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTokens = ".tokens";

// The matrices and vectors of InputStats by their names in the file.
struct MatrixField {
  std::string_view name;
  MatrixF InputStats::*member;
};
struct VectorField {
  std::string_view name;
  std::vector<float> InputStats::*member;
};
constexpr std::array kMatrices{
    MatrixField{".second_moment", &InputStats::second_moment},
    MatrixField{".reference_moment", &InputStats::reference_moment},
    MatrixField{".sample_rows", &InputStats::sample_rows},
};
constexpr std::array kVectors{
    VectorField{".abs_max", &InputStats::abs_max},
    VectorField{".abs_mean", &InputStats::abs_mean},
    VectorField{".square_mean", &InputStats::square_mean},
    VectorField{".min", &InputStats::min},
    VectorField{".max", &InputStats::max},
};

// A new HDF5 file at `path` with what `fill` puts into its root.
void write_whole(const fs::path& path,
                 const std::function<void(const Hdf5Handle&)>& fill) {
  const PartialDirectory partial(path);
  const fs::path file = partial.path() / "table.h5";
  {
    const Hdf5Session session;
    const Hdf5Handle root = create_hdf5(file.string());
    fill(root);
    hdf5_flush(root, path.string());
  }
  sync_file(file);
  replace_path(file, path);
}

const TensorInfo& find_ids(const TensorReader& reader, const fs::path& path) {
  const TensorInfo* const info = reader.find("input_ids");
  if (info == nullptr || info->shape.empty() || info->shape.size() > 2) {
    fail(ErrorCode::kInvalidInput,
         "{}: wanted a dataset input_ids of 1 or 2 dimensions", path);
  }
  return *info;
}

std::vector<std::int64_t> wide_ids(const TensorReader& reader,
                                   const TensorInfo& info) {
  const auto widened = [](const auto& narrow) {
    return std::vector<std::int64_t>(narrow.begin(), narrow.end());
  };
  switch (info.dtype) {
    case DType::kU8:
      return widened(elements_of<std::uint8_t>(reader, info, info.dtype));
    case DType::kU16:
      return widened(elements_of<std::uint16_t>(reader, info, info.dtype));
    case DType::kU32:
      return widened(elements_of<std::uint32_t>(reader, info, info.dtype));
    case DType::kU64:  // beyond 2^63 turns negative, which is refused
      return elements_of<std::int64_t>(reader, info, info.dtype);
    default:
      return integers_of(reader, info);
  }
}

// "model.layers.0.mlp" of "model.layers.0.mlp.abs_max".
std::string linear_of(const TensorInfo& info, std::string_view field) {
  return info.name.substr(0, info.name.size() - field.size());
}

}  // namespace

TokenTable read_token_table(const fs::path& path) {
  const auto reader = open_hdf5_tensors(path);
  const TensorInfo& info = find_ids(*reader, path);
  TokenTable table{.samples = info.shape.size() == 2 ? info.shape[0] : 1,
                   .length = info.shape.back()};
  const auto ids = wide_ids(*reader, info);
  table.ids.reserve(ids.size());
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (ids[k] < 0 || ids[k] > std::numeric_limits<std::uint32_t>::max()) {
      fail(ErrorCode::kInvalidInput, "{}: [{}, {}] is {}, not a token id",
           subject_of(info), k / table.length, k % table.length, ids[k]);
    }
    table.ids.push_back(static_cast<std::uint32_t>(ids[k]));
  }
  return table;
}

void write_token_table(const fs::path& path, const TokenTable& table) {
  if (table.ids.size() !=
      checked_mul(table.samples, table.length, path.string())) {
    fail(ErrorCode::kInvalidArgument, "{}: token ids are not [samples, length]",
         path);
  }
  const std::vector<std::int64_t> wide(table.ids.begin(), table.ids.end());
  write_whole(path, [&](const Hdf5Handle& root) {
    write_hdf5_tensor(root,
                      tensor_of("input_ids", DType::kI64,
                                {table.samples, table.length}, wide),
                      path.string());
  });
}

void write_hdf5_tensors(const fs::path& path,
                        const std::map<std::string, std::string>& metadata,
                        std::size_t count,
                        const std::function<NamedTensor(std::size_t)>& make) {
  write_whole(path, [&](const Hdf5Handle& root) {
    for (const auto& [name, value] : metadata) {
      write_string_attribute(root, name, value, path.string());
    }
    for (std::size_t i = 0; i < count; ++i) {
      write_hdf5_tensor(root, make(i), path.string());
    }
  });
}

std::map<std::string, InputStats> read_statistics(const fs::path& path) {
  const auto reader = open_hdf5_tensors(path);
  std::map<std::string, InputStats> all;
  for (const TensorInfo& info : reader->tensors()) {
    for (const MatrixField& f : kMatrices) {
      if (!info.name.ends_with(f.name)) continue;
      all[linear_of(info, f.name)].*f.member = read_matrix(*reader, info.name);
    }
    for (const VectorField& f : kVectors) {
      if (!info.name.ends_with(f.name)) continue;
      if (info.shape.size() != 1)
        require_shape(info, std::array{std::size_t{0}});
      all[linear_of(info, f.name)].*f.member =
          read_vector(*reader, info.name, info.shape[0]);
    }
    if (info.name.ends_with(kTokens)) {
      const auto tokens = integers_of(*reader, info);
      if (tokens.size() != 1 || tokens[0] < 0) {
        fail(ErrorCode::kCorruptFile, "{}: is not a number of tokens",
             subject_of(info));
      }
      all[linear_of(info, kTokens)].tokens =
          static_cast<std::size_t>(tokens[0]);
    }
  }
  return all;
}

void write_statistics(const fs::path& path,
                      const std::map<std::string, InputStats>& statistics) {
  const std::string where = path.string();
  write_whole(path, [&](const Hdf5Handle& root) {
    for (const auto& [linear, stats] : statistics) {
      const Hdf5Handle group = create_hdf5_group(root, linear, where);
      const auto put = [&](std::string_view field,
                           std::vector<std::size_t> shape,
                           std::span<const float> values) {
        if (values.empty()) return;
        write_hdf5_tensor(group,
                          float_tensor(std::string(field.substr(1)),
                                       DType::kF32, std::move(shape), values),
                          where);
      };
      for (const MatrixField& f : kMatrices) {
        const MatrixF& m = stats.*f.member;
        put(f.name, {m.rows(), m.cols()}, m.data());
      }
      for (const VectorField& f : kVectors) {
        const std::vector<float>& v = stats.*f.member;
        put(f.name, {v.size()}, v);
      }
      const std::vector<std::int64_t> tokens{
          static_cast<std::int64_t>(stats.tokens)};
      write_hdf5_tensor(group, tensor_of("tokens", DType::kI64, {}, tokens),
                        where);
    }
  });
}

}  // namespace llmpress
