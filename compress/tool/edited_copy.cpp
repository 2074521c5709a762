#include "compress/tool/edited_copy.h"

#include "compress/pipeline/evaluation/model_copy.h"

namespace llmpress {

void write_edited_copy(const Checkpoint& edited,
                       const EditedCopyOptions& options,
                       const std::string& fingerprint, Session& session) {
  copy_model(
      edited,
      {.output = options.output,
       .dtype = options.dtype,
       .progress = session.progress(),
       .pool = &session.pool(),
       .resume = OutputResume{
           .fingerprint = fingerprint,
           .take_up = !options.no_resume,
           .log = [&session](const std::string& line) { session.log(line); }}});
}

}  // namespace llmpress
