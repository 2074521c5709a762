// Where tests find what they run and read. The paths are compiled into one file
// of each test program, so that the others are the same in any folder and a
// compiler cache knows them.
#pragma once

#include <string>

namespace llmpress {

const std::string& source_dir();  // the root of the source tree
const std::string& program();     // the built llmpress

}  // namespace llmpress
