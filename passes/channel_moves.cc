#include "passes/channel_moves.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace pared {
namespace {

using Ids = std::vector<int64_t>;
using Moved = std::optional<ChannelMove>;

Moved OneOutput(size_t axis, Ids ids) { return ChannelMove{.outputs = {{axis, std::move(ids)}}}; }

Moved Reduce(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> shape = operands.ShapeOf(node.inputs[0]);
  const std::optional<Ids> axes = operands.IntsOf(node, "axes", 1);
  if (!shape || !axes || axes->empty()) return std::nullopt;
  size_t below = 0;
  for (int64_t axis : *axes) {
    if (axis < 0) axis += std::ssize(*shape);
    if (axis == static_cast<int64_t>(in.axis)) return std::nullopt;
    below += axis < static_cast<int64_t>(in.axis) ? 1 : 0;
  }
  return OneOutput(node.Int("keepdims", 1) != 0 ? in.axis : in.axis - below, in.ids);
}

Moved Softmax(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> shape = operands.ShapeOf(node.inputs[0]);
  if (!shape || operands.model().Opset("") < 13) return std::nullopt;
  const int64_t axis = node.Int("axis", -1);
  if ((axis < 0 ? axis + std::ssize(*shape) : axis) == static_cast<int64_t>(in.axis)) {
    return std::nullopt;
  }
  return ChannelMove{.outputs = {in}};
}

Moved Transpose(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> shape = operands.ShapeOf(node.inputs[0]);
  if (!shape) return std::nullopt;
  Ids perm = node.Ints("perm");
  if (perm.empty()) {
    for (int64_t i = std::ssize(*shape) - 1; i >= 0; --i) perm.push_back(i);
  }
  const auto at = std::ranges::find(perm, static_cast<int64_t>(in.axis));
  if (at == perm.end()) return std::nullopt;
  return OneOutput(static_cast<size_t>(at - perm.begin()), in.ids);
}

// Follows where the channel axis stays whole, or takes in all axes behind it.
Moved Reshape(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> from = operands.ShapeOf(node.inputs[0]),
                             to = operands.ShapeOf(node.outputs[0]);
  if (!from || !to || in.axis >= to->size()) return std::nullopt;
  for (size_t i = 0; i < in.axis; ++i) {
    if ((*from)[i] != (*to)[i]) return std::nullopt;
  }
  Shape behind(from->begin() + static_cast<std::ptrdiff_t>(in.axis) + 1, from->end());
  const Shape rest(to->begin() + static_cast<std::ptrdiff_t>(in.axis) + 1, to->end());
  if (std::ranges::count(behind, -1) + std::ranges::count(rest, -1) > 0) return std::nullopt;
  const int64_t inner = ElementCount(behind), size = (*to)[in.axis];
  Ids ids = in.ids;
  if (size == std::ssize(ids) * inner && ElementCount(rest) == 1) {
    ids = RepeatChannels(ids, inner);
  } else if (size != std::ssize(ids) || ElementCount(rest) != inner) {
    return std::nullopt;
  }
  ChannelMove move;
  if (node.op_type == "Reshape") {
    const std::optional<Ids> shape = operands.Ints(node, 1);
    if (!shape) return std::nullopt;
    if ((*shape)[in.axis] > 0) move.sizes.push_back({0, 1, in.axis, ids});
  }
  move.outputs = {{in.axis, ids}};
  return move;
}

Moved Squeeze(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> to = operands.ShapeOf(node.outputs[0]),
                             from = operands.ShapeOf(node.inputs[0]);
  const std::optional<Ids> axes = operands.IntsOf(node, "axes", 1);
  if (!to || !from || !axes) return std::nullopt;
  const bool is_squeeze = node.op_type == "Squeeze";
  const int64_t rank = std::ssize(is_squeeze ? *from : *to);
  std::set<int64_t> dropped;
  for (const int64_t axis : *axes) dropped.insert(axis < 0 ? axis + rank : axis);
  // The longer shape's axes that the shorter one keeps, in order.
  std::vector<size_t> kept;
  for (int64_t i = 0; i < rank; ++i) {
    if (!dropped.contains(i)) kept.push_back(static_cast<size_t>(i));
  }
  const auto at = std::ranges::find(kept, in.axis);
  if (is_squeeze && at == kept.end()) return std::nullopt;
  return OneOutput(is_squeeze ? static_cast<size_t>(at - kept.begin()) : kept.at(in.axis), in.ids);
}

Moved Pad(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Ids> pads = operands.IntsOf(node, "pads", 1);
  if (!pads || !Operands::IsLeftOut(node, 3) || pads->size() <= 2 * in.axis) return std::nullopt;
  if ((*pads)[in.axis] != 0 || (*pads)[pads->size() / 2 + in.axis] != 0) return std::nullopt;
  return ChannelMove{.outputs = {in}};
}

Moved Resize(const Node& node, const Channels& in, const Operands& operands) {
  if (node.attributes.contains("axes")) return std::nullopt;
  if (!Operands::IsLeftOut(node, 3)) {
    const std::optional<Ids> sizes = operands.Ints(node, 3);
    if (!sizes || (*sizes)[in.axis] != std::ssize(in.ids)) return std::nullopt;
    return ChannelMove{.outputs = {in}, .sizes = {{0, 3, in.axis, in.ids}}};
  }
  const Tensor* scales = operands.Weight(node, node.inputs.size() == 2 ? 1 : 2);
  if (scales == nullptr || scales->count() <= static_cast<int64_t>(in.axis)) return std::nullopt;
  if (scales->data<float>()[in.axis] != 1) return std::nullopt;
  return ChannelMove{.outputs = {in}};
}

Moved Split(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> shape = operands.ShapeOf(node.inputs[0]);
  if (!shape || node.attributes.contains("split")) return std::nullopt;
  int64_t axis = node.Int("axis", 0);
  if (axis < 0) axis += std::ssize(*shape);
  const size_t parts = node.outputs.size();
  const bool is_even = Operands::IsLeftOut(node, 1);
  const std::optional<Ids> sizes =
      is_even ? Ids(parts, std::ssize(in.ids) / std::ssize(node.outputs)) : operands.Ints(node, 1);
  if (!sizes) return std::nullopt;
  const bool is_along = axis == static_cast<int64_t>(in.axis);
  if (is_along && std::accumulate(sizes->begin(), sizes->end(), int64_t{0}) != std::ssize(in.ids))
    return std::nullopt;
  ChannelMove move;
  if (is_along && is_even) move.parts = std::ssize(node.outputs);
  auto begin = in.ids.begin();
  for (size_t i = 0; i < parts; ++i) {
    Ids part = is_along ? Ids(begin, begin + (*sizes)[i]) : in.ids;
    if (is_along) begin += (*sizes)[i];
    if (is_along && !is_even) move.sizes.push_back({0, 1, i, part});
    move.outputs.push_back({in.axis, std::move(part)});
  }
  return move;
}

Moved Slice(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> shape = operands.ShapeOf(node.inputs[0]);
  const std::optional<Ids> starts = operands.Ints(node, 1), ends = operands.Ints(node, 2);
  const std::optional<Ids> steps =
      Operands::IsLeftOut(node, 4) ? Ids(8, 1) : operands.Ints(node, 4);
  if (!shape || !starts || !ends || !steps) return std::nullopt;
  Ids axes(starts->size());
  std::iota(axes.begin(), axes.end(), 0);
  if (!Operands::IsLeftOut(node, 3)) {
    const std::optional<Ids> given = operands.Ints(node, 3);
    if (!given) return std::nullopt;
    axes = *given;
  }
  ChannelMove move;
  Ids ids = in.ids;
  const int64_t count = std::ssize(ids);
  for (size_t i = 0; i < axes.size(); ++i) {
    if ((axes[i] < 0 ? axes[i] + std::ssize(*shape) : axes[i]) != static_cast<int64_t>(in.axis))
      continue;
    if ((*steps)[i] != 1) return std::nullopt;
    const auto place = [&](int64_t at) {
      return std::clamp(at < 0 ? at + count : at, int64_t{0}, count);
    };
    const int64_t begin = place((*starts)[i]), end = std::max(begin, place((*ends)[i]));
    move.sizes.push_back({0, 1, i, Ids(in.ids.begin(), in.ids.begin() + begin)});
    move.sizes.push_back({0, 2, i, Ids(in.ids.begin(), in.ids.begin() + end)});
    ids.assign(in.ids.begin() + begin, in.ids.begin() + end);
  }
  if (ids.empty()) return std::nullopt;
  move.outputs = {{in.axis, ids}};
  return move;
}

// A Shape of which only other dimensions are used.
Moved ReadsOtherDims(const Node& node, const Channels& in, const Operands& operands) {
  for (const Node* reader : operands.index().consumers(node.outputs[0])) {
    if (reader->op_type != "Gather" || reader->inputs[0] != node.outputs[0]) return std::nullopt;
    const std::optional<Ids> at = operands.Ints(*reader, 1);
    if (!at || std::ranges::count(*at, static_cast<int64_t>(in.axis)) > 0) return std::nullopt;
    if (std::ranges::any_of(*at, [](int64_t i) { return i < 0; })) return std::nullopt;
  }
  if (operands.index().is_output(node.outputs[0]) || node.attributes.contains("start")) {
    return std::nullopt;
  }
  return ChannelMove{};
}

using Mover = Moved (*)(const Node&, const Channels&, const Operands&);
const std::map<std::string_view, Mover> kMovers = {
    {"ReduceMean", Reduce},   {"ReduceSum", Reduce},
    {"ReduceMax", Reduce},    {"ReduceMin", Reduce},
    {"ReduceL1", Reduce},     {"ReduceL2", Reduce},
    {"Softmax", Softmax},     {"LogSoftmax", Softmax},
    {"Transpose", Transpose}, {"Flatten", Reshape},
    {"Reshape", Reshape},     {"Squeeze", Squeeze},
    {"Unsqueeze", Squeeze},   {"Pad", Pad},
    {"Resize", Resize},       {"Split", Split},
    {"Slice", Slice},         {"Shape", ReadsOtherDims},
};

}  // namespace

