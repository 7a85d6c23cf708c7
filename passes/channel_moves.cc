#include "passes/channel_moves.h"

#include <algorithm>
#include <iterator>
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

// One length of the shape that a Reshape is given.
struct Length {
  std::optional<int64_t> number;  // where it is constant
  SizeCut place;                  // of the number
  std::string computed;           // else the value that holds it alone; empty: none does
};

// nullopt: not known where it comes from.
std::optional<Length> LengthAt(const Node& reshape, size_t at, const Operands& operands) {
  if (const std::optional<Ids> whole = operands.Ints(reshape, 1)) {
    if (at >= whole->size()) return std::nullopt;
    return Length{(*whole)[at], {ChannelMove::kItself, 1, at, {}}, ""};
  }
  if (reshape.inputs.size() < 2) return std::nullopt;
  const Node* concat = operands.index().producer(reshape.inputs[1]);
  if (concat == nullptr || concat->op_type != "Concat") return std::nullopt;
  size_t begin = 0;
  for (size_t i = 0; i < concat->inputs.size(); ++i) {
    const std::optional<Ids> numbers = operands.Ints(*concat, i);
    const std::optional<Shape> shape = operands.ShapeOf(concat->inputs[i]);
    if (!numbers && (!shape || shape->size() != 1 || (*shape)[0] < 0)) return std::nullopt;
    const size_t count = numbers ? numbers->size() : static_cast<size_t>((*shape)[0]);
    if (at < begin + count) {
      if (!numbers) return Length{{}, {}, count == 1 ? concat->inputs[i] : ""};
      const auto number = static_cast<size_t>(concat - operands.model().graph.nodes.data());
      return Length{(*numbers)[at - begin], {number, i, at - begin, {}}, ""};
    }
    begin += count;
  }
  return std::nullopt;
}

// The dimensions that a Gather or Slice takes of a Shape of so many; nullopt: not known.
std::optional<Ids> TakenDims(const Node& node, int64_t rank, const Operands& operands) {
  const std::optional<Ids> at = operands.Ints(node, 1);
  if (!at) return std::nullopt;
  const auto place = [&](int64_t dim) {
    return std::clamp(dim < 0 ? dim + rank : dim, int64_t{0}, rank);
  };
  Ids dims;
  if (node.op_type == "Gather") {
    std::ranges::transform(*at, std::back_inserter(dims), place);
    return dims;
  }
  const std::optional<Ids> ends = operands.Ints(node, 2);
  const std::optional<Ids> steps = Operands::IsLeftOut(node, 4) ? Ids{1} : operands.Ints(node, 4);
  if (node.op_type != "Slice" || !ends || steps != Ids{1}) return std::nullopt;
  for (int64_t dim = place((*at)[0]); dim < place((*ends)[0]); ++dim) dims.push_back(dim);
  return dims;
}

// Whether `value` holds the length of `data` along the axis, as a Shape of it says.
bool IsLengthOf(const std::string& value, const std::string& data, size_t axis,
                const Operands& operands) {
  const Node* node = operands.index().producer(value);
  while (node != nullptr && (node->op_type == "Unsqueeze" || node->op_type == "Squeeze")) {
    node = operands.index().producer(node->inputs[0]);
  }
  if (node == nullptr || node->inputs.empty()) return false;
  const Node* shape = operands.index().producer(node->inputs[0]);
  const std::optional<Shape> dims = operands.ShapeOf(data);
  if (shape == nullptr || shape->op_type != "Shape" || shape->inputs[0] != data || !dims) {
    return false;
  }
  return TakenDims(*node, std::ssize(*dims), operands) == Ids{static_cast<int64_t>(axis)};
}

// The result's axis `to` has the channels `ids`: makes the length there follow. False: it does not.
bool FollowLength(const Node& node, const Channels& in, Channels to, const Operands& operands,
                  ChannelMove& move) {
  std::optional<Length> length = LengthAt(node, to.axis, operands);
  if (!length) return false;
  if (!length->number) {
    return to.ids.size() == in.ids.size() &&
           IsLengthOf(length->computed, node.inputs[0], in.axis, operands);
  }
  if (*length->number == 0) return to.axis == in.axis;
  if (*length->number < 0) return true;  // what is left over
  length->place.channels = std::move(to.ids);
  move.sizes.push_back(std::move(length->place));
  return true;
}

