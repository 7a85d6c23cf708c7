// Shapes: read, changed without moving an element, or made from nothing but a shape.

#include <algorithm>
#include <cmath>

#include "evaluator/half_floats.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

Op PrepareReshape(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  const bool keeps_zero = node.Int("allowzero", 0) != 0;
  return [keeps_zero, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                               std::span<Tensor> outputs, Scratch&) {
    const Shape& from = inputs[0]->shape();
    Shape shape = IntegersOf(*inputs[1], label);
    int64_t known = 1;
    size_t unknown = shape.size();
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      if (shape[axis] == 0 && !keeps_zero) {
        if (axis >= from.size()) RefuseNode("0 stands for an axis its input lacks", label);
        shape[axis] = from[axis];
      }
      if (shape[axis] != -1) {
        known *= shape[axis];
      } else if (std::exchange(unknown, axis) != shape.size()) {
        RefuseNode("has more than one -1 in its shape", label);
      }
    }
    if (unknown < shape.size()) shape[unknown] = known == 0 ? 0 : inputs[0]->count() / known;
    if (ElementCount(shape) != inputs[0]->count()) {
      RefuseNode("cannot reshape " + ShapeText(from) + " to " + ShapeText(shape), label);
    }
    outputs[0] = inputs[0]->Reshaped(std::move(shape));
  };
}

Op PrepareFlatten(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  const int64_t axis = node.Int("axis", 1);
  return [axis, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                         std::span<Tensor> outputs, Scratch&) {
    const Shape& from = inputs[0]->shape();
    const int64_t rank = inputs[0]->rank();
    const int64_t split = axis == rank ? rank : NormalizeAxis(axis, rank, label);
    outputs[0] = inputs[0]->Reshaped({Extent(from, 0, split), Extent(from, split, rank)});
  };
}

// The axes of Squeeze and Unsqueeze: an attribute before opset 13, an input since.
std::vector<int64_t> AxesOf(const std::vector<int64_t>& attribute,
                            std::span<const Tensor* const> inputs, const std::string& label) {
  if (inputs.size() > 1 && inputs[1] != nullptr) return IntegersOf(*inputs[1], label);
  return attribute;
}

Op PrepareSqueeze(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 2);
  return [attribute = node.Ints("axes"), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch&) {
    const Shape& from = inputs[0]->shape();
    const std::vector<int64_t> axes = AxesOf(attribute, inputs, label);
    const bool all = axes.empty() && (inputs.size() < 2 || inputs[1] == nullptr);
    std::vector<bool> drops(from.size());
    for (size_t axis = 0; all && axis < from.size(); ++axis) drops[axis] = from[axis] == 1;
    for (const int64_t axis : axes) {
      const size_t normal = Sz(NormalizeAxis(axis, inputs[0]->rank(), label));
      if (from[normal] != 1) {
        RefuseNode("axis " + std::to_string(axis) + " of " + ShapeText(from) + " is not 1", label);
      }
      drops[normal] = true;
    }
    Shape shape;
    for (size_t axis = 0; axis < from.size(); ++axis) {
      if (!drops[axis]) shape.push_back(from[axis]);
    }
    outputs[0] = inputs[0]->Reshaped(std::move(shape));
  };
}

Op PrepareUnsqueeze(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 2);
  return [attribute = node.Ints("axes"), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch&) {
    const std::vector<int64_t> axes = AxesOf(attribute, inputs, label);
    const int64_t rank = inputs[0]->rank() + static_cast<int64_t>(axes.size());
    Shape shape(Sz(rank), -1);
    for (const int64_t axis : axes) {
      int64_t& dim = shape[Sz(NormalizeAxis(axis, rank, label))];
      if (dim == 1) RefuseNode("names an axis twice", label);
      dim = 1;
    }
    auto next = inputs[0]->shape().begin();
    for (int64_t& dim : shape) {
      if (dim == -1) dim = *next++;
    }
    outputs[0] = inputs[0]->Reshaped(std::move(shape));
  };
}

Op PrepareIdentity(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch&) {
    if (inputs[0] != nullptr) outputs[0] = *inputs[0];
  };
}

// Inference only: the input as it is, and a mask of ones.
Op PrepareDropout(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 3);
  if (node.inputs.size() > 2 && !node.inputs[2].empty()) {
    const Tensor* training = context.constants[2];
    const bool is_off = training != nullptr && training->dtype() == DType::kBool &&
                        training->count() == 1 && !training->data<bool>()[0];
    const Tensor* ratio = context.constants[1];
    const bool keeps_all = ratio != nullptr && ratio->dtype() == DType::kFloat32 &&
                           ratio->count() == 1 && ratio->data<float>()[0] == 0.0F;
    if (!is_off && !keeps_all) {
      throw Error(ErrorCode::kUnsupported, "training mode is not supported", NodeLabel(node));
    }
  }
  const bool is_number = context.opset < 10;  // the mask, then of the input's type
  return [is_number](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                     Scratch& scratch) {
    outputs[0] = *inputs[0];
    if (outputs.size() < 2) return;
    if (is_number && inputs[0]->dtype() == DType::kFloat32) {
      std::ranges::fill(scratch.Allocate<float>(outputs[1], inputs[0]->shape()), 1.0F);
      return;
    }
    std::ranges::fill(scratch.Allocate<bool>(outputs[1], inputs[0]->shape()), true);
  };
}

