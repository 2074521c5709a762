#include "compress/core/error.h"
#include "formats/artifact_sink.h"

namespace llmpress {

std::unique_ptr<ArtifactSink> make_hdf5_sink(const ArtifactOptions&) {
  throw Error(ErrorCode::kUnsupported, "hdf5");
}

}  // namespace llmpress
