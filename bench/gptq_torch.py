#!/usr/bin/env python3
"""GPTQ of one Linear in PyTorch, to stand beside quantizers_bench.

The algorithm of arXiv:2210.17323 as its equations say it: Hessian from rows of
inputs, Cholesky factor of the damped inverse, columns in lazy batches of 128,
groups of 128, asymmetric 4 bits. Prints seconds for the Hessian and the solve.

    OPENBLAS_CORETYPE=SkylakeX python3 bench/gptq_torch.py [out] [in] [rows]
"""
import os
import sys
import time

import torch


def hessian(inputs, batch=2048):
    columns = inputs.shape[1]
    total = torch.zeros(columns, columns)
    for start in range(0, inputs.shape[0], batch):
        x = inputs[start:start + batch]
        total.addmm_(x.t(), x, alpha=2.0 / inputs.shape[0])
    return total


def solve(weight, h, bits=4, group=128, block=128, damping=0.01):
    w = weight.clone()
    out, columns = w.shape
    h = h.clone()
    h.diagonal().add_(damping * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    factor = torch.linalg.cholesky(inverse, upper=True)
    top = 2**bits - 1
    result = torch.empty_like(w)
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        part = w[:, begin:end].clone()
        local = factor[begin:end, begin:end]
        errors = torch.empty_like(part)
        for i in range(end - begin):
            if (begin + i) % group == 0:
                values = part[:, i:i + group]
                low = values.min(1).values.clamp(max=0)
                high = values.max(1).values.clamp(min=0)
                scale = ((high - low) / top).clamp(min=1e-8)
                zero = torch.round(-low / scale)
            column = part[:, i]
            codes = torch.clamp(torch.round(column / scale) + zero, 0, top)
            q = scale * (codes - zero)
            result[:, begin + i] = q
            error = (column - q) / local[i, i]
            part[:, i:] -= error[:, None] * local[i, i:][None, :]
            errors[:, i] = error
        w[:, end:] -= errors @ factor[begin:end, end:]
    return result


def main():
    out, columns, rows = (int(a) for a in (sys.argv[1:] + ["4096", "4096", "32768"])[:3])
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    inputs = torch.randn(rows, columns)
    weight = torch.randn(out, columns)
    solve(weight[:256, :256], torch.eye(256))  # warm-up
    start = time.perf_counter()
    h = hessian(inputs)
    middle = time.perf_counter()
    solve(weight, h)
    end = time.perf_counter()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads: "
          f"hessian {middle - start:.2f} s, solve {end - middle:.2f} s")


if __name__ == "__main__":
    main()
