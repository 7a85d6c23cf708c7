#include "passes/node_history.h"

#include <gmock/gmock.h>

#include "passes/plan.h"
#include "passes/select_nodes.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

// Everything that a pass before would take apart, put together or take out.
constexpr const char* kMixed = R"(<opset_import: ["" : 17, "local" : 1]>
  g (float[1,4,6,6] x) => (float[1,16,8] y)
  <float[4] one = {1,2,1,2}, float[4] zero = {0,0.5,0,0}, float two = {2}, float e = {1e-5},
   float root = {1.41421356}, float half = {0.5}, float unit = {1}, int64[3] rows = {1,16,8}>
  { [stem] c = Conv(x, w0) [norm] n = BatchNormalization(c, one, zero, zero, one)
    a = Conv(n, w1) b = BatchNormalization(a, one, zero, zero, one) [relu] r = Relu(b)
    [drop] d = Dropout(r) [same] i = Identity(d) [body] f = local.Block(i, w2)
    [shape] s = Reshape(f, rows)
    [mean] m = ReduceMean <axes = [-1]> (s) [center] z = Sub(s, m) [square] q = Pow(z, two)
    [variance] v = ReduceMean <axes = [-1]> (q) [add] t = Add(v, e) [sqrt] k = Sqrt(t)
    [scale] o = Div(z, k) [times] g1 = Mul(o, gamma) [plus] l = Add(g1, beta)
    [turn] u = Transpose <perm = [1, 0]> (w3) [dense] h = MatMul(l, u)
    [div] h1 = Div(h, root) [erf] h2 = Erf(h1) [inc] h3 = Add(h2, unit) [act] h4 = Mul(h, h3) [gelu] h5 = Mul(h4, half)
    [head] y = MatMul(h5, w4) }
  <domain: "local", opset_import: ["" : 17]> Block (p, w) => (o)
  { [inner] j = Conv <pads = [1,1,1,1]> (p, w) [last] o = Relu(j) })";

Model Mixed() {
  Random random(7);
  Model model = ParseText(kMixed);
  for (const auto& [name, shape] : std::vector<std::pair<std::string, Shape>>{{"w0", {4, 4, 3, 3}},
                                                                              {"w1", {4, 4, 1, 1}},
                                                                              {"w2", {8, 4, 3, 3}},
                                                                              {"w3", {8, 8}},
                                                                              {"w4", {8, 8}},
                                                                              {"gamma", {8}},
                                                                              {"beta", {8}}}) {
    model = WithInitializer(std::move(model), name, random.Normal(shape, 0.5));
  }
  SortNodes(model.graph);
  Verify(model);
  return model;
}

struct ChainResult {
  Model model;
  std::vector<Json> reports;
};

// As a job runs a chain.
ChainResult RunChain(Model model, const std::vector<Json>& passes) {
  const Dataset data = Dataset::Random(CallerInputs(model.graph), 16, 3);
  JobSpec spec;
  spec.calibration.dataset = "samples";
  NodeHistory history(model);
  ChainResult result{std::move(model), {}};
  for (const Json& entry : passes) {
    PassContext context;
    context.calibration = &data;
    Json followed = Json::array();
    const Step step = FollowNodes(BindStep(entry, "", spec), history, followed);
    result.model = step.run(std::move(result.model), context);
    Verify(result.model);
    history.Advance(result.model, step.pass);
    context.report["followed"] = followed;
    result.reports.push_back(std::move(context.report));
  }
  Keep(result.model);
  return result;
}

std::vector<Json> Preparation() {
  return {{{"pass", "fold_constants"}},
          {{"pass", "remove_identities"}},
          {{"pass", "fuse_patterns"}, {"opset_max", 20}},
          {{"pass", "fold_batch_norm"}}};
}

std::vector<Json> With(std::vector<Json> passes, std::vector<Json> more) {
  passes.insert(passes.end(), more.begin(), more.end());
  return passes;
}

// The nodes of one operator whose first two inputs are float32 and not computed from codes.
std::vector<std::string> FloatNodes(const Model& model, const std::string& op_type) {
  const auto types = InferShapes(model);
  const GraphIndex index(model.graph);
  std::vector<std::string> outputs;
  for (const Node& node : model.graph.nodes) {
    if (node.op_type != op_type) continue;
    bool is_float = true;
    for (size_t i = 0; i < std::min<size_t>(node.inputs.size(), 2); ++i) {
      const Node* maker = index.producer(node.inputs[i]);
      is_float = is_float && types.at(node.inputs[i]).dtype == DType::kFloat32 &&
                 (maker == nullptr || maker->op_type != "DequantizeLinear");
    }
    if (is_float) outputs.push_back(node.outputs[0]);
  }
  return outputs;
}

