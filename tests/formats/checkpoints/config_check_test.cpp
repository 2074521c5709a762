#include "formats/checkpoints/config_check.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace llmpress {
namespace {

TEST(ConfigCheck, HasNothingToSayOfOneMeaning) {
  for (const char* config :
       {"{}", R"({"rope_scaling": null, "rope_parameters": {"factor": 2}})",
        R"({"rope_scaling": {}, "rope_parameters": {"factor": 2}})",
        R"({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 500000.0}})",
        R"({"dtype": "bfloat16", "torch_dtype": "bfloat16"})",
        R"({"num_hidden_layers": 1, "layer_types": ["full_attention"]})",
        R"({"hidden_size": 4, "text_config": {"hidden_size": 4}})"}) {
    EXPECT_EQ(check_config(config, "c"), std::vector<std::string>{}) << config;
  }
}

TEST(ConfigCheck, NamesBothKeysAndTheOneThatCounts) {
  struct Row {
    const char* config;
    const char* note;
  };
  for (const Row& row : {
           Row{R"({"rope_scaling": {"factor": 4},
                   "rope_parameters": {"rope_theta": 1e4}})",
               "c: 'rope_scaling' is {\"factor\":4} and 'rope_parameters' is "
               "{\"rope_theta\":10000.0}; the first counts"},
           Row{R"({"rope_theta": 10, "rope_parameters": {"rope_theta": 20}})",
               "c: 'rope_theta' is 10 and in 'rope_parameters' 20; the latter "
               "counts"},
           Row{R"({"rope_scaling": {"type": "yarn", "rope_type": "linear"}})",
               "c: 'rope_scaling': 'rope_type' is \"linear\" and 'type' is "
               "\"yarn\"; the first counts"},
           Row{R"({"dtype": "float16", "torch_dtype": "bfloat16"})",
               "c: 'dtype' is \"float16\" and 'torch_dtype' is \"bfloat16\"; "
               "the first counts"},
       }) {
    EXPECT_EQ(check_config(row.config, "c"),
              std::vector<std::string>{row.note});
  }
}

TEST(ConfigCheck, RefusesContradictionsThatNoLoaderResolves) {
  struct Row {
    const char* config;
    const char* part;
  };
  for (const Row& row :
       {Row{R"({"a": 1, "a": 2})", "duplicate key 'a'"},
        Row{R"({"num_hidden_layers": 2, "layer_types": ["full_attention"]})",
            "'layer_types' has 1 entries and 'num_hidden_layers' is 2"},
        Row{R"({"layer_types": ["sliding_attention"],
                "sliding_window": null})",
            "'sliding_window' is null"},
        Row{R"({"layer_types": ["sliding_attention"],
                "use_sliding_window": false})",
            "'use_sliding_window' is false"},
        Row{R"({"quantization_config": {"quant_method": "fp8"},
                "compression_config": {"quant_method": "awq"}})",
            "'quantization_config' and 'compression_config'"},
        Row{R"({"hidden_size": 4, "text_config": {"hidden_size": 8}})",
            "'hidden_size' is 4 and in 'text_config' 8"}}) {
    try {
      check_config(row.config, "c");
      ADD_FAILURE() << row.config;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(row.part), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace llmpress
