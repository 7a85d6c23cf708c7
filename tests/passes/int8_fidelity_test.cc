#include "passes/int8_fidelity.h"

#include <gmock/gmock.h>

#include "passes/held_selections.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Judged(const std::string& text) {
  return JudgedValues(ModelFromText(text).graph);
}

TEST(JudgedValues, AnOutputThatAConcatJoinsIsJudgedByItsParts) {
  EXPECT_THAT(Judged(R"(g (float[1,4] x) => (float[12,1] y)
    { b = Mul(x, x) s = Sigmoid(x) c = Relu(x) bs = Concat <axis = 1> (b, s)
      all = Concat <axis = 1> (bs, c) y = Transpose(all) })"),
              ElementsAre("b", "s", "c"));
}

TEST(JudgedValues, ASoftmaxIsJudgedByWhatItIsMadeOf) {
  EXPECT_THAT(Judged("g (float[1,4] x) => (float[1,4] y) { r = Relu(x) y = Softmax(r) }"),
              ElementsAre("r"));
}

TEST(JudgedValues, StandForOutputsThatNothingIsPickedFor) {
  const Model model =
      ModelFromText(R"(g (float[1,9] x) => (float[1,9] y, float[1,5] t, float[1,9] z)
    <int64[1] five = {5}> { r = Relu(x) y = Softmax(r) t, i = TopK(r, five) z = Abs(x) })");
  EXPECT_THAT(JudgedValues(model.graph), ElementsAre("r", "z"));
  EXPECT_THAT(StoodForOutputs(model.graph), ElementsAre("y"));
}

TEST(JudgedValues, AClassIsJudgedByTheScoresThatItHasTheHighestOf) {
  EXPECT_THAT(Judged("g (float[1,4] x) => (int64[1] y) "
                     "{ r = Relu(x) p = Softmax(r) y = ArgMax <axis = 1, keepdims = 0> (p) }"),
              ElementsAre("r"));
}

// How many boxes are left, and in which order, turns on the last bit.
TEST(JudgedValues, WhatIsPickedIsJudgedByWhatItIsPickedFrom) {
  EXPECT_THAT(
      Judged(R"(g (float[1,9,4] x) => (float[M,4] y, float[1,5] t, float[9,4] w, float[1,2,4] z)
      <int64[1] three = {3}, int64[1] five = {5}, float[9,4] table = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,
        1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}, int64[1] c = {2}, int64[1] flat = {-1}, int64[2] first = {0, 1}>
      { boxes = Exp(x) r = ReduceMax <axes = [2], keepdims = 0> (x) s = Unsqueeze(r, b) scores = Sigmoid(s)
        b = Constant <value_ints = [1]> () picked = NonMaxSuppression(boxes, scores, three)
        at = Slice(picked, c, three, b) i = Reshape(at, flat) one = Squeeze(boxes, zero)
        zero = Constant <value_ints = [0]> () y = Gather <axis = 0> (one, i)
        t, places = TopK(r, five) w = Abs(table) z = Gather <axis = 1> (boxes, first) })"),
      ElementsAre("boxes", "r", "w", "z"));
  EXPECT_THAT(Judged(R"(g (float[1,9,4] x) => (int64[M,3] y) <int64[1] three = {3}>
      { boxes = Exp(x) r = ReduceMax <axes = [2], keepdims = 0> (x) s = Unsqueeze(r, b) scores = Sigmoid(s)
        b = Constant <value_ints = [1]> () y = NonMaxSuppression(boxes, scores, three) })"),
              ElementsAre("boxes", "scores"));
}

// As a detector scales what it picked to the picture, and splits and joins the coordinates for it.
TEST(JudgedValues, WhatIsDoneToPickedElementsHidesNotWhatTheyArePickedFrom) {
  const char* picking = R"(<int64[1] three = {3}, int64[1] flat = {-1}, int64[1] c = {2},
      float ratio = {1.7}, float[3,4] table = {1,2,3,4,5,6,7,8,9,8,7,6}, int64[2] xy = {0, 1}, int64[1] none = {0}>
      { boxes = Exp(x) r = ReduceMax <axes = [2], keepdims = 0> (x) s = Unsqueeze(r, none)
        scores = Sigmoid(s) places = NonMaxSuppression(boxes, scores, three)
        at = Gather <axis = 1> (places, c) i = Reshape(at, flat) all = Squeeze(boxes, none)
        b = Gather <axis = 0> (all, i) )";
  const auto judged = [&](const std::string& output, const std::string& rest) {
    return Judged("g (float[1,9,4] x) => (" + output + ") " + picking + rest + "}");
  };
  EXPECT_THAT(judged("float[M,4] y", "y = Mul(b, ratio)"), ElementsAre("boxes"));
  EXPECT_THAT(judged("float[M,4] y",
                     "l, h = Split <axis = 1, num_outputs = 2> (b) "
                     "m = Clip(h, ratio) y = Concat <axis = 1> (m, l)"),
              ElementsAre("boxes"));
  EXPECT_THAT(judged("float[M,4] y", "t = Gather(table, i) d = Div(b, ratio) y = Add(d, t)"),
              ElementsAre("boxes"));
  EXPECT_THAT(judged("float[M,2] y",
                     "f = Abs(x) u = Squeeze(f, none) e = Gather(u, i) "
                     "h = Gather <axis = 1> (e, xy) y = Mul(h, ratio)"),
              ElementsAre("f"));
  EXPECT_THAT(judged("float[M] y", "f = Cast <to = 1> (i) y = Add(f, ratio)"),
              ElementsAre("boxes", "scores"));
  EXPECT_THAT(judged("float[M,4] y", "t = Gather(table, i) y = Mul(t, ratio)"), ElementsAre("y"));
  EXPECT_THAT(judged("float[1,9,4] y", "y = Mul(boxes, ratio)"), ElementsAre("y"));
}

