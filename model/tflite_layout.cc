// What gives elements another shape, order or number.

#include <algorithm>
#include <limits>
#include <numeric>

#include "model/tflite_ops.h"

namespace pared {
namespace {

// The shape is an input; older files have it as an option.
void Reshape(TfliteValues& values, const TfliteOp& op) {
  std::string shape;
  if (op.HasInput(1)) {
    shape = values.Int64(op.inputs[1]);
  } else {
    std::vector<int64_t> wanted;
    if (op.options) {
      for (const int32_t dim : op.options->Numbers<int32_t>(0)) wanted.push_back(dim);
    } else {
      wanted = values.tensor(op.outputs[0]).shape;
    }
    const bool is_scalar =
        wanted == std::vector<int64_t>{0} && values.tensor(op.outputs[0]).rank() == 0;
    shape = values.AddInt64(is_scalar ? std::vector<int64_t>{} : wanted);
  }
  const std::string base = values.BaseOf(op.outputs[0]);
  if (values.tensor(op.inputs[0]).dtype == DType::kComplex64) {  // their pairs are an axis more
    shape = values.Emit("Concat", {shape, values.AddInt64({2})}, base + "_pairs",
                        IntAttribute("axis", 0));
  }
  values.DefinePlain(op, values.Emit("Reshape", {values.Plain(op.inputs[0]), shape}, base));
}

void Squeeze(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0];
  std::vector<int64_t> axes;
  if (op.options) {
    for (const int32_t axis : op.options->Numbers<int32_t>(0)) {
      axes.push_back(values.Axis(axis, values.tensor(input).rank()));
    }
  }
  std::vector<std::string> inputs = {values.Plain(input)};
  if (!axes.empty()) inputs.push_back(values.AddInt64(axes));
  values.DefinePlain(op, values.Emit("Squeeze", inputs, values.BaseOf(op.outputs[0])));
}

void ExpandDims(TfliteValues& values, const TfliteOp& op) {
  std::vector<int64_t> axis = values.Integers(op.inputs[1], "the axis");
  for (int64_t& each : axis) each = values.Axis(each, values.tensor(op.inputs[0]).rank() + 1);
  values.DefinePlain(op,
                     values.Emit("Unsqueeze", {values.Plain(op.inputs[0]), values.AddInt64(axis)},
                                 values.BaseOf(op.outputs[0])));
}

void Transpose(TfliteValues& values, const TfliteOp& op) {
  std::vector<int64_t> order = values.Integers(op.inputs[1], "the order");
  const int64_t rank = values.tensor(op.inputs[0]).rank();
  values.Require(std::ssize(order) == rank, "the order must name every axis");
  for (int64_t& axis : order) axis = values.Axis(axis, rank);
  std::vector<int64_t> sorted = order;
  std::ranges::sort(sorted);
  for (int64_t i = 0; i < rank; ++i) {
    values.Require(sorted[static_cast<size_t>(i)] == i, "the order must name every axis once");
  }
  values.DefineTransposed(op.outputs[0], op.inputs[0], order);
}

void Concatenate(TfliteValues& values, const TfliteOp& op) {
  const int64_t output = op.outputs[0];
  const int64_t axis = values.Axis(op.Option<int32_t>(0), values.tensor(output).rank());
  const bool has_constant = std::ranges::any_of(
      op.inputs, [&](int64_t t) { return values.IsConstant(t) && values.tensor(t).rank() != 4; });
  const Form form = has_constant ? Form::kPlain : values.CommonForm(op.inputs, output);
  std::vector<std::string> parts;
  for (const int64_t input : op.inputs) parts.push_back(values.Get(input, form));
  const std::string made =
      values.Emit("Concat", parts, values.BaseOf(output), IntAttribute("axis", AxisIn(form, axis)));
  values.Define(output, form, Activated(values, op.Option<int8_t>(1), made, values.BaseOf(output)));
}

void Pack(TfliteValues& values, const TfliteOp& op) {
  const int64_t axis = values.Axis(op.Option<int32_t>(1), values.tensor(op.inputs[0]).rank() + 1);
  const std::string axes = values.AddInt64({axis});
  const std::string base = values.BaseOf(op.outputs[0]);
  std::vector<std::string> parts;
  for (const int64_t input : op.inputs) {
    parts.push_back(values.Emit("Unsqueeze", {values.Plain(input), axes}, base + "_part"));
  }
  values.DefinePlain(op, values.Emit("Concat", parts, base, IntAttribute("axis", axis)));
}

void Unpack(TfliteValues& values, const TfliteOp& op) {
  const int64_t axis = values.Axis(op.Option<int32_t>(1), values.tensor(op.inputs[0]).rank());
  for (size_t i = 0; i < op.outputs.size(); ++i) {
    const std::string base = values.BaseOf(op.outputs[i]);
    const std::string place =
        values.AddInitializer(base + "_place", Tensor::Scalar(static_cast<int64_t>(i)));
    values.Define(op.outputs[i], Form::kPlain,
                  values.Emit("Gather", {values.Plain(op.inputs[0]), place}, base,
                              IntAttribute("axis", axis)));
  }
}

// Inputs: SPLIT axis, value; SPLIT_V value, sizes, axis.
void Split(TfliteValues& values, const TfliteOp& op) {
  const bool has_sizes = op.type == "SPLIT_V";
  const int64_t input = op.inputs[has_sizes ? 0 : 1];
  const int64_t rank = values.tensor(input).rank();
  const std::vector<int64_t> axes = values.Integers(op.inputs[has_sizes ? 2 : 0], "the axis");
  values.Require(axes.size() == 1, "there must be one axis");
  const int64_t axis = values.Axis(axes[0], rank);
  std::vector<int64_t> sizes;
  if (has_sizes) {
    sizes = values.Integers(op.inputs[1], "the sizes");
  } else {
    const int64_t size = values.Dim(input, axis), parts = std::ssize(op.outputs);
    values.Require(size > 0 && size % parts == 0, "the parts must divide the axis");
    sizes.assign(op.outputs.size(), size / parts);
  }
  values.Require(sizes.size() == op.outputs.size(), "there must be a size for each output");
  const Form form = values.CommonForm({input}, op.outputs[0]);
  // One size may be left to the others.
  if (const auto open = std::ranges::find(sizes, -1); open != sizes.end()) {
    const int64_t size = values.Dim(input, axis);
    values.Require(size > 0, "the axis must be known");
    *open = size - std::accumulate(sizes.begin(), sizes.end(), int64_t{1});
  }
  std::vector<std::string> bases;
  for (const int64_t output : op.outputs) bases.push_back(values.BaseOf(output));
  const std::vector<std::string> parts =
      values.EmitSeveral("Split", {values.Get(input, form), values.AddInt64(sizes)}, bases,
                         IntAttribute("axis", AxisIn(form, axis)));
  for (size_t i = 0; i < parts.size(); ++i) values.Define(op.outputs[i], form, parts[i]);
}

// Numbers before and behind each axis, as ONNX has them: all that stand before, then all behind.
std::vector<int64_t> PadsOf(const TfliteValues& values, const TfliteOp& op, Form form) {
  const std::vector<int64_t> pairs = values.Integers(op.inputs[1], "the paddings");
  const auto rank = static_cast<size_t>(values.tensor(op.inputs[0]).rank());
  values.Require(pairs.size() == 2 * rank, "the paddings must be two for each axis");
  std::vector<int64_t> pads(2 * rank);
  for (size_t i = 0; i < rank; ++i) {
    const auto axis = static_cast<size_t>(AxisIn(form, static_cast<int64_t>(i)));
    pads[axis] = pairs[2 * i];
    pads[axis + rank] = pairs[2 * i + 1];
  }
  return pads;
}

void Pad(TfliteValues& values, const TfliteOp& op) {
  const int64_t output = op.outputs[0];
  const Form form = values.CommonForm({op.inputs[0]}, output);
  const std::vector<int64_t> pads = PadsOf(values, op, form);
  std::vector<std::string> inputs = {values.Get(op.inputs[0], form), values.AddInt64(pads)};
  NamedAttributes attributes;
  if (op.type == "MIRROR_PAD") {
    const bool is_symmetric = op.Option<int8_t>(0) == 1;
    values.Require(!is_symmetric || std::ranges::all_of(pads, [](int64_t pad) { return pad <= 1; }),
                   "SYMMETRIC paddings of more than 1 have no ONNX counterpart");
    // The border itself once: that is what "edge" repeats.
    attributes = TextAttribute("mode", is_symmetric ? "edge" : "reflect");
  } else if (op.HasInput(2)) {
    values.Require(
        values.tensor(op.inputs[2]).rank() == 0 ||
            (values.tensor(op.inputs[2]).rank() == 1 && values.Dim(op.inputs[2], 0) == 1),
        "the value must be one number");
    inputs.push_back(values.Emit("Reshape", {values.Plain(op.inputs[2]), values.AddInt64({})},
                                 values.BaseOf(output) + "_value"));
  }
  values.Define(output, form, values.Emit("Pad", inputs, values.BaseOf(output), attributes));
}

// The scales or the sizes that Resize reads: scales where they are whole, so that nothing needs to
// be known of the rest.
void AddSize(TfliteValues& values, const TfliteOp& op, std::vector<std::string>& inputs) {
  const int64_t input = op.inputs[0];
  std::vector<int64_t> size;
  if (values.IsConstant(op.inputs[1])) {
    size = values.Integers(op.inputs[1], "the size");
    values.Require(size.size() == 2, "the size must have 2 numbers");
    values.Require(size[0] > 0 && size[1] > 0, "the size must be 1 or more");
  }
  const int64_t height = values.Dim(input, 1), width = values.Dim(input, 2);
  const std::string base = values.BaseOf(op.outputs[0]);
  if (height > 0 && width > 0 && !size.empty() && size[0] % height == 0 && size[1] % width == 0) {
    const std::vector<float> scales = {1, 1, static_cast<float>(size[0] / height),
                                       static_cast<float>(size[1] / width)};
    inputs[2] = values.AddInitializer(base + "_scales", Tensor::Make<float>({4}, scales));
    return;
  }
  const std::string shape = values.Emit("Shape", {inputs[0]}, base + "_shape");
  const std::string kept =
      values.Emit("Slice", {shape, values.AddInt64({0}), values.AddInt64({2})}, base + "_kept");
  inputs[3] = values.Emit("Concat", {kept, values.Int64(op.inputs[1])}, base + "_sizes",
                          IntAttribute("axis", 0));
}

void Resize(TfliteValues& values, const TfliteOp& op) {
  const bool is_linear = op.type == "RESIZE_BILINEAR";
  const int first = is_linear ? 2 : 0;  // files of old had height and width before
  const bool aligns = op.Option<uint8_t>(first) != 0;
  const bool is_centered = op.Option<uint8_t>(first + 1) != 0;
  values.Require(values.tensor(op.inputs[0]).rank() == 4, "the input must have 4 axes");
  const char* const mode = aligns ? "align_corners" : is_centered ? "half_pixel" : "asymmetric";
  NamedAttributes attributes = TextAttribute("mode", is_linear ? "linear" : "nearest") +
                               TextAttribute("coordinate_transformation_mode", mode);
  if (!is_linear) {
    attributes = attributes + TextAttribute("nearest_mode",
                                            aligns || is_centered ? "round_prefer_ceil" : "floor");
  }
  std::vector<std::string> inputs = {values.Channels(op.inputs[0]), "", "", ""};
  AddSize(values, op, inputs);
  values.Define(op.outputs[0], Form::kChannels,
                values.Emit("Resize", inputs, values.BaseOf(op.outputs[0]), attributes));
}

void MoveDepth(TfliteValues& values, const TfliteOp& op) {
  const int64_t block = op.Option<int32_t>(0);
  values.Require(block > 0 && values.tensor(op.inputs[0]).rank() == 4,
                 "the input must have 4 axes, and the block 1 or more");
  const bool is_depth_to_space = op.type == "DEPTH_TO_SPACE";
  values.Define(op.outputs[0], Form::kChannels,
                values.Emit(is_depth_to_space ? "DepthToSpace" : "SpaceToDepth",
                            {values.Channels(op.inputs[0])}, values.BaseOf(op.outputs[0]),
                            IntAttribute("blocksize", block)));
}

// Of SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: blocks of two spatial axes, and what is padded before
// or cut off behind.
struct Blocks {
  std::vector<int64_t> sizes, borders;
  int64_t channels = 0, height = 0, width = 0;  // of the input
};

Blocks BlocksOf(const TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0];
  values.Require(values.tensor(input).rank() == 4, "the input must have 4 axes");
  Blocks blocks = {values.Integers(op.inputs[1], "the blocks"),
                   values.Integers(op.inputs[2], "the borders"), values.Dim(input, 3),
                   values.Dim(input, 1), values.Dim(input, 2)};
  values.Require(blocks.sizes.size() == 2 && blocks.borders.size() == 4 && blocks.sizes[0] > 0 &&
                     blocks.sizes[1] > 0,
                 "there must be two blocks of 1 or more, with two borders each");
  values.Require(blocks.channels > 0 && blocks.height > 0 && blocks.width > 0,
                 "height, width and channels must be known");
  return blocks;
}

