#include <gmock/gmock.h>

#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kNorm = R"(
    g (float[2,3,4] x) => (float[2,3,4] y)
    <float two = {2}, float e = {1e-5}, float[4] gamma = {1,2,3,4}, float[4] beta = {0.5,0,1,-1}>
    { m = ReduceMean <axes = [AXIS]> (x) c = Sub(x, m) q = Pow(c, two)
      v = ReduceMean <axes = [AXIS]> (q) t = Add(v, e) s = Sqrt(t) n = Div(c, s)
      k = Mul(n, gamma) [last] y = Add(k, beta) })";
constexpr const char* kGelu = R"(
    g (float[2,3] x) => (float[2,3] y) <float r = {1.41421356}, float one = {1}, float h = {0.5}>
    { d = Div(x, r) f = Erf(d) p = Add(f, one) m = Mul(x, p) [last] y = Mul(m, h) })";

Model Of(const std::string& graph, int64_t opset) {
  return ModelFromText("<ir_version: 8, opset_import: [\"\" : " + std::to_string(opset) + "]>" +
                       graph);
}

std::string WithAxis(const std::string& axis) {
  std::string text = kNorm;
  for (size_t at; (at = text.find("AXIS")) != std::string::npos;) text.replace(at, 4, axis);
  return text;
}

void ExpectSameResults(const Model& in, const Model& out) { EXPECT_GT(WorstSqnrDb(in, out), 110); }

TEST(FusePatterns, RecognizesADecomposedLayerNormalization) {
  for (const char* axis : {"-1", "2"}) {
    const Model in = Of(WithAxis(axis), 17);
    const PassResult out = RunStep("fuse_patterns", {}, in);
    ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("LayerNormalization"));
    const Node& node = out.model.graph.nodes[0];
    EXPECT_THAT(node.inputs, ElementsAre("x", "gamma", "beta"));
    EXPECT_EQ(node.name, "last");
    EXPECT_FLOAT_EQ(node.Float("epsilon", 0), 1e-5F);
    ExpectSameResults(in, out.model);
  }
}

// As Keras spells it; `rest` is what is added to the product.
std::string Spread(const std::string& rest) {
  return R"(g (float[2,3,4] x) => (float[2,3,4] y)
    <float e = {1e-3}, float[1,1,4] gamma = {1,2,3,4}, float[4] beta = {0.5,0,1,-1}>
    { m = ReduceMean <axes = [2]> (x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean <axes = [2]> (q)
      t = Add(v, e) s = Sqrt(t) r = Reciprocal(s) k = Mul(r, gamma) )" +
         rest + " p = Mul(x, k) [last] y = Add(p, b) }";
}

TEST(FusePatterns, RecognizesALayerNormalizationOfProducts) {
  for (const char* rest :
       {"n = Neg(m) u = Mul(n, k) b = Add(u, beta)", "u = Mul(k, m) b = Sub(beta, u)"}) {
    const Model in = Of(Spread(rest), 17);
    const PassResult out = RunStep("fuse_patterns", {}, in);
    ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("LayerNormalization")) << rest;
    const Node& node = out.model.graph.nodes[0];
    EXPECT_THAT(node.inputs, ElementsAre("x", "gamma_row", "beta"));
    EXPECT_EQ(out.model.graph.initializers.at("gamma_row").tensor.shape(), (Shape{4}));
    EXPECT_EQ(node.name, "last");
    ExpectSameResults(in, out.model);
  }
}

// As litert-torch spells it.
constexpr const char* kShaped = R"(g (float[1,3,4] x) => (float[1,3,4] y)
    <float e = {1e-3}, float zero = {0}, int64[3] shape = {1,3,1}>
    { m = ReduceMean <axes = [0, 2], keepdims = 0> (x) w = Reshape(m, shape) d = Sub(x, w)
      q = Mul(d, d) v = ReduceMean <axes = [0, 2], keepdims = 0> (q) t = Add(v, e) s = Sqrt(t)
      r = Reciprocal(s) a = Mul(r, m) n = Sub(zero, a) h = Reshape(r, shape) p = Mul(x, h)
      b = Reshape(n, shape) y = Add(p, b) })";

TEST(FusePatterns, RecognizesALayerNormalizationThatIsShapedInBetween) {
  const Model in = Of(kShaped, 17);
  const PassResult out = RunStep("fuse_patterns", {}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("LayerNormalization"));
  ExpectSameResults(in, out.model);
}