// Where the channels are in the result: the axes before them stay as they are and the channel axis
// stays whole or takes in all axes behind it; or it is the last one before and after.
std::optional<Channels> Reshaped(const Channels& in, const Shape& from, const Shape& to) {
  const auto is_known = [](int64_t size) { return size >= 0; };
  const auto before = static_cast<std::ptrdiff_t>(in.axis);
  if (in.axis < to.size() && std::equal(from.begin(), from.begin() + before, to.begin())) {
    const Shape behind(from.begin() + before + 1, from.end());
    const Shape rest(to.begin() + before + 1, to.end());
    if (std::ranges::all_of(behind, is_known) && std::ranges::all_of(rest, is_known)) {
      const int64_t inner = ElementCount(behind), size = to[in.axis];
      if (size == std::ssize(in.ids) * inner && ElementCount(rest) == 1) {
        return Channels{in.axis, RepeatChannels(in.ids, inner)};
      }
      if (size == std::ssize(in.ids) && ElementCount(rest) == inner) return in;
    }
  }
  if (in.axis + 1 != from.size() || to.empty() || to.back() != std::ssize(in.ids)) return {};
  return Channels{to.size() - 1, in.ids};
}

Moved Reshape(const Node& node, const Channels& in, const Operands& operands) {
  const std::optional<Shape> from = operands.ShapeOf(node.inputs[0]),
                             to = operands.ShapeOf(node.outputs[0]);
  if (!from || !to) return std::nullopt;
  const std::optional<Channels> out = Reshaped(in, *from, *to);
  if (!out) return std::nullopt;
  ChannelMove move;
  for (size_t i = 0; node.op_type == "Reshape" && i < to->size(); ++i) {
    if (i == out->axis) {
      if (!FollowLength(node, in, *out, operands, move)) return std::nullopt;
    } else if (const std::optional<Length> other = LengthAt(node, i, operands)) {
      if (IsLengthOf(other->computed, node.inputs[0], in.axis, operands)) return std::nullopt;
    }
  }
  move.outputs = {*out};
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
    return ChannelMove{.outputs = {in}, .sizes = {{ChannelMove::kItself, 3, in.axis, in.ids}}};
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
    if (is_along && !is_even) move.sizes.push_back({ChannelMove::kItself, 1, i, part});
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
    move.sizes.push_back({ChannelMove::kItself, 1, i, Ids(in.ids.begin(), in.ids.begin() + begin)});
    move.sizes.push_back({ChannelMove::kItself, 2, i, Ids(in.ids.begin(), in.ids.begin() + end)});
    ids.assign(in.ids.begin() + begin, in.ids.begin() + end);
  }
  if (ids.empty()) return std::nullopt;
  move.outputs = {{in.axis, ids}};
  return move;
}

// Whether the length goes into nothing but shapes that `data` itself takes.
bool OnlyShapes(const std::string& length, const std::string& data, const Operands& operands) {
  static const std::set<std::string_view> kOfLengths = {"Concat", "Squeeze", "Unsqueeze"};
  const GraphIndex& index = operands.index();
  return !index.is_output(length) &&
         std::ranges::all_of(index.consumers(length), [&](const Node* reader) {
           if (kOfLengths.contains(reader->op_type)) {
             return OnlyShapes(reader->outputs[0], data, operands);
           }
           return reader->op_type == "Reshape" && reader->inputs[0] == data;
         });
}

// A Shape whose channel dimension is not used, or for a Reshape of what it is the shape of.
Moved ReadsDims(const Node& node, const Channels& in, const Operands& operands) {
  const std::string& data = node.inputs[0];
  const std::optional<Shape> shape = operands.ShapeOf(data);
  if (!shape) return std::nullopt;
  for (const Node* reader : operands.index().consumers(node.outputs[0])) {
    const std::optional<Ids> dims = TakenDims(*reader, std::ssize(*shape), operands);
    if (!dims) return std::nullopt;
    if (std::ranges::count(*dims, static_cast<int64_t>(in.axis)) == 0) continue;
    const bool is_alone = dims->size() == 1;
    if (!is_alone || !OnlyShapes(reader->outputs[0], data, operands)) return std::nullopt;
  }
  if (operands.index().is_output(node.outputs[0]) || node.attributes.contains("start")) {
    return std::nullopt;
  }
  return ChannelMove{};
}

using Mover = Moved (*)(const Node&, const Channels&, const Operands&);
const std::map<std::string_view, Mover> kMovers = {
    {"ReduceMean", Reduce},   {"ReduceSum", Reduce}, {"ReduceMax", Reduce}, {"ReduceMin", Reduce},
    {"ReduceL1", Reduce},     {"ReduceL2", Reduce},  {"Softmax", Softmax},  {"LogSoftmax", Softmax},
    {"Transpose", Transpose}, {"Flatten", Reshape},  {"Reshape", Reshape},  {"Squeeze", Squeeze},
    {"Unsqueeze", Squeeze},   {"Pad", Pad},          {"Resize", Resize},    {"Split", Split},
    {"Slice", Slice},         {"Shape", ReadsDims},
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
