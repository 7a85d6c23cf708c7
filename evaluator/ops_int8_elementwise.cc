// Sums, products and tables of INT8 codes.
//
// The two operands of a sum may have different layouts and shapes:
//   equal shapes and layouts        one pass over the bytes
//   [N,C,...] and [N or 1,C,1,..]   one value for each channel: rows of 64 equal codes
//   one is the end of the other     row-major: [N,T,C] and [C], [N,H,T,T] and [1,1,1,T]
//   anything else                   row-major, element by element

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "evaluator/ops_int8.h"

namespace pared {
namespace {

constexpr int64_t kGrainBytes = 65536;

// Whether b is one code for each channel of a planar a.
bool IsByChannel(const Tensor& a, const Tensor& b) {
  if (!IsPlanar(a) || b.rank() != a.rank() || b.count() == 0) return false;
  const Shape& shape = b.shape();
  const bool images = shape[0] == 1 || shape[0] == a.shape()[0];
  return images && shape[1] == a.shape()[1] && shape[0] * shape[1] == b.count();
}

// The shape of a op b; throws where they do not fit.
Shape BroadcastShape(const Shape& a, const Shape& b, const std::string& label) {
  Shape shape(std::max(a.size(), b.size()), 1);
  for (size_t i = 0; i < shape.size(); ++i) {
    const int64_t size_a = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t size_b = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (size_a != size_b && size_a != 1 && size_b != 1) {
      throw Error(ErrorCode::kInvalidArgument,
                  "shapes " + ShapeText(a) + " and " + ShapeText(b) + " do not broadcast", label);
    }
    shape[shape.size() - 1 - i] = size_a == 1 ? size_b : size_a;
  }
  return shape;
}

// The elements of `x`, repeated to fill `shape`.
void Expand(const uint8_t* x, const Shape& from, const Shape& shape, uint8_t* y) {
  const size_t missing = shape.size() - from.size();
  std::vector<int64_t> strides(shape.size(), 0), index(shape.size(), 0);
  int64_t stride = 1;
  for (size_t i = from.size(); i-- > 0;) {
    strides[missing + i] = from[i] == 1 ? 0 : stride;
    stride *= from[i];
  }
  const int64_t count = ElementCount(shape);
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    y[i] = x[at];
    for (size_t axis = shape.size(); axis-- > 0;) {
      at += strides[axis];
      if (++index[axis] < shape[axis]) break;
      at -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

// Whether `x` repeated again and again is `shape`: its axes but for leading ones end `shape`.
bool IsEndOf(const Shape& x, const Shape& shape) {
  const auto first = std::find_if(x.begin(), x.end(), [](int64_t size) { return size != 1; });
  const std::ptrdiff_t axes = x.end() - first;
  return axes <= static_cast<std::ptrdiff_t>(shape.size()) &&
         std::equal(first, x.end(), shape.end() - axes);
}

// So many copies of `row` one behind the other that a pass over them is worth its call.
std::span<const uint8_t> Repeat(const uint8_t* row, int64_t count, int64_t total,
                                Scratch& scratch) {
  constexpr int64_t kWorthIt = 2048;
  const int64_t copies = std::min(std::max<int64_t>(1, kWorthIt / count), total / count);
  if (copies == 1) return {row, static_cast<size_t>(count)};
  auto* rows = reinterpret_cast<uint8_t*>(scratch.Temporary(static_cast<size_t>(copies * count)));
  for (int64_t i = 0; i < copies; ++i) {
    std::memcpy(rows + i * count, row, static_cast<size_t>(count));
  }
  return {rows, static_cast<size_t>(copies * count)};
}

}  // namespace

BinaryInt8::BinaryInt8(const std::string& op_type, const Node& node, const std::string& prefix,
                       Isa isa)
    : params_{.a = ParametersOf(node, "a", prefix),
              .b = ParametersOf(node, "b", prefix),
              .y = ParametersOf(node, "y", prefix),
              .low = static_cast<int32_t>(node.Int(prefix + "low", 0)),
              .high = static_cast<int32_t>(node.Int(prefix + "high", 255))},
      kernel_(op_type == "Mul" ? MulQuantized : AddQuantized),
      isa_(isa),
      commutes_(op_type != "Sub"),
      label_(NodeLabel(node)) {
  // a - b = a + (-b): the sign goes into the scale.
  if (op_type == "Sub") params_.b.scale = -params_.b.scale;
  if (op_type != "Mul") fixed_ = FindFixedSum(params_, isa);
}

void BinaryInt8::RunSame(const Tensor& a, const Tensor& b, uint8_t* y, Scratch& scratch) const {
  const auto count = static_cast<int64_t>(a.bytes().size());
  scratch.ParallelFor(count, kGrainBytes, [&](int64_t begin, int64_t end) {
    RunFlat({Codes(a) + begin, static_cast<size_t>(end - begin)}, Codes(b) + begin, y + begin);
  });
}

void BinaryInt8::RunByChannel(const Tensor& a, const Tensor& b, uint8_t* y,
                              Scratch& scratch) const {
  const ImageSize image = ImageOf(a.shape());
  const uint8_t* codes = RowMajorCodes(b, scratch);
  const auto row_bytes = static_cast<size_t>(image.channels * 64);
  for (int64_t n = 0; n < a.shape()[0]; ++n) {
    const uint8_t* channel = codes + (b.shape()[0] == 1 ? 0 : n * image.channels);
    auto* rows = reinterpret_cast<uint8_t*>(scratch.Temporary(row_bytes));
    for (int64_t c = 0; c < image.channels; ++c) std::memset(rows + c * 64, channel[c], 64);
    const int64_t first = n * image.planar_bytes();
    const int64_t grain =
        std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, image.channels * 64));
    scratch.ParallelFor(image.tiles(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t at = first + tile * image.channels * 64;
        RunFlat({Codes(a) + at, row_bytes}, rows, y + at);
      }
    });
  }
}

