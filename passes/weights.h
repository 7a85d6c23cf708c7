// The constant weights of a model: which node multiplies by which, and how they lie as a matrix.
//
// A weight may be an initializer or the output of a Constant node, of the node's own graph or of
// one around it, and may reach the node through Identity, Cast, Transpose, Reshape, Flatten,
// Squeeze and Unsqueeze. Such a chain is followed on demand; nothing is folded.

#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "model/infer_shapes.h"

namespace pared {

// A weight as matrices w[group][row][k], y[row] = sum over k of w[row][k] x[k]. A row makes one
// output channel. Conv: row = output channel, k = (input channel, kh, kw).
struct MatrixLayout {
  int64_t groups = 1, rows = 1, k = 1;  // rows and k of one group
  int64_t k_inner = 1;                  // k = outer * k_inner + inner
  int64_t group_stride = 0, row_stride = 0, outer_stride = 0, inner_stride = 1;

  int64_t Index(int64_t group, int64_t row, int64_t at) const {
    return group * group_stride + row * row_stride + at / k_inner * outer_stride +
           at % k_inner * inner_stride;
  }
};

// A constant of one graph of the model: the name of its value.
using ConstantRef = std::pair<const Graph*, std::string>;

struct WeightSite {
  const Graph* graph = nullptr;  // that holds the node
  const Node* node = nullptr;
  size_t input = 1;  // the node's input that is the weight
  ConstantRef root;  // where the elements are stored
  Tensor stored;     // as stored
  Shape shape;       // as the node sees it
  // Where the chain reorders: element of the node's view to element of `stored`. Empty: the same.
  std::vector<int64_t> order;
  MatrixLayout layout;  // over the node's view

  int64_t StoredIndex(int64_t viewed) const {
    return order.empty() ? viewed : order[static_cast<size_t>(viewed)];
  }
};

// Multiplications of the site's node for one run; dimensions that are not known count as 1.
int64_t MacsOf(const WeightSite& site, const std::unordered_map<std::string, ValueType>& types);
// Of all sites of the model, for one sample.
int64_t MacsOf(const Model& model);

struct SkippedNode {
  const Node* node = nullptr;
  std::string reason;
};

struct WeightScan {
  std::vector<WeightSite> sites;  // in node order, the outer graph first
  std::vector<SkippedNode> skipped;
};

// Every weight of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN, subgraphs included.
// Pointers hold as long as the model is not edited.
WeightScan FindWeights(const Model& model);

// Whether it is an LSTM, GRU or RNN.
bool IsRecurrent(const Node& node);

// Whether the convolution has one input channel a group.
bool IsDepthwise(const WeightSite& site);

// `model` with the stored elements of these constants replaced.
using ConstantEdits = std::map<ConstantRef, Tensor>;
void ReplaceConstants(Model& model, const ConstantEdits& edits);

// Takes initializers out of the graph's inputs. IR version 3 lists every initializer there; from
// version 4 on such an input is a default that a caller may override. The version becomes at
// least 4.
void DropInitializerInputs(Model& model);

// The layout of the weight that `node` has at `input`, seen with `shape`. nullopt: not a weight
// pared knows, or a rank its operator does not allow.
std::optional<MatrixLayout> LayoutOf(const Node& node, size_t input, const Shape& shape);

// `scratch` where the model's constants are so many that a pass had better write what it makes of
// them there at once (Spilled), else empty.
std::filesystem::path SpillFolder(const Model& model, const std::filesystem::path& scratch);

// Throws kInvalidArgument naming the tensor where an element is NaN or infinite.
void CheckFinite(const Tensor& tensor, const std::string& name);

// The elements of a float16, bfloat16, float or double tensor as float.
std::vector<float> ToFloat(const Tensor& tensor);

}  // namespace pared
