// Resize by nearest neighbour and its like on INT8 codes: each output pixel copies an input pixel,
// the same for all channels. Which one, the ONNX operator itself tells: it is run once on an image
// whose pixels are their own numbers.

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "evaluator/ops_int8.h"

namespace pared {
namespace {

struct PixelPlan {
  Shape x, y;
  std::vector<int32_t> sources;  // by output pixel
};

class ResizeInt8 {
 public:
  ResizeInt8(const Node& node, const OpContext& context)
      : label_(NodeLabel(node)), scales_(*node.TensorOf("scales")) {
    Node onnx = node;
    onnx.domain.clear();
    onnx.inputs = {"x", "", "scales"};
    onnx.outputs = {"y"};
    OpContext inner = context;
    inner.opset = node.Int("opset", 13);
    inner.constants = {nullptr, nullptr, &scales_};
    inner.stats = nullptr;
    pick_ = FindOp("", "Resize")->prepare(onnx, inner);
  }

  void Run(const Tensor& x, Tensor& y, Scratch& scratch) const {
    const std::shared_ptr<const PixelPlan> plan = PlanFor(x.shape(), scratch);
    auto* out = reinterpret_cast<uint8_t*>(
        scratch.AllocateBytes(y, DType::kUInt8, plan->y, Layout::kPlanar64));
    const ImageSize from = ImageOf(x.shape()), to = ImageOf(plan->y);
    const uint8_t* codes = PlanarCodes(x, scratch);
    for (int64_t image = 0; image < x.shape()[0]; ++image) {
      const uint8_t* source = codes + image * from.planar_bytes();
      uint8_t* target = out + image * to.planar_bytes();
      scratch.ParallelFor(to.tiles(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile) CopyTile(*plan, source, tile, target);
      });
    }
  }

 private:
  static void CopyTile(const PixelPlan& plan, const uint8_t* x, int64_t tile, uint8_t* y) {
    const int64_t channels = plan.x[1];
    const int64_t first = tile * 64;
    const int64_t count = std::min<int64_t>(64, static_cast<int64_t>(plan.sources.size()) - first);
    int64_t offsets[64];
    for (int64_t i = 0; i < count; ++i) {
      const int64_t pixel = plan.sources[static_cast<size_t>(first + i)];
      offsets[i] = pixel / 64 * channels * 64 + pixel % 64;
    }
    for (int64_t c = 0; c < channels; ++c) {
      uint8_t* row = y + (tile * channels + c) * 64;
      for (int64_t i = 0; i < count; ++i) row[i] = x[offsets[i] + c * 64];
    }
  }

  std::shared_ptr<const PixelPlan> PlanFor(const Shape& x, Scratch& scratch) const {
    const std::scoped_lock lock(mutex_);
    if (plan_ != nullptr && plan_->x == x) return plan_;
    if (static_cast<int64_t>(x.size()) != scales_.count()) {
      throw Error(ErrorCode::kInvalidArgument, "scales do not fit x of shape " + ShapeText(x),
                  label_);
    }
    Shape one = x;
    one[0] = one[1] = 1;
    std::vector<int32_t> pixels(static_cast<size_t>(ElementCount(one)));
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<int32_t>(i);
    const Tensor image = Tensor::Make<int32_t>(one, std::move(pixels));
    const Tensor* const inputs[] = {&image, nullptr, &scales_};
    Tensor picked;
    pick_(inputs, {&picked, 1}, scratch);
    auto plan = std::make_shared<PixelPlan>();
    plan->x = x;
    plan->y = picked.shape();
    plan->y[0] = x[0];
    plan->y[1] = x[1];
    plan->sources.assign(picked.data<int32_t>().begin(), picked.data<int32_t>().end());
    plan_ = plan;
    return plan_;
  }

  std::string label_;
  Tensor scales_;
  Op pick_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const PixelPlan> plan_;  // guarded by mutex_
};

}  // namespace

Op PrepareResizeInt8(const Node& node, const OpContext& context) {
  const auto resize = std::make_shared<const ResizeInt8>(node, context);
  return [resize](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                  Scratch& scratch) { resize->Run(*inputs[0], outputs[0], scratch); };
}

}  // namespace pared
