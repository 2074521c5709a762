// The state of tokens between two stages or blocks as bytes: in a scratch file
// that no other process reads, or on its way to another rank.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "compress/model/block.h"
#include "formats/files/scratch_file.h"

namespace llmpress {

std::size_t state_bytes(const BlockState& state);

// At `offset`, state_bytes(state) of them. Throws Error(kIo).
void write_state(const BlockState& state, std::size_t offset,
                 ScratchFile& file);
// What write_state() wrote there, bit for bit; what shared a routing shares it
// again.
BlockState read_state(const ScratchFile& file, std::size_t offset);

// The same bytes in a string.
std::string to_bytes(const BlockState& state);
BlockState state_from_bytes(std::string_view bytes);

}  // namespace llmpress
