// Ctrl-C: the first one asks the work to stop at the next safe point, the
// second one ends the process. Artifacts are whole or absent either way.
#pragma once

namespace llmpress {

void install_interrupt_handler();
bool interrupted();

}  // namespace llmpress
