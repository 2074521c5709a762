#include "compress/tool/command_line.h"

int main(int argc, char** argv) {
  return llmpress::run_command_line(argc, argv);
}