void SpaceToBatch(TfliteValues& values, const TfliteOp& op) {
  const auto [sizes, borders, channels, height, width] = BlocksOf(values, op);
  const int64_t rows = height + borders[0] + borders[1], columns = width + borders[2] + borders[3];
  values.Require(rows % sizes[0] == 0 && columns % sizes[1] == 0,
                 "the blocks must divide the padded height and width");
  const std::string base = values.BaseOf(op.outputs[0]);
  const std::string padded =
      values.Emit("Pad",
                  {values.Channels(op.inputs[0]),
                   values.AddInt64({0, 0, borders[0], borders[2], 0, 0, borders[1], borders[3]})},
                  base + "_padded");
  const std::string parts = values.Emit(
      "Reshape",
      {padded,
       values.AddInt64({-1, channels, rows / sizes[0], sizes[0], columns / sizes[1], sizes[1]})},
      base + "_parts");
  const std::string moved =
      values.Emit("Transpose", {parts}, base + "_moved", IntsAttribute("perm", {3, 5, 0, 1, 2, 4}));
  values.Define(
      op.outputs[0], Form::kChannels,
      values.Emit("Reshape",
                  {moved, values.AddInt64({-1, channels, rows / sizes[0], columns / sizes[1]})},
                  base));
}

void BatchToSpace(TfliteValues& values, const TfliteOp& op) {
  const auto [sizes, borders, channels, height, width] = BlocksOf(values, op);
  const int64_t rows = height * sizes[0], columns = width * sizes[1];
  const std::string base = values.BaseOf(op.outputs[0]);
  const std::string parts =
      values.Emit("Reshape",
                  {values.Channels(op.inputs[0]),
                   values.AddInt64({sizes[0], sizes[1], -1, channels, height, width})},
                  base + "_parts");
  const std::string moved =
      values.Emit("Transpose", {parts}, base + "_moved", IntsAttribute("perm", {2, 3, 4, 0, 5, 1}));
  std::string made =
      values.Emit("Reshape", {moved, values.AddInt64({-1, channels, rows, columns})}, base);
  if (std::ranges::any_of(borders, [](int64_t border) { return border != 0; })) {
    made = values.Emit(
        "Slice",
        {made, values.AddInt64({borders[0], borders[2]}),
         values.AddInt64({rows - borders[1], columns - borders[3]}), values.AddInt64({2, 3})},
        base);
  }
  values.Define(op.outputs[0], Form::kChannels, made);
}

