#include "formats/files/foreign_file.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <string_view>
#include <vector>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

struct Magic {
  std::string_view octets;
  std::string_view meaning;
};

constexpr std::array kMagics{
    Magic{"version https://git-lfs",
          "a git-lfs pointer, not the file itself; fetch it with 'git lfs "
          "pull'"},
    Magic{"GGUF", "a GGUF file, which is a model of its own"},
    Magic{"PK\x03\x04",
          "a zip archive, as torch.save writes it; such weights are read from "
          "pytorch_model.bin"},
    Magic{"\x80\x02\x8a\x0a",
          "a file of torch.save; such weights are read from pytorch_model.bin"},
    Magic{"\x80\x02", "a Python pickle, which can run code and is not read"},
    Magic{"\x80\x03", "a Python pickle, which can run code and is not read"},
    Magic{"\x80\x04", "a Python pickle, which can run code and is not read"},
    Magic{"\x89HDF", "an HDF5 file"},
    Magic{"<!DOCTYPE", "an HTML page, perhaps an error of a download"},
    Magic{"<html", "an HTML page, perhaps an error of a download"},
};

// Weights in forms that are not read, by the end of the file's name.
constexpr std::array kUnreadWeights{
    Magic{".gguf", "is GGUF, a model of its own; give its path"},
    Magic{".msgpack", "is Flax's; convert the model to safetensors"},
    Magic{"adapter_model.safetensors",
          "is an adapter; give the model that it was trained on"},
    Magic{"adapter_model.bin",
          "is an adapter; give the model that it was trained on"},
    Magic{".bin", "does not hold weights as torch.save writes them"},
    Magic{".bin.index.json",
          "has another name than pytorch_model.bin.index.json"},
    Magic{".pt", "does not hold weights as torch.save writes them"},
    Magic{".pth", "does not hold weights as torch.save writes them"},
    Magic{".safetensors",
          "has another name than model.safetensors, and there is no "
          "model.safetensors.index.json"},
};

}  // namespace

std::string describe_foreign(std::span<const std::byte> head) {
  for (const Magic& magic : kMagics) {
    const bool same = head.size() >= magic.octets.size() &&
                      std::equal(magic.octets.begin(), magic.octets.end(),
                                 head.begin(), [](char a, std::byte b) {
                                   return static_cast<unsigned char>(a) ==
                                          std::to_integer<unsigned char>(b);
                                 });
    if (same) return std::string(magic.meaning);
  }
  return {};
}

std::string describe_foreign(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return {};  // a pipe would wait
  std::array<char, 32> head{};
  std::ifstream stream(file, std::ios::binary);
  stream.read(head.data(), head.size());
  return describe_foreign(std::as_bytes(
      std::span(head).first(static_cast<std::size_t>(stream.gcount()))));
}

std::string describe_missing_weights(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  for (const Magic& unread : kUnreadWeights) {
    for (const std::string& name : names) {
      if (!name.ends_with(unread.octets)) continue;
      return formatted("'{}' {}", name, unread.meaning);
    }
  }
  return {};
}

}  // namespace llmpress
