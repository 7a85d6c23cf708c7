#include "passes/constant_node.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/half_floats.h"
#include "evaluator/ops.h"
#include "model/infer_shapes.h"
#include "model/random_ops.h"
#include "passes/float_elements.h"

namespace pared {
namespace {

// What rules the operator out whatever its inputs; empty: nothing.
std::string WhyNever(const Node& node, const ConstantValues& values) {
  if (!node.domain.empty() && node.domain != "ai.onnx") return "it is of another domain than ONNX";
  if (IsRandomOp(node.op_type)) return "its result may differ from run to run";
  if (!SubgraphsOf(node).empty()) return "it holds subgraphs";
  if (node.op_type == "DequantizeLinear") return "it expands stored weights";
  if (node.op_type == "Cast" || node.op_type == "CastLike") {
    const DType from = values.at(node.inputs[0]).dtype();
    const bool is_stored = from == DType::kFloat16 || from == DType::kBFloat16 ||
                           (ElementBits(from) <= 8 && from != DType::kBool);
    const auto to = static_cast<DType>(node.Int("to", static_cast<int64_t>(DType::kFloat32)));
    if (is_stored && ElementBits(to) > ElementBits(from)) return "it expands stored weights";
  }
  if (FindOp("", node.op_type) == nullptr) return "pared has no operator " + node.op_type;
  return "";
}

struct NotFinite {
  int64_t nan = 0, infinite = 0;

  bool any() const { return nan + infinite > 0; }
};

template <class T>
NotFinite CountIn(std::span<const T> values) {
  NotFinite count;
  for (const T value : values) {
    count.nan += std::isnan(value) ? 1 : 0;
    count.infinite += std::isinf(value) ? 1 : 0;
  }
  return count;
}

NotFinite CountIn(const Tensor& tensor) {
  if (tensor.dtype() == DType::kFloat64) return CountIn(tensor.data<double>());
  if (tensor.dtype() != DType::kFloat32 && !IsHalfFloat(tensor.dtype())) return {};
  const FloatElements elements(tensor);
  return CountIn(elements.get());
}

}  // namespace

Model Alone(const Model& model, const Node& node, const ConstantValues& values) {
  Model alone;
  alone.ir_version = std::max<int64_t>(model.ir_version, 4);
  alone.opsets = model.opsets;
  alone.graph.name = "constant";
  alone.graph.nodes = {node};
  for (const std::string& input : node.inputs) {
    if (!input.empty()) alone.graph.initializers.set(input, {values.at(input), ""});
  }
  for (const std::string& output : node.outputs) {
    if (output.empty()) continue;
    ValueInfo info;
    info.name = output;
    alone.graph.outputs.push_back(std::move(info));
  }
  return alone;
}

std::optional<int64_t> ResultBytes(const Model& alone) {
  const auto types = ShapesIfConsistent(alone);
  int64_t bytes = 0;
  for (const ValueInfo& output : alone.graph.outputs) {
    const auto type = types.find(output.name);
    if (type == types.end() || !type->second.shape) return std::nullopt;
    const int bits = std::max(ElementBits(type->second.dtype), 8);
    int64_t size = bits / 8;
    for (const Dim& dim : *type->second.shape) {
      if (dim.value < 0) return std::nullopt;
      if (__builtin_mul_overflow(size, dim.value, &size)) return INT64_MAX;
    }
    if (__builtin_add_overflow(bytes, size, &bytes)) return INT64_MAX;
  }
  return bytes;
}

std::string Evaluate(const Model& model, const Node& node, ConstantValues& known) {
  if (std::string reason = WhyNever(node, known); !reason.empty()) return reason;
  static const std::set<std::string> kBounded = {"Compress", "Constant", "NonZero", "Unique"};
  const Model alone = Alone(model, node, known);
  const std::optional<int64_t> bytes = ResultBytes(alone);
  if (!bytes && !kBounded.contains(node.op_type)) return "the size of its result is not known";
  if (bytes.value_or(0) > kEvaluatedBytesMax) {
    return "its result would take " + std::to_string(*bytes) + " bytes";
  }
  try {
    const std::vector<Tensor> outputs = Executor(alone, {.fuse = false}).Run({});
    for (size_t i = 0; i < outputs.size(); ++i) known[alone.graph.outputs[i].name] = outputs[i];
  } catch (const Error& error) {
    // It may stand where it is never run.
    return error.message();
  }
  return "";
}

std::string MadeNotFinite(const Node& node, const ConstantValues& known) {
  if (node.op_type == "ConstantOfShape") return "";  // it repeats what it is given
  NotFinite made;
  int64_t elements = 0;
  for (const std::string& output : node.outputs) {
    const auto value = known.find(output);
    if (value == known.end()) continue;
    const NotFinite count = CountIn(value->second);
    made.nan += count.nan;
    made.infinite += count.infinite;
    elements += value->second.count();
  }
  if (!made.any()) return "";
  const bool has_given = std::ranges::any_of(node.inputs, [&](const std::string& input) {
    const auto value = known.find(input);
    return value != known.end() && CountIn(value->second).any();
  });
  if (has_given) return "";
  return std::to_string(made.nan) + " NaN and " + std::to_string(made.infinite) + " infinite of " +
         std::to_string(elements) + " elements";
}

}  // namespace pared
