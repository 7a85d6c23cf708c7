#include "evaluator/sequence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "evaluator/executor.h"
#include "tests/testing/floats.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The whole graph between x and y, with i an index.
Tensor RunNodes(const std::string& nodes, const Tensor& x, int64_t i = 0) {
  const std::string text = "g (float[N,M] x, int64 i) => (float[P,Q] y) { " + nodes + " }";
  return Executor(ModelFromText(text)).Run({x, Tensor::Scalar<int64_t>(i)})[0];
}

const Tensor kTwoRows = Floats({2, 2}, {1, 2, 3, 4});

TEST(Sequence, SplitsJoinsAndStacks) {
  const Tensor joined = RunNodes(
      "s = SplitToSequence <axis = 0>(x)\n y = ConcatFromSequence <axis = 1>(s)", kTwoRows);
  EXPECT_EQ(joined.shape(), (Shape{1, 4}));
  EXPECT_THAT(ValuesOf(joined), ElementsAre(1, 2, 3, 4));
  const Tensor stacked = RunNodes(
      "s = SplitToSequence <axis = 0, keepdims = 0>(x)\n"
      "y = ConcatFromSequence <axis = 1, new_axis = 1>(s)",
      kTwoRows);
  EXPECT_EQ(stacked.shape(), (Shape{2, 2}));
  EXPECT_THAT(ValuesOf(stacked), ElementsAre(1, 3, 2, 4));
}

TEST(Sequence, AsResultOutlivesItsRunAndTheNext) {
  const Executor executor(
      ModelFromText("g (float[N,M] x) => (s) { n = Neg(x)\n s = SequenceConstruct(x, n) }"));
  const Tensor first = executor.Run({kTwoRows})[0];
  executor.Run({Floats({1, 1}, {9})});
  ASSERT_EQ(ItemsOf(first).size(), 2u);
  EXPECT_THAT(ValuesOf(ItemsOf(first)[1]), ElementsAre(-1, -2, -3, -4));
}

TEST(Sequence, InsertsAndErasesAtPlacesFromEitherEnd) {
  const std::string make = "n = Neg(x)\n s = SequenceConstruct(x, x)\n";
  EXPECT_THAT(
      ValuesOf(RunNodes(make + "t = SequenceInsert(s, n, i)\n y = SequenceAt(t, i)", kTwoRows, 1)),
      ElementsAre(-1, -2, -3, -4));
  // Before the last: one of the two stands behind it.
  const Tensor joined = RunNodes(
      make + "t = SequenceInsert(s, n, i)\n y = ConcatFromSequence <axis = 0>(t)", kTwoRows, -1);
  EXPECT_THAT(ValuesOf(joined), ElementsAre(1, 2, 3, 4, -1, -2, -3, -4, 1, 2, 3, 4));
  EXPECT_THAT(ValuesOf(RunNodes(make + "t = SequenceInsert(s, n)\n u = SequenceErase(t, i)\n"
                                       "y = SequenceAt(u, i)",
                                kTwoRows, -1)),
              ElementsAre(1, 2, 3, 4));
}

TEST(Sequence, BadPlacesAndPiecesAreErrorsThatNameTheNode) {
  const auto run = [](const std::string& nodes, int64_t i) {
    return [=] { RunNodes(nodes, kTwoRows, i); };
  };
  const std::string make = "s = SequenceConstruct(x, x)\n";
  for (const int64_t place : {2, -3}) {
    EXPECT_THAT(run(make + "y = SequenceAt(s, i)", place),
                ThrowsError(ErrorCode::kInvalidArgument, "SequenceAt producing y",
                            HasSubstr("within the 2 items")));
    EXPECT_THAT(run(make + "t = SequenceErase(s, i)\n y = ConcatFromSequence <axis = 0>(t)", place),
                ThrowsError(ErrorCode::kInvalidArgument, "SequenceErase producing t"));
  }
  EXPECT_THAT(run("s = SequenceConstruct(x, i)\n y = SequenceAt(s, i)", 0),
              ThrowsError(ErrorCode::kInvalidArgument, "SequenceConstruct producing s",
                          HasSubstr("int64 in a sequence of float")));
  EXPECT_THAT(run("s = SplitToSequence(x, i)\n y = SequenceAt(s, i)", 0),
              ThrowsError(ErrorCode::kInvalidArgument, "SplitToSequence producing s",
                          HasSubstr("length 0")));
  EXPECT_THAT(run("s = SequenceEmpty()\n y = ConcatFromSequence <axis = 0>(s)", 0),
              ThrowsError(ErrorCode::kInvalidArgument, "ConcatFromSequence producing y"));
  EXPECT_THAT(run("y = SequenceAt(x, i)", 0),
              ThrowsError(ErrorCode::kInvalidArgument, "SequenceAt producing y",
                          HasSubstr("needs a sequence")));
}

TEST(Sequence, OperatorsForElementsRefuseIt) {
  for (const char* node : {"y = Tile(s, i2)", "y = Neg(s)", "y = Concat <axis = 0>(s, s)",
                           "y = Slice(s, i1, i2)", "y = Gather(s, i)", "y = Cast <to = 1>(s)"}) {
    EXPECT_THAT(
        [&] {
          RunNodes(
              "i1 = Constant <value_ints = [0]>()\n i2 = Constant <value_ints = [1]>()\n"
              "s = SequenceConstruct(x, x)\n" +
                  std::string(node),
              kTwoRows);
        },
        ThrowsError(ErrorCode::kUnsupported, HasSubstr("producing y"), HasSubstr("sequence")))
        << node;
  }
}

TEST(Optional, IsWhatItHoldsOrNothing) {
  EXPECT_THAT(ValuesOf(RunNodes("o = Optional(x)\n y = OptionalGetElement(o)", kTwoRows)),
              ElementsAre(1, 2, 3, 4));
  const std::vector<Tensor> y =
      Executor(ModelFromText("g (float[1] x) => (bool a, bool b) {"
                             " o = Optional(x)\n a = OptionalHasElement(o)\n"
                             " e = Optional()\n b = OptionalHasElement(e) }"))
          .Run({Floats({1}, {1})});
  EXPECT_TRUE(y[0].data<bool>()[0]);
  EXPECT_FALSE(y[1].data<bool>()[0]);
  EXPECT_THAT([] { RunNodes("o = Optional()\n y = OptionalGetElement(o)", kTwoRows); },
              ThrowsError(ErrorCode::kInvalidArgument, "OptionalGetElement producing y"));
}

}  // namespace
}  // namespace pared
