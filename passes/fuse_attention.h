// Scaled dot-product attention as exporters spell it, and ONNX's Attention in its place.

#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "model/graph.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"

namespace pared {

// y = Softmax(scale Q K' + mask) V. Q is [batch, heads, rows, size] or [batch, rows, size].
struct AttentionPattern {
  size_t last = 0;  // the node that makes y
  std::string query, keys, values;
  std::vector<int64_t> keys_perm;  // turns `keys` into K; empty: it is K
  std::string products;            // Q K', whose last axis is as long as K
  std::string mask;                // empty: none
  double scale = 1;
  int64_t rank = 0;
  std::string refusal;  // not empty: why it has to stay
};

constexpr int64_t kAttentionOpset = 23;

// Those of `graph`, the main graph of `model` or one within it, subgraphs apart. What has the
// structure but cannot be the operator is among them, with its refusal.
std::vector<AttentionPattern> FindAttention(
    const Graph& graph, const Model& model,
    const std::unordered_map<std::string, ValueType>& types);

// Puts Attention in the place of each pattern's last node; what only served it is left unread.
void WriteAttention(Graph& graph, const std::vector<AttentionPattern>& patterns,
                    const std::unordered_map<std::string, ValueType>& types, FreshNames& names);

}  // namespace pared
