// Reads and writes the settings of a method by its table of them
// (compress/core/setting.h).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "compress/core/setting.h"
#include "quantizers/method.h"
#include "recipes/section.h"
#include "recipes/yaml_writer.h"

namespace llmpress {

template <class Config>
void read_setting(const Section& section, std::string_view key,
                  const BoolSetting<Config>& setting, Config& config) {
  setting.place.set(config, section.boolean(key, setting.place.get(config)));
}

template <class Config>
void read_setting(const Section& section, std::string_view key,
                  const CountSetting<Config>& setting, Config& config) {
  setting.place.set(config, section.count(key, setting.place.get(config),
                                          setting.low, setting.high));
}

template <class Config>
void read_setting(const Section& section, std::string_view key,
                  const NumberSetting<Config>& setting, Config& config) {
  setting.place.set(config, section.number(key, setting.place.get(config),
                                           setting.low, setting.high));
}

template <class Config>
void read_setting(const Section& section, std::string_view key,
                  const WordSetting<Config>& setting, Config& config) {
  if (!section.has(key)) return;
  std::vector<std::string_view> words;
  for (std::size_t i = 0; i < setting.words; ++i) {
    words.push_back(setting.word(i));
  }
  setting.place.set(config, section.choice_index(key, words));
}

// Settings that `section` leaves out stay as `config` has them. `method` is
// named where a key does not apply.
template <class Config>
void read_settings(const Section& section,
                   std::span<const Setting<Config>> settings,
                   std::string_view method, Config& config) {
  for (const Setting<Config>& setting : settings) {
    if (setting.applies == nullptr || setting.applies(config)) {
      std::visit(
          [&](const auto& value) {
            read_setting(section, setting.key, value, config);
          },
          setting.value);
    } else if (section.has(setting.key)) {
      section.refuse(setting.key, setting.otherwise.empty()
                                      ? "does not apply to method '" +
                                            std::string(method) + "'"
                                      : std::string(setting.otherwise));
    }
  }
}

template <class Config>
void write_settings(YamlWriter& out, std::span<const Setting<Config>> settings,
                    const Config& config) {
  struct Write {
    YamlWriter& out;
    std::string_view key;
    const Config& config;
    void operator()(const BoolSetting<Config>& s) const {
      out.boolean(key, s.place.get(config));
    }
    void operator()(const CountSetting<Config>& s) const {
      out.count(key, s.place.get(config));
    }
    void operator()(const NumberSetting<Config>& s) const {
      out.number(key, s.place.get(config));
    }
    void operator()(const WordSetting<Config>& s) const {
      out.word(key, s.word(s.place.get(config)));
    }
  };
  for (const Setting<Config>& setting : settings) {
    if (setting.applies != nullptr && !setting.applies(config)) continue;
    std::visit(Write{out, setting.key, config}, setting.value);
  }
}

// Names of the methods that `wanted` holds for.
template <class Wanted>
std::vector<std::string_view> method_names(const Wanted& wanted) {
  std::vector<std::string_view> names;
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (wanted(method)) names.push_back(method.name);
  }
  return names;
}

}  // namespace llmpress
