// Pools as TensorFlow Lite operators.

#include <algorithm>

#include "model/tflite_lowering.h"
#include "model/tflite_window.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

TfliteOptions PoolOptions(const TfliteLowering& l, const TfliteWindow& w, int8_t padding) {
  return {Kind::kPool2D,
          {{0, padding},
           {1, Narrow(w.strides[1])},
           {2, Narrow(w.strides[0])},
           {3, Narrow(w.kernel[1])},
           {4, Narrow(w.kernel[0])},
           {5, l.activation()}}};
}

// Elements of the kernel over those that count, for each place of the result. What counts is the
// image, with so much around it as `begins` and `ends` say.
int64_t Shares(TfliteLowering& l, const TfliteWindow& w, const Shape& spatial, const Shape& result,
               const Shape& begins, const Shape& ends) {
  std::vector<float> shares;
  const auto inside = [&](size_t i, int64_t place) {
    const int64_t begin = place * w.strides[i] - w.begins[i];
    return std::min(begin + w.kernel[i], spatial[i] + ends[i]) - std::max(begin, -begins[i]);
  };
  for (int64_t row = 0; row < result[1]; ++row) {
    for (int64_t column = 0; column < result[2]; ++column) {
      const int64_t count = std::max<int64_t>(inside(0, row) * inside(1, column), 1);
      shares.push_back(static_cast<float>(w.kernel[0] * w.kernel[1]) / static_cast<float>(count));
    }
  }
  return l.AddConstant(l.result() + "/shares",
                       Tensor::Make<float>({1, result[1], result[2], 1}, std::move(shares)));
}

void LowerPool(TfliteLowering& l) {
  l.Require(l.node().outputs.size() == 1 || l.node().outputs[1].empty(), "places of the maxima");
  const bool is_max = l.node().op_type == "MaxPool";
  const std::string& x = l.Input(0);
  Shape spatial = l.ShapeOf(x);
  l.Require(spatial.size() > 2, "a pool without spatial axes");
  spatial.erase(spatial.begin(), spatial.begin() + 2);
  TfliteWindow w = WindowOf(l, spatial, l.node().Ints("kernel_shape"));
  l.Require(std::ranges::all_of(w.dilations, [](int64_t d) { return d == 1; }),
            "dilations of a pool");
  Widen(w);
  Widen(spatial, 1);
  const Shape result = ImageShape(l), declared = w.ends;
  bool reaches_beyond = false;
  for (size_t i = 0; i < 2; ++i) {
    if (spatial[i] < 0 || result[i + 1] < 0) {
      l.Require(l.node().Int("ceil_mode", 0) == 0, "ceil_mode where lengths are open");
      continue;
    }
    const int64_t reach = (result[i + 1] - 1) * w.strides[i] + w.kernel[i];
    // With ceil_mode the last window may reach beyond the pads; what none reaches is not padded.
    w.ends[i] = std::max<int64_t>(reach - spatial[i] - w.begins[i], 0);
    reaches_beyond = reaches_beyond || w.ends[i] > declared[i];
  }
  const bool counts_pads = l.node().Int("count_include_pad", 0) != 0;
  const bool is_same = !IsUnpadded(w) && IsSame(w, spatial) && (is_max || !counts_pads);
  l.Require(is_same || !w.is_same, "count_include_pad where lengths are open");
  const bool corrects = !is_max && !is_same && !IsUnpadded(w) && (!counts_pads || reaches_beyond);
  if (corrects) {
    l.LeaveCodes();
    l.Require(std::ranges::min(spatial) >= 0 && result[1] >= 0 && result[2] >= 0,
              "an average beside pads where lengths are open");
  }
  int64_t image = Image(l, x, spatial);
  if (!is_same) image = Padded(l, image, w, is_max);
  const TfliteOptions options = PoolOptions(l, w, is_same ? kPadSame : kPadValid);
  int64_t made =
      l.Emit(is_max ? "MAX_POOL_2D" : "AVERAGE_POOL_2D", {image}, result, image, options);
  if (corrects) {
    const Shape none = {0, 0};
    const int64_t shares =
        Shares(l, w, spatial, result, counts_pads ? w.begins : none, counts_pads ? declared : none);
    made = l.Emit("MUL", {made, shares}, result, made, {Kind::kMul, {}});
  }
  DefineImage(l, made);
}

void LowerGlobalPool(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const int64_t rank = l.RankOf(x);
  const AxisOrder order = ChannelsLast(rank);
  std::vector<int64_t> axes;
  for (int64_t axis = 1; axis + 1 < rank; ++axis) axes.push_back(axis);
  const int64_t image = l.Get(x, order);
  const bool is_max = l.node().op_type == "GlobalMaxPool";
  const int64_t made = l.EmitResult(is_max ? "REDUCE_MAX" : "MEAN", {image, l.AddInts(axes)}, order,
                                    {Kind::kReducer, {{0, true}}});
  l.Define(order, made);
}

constexpr TfliteLoweringInfo kOps[] = {
    {"MaxPool", LowerPool, Codes::kMoved},
    {"AveragePool", LowerPool},
    {"GlobalAveragePool", LowerGlobalPool, Codes::kComputed},
    {"GlobalMaxPool", LowerGlobalPool, Codes::kMoved},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerPoolOps() { return kOps; }

}  // namespace pared
