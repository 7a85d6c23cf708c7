// What takes some elements, as TensorFlow Lite operators.

#include <algorithm>

#include "model/permute.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Kind = TfliteOptionsKind;
using Codes = TfliteLowering::Codes;

constexpr int64_t kSlicedRankMax = 5;

// What one axis is cut to.
struct Cut {
  int64_t begin = 0, end = 0, step = 1;
  bool from_start = true, to_end = true;  // whatever begin and end say
};

// As ONNX clamps it; lengths that are open are left to the run.
Cut CutOf(int64_t start, int64_t end, int64_t step, int64_t length) {
  Cut cut = {0, 0, step, false, false};
  if (length >= 0) {
    if (start < 0) start += length;
    if (end < 0) end += length;
    start = std::clamp<int64_t>(start, 0, step > 0 ? length : length - 1);
    end = std::clamp<int64_t>(end, step > 0 ? 0 : -1, length);
    cut.begin = start;
    cut.end = end;
    cut.to_end = step < 0 && end < 0;
    if (cut.to_end) cut.end = 0;
    return cut;
  }
  cut.begin = start;
  cut.end = end;
  cut.from_start = step > 0 ? start == 0 : start >= INT32_MAX;
  cut.to_end = step > 0 ? end >= INT32_MAX : end <= -INT32_MAX;
  return cut;
}

std::optional<std::vector<int64_t>> Given(const TfliteLowering& l, const char* attribute,
                                          size_t input) {
  return l.IntegersOf(attribute, input);
}

// Axes and steps; the axes that are not named stay whole. Starts and ends are attributes before
// opset 10, inputs since.
struct Slicing {
  std::vector<int64_t> axes, steps;
  std::vector<Cut> cuts;  // by axis of the input
};

bool IsComputed(const TfliteLowering& l, size_t input) {
  return l.HasInput(input) && l.Constant(l.node().inputs[input]) == nullptr;
}

// `count`: how many starts there are.
Slicing SlicingOf(const TfliteLowering& l, const Shape& shape, size_t count) {
  Slicing slicing;
  slicing.axes = Given(l, "axes", 3).value_or(PlainOrder(static_cast<int64_t>(count)));
  slicing.steps = Given(l, "steps", 4).value_or(std::vector<int64_t>(count, 1));
  slicing.cuts.resize(shape.size());
  l.Require(slicing.axes.size() == count && slicing.steps.size() == count,
            "starts, axes and steps of different numbers");
  for (int64_t& axis : slicing.axes) axis = l.Axis(axis, std::ssize(shape));
  return slicing;
}

// Places that the model computes stand among those that are known, in the order of the tensor.
int64_t MixedPlaces(TfliteLowering& l, const AxisOrder& order, const Slicing& slicing, size_t input,
                    const std::vector<int64_t>& known) {
  if (!IsComputed(l, input)) return l.AddInts(known);
  const int64_t computed = l.Computed32(l.node().inputs[input]);
  std::vector<int64_t> parts;
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t named = PlaceOf(slicing.axes, order[i]);
    if (named == std::ssize(slicing.axes)) {
      parts.push_back(l.AddInts({known[i]}));
    } else {
      parts.push_back(l.Part32(computed, named, 1));
    }
  }
  return l.Joined32(std::move(parts), std::ssize(order));
}

