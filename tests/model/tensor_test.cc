#include "model/tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "tests/testing/matchers.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ElementCount, IsOneForAScalarAndZeroForAnEmptyDimension) {
  EXPECT_EQ(ElementCount({}), 1);
  EXPECT_EQ(ElementCount({3, 0, 5}), 0);
  EXPECT_EQ(ElementCount({2, 3, 4}), 24);
}

TEST(ElementCount, RefusesProductsBeyond63Bits) {
  EXPECT_EQ(ElementCount({int64_t{1} << 31, int64_t{1} << 31}), int64_t{1} << 62);
  EXPECT_THAT(
      [] {
        ElementCount({int64_t{1} << 40, int64_t{1} << 40});
      },
      ThrowsError(ErrorCode::kInvalidArgument, "", HasSubstr("too large")));
  EXPECT_EQ(ElementCount({int64_t{1} << 40, int64_t{1} << 40, 0}), 0);
}

TEST(ElementCount, RefusesNegativeDimensions) {
  EXPECT_THAT([] { ElementCount({2, -1}); }, ThrowsError(ErrorCode::kInvalidArgument, ""));
}

TEST(PackedBytes, RoundsSubByteTypesUp) {
  EXPECT_EQ(PackedBytes(DType::kInt4, {5}), 3);
  EXPECT_EQ(PackedBytes(DType::kUInt2, {5}), 2);
  EXPECT_EQ(PackedBytes(DType::kComplex128, {2}), 32);
  EXPECT_EQ(PackedBytes(DType::kFloat32, {}), 4);
}

TEST(PackedBytes, RefusesStringsAndOverflow) {
  EXPECT_THAT([] { PackedBytes(DType::kString, {1}); },
              ThrowsError(ErrorCode::kInvalidArgument, ""));
  EXPECT_THAT([] { PackedBytes(DType::kFloat64, {int64_t{1} << 60}); },
              ThrowsError(ErrorCode::kInvalidArgument, ""));
}

TEST(Tensor, CopiesShareTheBuffer) {
  const Tensor a = Tensor::Make<float>({2}, {1, 2});
  const Tensor b = a;
  EXPECT_EQ(a.bytes().data(), b.bytes().data());
  EXPECT_EQ(a.Reshaped({2, 1}).bytes().data(), a.bytes().data());
}

TEST(Tensor, HoldsBoolsOneByteEach) {
  const Tensor t = Tensor::Make<bool>({3}, {true, false, true});
  EXPECT_THAT(t.data<bool>(), ElementsAre(true, false, true));
  EXPECT_EQ(t.bytes().size(), 3U);
}

TEST(Tensor, AlignsUnalignedViewsOnce) {
  auto owner = std::make_shared<std::vector<std::byte>>(4 * sizeof(double) + 1);
  const double values[] = {1.5, -2, 3, 4};
  std::memcpy(owner->data() + 1, values, sizeof values);
  const auto bytes = std::span<const std::byte>(*owner).subspan(1);
  const Tensor t = Tensor::View(DType::kFloat64, {4}, bytes, owner);
  std::vector<const double*> seen(8);
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < seen.size(); ++i) {
      threads.emplace_back([&seen, i, &t] { seen[i] = t.data<double>().data(); });
    }
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(seen[0]) % alignof(double), 0U);
  EXPECT_THAT(seen, ::testing::Each(seen[0]));
  EXPECT_THAT(t.data<double>(), ElementsAre(1.5, -2, 3, 4));
}

TEST(Tensor, KeepsItsOwnerAlive) {
  auto owner = std::make_shared<std::vector<std::byte>>(4);
  const std::weak_ptr<const void> watch = owner;
  Tensor t = Tensor::View(DType::kUInt8, {4}, *owner, owner);
  owner.reset();
  EXPECT_FALSE(watch.expired());
  t = Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(Tensor, UndefinedHasNoBytes) {
  EXPECT_FALSE(Tensor().defined());
  EXPECT_TRUE(Tensor().bytes().empty());
}

TEST(Tensor, EmptyTensorsHaveData) {
  const Tensor t = Tensor::Make<float>({1, 0, 8}, {});
  EXPECT_EQ(t.count(), 0);
  EXPECT_TRUE(t.data<float>().empty());
}

TEST(TensorDeathTest, ChecksTheElementType) {
  const Tensor t = Tensor::Scalar<float>(1);
  EXPECT_DEATH(t.data<int32_t>(), "check failed");
}

TEST(Tensor, PlanarLayoutNeedsWholeTilesOf64Pixels) {
  auto owner = std::make_shared<std::vector<std::byte>>(2 * 3 * 64);
  const Tensor t = Tensor::View(DType::kUInt8, {1, 3, 10, 10}, *owner, owner, Layout::kPlanar64);
  EXPECT_EQ(t.count(), 300);
}

}  // namespace
}  // namespace pared