TEST(FusePatterns, LeavesProductsThatAreNoLayerNormalization) {
  for (const char* rest : {"n = Neg(m) u = Mul(n, r) b = Add(u, beta)",  // not by the same factor
                           "u = Mul(k, m) b = Sub(u, beta)",             // the wrong way round
                           "n = Neg(m) u = Mul(n, k) b = Add(u, m)"}) {  // no bias
    const PassResult out = RunStep("fuse_patterns", {}, Of(Spread(rest), 17));
    EXPECT_GT(out.model.graph.nodes.size(), 10U) << rest;
  }
}

TEST(FusePatterns, LeavesALayerNormalizationThatWidensItsInput) {
  std::string text = Spread("u = Mul(k, m) b = Sub(beta, u)");
  text.replace(text.find("[2,3,4] x"), 9, "[2,3,1] x");
  const PassResult out = RunStep("fuse_patterns", {}, Of(text, 17));
  EXPECT_GT(out.model.graph.nodes.size(), 10U);
}

TEST(FusePatterns, LeavesALayerNormalizationOfWhichSomethingElseIsRead) {
  const auto expect_left = [](const std::string& text, const std::string& type,
                              const std::vector<std::string>& inner) {
    for (const std::string& value : inner) {
      std::string more = text;
      more.insert(text.find("y)") + 1, ", " + type + " " + value);
      const PassResult out = RunStep("fuse_patterns", {}, Of(more, 17));
      EXPECT_GT(out.model.graph.nodes.size(), 10U) << value;
    }
  };
  expect_left(Spread("u = Mul(k, m) b = Sub(beta, u)"), "float[A,B,C]",
              {"m", "d", "q", "v", "t", "s", "r", "k", "u", "b", "p"});
  expect_left(kShaped, "float[A]", {"m", "v", "t", "s", "r", "a", "n"});
  expect_left(kShaped, "float[A,B,C]", {"w", "d", "q", "h", "p", "b"});
}

TEST(FusePatterns, LeavesANormalizationOverAnotherAxis) {
  const PassResult out = RunStep("fuse_patterns", {}, Of(WithAxis("1"), 17));
  EXPECT_EQ(out.model.graph.nodes.size(), 9U);
}

TEST(FusePatterns, RaisesTheOpsetByConvertingItsNodes) {
  const Model in = Of(WithAxis("-1"), 12);
  const PassResult out = RunStep("fuse_patterns", {}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("LayerNormalization"));
  EXPECT_EQ(out.model.Opset(""), 17);
  EXPECT_EQ(out.report.at("opset").at(0), "opset 12 to 17");
  ExpectSameResults(in, out.model);
}

TEST(FusePatterns, SaysWhatALaterOpsetWouldAllow) {
  const PassResult kept = RunStep("fuse_patterns", {{"opset_max", 16}}, Of(WithAxis("-1"), 12));
  EXPECT_EQ(kept.model.graph.nodes.size(), 9U);
  EXPECT_EQ(kept.model.Opset(""), 12);
  EXPECT_THAT(SkippedReason(kept.report, "Add last"), HasSubstr("needs opset 17"));
  const PassResult gelu = RunStep("fuse_patterns", {}, Of(kGelu, 17));
  EXPECT_THAT(SkippedReason(gelu.report, "Mul last"), HasSubstr("needs opset 20"));
}

