// Einsum, against the operators that spell it out.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "evaluator/executor.h"
#include "tests/evaluator/run_text.h"
#include "tests/testing/floats.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

Tensor Counted(const Shape& shape) {
  std::vector<float> values(static_cast<size_t>(ElementCount(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7 % 11) - 5;
  return Tensor::Make(shape, std::move(values));
}

void ExpectSame(const std::vector<Tensor>& y) {
  EXPECT_EQ(y[0].shape(), y[1].shape());
  EXPECT_THAT(ValuesOf(y[0]), Pointwise(FloatNear(1e-4F), ValuesOf(y[1])));
}

TEST(Einsum, GroupsWithinTheAxesOfTheResult) {
  ExpectSame(
      RunText(R"(g (float[2,3,4,8] x, float[4,8,5] w) => (float[2,3,4,5] y, float[2,3,4,5] z) {
      y = Einsum<equation = "btgi,gih->btgh">(x, w)
      t = Transpose<perm = [0, 2, 1, 3]>(x)
      p = MatMul(t, w)
      z = Transpose<perm = [0, 2, 1, 3]>(p)
    })",
              {Counted({2, 3, 4, 8}), Counted({4, 8, 5})}));
}

TEST(Einsum, SeveralAxesAreSummedAndTheResultIsTransposed) {
  ExpectSame(RunText(R"(g (float[3,4,6] x, float[6,5,4] w) => (float[5,3] y, float[5,3] z)
    <int64[2] left = {3, 24}, int64[2] right = {24, 5}> {
      y = Einsum<equation = "aij,jbi->ba">(x, w)
      a = Reshape(x, left)
      t = Transpose<perm = [2, 0, 1]>(w)
      b = Reshape(t, right)
      p = MatMul(a, b)
      z = Transpose<perm = [1, 0]>(p)
    })",
                     {Counted({3, 4, 6}), Counted({6, 5, 4})}));
}

TEST(Einsum, AnAxisOfOneIsBroadcast) {
  ExpectSame(RunText(R"(g (float[1,7,9] x, float[3,9,4] w) => (float[3,7,4] y, float[3,7,4] z) {
      y = Einsum<equation = "...ij,...jk->...ik">(x, w)
      z = MatMul(x, w)
    })",
                     {Counted({1, 7, 9}), Counted({3, 9, 4})}));
}

TEST(Einsum, AnAxisOfOneOperandIsSummed) {
  ExpectSame(RunText(R"(g (float[4,5,6] x, float[6,7] w) => (float[4,7] y, float[4,7] z)
    <int64[1] middle = {1}> {
      y = Einsum<equation = "aij,jb->ab">(x, w)
      s = ReduceSum<keepdims = 0>(x, middle)
      z = MatMul(s, w)
    })",
                     {Counted({4, 5, 6}), Counted({6, 7})}));
}

TEST(Einsum, ThreeOperandsDiagonalsAndScalars) {
  EXPECT_THAT(ValuesOf(RunText(R"(g (float[2] a, float[2,3] b, float[3] c) => (float y) {
      y = Einsum<equation = "i,ij,j->">(a, b, c)
    })",
                               {Floats({2}, {1, 2}), Floats({2, 3}, {1, 2, 3, 4, 5, 6}),
                                Floats({3}, {1, 0, -1})})[0]),
              ElementsAre(-6));  // 1 * (1 - 3) + 2 * (4 - 6)
  EXPECT_THAT(ValuesOf(RunText("g (float[2,2] x) => (float[2] y) { "
                               "y = Einsum<equation = \"ii->i\">(x) }",
                               {Floats({2, 2}, {1, 2, 3, 4})})[0]),
              ElementsAre(1, 4));
  EXPECT_THAT(ValuesOf(RunText("g (float[2,0] x, float[0,3] w) => (float[2,3] y) { "
                               "y = Einsum<equation = \"ij,jk\">(x, w) }",
                               {Floats({2, 0}, {}), Floats({0, 3}, {})})[0]),
              ElementsAre(0, 0, 0, 0, 0, 0));
}

}  // namespace
}  // namespace pared