// An operator of a value and a shape, or numbers like one.
void EmitShaped(TfliteValues& values, const TfliteOp& op, const char* onnx, int64_t value,
                int64_t shape) {
  values.DefinePlain(op, values.Emit(onnx, {values.Plain(value), values.Int64(shape)},
                                     values.BaseOf(op.outputs[0])));
}

void Tile(TfliteValues& values, const TfliteOp& op) {
  EmitShaped(values, op, "Tile", op.inputs[0], op.inputs[1]);
}

// The shape that two others are broadcast to: the larger length, where the shorter shape has ones
// before it.
void BroadcastShapes(TfliteValues& values, const TfliteOp& op) {
  const std::string base = values.BaseOf(op.outputs[0]);
  const auto length = [&](size_t i) {
    values.Require(values.tensor(op.inputs[i]).rank() == 1 && values.Dim(op.inputs[i], 0) >= 0,
                   "shapes must have one axis of known length");
    return values.Dim(op.inputs[i], 0);
  };
  const int64_t longest = std::max(length(0), length(1));
  std::vector<std::string> shapes;
  for (size_t i = 0; i < 2; ++i) {
    std::string shape = values.Int64(op.inputs[i]);
    const std::vector<int64_t> ones(static_cast<size_t>(longest - length(i)), 1);
    if (!ones.empty()) {
      shape = values.Emit("Concat", {values.AddInt64(ones), shape}, base + "_long",
                          IntAttribute("axis", 0));
    }
    shapes.push_back(shape);
  }
  const std::string larger = values.Emit("Max", shapes, base + "_larger");
  values.DefinePlain(op, values.Cast(larger, values.tensor(op.outputs[0]).dtype));
}

