// The list of all operators, and what an op may ask for while it runs.

#include "evaluator/ops.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <array>
#include <unordered_map>

#include "evaluator/memory.h"

namespace pared {

std::byte* Scratch::AllocateBytes(Tensor& out, DType dtype, const Shape& shape, Layout layout) {
  size_t size = static_cast<size_t>(PackedBytes(dtype, shape));
  if (layout == Layout::kPlanar64) {
    PARED_CHECK(shape.size() >= 3);
    const int64_t tiles = (ElementCount(Shape(shape.begin() + 2, shape.end())) + 63) / 64;
    size = static_cast<size_t>(shape[0] * tiles * shape[1] * 64);
  }
  std::shared_ptr<std::byte> buffer = pool_.Allocate(size, BufferPool::Use::kActivation);
  std::byte* bytes = buffer.get();
  out = Tensor::View(dtype, shape, {bytes, size}, std::move(buffer), layout);
  return bytes;
}

std::byte* Scratch::Temporary(size_t bytes) {
  std::shared_ptr<std::byte> buffer = pool_.Allocate(bytes, BufferPool::Use::kTemporary);
  std::byte* begin = buffer.get();
  temporaries_.push_back(std::move(buffer));
  return begin;
}

void Scratch::ParallelFor(int64_t count, int64_t grain,
                          const std::function<void(int64_t begin, int64_t end)>& body) const {
  if (count <= 0) return;
  if (threads_ == 1 || count <= grain) {
    body(0, count);
    return;
  }
  tbb::parallel_for(
      tbb::blocked_range<int64_t>(0, count, static_cast<size_t>(std::max<int64_t>(grain, 1))),
      [&](const tbb::blocked_range<int64_t>& range) { body(range.begin(), range.end()); });
}

namespace {

std::string Key(std::string_view domain, std::string_view op_type) {
  return std::string(domain == "ai.onnx" ? "" : domain) + '/' + std::string(op_type);
}

std::unordered_map<std::string, const OpInfo*> JoinFamilies() {
  const std::array families = {UnaryOps(),     BinaryOps(),   CastOps(),      ConvOps(),
                               MatMulOps(),    PoolOps(),     NormOps(),      ReduceOps(),
                               ShapeOps(),     LayoutOps(),   PadOps(),       GatherOps(),
                               SelectionOps(), ResizeOps(),   RecurrentOps(), ControlOps(),
                               RandomOps(),    QuantizeOps(), IntegerOps(),   FusedOps()};
  std::unordered_map<std::string, const OpInfo*> all;
  for (const std::span<const OpInfo> family : families) {
    for (const OpInfo& info : family) {
      const bool is_new = all.emplace(Key(info.domain, info.op_type), &info).second;
      PARED_CHECK(is_new);
    }
  }
  return all;
}

}  // namespace

const OpInfo* FindOp(std::string_view domain, std::string_view op_type) {
  static const std::unordered_map<std::string, const OpInfo*> all = JoinFamilies();
  const auto it = all.find(Key(domain, op_type));
  return it == all.end() ? nullptr : it->second;
}

}  // namespace pared
