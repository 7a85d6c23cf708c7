#include "passes/calibration_rows.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "evaluator/executor.h"
#include "evaluator/half_floats.h"
#include "evaluator/ops.h"
#include "model/random_ops.h"
#include "passes/float_elements.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr int64_t kBatchMax = 1024;
// Of the largest element: products of more rows may round in another order.
constexpr float kDifferenceMax = 1e-3f;

// The rows of every input of the first sample; 0: they differ, or the model does not leave open
// how many there are, draws numbers or has operators that are not known.
int64_t BatchOf(const Model& model, const std::vector<ValueInfo>& inputs,
                const std::vector<Tensor>& sample) {
  int64_t batch = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool is_open =
        inputs[i].shape && !inputs[i].shape->empty() && inputs[i].shape->front().value < 0;
    if (!is_open || sample[i].rank() == 0 || ElementBits(sample[i].dtype()) < 8) return 0;
    const int64_t rows = sample[i].shape()[0];
    if (batch != 0 && rows != batch) return 0;
    batch = rows;
  }
  const auto cannot_tell = [](const Node& node) {
    return IsRandomOp(node.op_type) || FindOp(node.domain, node.op_type) == nullptr;
  };
  return HasNode(model.graph, cannot_tell) ? 0 : batch;
}

bool IsFloatTensor(const Tensor& tensor) {
  return tensor.dtype() == DType::kFloat32 || tensor.dtype() == DType::kFloat64 ||
         IsHalfFloat(tensor.dtype());
}

// Whether `one` is part `row` of `batch` along the first axis of `whole`.
bool IsRowOf(const Tensor& whole, const Tensor& one, int64_t row, int64_t batch) {
  if (whole.rank() == 0 || whole.rank() != one.rank() || whole.dtype() != one.dtype()) return false;
  Shape shape = one.shape();
  shape[0] *= batch;
  if (shape != whole.shape() || ElementBits(whole.dtype()) < 8) return false;
  if (!IsFloatTensor(whole)) {
    const size_t size = one.bytes().size();
    return std::ranges::equal(one.bytes(),
                              whole.bytes().subspan(static_cast<size_t>(row) * size, size));
  }
  const FloatElements all(whole), own(one);
  const size_t count = own.get().size();
  const std::span<const float> wanted = all.get().subspan(static_cast<size_t>(row) * count, count);
  float largest = 0;
  for (const float value : wanted) {
    if (std::isfinite(value)) largest = std::max(largest, std::fabs(value));
  }
  return std::ranges::equal(wanted, own.get(), [&](float a, float b) {
    return a == b || (std::isnan(a) && std::isnan(b)) ||
           std::fabs(a - b) <= kDifferenceMax * largest;
  });
}

// Whether `next` lies right behind `tensor`.
bool AreAdjacent(const Tensor& tensor, const Tensor& next) {
  return next.bytes().data() == tensor.bytes().data() + tensor.bytes().size();
}

// The tensors, all of one shape, one behind the other: where they lie, if that is so, or copied.
Tensor Joined(const std::vector<Tensor>& parts) {
  const std::span<const std::byte> first = parts[0].bytes();
  const bool are_adjacent =
      std::ranges::adjacent_find(parts, std::not_fn(AreAdjacent)) == parts.end();
  Shape shape = parts[0].shape();
  shape[0] *= std::ssize(parts);
  const size_t size = first.size() * parts.size();
  if (are_adjacent) {
    return Tensor::View(parts[0].dtype(), shape, {first.data(), size},
                        std::make_shared<const Tensor>(parts[0]));
  }
  const auto copy = std::make_shared<std::vector<std::byte>>();
  copy->reserve(size);
  for (const Tensor& part : parts) {
    copy->insert(copy->end(), part.bytes().begin(), part.bytes().end());
  }
  return Tensor::View(parts[0].dtype(), shape, *copy, copy);
}

// The rows of all samples as samples; nullopt: shapes differ, or too much would be copied.
std::optional<Dataset> RowsOf(const Dataset& data, const std::vector<ValueInfo>& inputs) {
  std::vector<std::vector<Tensor>> parts(inputs.size());
  int64_t copied = 0;
  for (int64_t i = 0; i < data.sample_count(); ++i) {
    const std::vector<Tensor> sample = data.Sample(i, inputs);
    for (size_t input = 0; input < inputs.size(); ++input) {
      std::vector<Tensor>& before = parts[input];
      const Tensor& tensor = sample[input];
      if (!before.empty() && tensor.shape() != before[0].shape()) return std::nullopt;
      if (before.empty() || !AreAdjacent(before.back(), tensor)) {
        copied += std::ssize(tensor.bytes());
      }
      before.push_back(tensor);
    }
    if (i > 0 && copied > kCopiedBytesMax) return std::nullopt;
  }
  std::map<std::string, Tensor> arrays;
  for (size_t input = 0; input < inputs.size(); ++input) {
    arrays.emplace(inputs[input].name, Joined(parts[input]));
  }
  return Dataset::Of(data.name(), arrays);
}

}  // namespace

std::optional<CalibrationRows> RowsOfCalibration(const Model& model, const PassContext& context) {
  if (context.calibration == nullptr || context.calibration->sample_count() == 0) return {};
  const Dataset& data = *context.calibration;
  if (data.task().task != Task::kAuto || !data.state().empty() || data.images()) return {};
  const std::vector<ValueInfo> inputs = CallerInputs(model.graph);
  if (inputs.empty() || model.graph.outputs.empty()) return {};
  const std::vector<Tensor> sample = data.Sample(0, inputs);
  const int64_t batch = BatchOf(model, inputs, sample);
  if (batch < 2 || batch > kBatchMax) return {};
  std::optional<Dataset> rows = RowsOf(data, inputs);
  if (!rows) return {};
  const Executor executor(model, {.fuse = false, .seed = context.seed});
  const std::vector<Tensor> whole = executor.Run(sample);
  for (const int64_t row : std::set<int64_t>{0, batch / 2, batch - 1}) {
    const std::vector<Tensor> one = executor.Run(rows->Sample(row, inputs));
    for (size_t i = 0; i < whole.size(); ++i) {
      if (!IsRowOf(whole[i], one[i], row, batch)) return {};
    }
  }
  return CalibrationRows{std::move(*rows), batch};
}

}  // namespace pared