void BinaryInt8::RunBroadcast(const Tensor& a, const Tensor& b, Tensor& y, Scratch& scratch) const {
  const Shape shape = BroadcastShape(a.shape(), b.shape(), label_);
  const std::span<uint8_t> out = scratch.Allocate<uint8_t>(y, shape);
  if (out.empty()) return;
  const bool repeats_b = a.shape() == shape && IsEndOf(b.shape(), shape);
  if (repeats_b || (b.shape() == shape && IsEndOf(a.shape(), shape))) {
    const Tensor& whole = repeats_b ? a : b;
    const Tensor& end = repeats_b ? b : a;
    const uint8_t* codes = RowMajorCodes(whole, scratch);
    const auto total = static_cast<int64_t>(out.size());
    const std::span<const uint8_t> rows =
        Repeat(RowMajorCodes(end, scratch), end.count(), total, scratch);
    const auto step = static_cast<int64_t>(rows.size());
    const auto run = [&](int64_t begin, int64_t stop) {
      for (int64_t at = begin * step; at < std::min(total, stop * step); at += step) {
        const auto count = static_cast<size_t>(std::min(step, total - at));
        const uint8_t* left = repeats_b ? codes + at : rows.data();
        RunFlat({left, count}, repeats_b ? rows.data() : codes + at, out.data() + at);
      }
    };
    scratch.ParallelFor((total + step - 1) / step, std::max<int64_t>(1, kGrainBytes / step), run);
    return;
  }
  const auto expanded = [&](const Tensor& x) {
    const uint8_t* codes = RowMajorCodes(x, scratch);
    if (x.shape() == shape) return codes;
    auto* all = reinterpret_cast<uint8_t*>(scratch.Temporary(out.size() + 1));
    Expand(codes, x.shape(), shape, all);
    return static_cast<const uint8_t*>(all);
  };
  const uint8_t* left = expanded(a);
  RunFlat({left, out.size()}, expanded(b), out.data());
}

void BinaryInt8::Run(const Tensor& a, const Tensor& b, Tensor& y, Scratch& scratch) const {
  if (commutes_ && IsByChannel(b, a) && a.shape() != b.shape()) {
    BinaryInt8 swapped = *this;
    std::swap(swapped.params_.a, swapped.params_.b);
    if (swapped.fixed_) {
      std::swap(swapped.fixed_->high_a, swapped.fixed_->high_b);
      std::swap(swapped.fixed_->low_a, swapped.fixed_->low_b);
    }
    return swapped.Run(b, a, y, scratch);
  }
  const bool same = a.shape() == b.shape() && a.layout() == b.layout();
  if (!same && !IsByChannel(a, b)) return RunBroadcast(a, b, y, scratch);
  auto* out =
      reinterpret_cast<uint8_t*>(scratch.AllocateBytes(y, DType::kUInt8, a.shape(), a.layout()));
  same ? RunSame(a, b, out, scratch) : RunByChannel(a, b, out, scratch);
}

Op PrepareBinaryInt8(const Node& node, const OpContext& context) {
  const BinaryInt8 op(node.op_type, node, "", context.isa);
  return [op](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    op.Run(*inputs[0], *inputs[1], outputs[0], scratch);
  };
}

Op PrepareLookUp(const Node& node, const OpContext& context) {
  const ByteTable table = TableOf(*node.TensorOf("table"));
  const Isa isa = context.isa;
  return [table, isa](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                      Scratch& scratch) {
    const Tensor& x = *inputs[0];
    auto* y = reinterpret_cast<uint8_t*>(
        scratch.AllocateBytes(outputs[0], DType::kUInt8, x.shape(), x.layout()));
    scratch.ParallelFor(
        static_cast<int64_t>(x.bytes().size()), kGrainBytes, [&](int64_t begin, int64_t end) {
          LookUp({Codes(x) + begin, static_cast<size_t>(end - begin)}, table, y + begin, isa);
        });
  };
}

}  // namespace pared