Operands::Operands(const Model& model)
    : model_(model), index_(model.graph), types_(InferShapes(model)) {}

const Tensor* Operands::Constant(const Node& node, size_t input) const {
  if (IsLeftOut(node, input)) return nullptr;
  return ConstantOf(model_.graph, index_, node.inputs[input], model_.ir_version);
}

const Tensor* Operands::Weight(const Node& node, size_t input) const {
  const Tensor* tensor = Constant(node, input);
  return tensor != nullptr && tensor->dtype() == DType::kFloat32 ? tensor : nullptr;
}

std::optional<std::vector<int64_t>> Operands::Ints(const Node& node, size_t input) const {
  const Tensor* tensor = Constant(node, input);
  if (tensor == nullptr || tensor->dtype() != DType::kInt64) return std::nullopt;
  return Ids(tensor->data<int64_t>().begin(), tensor->data<int64_t>().end());
}

std::optional<std::vector<int64_t>> Operands::IntsOf(const Node& node, const std::string& attribute,
                                                     size_t input) const {
  if (node.attributes.contains(attribute)) return node.Ints(attribute);
  return Ints(node, input);
}

std::optional<Shape> Operands::ShapeOf(const std::string& value) const {
  const auto found = types_.find(value);
  if (found == types_.end() || !found->second.shape) return std::nullopt;
  Shape shape;
  for (const Dim& dim : *found->second.shape) shape.push_back(dim.value);
  return shape;
}

std::vector<int64_t> RepeatChannels(const std::vector<int64_t>& ids, int64_t times) {
  Ids repeated;
  for (const int64_t id : ids) repeated.insert(repeated.end(), static_cast<size_t>(times), id);
  return repeated;
}

std::optional<ChannelMove> MoveChannels(const Node& node, const Channels& in,
                                        const Operands& operands) {
  const auto mover = kMovers.find(node.op_type);
  return mover == kMovers.end() ? std::nullopt : mover->second(node, in, operands);
}

}  // namespace pared