// The selection stands in a branch: of no boxes none is picked.
TEST(JudgedValues, ASelectionWithinABranchPicksToo) {
  EXPECT_THAT(Judged(R"(g (bool none, float[9,4] x) => (float[M,4] y) <float ratio = {1.7}> {
      b = Exp(x) s = ReduceMax <axes = [1], keepdims = 0> (x)
      i = If (none) <then_branch = t () => (p) { p = Constant <value_ints = [0]> () },
        else_branch = e () => (q) { k = Constant <value_ints = [3]> () v, q = TopK(s, k) }>
      g = Gather(b, i) y = Mul(g, ratio) })"),
              ElementsAre("b"));
}

TEST(JudgedValues, EachOutputOfANodeIsJudged) {
  EXPECT_THAT(Judged("g (float[1,4] x) => (float[1,2] y, float[1,2] z) "
                     "{ y, z = Split <axis = 1, num_outputs = 2> (x) }"),
              ElementsAre("y", "z"));
}

constexpr const char* kTwoStages = R"(g (float[8,4] x) => (float[3,4] y) <int64[1] three = {3}> {
    s = ReduceMax <axes = [1]> (x) t, i = TopK <axis = 0> (s, three) shape = Shape(x)
    ones = ConstantOfShape(shape) all = NonZero(ones) f = Flatten <axis = 0> (i)
    r = Transpose(f) g = GatherND(x, r) m = Mul(g, t) y = Softplus(m) })";

TEST(HeldSelections, AreThoseOfTheDataThatAJudgedValueFollowsFrom) {
  const Model model = ModelFromText(kTwoStages);
  EXPECT_THAT(FindSelections(model, {"y", "all"}), ElementsAre("i"));
  EXPECT_THAT(FindSelections(model, {"s"}), ElementsAre());
  const Model varying = ModelFromText(R"(g (float[8,4] x) => (float[3,4] y) <int64[1] three = {3},
      int64[1] zero = {0}, float low = {-1}> { s = ReduceMax <axes = [1], keepdims = 0> (x)
      b = Greater(s, low) c = Compress <axis = 0> (x, b) t, y = TopK <axis = 0> (c, three) })");
  EXPECT_THAT(FindSelections(varying, {"t"}), ElementsAre());
}

TEST(HeldSelections, TheModelComputesTheSameOnThem) {
  const Model model = ModelFromText(kTwoStages);
  Model all = model, fed = model;
  all.graph.outputs.emplace_back().name = "i";
  FeedSelections(fed, {"i"});
  const Tensor x = Random(3).Normal({8, 4}, 1);
  const std::vector<Tensor> want = Executor(all).Run({x});
  const std::vector<Tensor> got = Executor(fed).Run({x, want[1]});
  EXPECT_THAT(got[0].data<float>(), ::testing::ElementsAreArray(want[0].data<float>()));
}

TEST(Fidelity, NothingIsLeftOfAResultOfAnotherLength) {
  Fidelity fidelity;
  fidelity.Add(Tensor::Make<float>({3}, {1, 2, 3}), Tensor::Make<float>({2}, {1, 2}));
  EXPECT_EQ(fidelity.sqnr_db(), 0);
  EXPECT_THAT([&] { fidelity.Add(Tensor::Scalar<float>(1), Tensor::Scalar<int64_t>(1)); },
              ThrowsError(ErrorCode::kInternal, ""));
}

// y = 3 x where the sum of x is above a limit, else -x.
Model Branching(float limit) {
  return WithInitializer(
      ParseText(
          R"(g (float[1,2] x) => (float[1,2] y) { s = ReduceSum <keepdims = 0> (x) c = Greater(s, limit)
        y = If (c) <then_branch = t () => (p) { p = Sum(x, x, x) }, else_branch = e () => (q) { q = Neg(x) }> })"),
      "limit", Tensor::Scalar<float>(limit));
}

TEST(FidelityJudge, SamplesThatTakeAnotherBranchAreLeftOutHalfOfThemAtMost) {
  const Dataset data =
      Dataset::Of("sums", {{"x", Tensor::Make<float>({4, 2}, {1, 1, 3, -1.5f, -2, -2, 4, 4})}});
  PassContext context;
  context.calibration = &data;
  const FidelityJudge judge(Branching(0), context, 4);
  EXPECT_EQ(judge.SqnrDb(Branching(1)), 200);
  EXPECT_EQ(judge.SqnrDb(Branching(1.75f)), 200);
  EXPECT_EQ(judge.SqnrDb(Branching(3)), 200);
  EXPECT_LT(judge.SqnrDb(Branching(9)), 0);  // the third of them counts
}

TEST(JudgedValues, OtherwiseTheOutputsThemselves) {
  EXPECT_THAT(Judged("g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Relu(x) z = Exp(y) }"),
              ElementsAre("y", "z"));
}

}  // namespace
}  // namespace pared
