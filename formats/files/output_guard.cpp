#include "formats/files/output_guard.h"

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/files/atomic_file.h"
#include "formats/files/path_location.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

struct Place {
  std::string what{};
  PathLocation at;
};

[[noreturn]] void collide(const Place& output, const char* relation,
                          const Place& other) {
  fail(ErrorCode::kInvalidArgument, "{}: {} {} {} '{}'; choose another path",
       output.at.path(), output.what, relation, other.what, other.at.path());
}

// Every file below `folder` by its identity, links followed; `on_link` gets
// what leads elsewhere.
template <class F>
void visit_files(const fs::path& folder, F&& on_link,
                 std::map<FileId, fs::path>& files) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) return;
  fs::recursive_directory_iterator at(
      folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && at != fs::end(at); at.increment(error)) {
    std::error_code ignored;
    if (at->is_symlink(ignored)) on_link(at->path());
    if (!at->is_directory(ignored)) {
      if (const auto id = file_id(at->path())) files[*id] = at->path();
    }
  }
}

class Inputs {
 public:
  explicit Inputs(const std::vector<InputPath>& inputs) {
    for (const InputPath& input : inputs) {
      const auto id = input.path.empty() ? std::nullopt : file_id(input.path);
      if (!id) continue;
      add(input.what, input.path);
      std::map<FileId, fs::path> below{{*id, input.path}};
      visit_files(
          input.path,
          [&](const fs::path& link) {
            if (file_id(link)) add("what " + input.what + " links to,", link);
          },
          below);
      for (const auto& [file, path] : below) files_.emplace(file, path);
    }
  }

  void check(const Place& output) const {
    for (const Place& input : places_) {
      if (output.at.is(input.at)) collide(output, "would replace", input);
      if (output.at.is_or_lies_in(input.at)) collide(output, "lies in", input);
      if (input.at.is_or_lies_in(output.at)) collide(output, "holds", input);
    }
  }

  // Files that are there now and that would be written over.
  void check_links(const Place& output) const {
    std::map<FileId, fs::path> there;
    if (const auto id = file_id(output.at.path())) {
      there[*id] = output.at.path();
    }
    visit_files(
        output.at.path(), [](const fs::path&) {}, there);
    for (const auto& [id, path] : there) {
      const auto found = files_.find(id);
      if (found == files_.end()) continue;
      fail(ErrorCode::kInvalidArgument,
           "{}: {}: '{}' is a link to the input '{}'; choose another path",
           output.at.path(), output.what, path, found->second);
    }
  }

 private:
  void add(const std::string& what, const fs::path& path) {
    places_.push_back({what, PathLocation(path)});
  }

  std::vector<Place> places_;
  std::map<FileId, fs::path> files_;
};

// What an output replaces: itself, or the files of a report.
std::vector<Place> replaced(const OutputPath& output) {
  if (output.kind != OutputKind::kReport) {
    return {{output.what, PathLocation(output.path)}};
  }
  std::vector<Place> files;
  for (const std::string_view name : kReportFiles) {
    files.push_back({output.what, PathLocation(output.path / name)});
  }
  return files;
}

void check_apart(std::span<const OutputPath> outputs) {
  std::vector<Place> earlier;
  for (const OutputPath& output : outputs) {
    const std::vector<Place> own = replaced(output);
    for (const Place& a : own) {
      for (const Place& b : earlier) {
        if (a.at.is(b.at)) collide(a, "is also", b);
        if (a.at.is_or_lies_in(b.at)) collide(a, "lies in", b);
        if (b.at.is_or_lies_in(a.at)) collide(a, "holds", b);
      }
    }
    earlier.insert(earlier.end(), own.begin(), own.end());
  }
}

std::vector<OutputPath> without_empty(const std::vector<OutputPath>& outputs) {
  std::vector<OutputPath> named;
  for (OutputPath output : outputs) {
    if (output.path.empty()) continue;
    output.path = resolve_path(output.path);
    if (!output.path.has_filename()) {
      fail(ErrorCode::kInvalidArgument, "{}: cannot be {}", output.path,
           output.what);
    }
    named.push_back(std::move(output));
  }
  return named;
}

void check_resolved(const std::vector<InputPath>& inputs,
                    const std::vector<OutputPath>& outputs) {
  const Inputs known(inputs);
  for (const OutputPath& output : outputs) {
    known.check({output.what, PathLocation(output.path)});
  }
  check_apart(outputs);
  for (const OutputPath& output : outputs) {
    check_replaceable(output.path, output.kind);
    for (const Place& place : replaced(output)) known.check_links(place);
  }
}

// Devices and pipes are written to as they are.
bool is_stream(const OutputPath& output) {
  std::error_code ignored;
  return (output.kind == OutputKind::kJsonFile ||
          output.kind == OutputKind::kSafetensors) &&
         fs::exists(output.path, ignored) &&
         !fs::is_regular_file(output.path, ignored);
}

}  // namespace

void check_outputs(const std::vector<InputPath>& inputs,
                   const std::vector<OutputPath>& outputs) {
  check_resolved(inputs, without_empty(outputs));
}

OutputGuard::OutputGuard(const std::vector<InputPath>& inputs,
                         const std::vector<OutputPath>& outputs) {
  const std::vector<OutputPath> named = without_empty(outputs);
  check_resolved(inputs, named);
  for (const OutputPath& output : named) reserve(output);
}

void OutputGuard::reserve(const OutputPath& output) {
  // Whatever OUTPUT.resume is for is locked already.
  if (output.kind == OutputKind::kResume || is_stream(output)) return;
  const std::vector<Place> places = replaced(output);
  made_.make(places.front().at.path().parent_path());
  locks_.emplace_back(places.front().at.path());
  for (const Place& place : places) {
    for (std::string& note : remove_leftovers(place.at.path())) {
      notes_.push_back(std::move(note));
    }
  }
}

OutputGuard::MadeFolders::~MadeFolders() {
  std::error_code ignored;
  for (; !paths.empty(); paths.pop_back()) fs::remove(paths.back(), ignored);
}

void OutputGuard::MadeFolders::make(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  if (folder != folder.parent_path()) make(folder.parent_path());
  if (fs::create_directory(folder, error)) {
    paths.push_back(folder);
  } else if (error) {
    fail(ErrorCode::kIo, "{}: the folder cannot be made: {}", folder,
         error.message());
  }
}

}  // namespace llmpress
