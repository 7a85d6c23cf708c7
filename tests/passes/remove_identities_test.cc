#include <gmock/gmock.h>

#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

PassResult Removed(const std::string& text, Json options = Json::object()) {
  return RunStep("remove_identities", std::move(options), ModelFromText(text));
}

struct NoOp {
  const char *name, *node;  // makes v of u, which is float[N,2,3]
};
void PrintTo(const NoOp& no_op, std::ostream* os) { *os << no_op.name; }
class RemovesNoOp : public ::testing::TestWithParam<NoOp> {};

TEST_P(RemovesNoOp, JoinsItsReadersToItsInput) {
  const PassResult out = Removed(std::string(R"(g (float[N,2,3] x) => (float[N,2,3] y)
      <int64[3] zeros = {0,0,0}, int64[3] rest = {-1,2,3}, int64[6] pads = {0,0,0,0,0,0},
       int64[2] ends = {3,9223372036854775807}, int64[2] starts = {0,0}, int64[2] axes = {2,0}>
      { u = Exp(x) )") + GetParam().node +
                                 " y = Neg(v) }");
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Exp", "Neg"));
  EXPECT_THAT(out.model.graph.nodes[1].inputs, ElementsAre("u"));
  EXPECT_TRUE(out.model.graph.initializers.empty());
  EXPECT_EQ(out.report.at("changed").size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(
    Nodes, RemovesNoOp,
    ::testing::Values(NoOp{"Identity", "v = Identity(u)"}, NoOp{"Dropout", "v, m = Dropout(u)"},
                      NoOp{"Cast", "v = Cast <to = 1> (u)"},
                      NoOp{"ReshapeOfZeros", "v = Reshape(u, zeros)"},
                      NoOp{"ReshapeOfNumbers", "v = Reshape(u, rest)"},
                      NoOp{"Transpose", "v = Transpose <perm = [0, 1, 2]> (u)"},
                      NoOp{"Pad", "v = Pad(u, pads)"},
                      NoOp{"Slice", "v = Slice(u, starts, ends, axes)"},
                      NoOp{"Concat", "v = Concat <axis = 1> (u)"}),
    [](const auto& named) { return std::string(named.param.name); });

class KeepsOp : public ::testing::TestWithParam<NoOp> {};

TEST_P(KeepsOp, WhereItChangesSomething) {
  const PassResult out =
      RunPass("remove_identities", {},
              ModelFromText(std::string(R"(g (float[N,2,3] x, bool on) => (float[A,B,C] y)
      <int64[3] other = {-1,3,2}, int64[3] free = {2,-1,3}, int64[6] pads = {0,0,0,0,0,1},
       int64[1] ends = {2}, int64[1] starts = {0}, int64[1] axes = {2}, int64[1] back = {-1},
       int64[1] all = {-9223372036854775807}, float ratio = {0.5}>
      { u = Exp(x) )") + GetParam().node +
                            " w = Cast <to = 1> (v) y = Neg(w) }"));
  EXPECT_GE(out.model.graph.nodes.size(), 3U);
  EXPECT_EQ(out.model.graph.nodes[1].outputs[0], "v");
}

INSTANTIATE_TEST_SUITE_P(
    Nodes, KeepsOp,
    ::testing::Values(NoOp{"Cast", "v = Cast <to = 11> (u)"},
                      NoOp{"ReshapeToOthers", "v = Reshape(u, other)"},
                      NoOp{"ReshapeOfTheBatch", "v = Reshape(u, free)"},
                      NoOp{"Transpose", "v = Transpose <perm = [1, 0, 2]> (u)"},
                      NoOp{"TransposeReversed", "v = Transpose(u)"},
                      NoOp{"Pad", "v = Pad(u, pads)"},
                      NoOp{"SliceOfPart", "v = Slice(u, starts, ends, axes)"},
                      NoOp{"SliceBackwards", "v = Slice(u, back, all, axes, back)"},
                      NoOp{"DropoutThatMayTrain", "v = Dropout(u, ratio, on)"},
                      NoOp{"Concat", "v = Concat <axis = 1> (u, u)"}),
    [](const auto& named) { return std::string(named.param.name); });

TEST(RemoveIdentities, AnOutputKeepsItsName) {
  const PassResult out = Removed(
      "g (float[2] x) => (float[2] y, float[2] z) { a = Exp(x) y = Identity(a) z = Neg(a) }");
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Exp", "Neg"));
  EXPECT_THAT(out.model.graph.nodes[0].outputs, ElementsAre("y"));
  EXPECT_THAT(out.model.graph.nodes[1].inputs, ElementsAre("y"));
}

TEST(RemoveIdentities, KeepsWhatGivesAnInputTheNameOfAnOutput) {
  const PassResult out =
      Removed(R"(g (float[2] x) => (float[2] y, float[2] z, float[2] a, float[2] b)
      <float[2] w = {1,2}> { [in] y = Identity(x) [weight] z = Identity(w) a = Exp(x) [twice] b = Identity(a) })");
  EXPECT_EQ(out.model.graph.nodes.size(), 4U);
  EXPECT_THAT(SkippedReason(out.report, "Identity in"), HasSubstr("name of an output"));
  EXPECT_THAT(SkippedReason(out.report, "Identity weight"), HasSubstr("name of an output"));
  EXPECT_THAT(SkippedReason(out.report, "Identity twice"), HasSubstr("both outputs"));
}

TEST(RemoveIdentities, KeepsADropoutWhoseMaskIsRead) {
  const PassResult out = Removed(
      "g (float[2] x) => (float[2] y, bool[2] n) { [d] a, m = Dropout(x) y = Exp(a) n = Not(m) }");
  EXPECT_EQ(out.model.graph.nodes.size(), 3U);
  EXPECT_THAT(SkippedReason(out.report, "Dropout d"), HasSubstr("mask"));
}

TEST(RemoveIdentities, ReadersInSubgraphsFollow) {
  const PassResult out = Removed(R"(g (bool c, float[2] x) => (float[2] y) {
       h = Exp(x) t = Identity(h)
       y = If (c) <then_branch = a () => (float[2] p) { u = Identity(t) p = Neg(u) },
                   else_branch = b () => (float[2] q) { [kept] q = Identity(t) }> })");
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Exp", "If"));
  EXPECT_THAT(OpTypes(*out.model.graph.nodes[1].GraphOf("then_branch")), ElementsAre("Neg"));
  const GraphPtr other = out.model.graph.nodes[1].GraphOf("else_branch");
  ASSERT_THAT(OpTypes(*other), ElementsAre("Identity"));
  EXPECT_THAT(other->nodes[0].inputs, ElementsAre("h"));
  EXPECT_THAT(SkippedReason(out.report, "Identity kept"), HasSubstr("outer"));
}

TEST(RemoveIdentities, AChainOfThemGoesAsOne) {
  const PassResult out = Removed(R"(g (float[2] x) => (float[2] y)
      { a = Identity(x) b = Dropout(a) c = Cast <to = 1> (b) d = Neg(c) e = Identity(d) y = Identity(e) })");
  ASSERT_THAT(OpTypes(out.model.graph), ElementsAre("Neg"));
  EXPECT_THAT(out.model.graph.nodes[0].inputs, ElementsAre("x"));
  EXPECT_THAT(out.model.graph.nodes[0].outputs, ElementsAre("y"));
}

TEST(RemoveIdentities, ExcludedNodesStay) {
  const PassResult out =
      Removed("g (float[2] x) => (float[2] y) { [keep] a = Identity(x) y = Neg(a) }",
              {{"exclude", {"op:Identity"}}});
  EXPECT_EQ(SkippedReason(out.report, "Identity keep"), "excluded");
}

// Codes that are made once more of what they stand for.
struct Pair {
  const char *name, *type, *dequantize, *quantize;
  bool goes;
};
void PrintTo(const Pair& pair, std::ostream* os) { *os << pair.name; }
class RemovesRequantization : public ::testing::TestWithParam<Pair> {};

TEST_P(RemovesRequantization, OfEqualScaleAndZeroPointOnly) {
  const std::string type = GetParam().type;
  const PassResult out = Removed(
      R"(<ir_version: 10, opset_import: ["" : 21]> g (float[3,3] x) => (float[3,3] y)
      <float s = {0.03}, float t = {0.03}, float u = {0.0300001}, float[3] v = {1,2,3},
       float[3] w = {1,2,3}, )" +
      type + " z = {7}, " + type + " o = {7}, " + type + " p = {8}, " + type + "[3] q = {1,2,3}, " +
      type + R"([3] r = {1,2,3}>
      { a = QuantizeLinear(x, s, z) b = )" +
      GetParam().dequantize + " c = " + GetParam().quantize + " d = DequantizeLinear(c, s, z) " +
      "y = Neg(d) }");
  EXPECT_EQ(OpTypes(out.model.graph).size(), GetParam().goes ? 3U : 5U);
}

INSTANTIATE_TEST_SUITE_P(
    Pairs, RemovesRequantization,
    ::testing::Values(
        Pair{"Same", "uint8", "DequantizeLinear(a, s, z)", "QuantizeLinear(b, s, z)", true},
        Pair{"OtherNames", "int8", "DequantizeLinear(a, s, z)", "QuantizeLinear(b, t, o)", true},
        Pair{"Int16", "int16", "DequantizeLinear(a, s, z)", "QuantizeLinear(b, t, o)", true},
        Pair{"Columns", "uint8", "DequantizeLinear(a, v, q)", "QuantizeLinear(b, w, r)", true},
        Pair{"NoZeroPoints", "uint8", "DequantizeLinear(a, s)", "QuantizeLinear(b, s)", true},
        Pair{"OtherScale", "uint8", "DequantizeLinear(a, s, z)", "QuantizeLinear(b, u, z)", false},
        Pair{"OtherZero", "uint8", "DequantizeLinear(a, s, z)", "QuantizeLinear(b, s, p)", false},
        Pair{"OtherAxis", "uint8", "DequantizeLinear(a, v, q)",
             "QuantizeLinear <axis = 0> (b, v, q)", false},
        Pair{"ZeroPointLeftOut", "uint8", "DequantizeLinear(a, s, z)", "QuantizeLinear(b, s)",
             false}),
    [](const auto& named) { return std::string(named.param.name); });

TEST(RemoveIdentities, OtherReadersOfTheFloatsKeepThem) {
  const PassResult out = Removed(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[2,3] x) => (float[2,3] y, uint8[2,3] c)
      <float s = {0.03}, uint8 z = {7}>
      { a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = QuantizeLinear(b, s, z)
        d = DequantizeLinear(c, s, z) y = Add(b, d) })");
  EXPECT_THAT(OpTypes(out.model.graph),
              ElementsAre("QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Add"));
  EXPECT_EQ(out.model.graph.nodes[0].outputs[0], "c");
}

}  // namespace
}  // namespace pared