TEST(FusePatterns, RecognizesGeluByTheErrorFunction) {
  const Model in = Of(kGelu, 17);
  const PassResult out = RunStep("fuse_patterns", {{"opset_max", 20}}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Gelu"));
  EXPECT_EQ(out.model.graph.nodes[0].domain, "");
  EXPECT_EQ(out.model.Opset(""), 20);
  ExpectSameResults(in, out.model);
}

// What exporters and model code write, by where it stands.
struct GeluSpelling {
  const char* name;
  const char* nodes;
  bool is_tanh;
};
constexpr GeluSpelling kGeluSpellings[] = {
    {"torch_erf", "d = Div(x, r) f = Erf(d) p = Add(f, one) m = Mul(x, p) y = Mul(m, h)", false},
    {"half_first", "h0 = Mul(x, h) d = Mul(x, q) f = Erf(d) p = Add(one, f) y = Mul(h0, p)", false},
    {"half_on_sum", "d = Mul(q, x) f = Erf(d) p = Add(f, one) c = Mul(h, p) y = Mul(c, x)", false},
    {"half_on_both", "d = Div(x, r) f = Erf(d) g = Mul(f, h) p = Add(g, h) y = Mul(x, p)", false},
    {"divided", "d = Div(x, r) f = Erf(d) p = Add(f, one) m = Mul(x, p) y = Div(m, two)", false},
    {"erfc", "n = Neg(x) d = Mul(n, q) f = Erf(d) p = Sub(one, f) m = Mul(x, p) y = Mul(h, m)",
     false},
    {"two_terms", "h0 = Mul(x, h) d = Div(x, r) f = Erf(d) g = Mul(h0, f) y = Add(h0, g)", false},
    {"torch_tanh",
     "a = Mul(x, x) b = Mul(a, x) c = Mul(b, k) s = Add(x, c) u = Mul(s, w) t = Tanh(u) "
     "p = Add(t, one) h0 = Mul(x, h) y = Mul(h0, p)",
     true},
    {"gelu_new",
     "h0 = Mul(x, h) b = Pow(x, three) c = Mul(k, b) s = Add(x, c) u = Mul(w, s) t = Tanh(u) "
     "p = Add(one, t) y = Mul(h0, p)",
     true},
    {"gelu_fast",
     "v = Mul(x, w) a = Mul(x, k) b = Mul(a, x) e = Add(b, one) u = Mul(v, e) t = Tanh(u) "
     "p = Add(t, one) h0 = Mul(x, h) y = Mul(h0, p)",
     true},
    {"keras",
     "b = Pow(x, three) c = Mul(b, k) s = Add(c, x) u = Mul(s, w) t = Tanh(u) p = Add(t, one) "
     "e = Mul(p, h) y = Mul(x, e)",
     true},
    {"square_by_pow",
     "a = Pow(x, two) b = Mul(a, k) e = Add(one, b) g = Mul(e, x) u = Mul(g, w) t = Tanh(u) "
     "p = Add(t, one) m = Mul(x, p) y = Div(m, two)",
     true},
    {"half_on_both_tanh",
     "b = Pow(x, three) c = Mul(b, k) s = Add(c, x) u = Mul(s, w) t = Tanh(u) g = Mul(t, h) "
     "p = Add(g, h) y = Mul(p, x)",
     true},
};

class GeluTest : public ::testing::TestWithParam<GeluSpelling> {
 protected:
  static Model Spelt(const std::string& nodes) {
    return Of(
        "g (float[2,3,4] z) => (float[2,3,4] y) <float r = {1.41421356}, float q = {0.70710678}, "
        "float one = {1}, float h = {0.5}, float two = {2}, float three = {3}, float k = "
        "{0.044715}, float w = {0.7978846}, float wrong = {0.7}, float[4] bias = {1, -1, 0, 2}> { "
        "x = Add(z, bias) " +
            nodes + "}",
        13);
  }
};

TEST_P(GeluTest, IsRecognizedHoweverItIsSpelt) {
  const Model in = Spelt(GetParam().nodes);
  const PassResult out = RunStep("fuse_patterns", {{"opset_max", 20}}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Add", "Gelu"));
  const Node& node = out.model.graph.nodes[1];
  EXPECT_EQ(node.domain, "");
  EXPECT_THAT(node.inputs, ElementsAre("x"));
  EXPECT_EQ(node.String("approximate", "none"), GetParam().is_tanh ? "tanh" : "none");
  ExpectSameResults(in, out.model);
}

// Another number anywhere is another function.
TEST_P(GeluTest, StaysWithAnotherNumber) {
  for (const char* number : {"r)", "q)", "one)", "h)", "two)", "three)", "k)", "w)"}) {
    std::string nodes = GetParam().nodes;
    const size_t at = nodes.find(number);
    if (at == std::string::npos) continue;
    nodes.replace(at, std::string(number).size(), "wrong)");
    const Model in = Spelt(nodes);
    const PassResult out = RunStep("fuse_patterns", {{"opset_max", 20}}, in);
    EXPECT_THAT(OpTypes(out.model.graph), ::testing::Not(::testing::Contains("Gelu"))) << nodes;
  }
}

TEST_P(GeluTest, StaysWhereOthersReadWithin) {
  for (const char* value : {"d", "f", "p", "t", "u", "s"}) {
    const std::string nodes = GetParam().nodes;
    if (nodes.find(std::string(value) + " = ") == std::string::npos) continue;
    Model in = Spelt(nodes);
    in.graph.outputs.push_back({.name = value,
                                .dtype = DType::kFloat32,
                                .shape = in.graph.outputs[0].shape,
                                .type_bytes = {},
                                .unknown = {}});
    const PassResult out = RunStep("fuse_patterns", {{"opset_max", 20}}, in);
    EXPECT_THAT(OpTypes(out.model.graph), ::testing::Not(::testing::Contains("Gelu"))) << value;
  }
}

INSTANTIATE_TEST_SUITE_P(Spellings, GeluTest, ::testing::ValuesIn(kGeluSpellings),
                         [](const auto& spelling) { return std::string(spelling.param.name); });

// Two GELUs behind one another, and one that is the argument's own function of another value.
TEST(FusePatterns, GelusInARowAreTwo) {
  const Model in = Of(R"(g (float[2,3] x) => (float[2,3] y)
      <float r = {1.41421356}, float one = {1}, float h = {0.5}>
      { d = Div(x, r) f = Erf(d) p = Add(f, one) m = Mul(x, p) z = Mul(m, h)
        d2 = Div(z, r) f2 = Erf(d2) p2 = Add(f2, one) m2 = Mul(z, p2) y = Mul(m2, h) })",
                      20);
  const PassResult out = RunStep("fuse_patterns", {{"opset_max", 20}}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Gelu", "Gelu"));
  ExpectSameResults(in, out.model);
}

TEST(FusePatterns, RecognizesHardSwish) {
  const char* kNodes[] = {"a = Add(x, three) b = Clip(a, zero, six) m = Mul(x, b) y = Div(m, six)",
                          "a = Add(three, x) b = Clip(a, zero, six) d = Div(b, six) y = Mul(d, x)",
                          "b = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul(x, b)"};
  for (const char* nodes : kNodes) {
    const Model in = Of(std::string("g (float[3,4] x) => (float[3,4] y) <float three = {3}, "
                                    "float zero = {0}, float six = {6}> {") +
                            nodes + "}",
                        11);
    const PassResult out = RunStep("fuse_patterns", {}, in);
    ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("HardSwish")) << nodes;
    EXPECT_EQ(out.model.Opset(""), 14);
    ExpectSameResults(in, out.model);
  }
}

TEST(FusePatterns, RecognizesTheClipOfOldOpsets) {
  const Model in = Of(R"(g (float[3,4] x) => (float[3,4] y) <float three = {3}, float six = {6}>
      { a = Add(x, three) b = Clip <min = 0.0, max = 6.0> (a) m = Mul(x, b) y = Div(m, six) })",
                      10);
  const PassResult out = RunStep("fuse_patterns", {}, in);
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("HardSwish"));
  ExpectSameResults(in, out.model);
}

