// Any octets as an importance matrix; what is read is written and read again.
#include "compress/core/error.h"
#include "formats/gguf/imatrix.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data,
                                      std::size_t size) {
  using namespace llmpress;
  try {
    const Imatrix imatrix =
        parse_imatrix(std::as_bytes(std::span(data, size)), "fuzz");
    std::size_t values = 0;
    for (const auto& [name, entry] : imatrix.entries) {
      values += entry.sums.size() + entry.counts.size();
    }
    if (values * sizeof(float) > size) __builtin_trap();
    const std::string again = imatrix_octets(imatrix, ImatrixForm::kGguf);
    if (parse_imatrix(std::as_bytes(std::span(again)), "again")
            .entries.size() != imatrix.entries.size()) {
      __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
