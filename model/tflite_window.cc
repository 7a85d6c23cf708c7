#include "model/tflite_window.h"

#include <algorithm>
#include <limits>

#include "model/permute.h"
#include "model/same_padding.h"

namespace pared {

TfliteWindow WindowOf(const TfliteLowering& l, const Shape& spatial, std::vector<int64_t> kernel) {
  const size_t rank = spatial.size();
  const Node& node = l.node();
  TfliteWindow w = {std::move(kernel),
                    node.Ints("strides", std::vector<int64_t>(rank, 1)),
                    node.Ints("dilations", std::vector<int64_t>(rank, 1)),
                    {},
                    {},
                    false};
  std::vector<int64_t> pads = node.Ints("pads", std::vector<int64_t>(2 * rank, 0));
  l.Require(w.kernel.size() == rank && w.strides.size() == rank && w.dilations.size() == rank &&
                pads.size() == 2 * rank,
            "a window of other axes than its input");
  const std::string automatic = node.String("auto_pad", "NOTSET");
  for (size_t i = 0; i < rank && automatic.starts_with("SAME"); ++i) {
    if (spatial[i] < 0) {
      l.Require(automatic == "SAME_UPPER", "auto_pad SAME_LOWER where lengths are open");
      w.is_same = true;
      continue;
    }
    const int64_t total = SamePadding(spatial[i], w.kernel[i], w.strides[i], w.dilations[i]);
    pads[i] = automatic == "SAME_UPPER" ? total / 2 : total - total / 2;
    pads[i + rank] = total - pads[i];
  }
  if (automatic == "VALID") std::ranges::fill(pads, 0);
  w.begins.assign(pads.begin(), pads.begin() + static_cast<int64_t>(rank));
  w.ends.assign(pads.begin() + static_cast<int64_t>(rank), pads.end());
  return w;
}

void Widen(std::vector<int64_t>& axes, int64_t value) {
  if (axes.size() == 1) axes.insert(axes.begin(), value);
}

void Widen(TfliteWindow& w) {
  Widen(w.kernel, 1);
  Widen(w.strides, 1);
  Widen(w.dilations, 1);
  Widen(w.begins, 0);
  Widen(w.ends, 0);
}

bool IsSame(const TfliteWindow& w, const Shape& spatial) {
  if (w.is_same) return true;
  for (size_t i = 0; i < 2; ++i) {
    if (spatial[i] < 0 && w.strides[i] != 1) return false;
    const int64_t size = std::max<int64_t>(spatial[i], 1);  // of stride 1 whatever the length
    const int64_t total = SamePadding(size, w.kernel[i], w.strides[i], w.dilations[i]);
    if (w.begins[i] != total / 2 || w.ends[i] != total - total / 2) return false;
  }
  return true;
}

bool IsUnpadded(const TfliteWindow& w) {
  const auto is_zero = [](int64_t pad) { return pad == 0; };
  return !w.is_same && std::ranges::all_of(w.begins, is_zero) &&
         std::ranges::all_of(w.ends, is_zero);
}

int64_t Padded(TfliteLowering& l, int64_t x, const TfliteWindow& w, bool with_least) {
  if (IsUnpadded(w)) return x;
  Shape shape = l.tensor(x).shape;
  std::vector<int32_t> pads(8, 0);
  for (size_t i = 0; i < 2; ++i) {
    l.Require(w.begins[i] >= 0 && w.ends[i] >= 0, "negative pads");
    pads[2 * i + 2] = Narrow(w.begins[i]);
    pads[2 * i + 3] = Narrow(w.ends[i]);
    if (shape[i + 1] >= 0) shape[i + 1] += w.begins[i] + w.ends[i];
  }
  const int64_t sizes = l.AddConstant(l.result() + "/pads", Tensor::Make<int32_t>({4, 2}, pads));
  if (!with_least) return l.Emit("PAD", {x, sizes}, shape, x);
  int64_t least = -1;
  if (l.in_codes()) {
    const TfliteTensor& like = l.tensor(x);
    least = l.AddCodes(l.result() + "/least",
                       {Tensor::Make<int8_t>({1}, {-128}), like.scales, like.zero_points, 0});
  } else {
    least = l.AddConstant(l.result() + "/least",
                          Tensor::Make<float>({1}, {std::numeric_limits<float>::lowest()}));
  }
  return l.Emit("PADV2", {x, sizes, least}, shape, x);
}

int64_t Image(TfliteLowering& l, const std::string& value, Shape& spatial) {
  const int64_t rank = l.RankOf(value);
  l.Require(rank == 3 || rank == 4, "an input of " + std::to_string(rank) + " axes");
  int64_t x = l.Get(value, ChannelsLast(rank));
  Shape shape = l.tensor(x).shape;
  if (rank == 3) {
    shape.insert(shape.begin() + 1, 1);
    x = l.Reshaped(x, shape);
  }
  spatial = {shape[1], shape[2]};
  return x;
}

Shape ImageShape(const TfliteLowering& l) {
  const std::string& value = l.node().outputs[0];
  Shape shape = Permuted(l.ShapeOf(value), ChannelsLast(l.RankOf(value)));
  if (shape.size() == 3) shape.insert(shape.begin() + 1, 1);
  l.Require(shape.size() == 4, "a result of other axes than an image");
  return shape;
}

void DefineImage(TfliteLowering& l, int64_t image) {
  const std::string& value = l.node().outputs[0];
  const AxisOrder order = ChannelsLast(l.RankOf(value));
  if (order.size() == 3) image = l.Reshaped(image, Permuted(l.ShapeOf(value), order));
  l.Define(order, image);
}

int64_t EmitImage(TfliteLowering& l, const std::string& type, std::vector<int64_t> inputs,
                  Shape shape, TfliteOptions options) {
  if (!l.in_codes()) {
    return l.EmitTyped(type, std::move(inputs), std::move(shape), DType::kFloat32,
                       std::move(options));
  }
  return l.EmitCodes(type, std::move(inputs), std::move(shape), l.result_scale(),
                     std::move(options));
}

}  // namespace pared
