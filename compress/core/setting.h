// A setting of a method, said once: where it lies in the method's configuration,
// its key in a recipe, its type and range, what it means. The recipe's reader,
// the resolved recipe and the reference page of keys are made from tables of
// them:
//
//   constexpr Setting<HqqConfig> kSettings[] = {
//       {"p", "norm of the error", number_at<&HqqConfig::p>(1e-3, 1)}, ...
//
// The default is what a default configuration holds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace llmpress {

// A word of a recipe and what it means.
template <class T>
struct Named {
  std::string_view name;
  T value;
};

template <class Config, class T>
struct SettingPlace {
  T (*get)(const Config&);
  void (*set)(Config&, T);
};

template <class Config>
struct BoolSetting {
  SettingPlace<Config, bool> place;
};

// Whole numbers from `low` to `high`.
template <class Config>
struct CountSetting {
  SettingPlace<Config, std::size_t> place;
  std::size_t low, high;
};

template <class Config>
struct NumberSetting {
  SettingPlace<Config, double> place;
  double low, high;
};

// One of `words` words; the place holds its index.
template <class Config>
struct WordSetting {
  SettingPlace<Config, std::size_t> place;
  std::size_t words;
  std::string_view (*word)(std::size_t);
};

template <class Config>
struct Setting {
  std::string_view key;
  std::string_view meaning;  // a line of Markdown
  std::variant<BoolSetting<Config>, CountSetting<Config>, NumberSetting<Config>,
               WordSetting<Config>>
      value;
  // Whether the key says anything, given the settings before it; nullptr: in
  // any case. Where it does not, giving it is an error: "'key' <otherwise>".
  bool (*applies)(const Config&) = nullptr;
  std::string_view otherwise{};  // empty: it does not apply to the method
};

// A setting that contradicts another one, or what it is used with.
struct SettingFault {
  std::string_view key;
  std::string message;  // follows the key
};

// --- how tables name a place: a path of members, from the configuration on

template <class Member>
struct MemberOf;
template <class Owner, class T>
struct MemberOf<T Owner::*> {
  using Config = Owner;
};

template <auto First, auto... Rest>
struct SettingPath {
  using Config = typename MemberOf<decltype(First)>::Config;
  static const auto& in(const Config& config) {
    return ((config.*First).*....*Rest);
  }
  static auto& in(Config& config) { return ((config.*First).*....*Rest); }
  using Value = std::remove_cvref_t<decltype(in(std::declval<Config&>()))>;
  static constexpr SettingPlace<Config, Value> place() {
    return {[](const Config& config) { return in(config); },
            [](Config& config, Value value) { in(config) = value; }};
  }
};

template <auto... Path>
constexpr auto bool_at() {
  using At = SettingPath<Path...>;
  return BoolSetting<typename At::Config>{At::place()};
}

template <auto... Path>
constexpr auto count_at(std::size_t low, std::size_t high) {
  using At = SettingPath<Path...>;
  return CountSetting<typename At::Config>{At::place(), low, high};
}

template <auto... Path>
constexpr auto number_at(double low, double high) {
  using At = SettingPath<Path...>;
  return NumberSetting<typename At::Config>{At::place(), low, high};
}

// `Words` is an array of Named<T> that has every value of T.
template <const auto& Words, auto... Path>
constexpr auto word_at() {
  using At = SettingPath<Path...>;
  using Config = typename At::Config;
  return WordSetting<Config>{
      {[](const Config& config) {
         const auto found = std::find_if(
             std::begin(Words), std::end(Words),
             [&](const auto& row) { return row.value == At::in(config); });
         return static_cast<std::size_t>(found - std::begin(Words));
       },
       [](Config& config, std::size_t index) {
         At::in(config) = Words[index].value;
       }},
      std::size(Words),
      [](std::size_t index) { return Words[index].name; }};
}

template <class Config>
void copy_settings(std::span<const Setting<Config>> settings,
                   const Config& from, Config& to) {
  for (const Setting<Config>& setting : settings) {
    std::visit(
        [&](const auto& value) { value.place.set(to, value.place.get(from)); },
        setting.value);
  }
}

}  // namespace llmpress