TEST(NodeHistory, ExclusionsOfEveryNodeHoldToTheEndOfALongChain) {
  const Model in = Mixed();
  std::vector<std::string> names;
  for (const Node& node : in.graph.nodes) names.push_back(NameOf(node));
  names.insert(names.end(), {"inner", "last"});
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const Json only = Json::array({name});
    const ChainResult out =
        RunChain(in, With(Preparation(), {{{"pass", "magnitude_prune"}, {"exclude", only}},
                                          {{"pass", "quantize_int8"}, {"exclude", only}},
                                          {{"pass", "cast_fp16"}, {"exclude", only}}}));
    EXPECT_GT(SqnrDbOn(Dataset::Random(in.graph.inputs, 4, 3), in, out.model), 3);
  }
}

TEST(NodeHistory, AFoldedNormalizationIsTheConvolutionItBecamePartOf) {
  for (const char* name : {"norm", "stem"}) {
    const ChainResult out =
        RunChain(Mixed(), With(Preparation(), {{{"pass", "quantize_int8"}, {"exclude", {name}}}}));
    EXPECT_THAT(FloatNodes(out.model, "Conv"), ElementsAre("n")) << name;
    EXPECT_EQ(SkippedReason(out.reports.back(), "Conv stem"), "excluded");
  }
}

TEST(NodeHistory, AnUnnamedNodeGoesByItsOutputAlsoWhereThatIsGone) {
  for (const char* name : {"a", "b"}) {
    const ChainResult out =
        RunChain(Mixed(), With(Preparation(), {{{"pass", "quantize_int8"}, {"exclude", {name}}}}));
    EXPECT_THAT(FloatNodes(out.model, "Conv"), ElementsAre("b")) << name;
  }
}

TEST(NodeHistory, TheNodesOfAPatternAreTheOperatorThatStandsForThem) {
  for (const char* name : {"mean", "center", "square", "variance", "add", "sqrt", "scale", "times",
                           "plus", "re:vari.*", "op:ReduceMean", "op:LayerNormalization"}) {
    const ChainResult out =
        RunChain(Mixed(), With(Preparation(), {{{"pass", "cast_fp16"}, {"exclude", {name}}}}));
    EXPECT_THAT(FloatNodes(out.model, "LayerNormalization"), ElementsAre("l")) << name;
    EXPECT_THAT(FloatNodes(out.model, "Gelu"), IsEmpty()) << name;
  }
  for (const char* name : {"div", "erf", "inc", "act", "gelu"}) {
    const ChainResult out =
        RunChain(Mixed(), With(Preparation(), {{{"pass", "cast_fp16"}, {"exclude", {name}}}}));
    EXPECT_THAT(FloatNodes(out.model, "Gelu"), ElementsAre("h5")) << name;
    EXPECT_THAT(FloatNodes(out.model, "LayerNormalization"), IsEmpty()) << name;
  }
}

TEST(NodeHistory, ACallIsTheNodesOfItsFunctionInAPassAndAfter) {
  const Json exclude = {"body"}, inner = {"inner"};
  for (const Json& reference : {exclude, inner, Json{"op:Block"}}) {
    for (const std::vector<Json>& before : {std::vector<Json>{}, Preparation()}) {
      const ChainResult out =
          RunChain(Mixed(), With(before, {{{"pass", "quantize_int8"}, {"exclude", reference}}}));
      EXPECT_EQ(FloatNodes(out.model, "Conv").size(), 1u) << reference;
      EXPECT_EQ(SkippedReason(out.reports.back(), "Conv body/inner"), "excluded") << reference;
    }
  }
}

TEST(NodeHistory, WhatIsWhollyGoneIsSaidAndNoError) {
  for (const auto& [name, by] : std::vector<std::pair<std::string, std::string>>{
           {"same", "Identity same: taken out by remove_identities, nothing of it is left"},
           {"op:Dropout", "Dropout drop: taken out by remove_identities, nothing of it is left"},
           {"turn", "Transpose turn: taken out by fold_constants, nothing of it is left"}}) {
    const ChainResult out = RunChain(
        Mixed(), With(Preparation(), {{{"pass", "quantize_int8"}, {"exclude", {name, "head"}}}}));
    EXPECT_EQ(out.reports.back().at("followed"),
              Json::array({{{"reference", name}, {"reason", by}}}));
    EXPECT_THAT(FloatNodes(out.model, "MatMul"), ElementsAre("y"));
  }
}

TEST(NodeHistory, TheReportSaysWhatAReferenceMeansByThen) {
  const ChainResult out = RunChain(
      Mixed(), With(Preparation(), {{{"pass", "magnitude_prune"}, {"exclude", {"norm", "head"}}}}));
  EXPECT_EQ(out.reports.back().at("followed"),
            Json::array({{{"reference", "norm"}, {"nodes", {"Conv stem"}}}}));
}

TEST(NodeHistory, WhatNeverWasIsAnErrorWithTheNearestNames) {
  EXPECT_THAT(
      [] {
        RunChain(Mixed(),
                 With(Preparation(), {{{"pass", "quantize_int8"}, {"exclude", {"steam"}}}}));
      },
      ThrowsError(ErrorCode::kInvalidArgument, "exclude", HasSubstr("\"stem\"")));
}

