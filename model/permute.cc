#include "model/permute.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>

namespace pared {

Tensor Permuted(const Tensor& tensor, const std::vector<int64_t>& order) {
  if (std::ranges::is_sorted(order)) return tensor;
  const size_t rank = order.size();
  const size_t size = static_cast<size_t>(ElementBits(tensor.dtype()) / 8);
  std::vector<int64_t> strides(rank, 1);
  for (size_t i = rank; i-- > 1;) strides[i - 1] = strides[i] * tensor.shape()[i];
  Shape shape(rank);
  std::vector<int64_t> steps(rank), at(rank, 0);
  for (size_t i = 0; i < rank; ++i) {
    shape[i] = tensor.shape()[static_cast<size_t>(order[i])];
    steps[i] = strides[static_cast<size_t>(order[i])];
  }
  auto bytes = std::make_shared<std::vector<std::byte>>(tensor.bytes().size());
  int64_t from = 0;
  for (int64_t to = 0; to < tensor.count(); ++to) {
    std::memcpy(bytes->data() + static_cast<size_t>(to) * size,
                tensor.bytes().data() + static_cast<size_t>(from) * size, size);
    for (size_t i = rank; i-- > 0;) {
      from += steps[i];
      if (++at[i] < shape[i]) break;
      from -= steps[i] * shape[i];
      at[i] = 0;
    }
  }
  return Tensor::View(tensor.dtype(), std::move(shape), *bytes, bytes);
}

}  // namespace pared
