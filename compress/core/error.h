// The one exception of llmpress: whatever a user, a file or a recipe can cause.
// Bugs in our own code are assert()s or std::logic_error.
#pragma once

#include <stdexcept>
#include <string>

// What a program that links the shared library sees of it.
#define LLMPRESS_API __attribute__((visibility("default")))

namespace llmpress {

enum class ErrorCode {
  kInvalidArgument,  // wrong usage, recipe or configuration
  kCorruptFile,      // a file that breaks its own format
  kInvalidInput,     // a well-formed file whose content cannot be used: a NaN
                     // weight, a missing tensor, a text shorter than a window
  kUnsupported,      // a file or model that this version does not know
  kIo,               // the operating system refused
  kNumeric,          // the method failed: a Hessian that cannot be factored
  kResource,         // a memory or disk limit that cannot be met
  kCancelled,        // the user interrupted the run
};

// `what` says where, what, found, wanted:
//   model.safetensors: tensor 'l0.q': offsets [0, 4000000) exceed file size 68
class LLMPRESS_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& what)
      : std::runtime_error(what), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace llmpress