TEST(NodeHistory, OverridesFollowTheirNodes) {
  const Json overrides = {{{"match", "norm"}, {"sparsity", 0.0}, {"pattern", "unstructured"}},
                          {{"match", "inner"}, {"sparsity", 0.75}, {"pattern", "unstructured"}},
                          {{"match", "same"}, {"sparsity", 0.9}, {"pattern", "unstructured"}}};
  const ChainResult out = RunChain(
      Mixed(), With(Preparation(), {{{"pass", "magnitude_prune"}, {"overrides", overrides}}}));
  const GraphIndex index(out.model.graph);
  std::map<std::string, int64_t> zeros;
  for (const Node& node : out.model.graph.nodes) {
    if (node.op_type != "Conv") continue;
    const std::vector<float> weight = Elements(out.model, node.inputs[1]);
    zeros[NameOf(node)] = std::ranges::count(weight, 0.0f);
  }
  EXPECT_EQ(zeros, (std::map<std::string, int64_t>{{"stem", 0}, {"a", 8}, {"body/inner", 216}}));
}

TEST(NodeHistory, HoldsBehindPassesThatWriteOtherOperators) {
  for (const Json& writes : {Json{{"pass", "quantize_dynamic"}},
                             Json{{"pass", "quantize_int8"}, {"format", "qoperator"}},
                             Json{{"pass", "quantize_weights"}}}) {
    for (const char* name : {"stem", "norm", "a", "b", "dense", "head", "inner", "plus"}) {
      SCOPED_TRACE(writes.dump() + " " + name);
      const ChainResult out = RunChain(
          Mixed(), With(Preparation(), {writes, {{"pass", "cast_fp16"}, {"exclude", {name}}}}));
      for (const Json& note : out.reports.back().at("followed")) {
        EXPECT_FALSE(note.contains("reason")) << note;
        EXPECT_LE(note.at("nodes").size(), 8u) << note;
      }
    }
  }
}

TEST(NodeHistory, NodesOfBranchesAreFollowedThere) {
  const Model in = ModelFromText(R"(g (bool c, float[1,2,4,4] x) => (float[1,2,4,4] y)
    {
      y = If (c) <then_branch = t () => (float[1,2,4,4] p) {
          one = Constant <value = float[2] {1,2}> () zero = Constant <value = float[2] {0,1}> ()
          w = Constant <value = float[2,2,1,1] {1,2,3,4}> ()
          [conv1] a = Conv(x, w) [norm1] p = BatchNormalization(a, one, zero, zero, one) },
        else_branch = e () => (float[1,2,4,4] q) {
          one = Constant <value = float[2] {1,2}> () zero = Constant <value = float[2] {0,1}> ()
          w = Constant <value = float[2,2,1,1] {1,2,3,4}> ()
          [conv2] a = Conv(x, w) [norm2] q = BatchNormalization(a, one, zero, zero, one) }> })");
  NodeHistory history(in);
  const Model out = RunStep("fold_batch_norm", Json::object(), in).model;
  history.Advance(out, "fold_batch_norm");
  Json notes = Json::array();
  EXPECT_EQ(history.Follow({{"exclude", {"norm1"}}}, notes), Json({{"exclude", {"conv1"}}}));
  EXPECT_EQ(history.Follow({{"exclude", {"norm2"}}}, notes), Json({{"exclude", {"conv2"}}}));
}

TEST(NodeHistory, TheMakerOfAnOutputIsNotAllThatItHolds) {
  const Model in = ModelFromText(R"(g (bool c, float[2,4] x) => (float[2,4] y) {
      [either] m = If (c) <then_branch = t () => (float[2,4] p) {
          k = Constant <value = float[4] {1,2,3,4}> () p = Mul(x, k) },
        else_branch = e () => (float[2,4] q) { q = Neg(x) }>
      [same] y = Identity(m) })");
  NodeHistory history(in);
  history.Advance(RunStep("remove_identities", Json::object(), in).model, "remove_identities");
  Json notes = Json::array();
  EXPECT_EQ(history.Follow({{"exclude", {"same"}}}, notes), Json({{"exclude", {"either"}}}));
}

TEST(FusePatterns, APatternOfWhichANodeIsExcludedStays) {
  for (const char* name : {"mean", "square", "sqrt", "plus"}) {
    const ChainResult out =
        RunChain(Mixed(), {{{"pass", "fuse_patterns"}, {"opset_max", 20}, {"exclude", {name}}}});
    EXPECT_THAT(OpTypes(out.model.graph),
                AllOf(Contains("Gelu"), Not(Contains("LayerNormalization"))))
        << name;
    EXPECT_EQ(SkippedReason(out.reports.back(), "Add plus"), "excluded");
  }
}

TEST(FoldBatchNorm, AConvolutionThatIsExcludedKeepsItsWeights) {
  const ChainResult out = RunChain(Mixed(), {{{"pass", "fold_batch_norm"}, {"exclude", {"stem"}}}});
  EXPECT_EQ(SkippedReason(out.reports.back(), "BatchNormalization norm"), "excluded");
  EXPECT_THAT(Labels(out.reports.back().at("changed")),
              ElementsAre("BatchNormalization producing b"));
}

}  // namespace
}  // namespace pared
