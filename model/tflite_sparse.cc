#include "model/tflite_sparse.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"

namespace pared {
namespace {

// SparsityParameters, DimensionMetadata, and the three kinds of index vectors.
constexpr int kTraversalOrder = 0, kBlockMap = 1, kDimensions = 2;
constexpr int kFormat = 0, kDenseSize = 1, kSegments = 3, kIndices = 5;
constexpr int kSegmentsType = 2, kIndicesType = 4;
constexpr int8_t kCompressed = 1;  // SPARSE_CSR
// Far beyond any sparsity that pays: a few bytes do not unfold to gigabytes.
constexpr int64_t kExpansionMax = 1024;

std::vector<int64_t> ReadIndices(const FlatTable& dimension, int type_field, int field) {
  const std::optional<FlatTable> vector = dimension.Child(field);
  if (!vector) return {};
  const auto widen = [](const auto& numbers) {
    return std::vector<int64_t>(numbers.begin(), numbers.end());
  };
  switch (dimension.Number<uint8_t>(type_field)) {
    case 1:
      return widen(vector->Numbers<int32_t>(0));
    case 2:
      return widen(vector->Numbers<uint16_t>(0));
    case 3:
      return widen(vector->Numbers<uint8_t>(0));
    default:
      return {};
  }
}

// A level of the traversal: a dimension, or a dimension of the blocks.
struct Level {
  size_t axis = 0;     // of the dense tensor
  int64_t stride = 1;  // elements of that axis that a step is
  bool is_compressed = false;
  int64_t size = 0;
  std::vector<int64_t> segments, indices;
};

class Expander {
 public:
  Expander(const FlatTable& sparsity, std::span<const std::byte> values, DType dtype,
           const Shape& shape, const std::string& where)
      : values_(values),
        dtype_(dtype),
        shape_(shape),
        where_(where),
        size_(static_cast<size_t>(ElementBits(dtype) / 8)) {
    Require(size_ > 0 && !shape.empty());
    ReadLevels(sparsity);
  }

  Tensor Run() {
    const int64_t bytes = PackedBytes(dtype_, shape_);
    Require(bytes > 0 && bytes <= kExpansionMax * (std::ssize(values_) + 1024));
    dense_ = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(bytes));
    at_.assign(shape_.size(), 0);
    Visit(0, 0);
    Require(next_ * size_ == values_.size());
    return Tensor::View(dtype_, shape_, *dense_, dense_);
  }

 private:
  void Require(bool holds) const {
    if (holds) return;
    throw Error(ErrorCode::kInvalidArgument, "its sparse storage contradicts itself", where_);
  }

  void ReadLevels(const FlatTable& sparsity) {
    const auto order = sparsity.Numbers<int32_t>(kTraversalOrder);
    const auto block_map = sparsity.Numbers<int32_t>(kBlockMap);
    const std::vector<FlatTable> dimensions = sparsity.Children(kDimensions);
    Require(order.size() == dimensions.size() && order.size() == shape_.size() + block_map.size());
    std::vector<int32_t> sorted = order;
    std::ranges::sort(sorted);
    for (size_t i = 0; i < sorted.size(); ++i) Require(sorted[i] == static_cast<int32_t>(i));
    std::vector<int64_t> block(shape_.size(), 1);
    for (size_t i = 0; i < order.size(); ++i) {
      Level level = ReadLevel(dimensions[i]);
      const auto number = static_cast<size_t>(order[i]);
      Require(order[i] >= 0 && number < order.size());
      if (number < shape_.size()) {
        level.axis = number;
      } else {
        const int32_t mapped = block_map[number - shape_.size()];
        Require(mapped >= 0 && static_cast<size_t>(mapped) < shape_.size());
        level.axis = static_cast<size_t>(mapped);
        Require(!level.is_compressed && level.size > 0 && block[level.axis] == 1);
        block[level.axis] = level.size;
      }
      levels_.push_back(std::move(level));
    }
    for (size_t i = 0; i < order.size(); ++i) {
      if (static_cast<size_t>(order[i]) < shape_.size()) levels_[i].stride = block[levels_[i].axis];
    }
  }

  Level ReadLevel(const FlatTable& dimension) const {
    Level level;
    level.is_compressed = dimension.Number<int8_t>(kFormat) == kCompressed;
    level.size = dimension.Number<int32_t>(kDenseSize);
    level.segments = ReadIndices(dimension, kSegmentsType, kSegments);
    level.indices = ReadIndices(dimension, kIndicesType, kIndices);
    return level;
  }

  // All below `levels_[depth]`; `node` counts the places of the level above.
  void Visit(size_t depth, int64_t node) {
    if (depth == levels_.size()) return Store();
    const Level& level = levels_[depth];
    if (!level.is_compressed) {
      for (int64_t i = 0; i < level.size; ++i) Step(depth, i, node * level.size + i);
      return;
    }
    Require(node >= 0 && node + 1 < std::ssize(level.segments));
    const int64_t begin = level.segments[static_cast<size_t>(node)];
    const int64_t end = level.segments[static_cast<size_t>(node) + 1];
    Require(begin >= 0 && begin <= end && end <= std::ssize(level.indices));
    for (int64_t i = begin; i < end; ++i) Step(depth, level.indices[static_cast<size_t>(i)], i);
  }

  void Step(size_t depth, int64_t index, int64_t node) {
    const Level& level = levels_[depth];
    const int64_t before = at_[level.axis];
    Require(index >= 0 && index < shape_[level.axis]);
    at_[level.axis] = before + index * level.stride;
    Require(at_[level.axis] < shape_[level.axis]);
    Visit(depth + 1, node);
    at_[level.axis] = before;
  }

  void Store() {
    Require((next_ + 1) * size_ <= values_.size());
    int64_t flat = 0;
    for (size_t i = 0; i < shape_.size(); ++i) flat = flat * shape_[i] + at_[i];
    std::memcpy(dense_->data() + static_cast<size_t>(flat) * size_, values_.data() + next_ * size_,
                size_);
    ++next_;
  }

  const std::span<const std::byte> values_;
  const DType dtype_;
  const Shape shape_;
  const std::string where_;
  const size_t size_;
  std::vector<Level> levels_;
  std::shared_ptr<std::vector<std::byte>> dense_;
  std::vector<int64_t> at_;
  size_t next_ = 0;
};

}  // namespace

Tensor ExpandSparse(const FlatTable& sparsity, std::span<const std::byte> values, DType dtype,
                    const Shape& shape, const std::string& where) {
  return Expander(sparsity, values, dtype, shape, where).Run();
}

}  // namespace pared
