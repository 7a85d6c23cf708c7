// Pad: constant, reflect, edge and wrap; negative amounts cut off.

#include <algorithm>
#include <cstring>

#include "evaluator/half_floats.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

enum class PadMode { kConstant, kReflect, kEdge, kWrap };

// For each place along an axis of the result the place in the source; -1: the constant.
std::vector<int64_t> PlacesAlong(int64_t dim, int64_t before, int64_t after, PadMode mode) {
  std::vector<int64_t> places;
  for (int64_t i = -before; i < dim + after; ++i) {
    int64_t place = i;
    if (i < 0 || i >= dim) {
      const int64_t period = mode == PadMode::kReflect ? std::max<int64_t>(1, 2 * (dim - 1)) : dim;
      if (mode == PadMode::kConstant || dim == 0) {
        place = -1;
      } else if (mode == PadMode::kEdge) {
        place = std::clamp<int64_t>(i, 0, dim - 1);
      } else {
        place = (i % period + period) % period;
        if (place >= dim) place = period - place;
      }
    }
    places.push_back(place);
  }
  return places;
}

struct PadPlan {
  Shape shape;
  std::vector<std::vector<int64_t>> places;  // by axis
};

template <class T>
void FillRow(const T* from, const std::vector<int64_t>& places, T constant, T* to) {
  // All but the ends lies as in the source.
  const auto first = std::ranges::find_if(places, [](int64_t place) { return place == 0; });
  size_t i = 0;
  const size_t run = static_cast<size_t>(first - places.begin());
  for (; i < std::min(run, places.size()); ++i) {
    to[i] = places[i] < 0 ? constant : from[places[i]];
  }
  const size_t begin = i;
  while (i < places.size() && places[i] == static_cast<int64_t>(i - begin)) ++i;
  if (i > begin) std::memcpy(to + begin, from, (i - begin) * sizeof(T));
  for (; i < places.size(); ++i) to[i] = places[i] < 0 ? constant : from[places[i]];
}

template <class T>
void PadRows(const Tensor& in, const PadPlan& plan, T constant, T* to, const Scratch& scratch) {
  const T* from = Elements<T>(in);
  const Shape strides = StridesOf(in.shape());
  const size_t last = plan.shape.size() - 1;
  const int64_t columns = plan.shape[last];
  const int64_t rows = Extent(plan.shape, 0, static_cast<int64_t>(last));
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns));
  scratch.ParallelFor(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t rest = row, source = 0;
      bool is_outside = false;
      for (size_t axis = last; axis-- > 0;) {
        const int64_t place = plan.places[axis][Sz(rest % plan.shape[axis])];
        rest /= plan.shape[axis];
        is_outside |= place < 0;
        source += place * strides[axis];
      }
      if (is_outside) {
        std::fill_n(to + row * columns, columns, constant);
      } else {
        FillRow(from + source, plan.places[last], constant, to + row * columns);
      }
    }
  });
}

PadPlan PlanPad(const Shape& from, std::span<const int64_t> pads, std::vector<int64_t> axes,
                PadMode mode, const std::string& label) {
  const int64_t rank = static_cast<int64_t>(from.size());
  if (axes.empty()) {
    for (int64_t axis = 0; axis < rank; ++axis) axes.push_back(axis);
  }
  if (pads.size() != 2 * axes.size()) {
    RefuseNode("needs two amounts for each axis, has " + std::to_string(pads.size()), label);
  }
  std::vector<int64_t> before(from.size()), after(from.size());
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t axis = Sz(NormalizeAxis(axes[i], rank, label));
    before[axis] = pads[i];
    after[axis] = pads[axes.size() + i];
  }
  PadPlan plan;
  for (size_t axis = 0; axis < from.size(); ++axis) {
    const int64_t cut = std::min<int64_t>(0, before[axis]) + std::min<int64_t>(0, after[axis]);
    if (from[axis] + cut < 0) RefuseNode("cuts off more than there is", label);
    constexpr int64_t kLongest = int64_t{1} << 40;
    if (before[axis] > kLongest || after[axis] > kLongest) RefuseNode("pads too much", label);
    plan.places.push_back(PlacesAlong(from[axis], before[axis], after[axis], mode));
    plan.shape.push_back(static_cast<int64_t>(plan.places.back().size()));
  }
  return plan;
}

PadMode ModeOf(const Node& node) {
  const std::string mode = node.String("mode", "constant");
  if (mode == "constant") return PadMode::kConstant;
  if (mode == "reflect") return PadMode::kReflect;
  if (mode == "edge") return PadMode::kEdge;
  if (mode == "wrap") return PadMode::kWrap;
  RefuseNode("mode must be constant, reflect, edge or wrap, is \"" + mode + "\"", NodeLabel(node));
}

// The attribute's value as the bits of an element.
template <class T>
T FillOf(float value, DType dtype) {
  const auto bits = [](const auto& element) {
    T fill{};
    std::memcpy(&fill, &element, std::min(sizeof(fill), sizeof(element)));
    return fill;
  };
  if (dtype == DType::kFloat32) return bits(value);
  if (dtype == DType::kFloat64) return bits(static_cast<double>(value));
  if (dtype == DType::kFloat16) return bits(ToFloat16(value));
  if (dtype == DType::kBFloat16) return bits(ToBFloat16(value));
  return T{};
}

// Amounts and value: attributes before opset 11, inputs since.
Op PreparePad(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 4);
  return [attribute = node.Ints("pads"), value = node.Float("value", 0.0F), mode = ModeOf(node),
          label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    const Tensor& in = *inputs[0];
    const auto given = [&](size_t i) { return i < inputs.size() ? inputs[i] : nullptr; };
    const std::vector<int64_t> pads =
        given(1) != nullptr ? IntegersOf(*given(1), label) : attribute;
    const std::vector<int64_t> axes =
        given(3) != nullptr ? IntegersOf(*given(3), label) : std::vector<int64_t>();
    if (in.rank() == 0) {
      outputs[0] = in;
      return;
    }
    const PadPlan plan = PlanPad(in.shape(), pads, axes, mode, label);
    DispatchWidth(in.dtype(), label, [&]<class T>() {
      T constant{};
      if (given(2) != nullptr) {
        if (given(2)->dtype() != in.dtype() || given(2)->count() != 1) {
          RefuseNode("the value must be one element of the input's type", label);
        }
        constant = *Elements<T>(*given(2));
      } else {
        constant = FillOf<T>(value, in.dtype());
      }
      T* y = AllocateLike<T>(outputs[0], in.dtype(), plan.shape, scratch);
      PadRows<T>(in, plan, constant, y, scratch);
    });
  };
}

constexpr OpInfo kOps[] = {{"Pad", "", PreparePad, HalfFloats::kNative}};

}  // namespace

std::span<const OpInfo> PadOps() { return kOps; }

}  // namespace pared