Op PrepareShape(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  const int64_t start = node.Int("start", 0);
  const int64_t end = node.Int("end", INT64_MAX);
  return [start, end](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch&) {
    const Shape& shape = inputs[0]->shape();
    const int64_t rank = inputs[0]->rank();
    const int64_t first = std::clamp<int64_t>(start < 0 ? start + rank : start, 0, rank);
    const int64_t last = std::clamp<int64_t>(end < 0 ? end + rank : end, first, rank);
    outputs[0] =
        Tensor::Make<int64_t>({last - first}, {shape.begin() + first, shape.begin() + last});
  };
}

Op PrepareSize(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch&) {
    outputs[0] = Tensor::Scalar<int64_t>(inputs[0]->count());
  };
}

Tensor ConstantOfNode(const Node& node) {
  if (const Tensor* value = node.TensorOf("value")) return *value;
  for (const auto& [name, attribute] : node.attributes) {
    if (name == "value_float") return Tensor::Scalar<float>(node.Float(name, 0));
    if (name == "value_int") return Tensor::Scalar<int64_t>(node.Int(name, 0));
    if (name == "value_string") return Tensor::MakeStrings({}, {node.String(name, "")});
    if (name == "value_floats") {
      std::vector<float> values = node.Floats(name);
      const int64_t count = static_cast<int64_t>(values.size());
      return Tensor::Make<float>({count}, std::move(values));
    }
    if (name == "value_ints") {
      std::vector<int64_t> values = node.Ints(name);
      const int64_t count = static_cast<int64_t>(values.size());
      return Tensor::Make<int64_t>({count}, std::move(values));
    }
    if (name == "value_strings") {
      std::vector<std::string> values = node.Strings(name);
      const int64_t count = static_cast<int64_t>(values.size());
      return Tensor::MakeStrings({count}, std::move(values));
    }
  }
  throw Error(ErrorCode::kUnsupported, "has no value of a kind that pared computes with",
              NodeLabel(node));
}

Op PrepareConstant(const Node& node, const OpContext&) {
  return [value = ConstantOfNode(node)](std::span<const Tensor* const>, std::span<Tensor> outputs,
                                        Scratch&) { outputs[0] = value; };
}

Op PrepareConstantOfShape(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  const Tensor* given = node.TensorOf("value");
  const Tensor value = given == nullptr ? Tensor::Make<float>({1}, {0.0F}) : *given;
  const std::string label = NodeLabel(node);
  if (value.count() != 1) RefuseNode("attribute \"value\" must have one element", label);
  return [value, label](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                        Scratch& scratch) {
    const Shape shape = IntegersOf(*inputs[0], label);
    DispatchWidth(value.dtype(), label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], value.dtype(), shape, scratch);
      std::fill_n(y, outputs[0].count(), *Elements<T>(value));
    });
  };
}

Op PrepareRange(const Node& node, const OpContext&) {
  CheckInputCount(node, 3, 3);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    DispatchNumber(inputs[0]->dtype(), label, [&]<class T>() {
      T values[3];
      for (size_t i = 0; i < 3; ++i) {
        if (inputs[i]->dtype() != inputs[0]->dtype() || inputs[i]->count() != 1) {
          RefuseNode("start, limit and delta must be single elements of one type", label);
        }
        values[i] = inputs[i]->data<T>()[0];
      }
      const auto [start, limit, delta] = values;
      if (delta == T{0}) RefuseNode("delta must not be 0", label);
      const double steps =
          (static_cast<double>(limit) - static_cast<double>(start)) / static_cast<double>(delta);
      if (!(steps < 1e15)) RefuseNode("is not finite", label);
      const int64_t count = std::max<int64_t>(0, static_cast<int64_t>(std::ceil(steps)));
      const std::span<T> y = scratch.Allocate<T>(outputs[0], {count});
      T next = start;
      for (T& value : y) {
        value = next;
        next = static_cast<T>(next + delta);
      }
    });
  };
}

Op PrepareEyeLike(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  const int64_t shift = node.Int("k", 0);
  const int64_t dtype = node.Int("dtype", 0);
  return [shift, dtype, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                                 std::span<Tensor> outputs, Scratch& scratch) {
    if (inputs[0]->rank() != 2) RefuseNode("its input must be a matrix", label);
    const DType type = dtype == 0 ? inputs[0]->dtype() : static_cast<DType>(dtype);
    if (IsHalfFloat(type)) RefuseDType(type, label);
    const Shape& shape = inputs[0]->shape();
    DispatchNumber(type == DType::kBool ? DType::kUInt8 : type, label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], type, shape, scratch);
      for (int64_t row = 0; row < shape[0]; ++row) {
        for (int64_t column = 0; column < shape[1]; ++column) {
          *y++ = column - row == shift ? T{1} : T{0};
        }
      }
    });
  };
}

constexpr OpInfo kOps[] = {
    {"Constant", "", PrepareConstant, HalfFloats::kNative},
    {"ConstantOfShape", "", PrepareConstantOfShape, HalfFloats::kNative},
    {"Dropout", "", PrepareDropout, HalfFloats::kNative},
    {"EyeLike", "", PrepareEyeLike},
    {"Flatten", "", PrepareFlatten, HalfFloats::kNative},
    {"Identity", "", PrepareIdentity, HalfFloats::kNative},
    {"Range", "", PrepareRange},
    {"Reshape", "", PrepareReshape, HalfFloats::kNative},
    {"Shape", "", PrepareShape, HalfFloats::kNative},
    {"Size", "", PrepareSize, HalfFloats::kNative},
    {"Squeeze", "", PrepareSqueeze, HalfFloats::kNative},
    {"Unsqueeze", "", PrepareUnsqueeze, HalfFloats::kNative},
};

}  // namespace

std::span<const OpInfo> ShapeOps() { return kOps; }

}  // namespace pared
