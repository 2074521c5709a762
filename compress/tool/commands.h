// One function a subcommand: adds it to the command line with its options, help
// and example; its callback does the work.
#pragma once

namespace CLI {
class App;
}

namespace llmpress {

struct CommandRanks;

void add_run_command(CLI::App& app, const CommandRanks& ranks);
void add_plan_command(CLI::App& app);
void add_eval_command(CLI::App& app, const CommandRanks& ranks);
void add_compare_command(CLI::App& app, const CommandRanks& ranks);
void add_bench_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_synth_command(CLI::App& app);
void add_merge_command(CLI::App& app);
void add_unmerge_command(CLI::App& app);
void add_extract_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_verify_command(CLI::App& app);
void add_generate_command(CLI::App& app, const CommandRanks& ranks);
void add_logits_command(CLI::App& app);
void add_imatrix_command(CLI::App& app);

}  // namespace llmpress