TEST(FusePatterns, LeavesWhatOthersRead) {
  const Model in = Of(R"(g (float[3,4] x) => (float[3,4] y, float[3,4] z) <float three = {3},
      float zero = {0}, float six = {6}>
      { a = Add(x, three) b = Clip(a, zero, six) m = Mul(x, b) y = Div(m, six) z = Neg(b) })",
                      14);
  EXPECT_EQ(RunStep("fuse_patterns", {}, in).model.graph.nodes.size(), 5U);
}

// A model that cannot be raised stays, and the report says why.
TEST(FusePatterns, AModelThatCannotBeRaisedStays) {
  const Model in = Of(R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z)
      <float three = {3}, float six = {6}, float none = {0}>
      { [drop] n, mask = Dropout <ratio = 0.5> (x) k0 = Cast <to = 1> (mask) z = Mul(k0, none) a = Add(n, three)
        b = Clip <min = 0.0, max = 6.0> (a) k = Mul(n, b) [last] y = Div(k, six) })",
                      8);
  const PassResult out = RunPass("fuse_patterns", {}, in);
  EXPECT_EQ(out.model.Opset(""), 8);
  EXPECT_THAT(SkippedReason(out.report, "Div last"), HasSubstr("Dropout drop"));
}

TEST(FusePatterns, WorksInSubgraphsAndByOperator) {
  const Model in = Of(R"(g (bool c, float[3,4] x) => (float[3,4] y) {
       y = If (c) <then_branch = a () => (float[3,4] p)
                     { h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) p = Mul(x, h) },
                   else_branch = b () => (float[3,4] q) { q = Neg(x) }> })",
                      17);
  const PassResult out = RunStep("fuse_patterns", {}, in);
  EXPECT_THAT(OpTypes(*out.model.graph.nodes[0].GraphOf("then_branch")), ElementsAre("HardSwish"));
  const PassResult other = RunStep("fuse_patterns", {{"op_types", {"Gelu"}}}, in);
  EXPECT_EQ(other.model.graph.nodes[0].GraphOf("then_branch")->nodes.size(), 2U);
  EXPECT_THAT(
      [&] {
        RunStep("fuse_patterns", {{"op_types", {"Swish"}}}, in);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "/op_types/0"));
}

TEST(FusePatterns, ExcludedPatternsStay) {
  const PassResult out = RunStep("fuse_patterns", {{"exclude", {"last"}}}, Of(WithAxis("-1"), 12));
  EXPECT_EQ(SkippedReason(out.report, "Add last"), "excluded");
  EXPECT_EQ(out.model.Opset(""), 12);
}

}  // namespace
}  // namespace pared