void LowerSlice(TfliteLowering& l) {
  const std::string& x = l.Input(0);
  const Shape shape = l.ShapeOf(x);
  const int64_t rank = std::ssize(shape);
  l.Require(rank <= kSlicedRankMax, "a Slice of " + std::to_string(rank) + " axes");
  const bool computes_starts = IsComputed(l, 1), computes_ends = IsComputed(l, 2);
  const auto starts = computes_starts ? std::nullopt : Given(l, "starts", 1);
  const auto ends = computes_ends ? std::nullopt : Given(l, "ends", 2);
  l.Require((starts || computes_starts) && (ends || computes_ends), "a Slice without places");
  l.Require(!starts || !ends || starts->size() == ends->size(),
            "starts and ends of different numbers");
  l.Require(starts || ends || l.RankOf(l.Input(1)) == 1, "starts of other than one axis");
  const int64_t count = starts ? std::ssize(*starts)
                        : ends ? std::ssize(*ends)
                               : l.ShapeOf(l.Input(1))[0];
  l.Require(count >= 0, "an open number of axes");
  Slicing slicing = SlicingOf(l, shape, static_cast<size_t>(count));
  for (size_t i = 0; i < slicing.axes.size(); ++i) {
    const auto axis = static_cast<size_t>(slicing.axes[i]);
    const int64_t step = slicing.steps[i];
    l.Require(step > 0 || (starts && ends), "steps back between places that are computed");
    const int64_t length = starts && ends ? shape[axis] : -1;
    Cut cut = CutOf(starts ? starts->at(i) : 0, ends ? ends->at(i) : 0, step, length);
    if (computes_starts) cut.from_start = false;
    if (computes_ends) cut.to_end = false;
    slicing.cuts[axis] = cut;
  }
  const AxisOrder order = l.CommonOrder({x}, rank);
  std::vector<int64_t> begins, stops, steps;
  int32_t begin_mask = 0, end_mask = 0;
  for (const int64_t axis : order) {
    const Cut& cut = slicing.cuts[static_cast<size_t>(axis)];
    // Beside places that are computed, numbers say it: ends are clamped.
    if (cut.from_start && starts && ends) begin_mask |= 1 << begins.size();
    if (cut.to_end && starts && ends) end_mask |= 1 << begins.size();
    begins.push_back(cut.begin);
    stops.push_back(cut.to_end && cut.step > 0 ? INT32_MAX : cut.end);
    steps.push_back(cut.step);
  }
  const int64_t begin = MixedPlaces(l, order, slicing, 1, begins);
  const int64_t end = MixedPlaces(l, order, slicing, 2, stops);
  l.Define(order, l.EmitResult("STRIDED_SLICE", {l.Get(x, order), begin, end, l.AddInts(steps)},
                               order, {Kind::kStridedSlice, {{0, begin_mask}, {1, end_mask}}}));
}

// Indices, of which TensorFlow Lite takes none from the end.
int64_t Indices(TfliteLowering& l, const std::string& value, int64_t length) {
  const Tensor* constant = l.Constant(value);
  if (constant == nullptr) return l.Plain(value);
  std::vector<int32_t> places;
  for (int64_t place : l.Integers(value, "indices")) {
    if (place < 0) {
      l.Require(length >= 0, "indices from the end of an open length");
      place += length;
    }
    places.push_back(Narrow(place));
  }
  return l.AddConstant(value, Tensor::Make<int32_t>(constant->shape(), std::move(places)));
}

void LowerGather(TfliteLowering& l) {
  const std::string &table = l.Input(0), &indices = l.Input(1);
  const Shape shape = l.ShapeOf(table);
  const int64_t axis = l.Axis(l.node().Int("axis", 0), std::ssize(shape));
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const int64_t places = Indices(l, indices, shape[static_cast<size_t>(axis)]);
  const TfliteOptions options = {Kind::kGather, {{0, Narrow(axis)}}};
  // A table of codes is looked up as it is stored.
  const auto stored = l.StoredCodes(table);
  if (stored && stored->scales.size() == 1 && stored->tensor.dtype() == DType::kInt8) {
    const int64_t codes = l.AddCodes(table, *stored);
    return l.DefineCodes(
        order, l.Emit("GATHER", {codes, places}, l.ShapeOf(l.node().outputs[0]), codes, options));
  }
  l.Define(order, l.EmitResult("GATHER", {l.Plain(table), places}, order, options));
}

void LowerGatherNd(TfliteLowering& l) {
  l.Require(l.node().Int("batch_dims", 0) == 0, "batch_dims of a GatherND");
  const AxisOrder order = PlainOrder(l.RankOf(l.node().outputs[0]));
  const Tensor* indices = l.Constant(l.Input(1));
  if (indices != nullptr) {
    l.Require(
        std::ranges::all_of(l.Integers(l.Input(1), "indices"), [](int64_t i) { return i >= 0; }),
        "indices from the end");
  }
  l.Define(order, l.EmitResult("GATHER_ND", {l.Plain(l.Input(0)), l.Plain(l.Input(1))}, order));
}

constexpr TfliteLoweringInfo kOps[] = {
    {"Slice", LowerSlice, Codes::kMoved},
    {"Gather", LowerGather, Codes::kMoved},
    {"GatherND", LowerGatherNd},
};

}  // namespace

std::span<const TfliteLoweringInfo> LowerSelectOps() { return kOps; }

}  // namespace pared
