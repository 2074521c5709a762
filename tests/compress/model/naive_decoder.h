// A decoder written down a second time, plainly and in double precision, to
// compare with: every position attends by three loops over what it may see.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "formats/tokenizers/tokenizer.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

struct NaiveDecoder {
  TinyShape shape{};
  TinyTensors tensors{};
  Row angles{};  // [head_dim / 2], per position
  double attention_factor = 1, eps = 1e-6;
  std::vector<std::size_t> windows{};  // [layers], 0: none
  std::function<double(double)> activation = [](double x) {
    return x / (1 + std::exp(-x));
  };

  static NaiveDecoder plain(const TinyShape& shape,
                            const TinyTensors& tensors) {
    NaiveDecoder naive{.shape = shape, .tensors = tensors};
    for (std::size_t j = 0; j < shape.head_dim / 2; ++j) {
      naive.angles.push_back(
          1 / std::pow(10000.0, 2.0 * static_cast<double>(j) /
                                    static_cast<double>(shape.head_dim)));
    }
    naive.windows.assign(shape.layers, 0);
    return naive;
  }

  Row linear(const std::string& name, const Row& x) const {
    const MatrixF& W = tensors.at(name + ".weight");
    const auto bias = tensors.find(name + ".bias");
    Row y(W.rows());
    for (std::size_t o = 0; o < W.rows(); ++o) {
      if (bias != tensors.end()) y[o] = static_cast<double>(bias->second(0, o));
      for (std::size_t i = 0; i < W.cols(); ++i) {
        y[o] += static_cast<double>(W(o, i)) * x[i];
      }
    }
    return y;
  }

  Row norm(const std::string& name, const Row& x) const {
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double scale =
        1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
    Row y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[i] = x[i] * scale *
             static_cast<double>(tensors.at(name + ".weight")(0, i));
    }
    return y;
  }

  // Head `h` of x, normed if the model does so, turned to `position`.
  Row turned_head(const Row& x, std::size_t h, const std::string& norm_name,
                  std::size_t position) const {
    const auto begin =
        x.begin() + static_cast<std::ptrdiff_t>(h * shape.head_dim);
    Row head(begin, begin + static_cast<std::ptrdiff_t>(shape.head_dim));
    if (shape.head_norms) head = norm(norm_name, head);
    Row turned(head.size());
    const std::size_t half = head.size() / 2;
    for (std::size_t i = 0; i < head.size(); ++i) {
      const double angle = static_cast<double>(position) * angles[i % half];
      const double rotated = i < half ? -head[i + half] : head[i - half];
      turned[i] = attention_factor *
                  (head[i] * std::cos(angle) + rotated * std::sin(angle));
    }
    return turned;
  }

  Rows attention(std::size_t layer, const Rows& X) const {
    const std::string attn =
        "model.layers." + std::to_string(layer) + ".self_attn.";
    Rows Q, K, V, mixed;
    for (const Row& x : X) {
      Q.push_back(linear(attn + "q_proj", x));
      K.push_back(linear(attn + "k_proj", x));
      V.push_back(linear(attn + "v_proj", x));
    }
    for (std::size_t t = 0; t < X.size(); ++t) {
      Row out(shape.heads * shape.head_dim);
      for (std::size_t h = 0; h < shape.heads; ++h) {
        const std::size_t g = h * shape.kv_heads / shape.heads;
        const Row q = turned_head(Q[t], h, attn + "q_norm", t);
        const std::size_t window = windows[layer];
        const std::size_t first =
            window != 0 && t >= window ? t - window + 1 : 0;
        Row weights;
        double sum = 0;
        for (std::size_t s = first; s <= t; ++s) {
          const Row k = turned_head(K[s], g, attn + "k_norm", s);
          double dot = 0;
          for (std::size_t i = 0; i < q.size(); ++i) dot += q[i] * k[i];
          weights.push_back(
              std::exp(dot / std::sqrt(static_cast<double>(q.size()))));
          sum += weights.back();
        }
        for (std::size_t s = first; s <= t; ++s) {
          for (std::size_t i = 0; i < q.size(); ++i) {
            out[h * shape.head_dim + i] +=
                weights[s - first] / sum * V[s][g * shape.head_dim + i];
          }
        }
      }
      mixed.push_back(linear(attn + "o_proj", out));
    }
    return mixed;
  }

  Row mlp(std::size_t layer, const Row& x) const {
    const std::string mlp = "model.layers." + std::to_string(layer) + ".mlp.";
    Row gate = linear(mlp + "gate_proj", x);
    const Row up = linear(mlp + "up_proj", x);
    for (std::size_t i = 0; i < gate.size(); ++i) {
      gate[i] = activation(gate[i]) * up[i];
    }
    return linear(mlp + "down_proj", gate);
  }

  static void add(Row& to, const Row& from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  }

  Rows logits(std::span<const TokenId> tokens) const {
    const MatrixF& embedding = tensors.at("model.embed_tokens.weight");
    Rows X;
    for (const TokenId t : tokens) {
      const auto row = embedding.row(t);
      X.emplace_back(row.begin(), row.end());
    }
    for (std::size_t layer = 0; layer < shape.layers; ++layer) {
      const std::string block = "model.layers." + std::to_string(layer) + ".";
      Rows normed;
      for (const Row& x : X) {
        normed.push_back(norm(block + "input_layernorm", x));
      }
      const Rows mixed = attention(layer, normed);
      for (std::size_t t = 0; t < X.size(); ++t) {
        add(X[t], mixed[t]);
        add(X[t], mlp(layer, norm(block + "post_attention_layernorm", X[t])));
      }
    }
    const std::string head = shape.tied ? "model.embed_tokens" : "lm_head";
    for (Row& x : X) x = linear(head, norm("model.norm", x));
    return X;
  }
};

}  // namespace llmpress
