// Linears with what adapters of one kind do beside them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/sparse_difference.h"
#include "compress/kernels/cpu.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/bottleneck.h"
#include "lora/lora_apply.h"

namespace llmpress {

// y = base(x), then what the kinds below do; `own_bytes` are theirs.
class KernelBeside : public LinearKernel {
 public:
  KernelBeside(std::unique_ptr<LinearKernel> base, const char* what,
               std::size_t own_bytes)
      : base_(std::move(base)),
        own_bytes_(own_bytes),
        name_(std::string(base_->name()) + what) {}

  std::size_t out() const override { return base_->out(); }
  std::size_t in() const override { return base_->in(); }
  std::size_t bytes() const override { return base_->bytes() + own_bytes_; }
  std::string_view name() const override { return name_; }

 protected:
  std::unique_ptr<LinearKernel> base_;

 private:
  std::size_t own_bytes_;
  std::string name_;
};

// Low-rank factors (lora_apply.h).
std::unique_ptr<LinearKernel> with_lora(std::unique_ptr<LinearKernel> base,
                                        LoraOperator lora);

// y + weight * D x.
std::unique_ptr<LinearKernel> with_difference(
    std::unique_ptr<LinearKernel> base, SparseDifference difference,
    double weight);

std::unique_ptr<LinearKernel> with_bottleneck(
    std::unique_ptr<LinearKernel> base, Bottleneck bottleneck, Isa isa);

}  // namespace llmpress