void Expand(TfliteValues& values, const TfliteOp& op) {
  EmitShaped(values, op, "Expand", op.inputs[0], op.inputs[1]);
}

// The shape comes first.
void Fill(TfliteValues& values, const TfliteOp& op) {
  EmitShaped(values, op, "Expand", op.inputs[1], op.inputs[0]);
}

void MakeRange(TfliteValues& values, const TfliteOp& op) {
  values.DefinePlain(op, values.Emit("Range",
                                     {values.Plain(op.inputs[0]), values.Plain(op.inputs[1]),
                                      values.Plain(op.inputs[2])},
                                     values.BaseOf(op.outputs[0])));
}

void TakeShape(TfliteValues& values, const TfliteOp& op) {
  const std::string base = values.BaseOf(op.outputs[0]);
  const std::string shape = values.Emit("Shape", {values.Plain(op.inputs[0])}, base + "_int64");
  values.DefinePlain(op, values.Cast(shape, values.tensor(op.outputs[0]).dtype));
}

// By Slice, from the last element to the first of each axis.
void Reverse(TfliteValues& values, const TfliteOp& op) {
  const std::vector<int64_t> axes = values.Integers(op.inputs[1], "the axes");
  const auto all = [&](int64_t value) {
    return values.AddInt64(std::vector<int64_t>(axes.size(), value));
  };
  values.DefinePlain(
      op, values.Emit("Slice",
                      {values.Plain(op.inputs[0]), all(-1),
                       all(std::numeric_limits<int64_t>::min()), values.AddInt64(axes), all(-1)},
                      values.BaseOf(op.outputs[0])));
}

