// The state of calibration tokens between two stages, as bytes in a scratch
// file that no other process reads.
#pragma once

#include <cstddef>

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

}  // namespace llmpress
