#include "passes/known_values.h"

#include <gmock/gmock.h>

#include "model/rewrite.h"
#include "passes/int8_fidelity.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kAmple = 1 << 20;

// Two branches of a network that meet, a node of two outputs and a branch that captures.
Model Meeting() {
  Model model = ModelFromText(R"(g (float[N,4] x) => (float[N,2] y, float[N,4] z) <bool yes = {1},
    float[4,4] u = {1,0,2,0, 0,1,0,3, 1,1,0,0, 0,0,1,1}, float[4,4] v = {1,2,0,0, 0,0,1,-1, 2,0,1,0, 0,1,1,1}>
    { a = MatMul(x, u) b = Sigmoid(a) c = MatMul(b, v) d = Tanh(c) e = Exp(a) f = Add(d, e)
      s, y = Split <axis = 1, num_outputs = 2> (f)
      z = If(yes) <then_branch = t () => (float[N,4] p) { p = Mul(e, d) },
                   else_branch = w () => (float[N,4] q) { q = Identity(e) }> })");
  return model;
}

Dataset Rows() { return Dataset::Of("rows", {{"x", Random(5).Normal({3, 4}, 1)}}); }

// The model where the node that makes `output` reads its first input in eighths.
Model Coarse(Model model, const std::string& output) {
  model.graph.initializers.set("eight", {Tensor::Scalar<float>(8), ""});
  for (size_t i = 0; i < model.graph.nodes.size(); ++i) {
    if (model.graph.nodes[i].outputs[0] != output) continue;
    FreshNames names(model);
    std::string& input = model.graph.nodes[i].inputs[0];
    const std::vector<Node> added = {MakeNode("Mul", {input, "eight"}, "scaled", names),
                                     MakeNode("Round", {"scaled"}, "rounded", names),
                                     MakeNode("Div", {"rounded", "eight"}, "coarse", names)};
    input = "coarse";
    model.graph.nodes.insert(model.graph.nodes.begin() + static_cast<int64_t>(i), added.begin(),
                             added.end());
    break;
  }
  return model;
}

TEST(KnownValues, AreFedWhereSomethingElseFollowsFromThem) {
  const Dataset data = Rows();
  PassContext context;
  context.calibration = &data;
  const Model model = Meeting();
  const KnownValues known(model, context, {0, 2}, kAmple);
  const auto fed = [&](const std::string& changed, std::vector<std::string>* outputs = nullptr) {
    Model candidate = Coarse(model, changed);
    const std::vector<std::string> names = known.Feed(candidate);
    Verify(candidate);
    if (outputs != nullptr) {
      for (const ValueInfo& output : candidate.graph.outputs) outputs->push_back(output.name);
    }
    return names;
  };
  EXPECT_THAT(fed("a"), IsEmpty());
  EXPECT_THAT(fed("c"), ElementsAre("b", "e"));
  std::vector<std::string> outputs;
  EXPECT_THAT(fed("f", &outputs), ElementsAre("d", "e"));
  EXPECT_THAT(outputs, ElementsAre("y"));  // the other is as it was
}

TEST(KnownValues, AWeightOfTheSameNameIsComparedByItsBytes) {
  const Dataset data = Rows();
  PassContext context;
  context.calibration = &data;
  const Model model = Meeting();
  const KnownValues known(model, context, {0}, kAmple);
  Model candidate = WithInitializer(model, "v", Random(2).Normal({4, 4}, 1));
  EXPECT_THAT(known.Feed(candidate), ElementsAre("b", "e"));
}

TEST(KnownValues, AreTheSmallestThatThereIsRoomFor) {
  const Model model = ModelFromText(R"(g (float[1,8] x) => (float[1,1] y)
    { a = Abs(x) b = ReduceSum(a) c = Exp(b) d = Sqrt(c) y = Neg(d) })");
  const Dataset data = Dataset::Random(model.graph.inputs, 1, 1);
  PassContext context;
  context.calibration = &data;
  Model candidate = Coarse(model, "b");
  EXPECT_THAT(KnownValues(model, context, {0}, 30).Feed(candidate), IsEmpty());
  candidate = Coarse(model, "b");
  EXPECT_THAT(KnownValues(model, context, {0}, 60).Feed(candidate), ElementsAre("a"));
}

TEST(KnownValues, AJudgeThatRemembersSaysTheSame) {
  const Dataset data = Rows();
  PassContext context;
  context.calibration = &data;
  const Model model = Meeting();
  FidelityJudge judge(model, context, 3);
  std::vector<double> before, after;
  const std::vector<std::string> changed = {"a", "b", "c", "d", "e", "f"};
  for (const std::string& node : changed) before.push_back(judge.SqnrDb(Coarse(model, node)));
  judge.Remember(model);
  for (const std::string& node : changed) after.push_back(judge.SqnrDb(Coarse(model, node)));
  EXPECT_THAT(after, testing::Pointwise(testing::DoubleNear(1e-3), before));
  EXPECT_THAT(before, testing::Each(testing::Lt(60)));
  EXPECT_EQ(judge.SqnrDb(model), kEqualDb);
}

}  // namespace
}  // namespace pared