constexpr TfliteOpInfo kOps[] = {
    {"RESHAPE", Reshape, 1, true},
    {"SQUEEZE", Squeeze},
    {"EXPAND_DIMS", ExpandDims, 2},
    {"TRANSPOSE", Transpose, 2},
    {"CONCATENATION", Concatenate},
    {"PACK", Pack},
    {"UNPACK", Unpack},
    {"SPLIT", Split, 2},
    {"SPLIT_V", Split, 3},
    {"PAD", Pad, 2},
    {"PADV2", Pad, 2},
    {"MIRROR_PAD", Pad, 2},
    {"RESIZE_BILINEAR", Resize, 2},
    {"RESIZE_NEAREST_NEIGHBOR", Resize, 2},
    {"DEPTH_TO_SPACE", MoveDepth},
    {"SPACE_TO_DEPTH", MoveDepth},
    {"TILE", Tile, 2},
    {"BROADCAST_ARGS", BroadcastShapes, 2},
    {"BROADCAST_TO", Expand, 2},
    {"FILL", Fill, 2},
    {"RANGE", MakeRange, 3},
    {"SPACE_TO_BATCH_ND", SpaceToBatch, 3},
    {"BATCH_TO_SPACE_ND", BatchToSpace, 3},
    {"SHAPE", TakeShape},
    {"REVERSE_V2", Reverse, 2},
};

}  // namespace

std::span<const TfliteOpInfo> TfliteLayoutOps() { return kOps; }

}  // namespace pared
