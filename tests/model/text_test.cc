#include "model/text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseText, ReadsAGraph) {
  const Model m = ParseText(R"(
    <ir_version: 9, opset_import: ["" : 13, "com.acme" : 2], producer_name: "me",
     metadata_props: ["stride" : "32"]>
    g (float[N,4] x, int64 n, float[] any) => (float[N,2] y)
    <float[4,2] w = {0,0,3,0,0,0,0,-2.5}, float[N,2] h>
    {
      [first] h = MatMul(x, w)  # a comment
      y, = com.acme.Odd <axis = -1, alpha = 0.5, mode = "a\"b", p = [1, 2], q = [1, 2.5]> (h, , x)
    })");
  EXPECT_EQ(m.ir_version, 9);
  EXPECT_EQ(m.Opset(""), 13);
  EXPECT_EQ(m.Opset("ai.onnx"), 13);
  EXPECT_EQ(m.Opset("com.acme"), 2);
  EXPECT_EQ(m.Opset("com.other"), 0);
  EXPECT_EQ(m.metadata[0].second, "32");
  const Graph& g = m.graph;
  EXPECT_EQ(g.inputs[0].shape->at(0).param, "N");
  EXPECT_EQ(g.inputs[0].shape->at(1).value, 4);
  EXPECT_TRUE(g.inputs[1].shape->empty());
  EXPECT_FALSE(g.inputs[2].shape.has_value());
  EXPECT_THAT(g.initializers.at("w").tensor.data<float>(), ElementsAre(0, 0, 3, 0, 0, 0, 0, -2.5));
  EXPECT_TRUE(g.values.contains("h"));
  EXPECT_EQ(NodeLabel(g.nodes[0]), "MatMul first");
  const Node& odd = g.nodes[1];
  EXPECT_EQ(NodeLabel(odd), "Odd producing y");
  EXPECT_EQ(odd.domain, "com.acme");
  EXPECT_THAT(odd.outputs, ElementsAre("y", ""));
  EXPECT_THAT(odd.inputs, ElementsAre("h", "", "x"));
  EXPECT_EQ(odd.Int("axis", 0), -1);
  EXPECT_EQ(odd.Float("alpha", 0), 0.5F);
  EXPECT_EQ(odd.String("mode", ""), "a\"b");
  EXPECT_THAT(odd.Ints("p"), ElementsAre(1, 2));
  EXPECT_THAT(odd.Floats("q"), ElementsAre(1, 2.5));
}

TEST(ParseText, ReadsSubgraphsAndFunctions) {
  const Model m = ParseText(R"(
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (bool c, float[2] x) => (float[2] y) {
      y = If (c) <then_branch = t () => (float[2] a) { a = local.Twice <k = 2.0> (x) },
                  else_branch = e () => (float[2] b) { b = Identity(x) }>
    }
    <domain: "local", opset_import: ["" : 17]>
    Twice <k, beta: float = 1.0> (v) => (w) {
      s = Constant <value_float : float = @k> ()
      w = Mul(v, s)
    })");
  Verify(m);
  const Node& node = m.graph.nodes[0];
  EXPECT_EQ(node.GraphOf("then_branch")->nodes[0].op_type, "Twice");
  EXPECT_THAT(CapturedNames(*node.GraphOf("else_branch")), ElementsAre("x"));
  ASSERT_EQ(m.functions.size(), 1U);
  EXPECT_THAT(m.functions[0].attributes, ElementsAre("k"));
  EXPECT_TRUE(m.functions[0].default_attributes.contains("beta"));
  EXPECT_EQ(m.functions[0].nodes[0].attributes.at("value_float").ref_name, "k");
}

TEST(ParseText, ReadsLiteralsOfEachType) {
  const Model m = ParseText(R"(g () => ()
    <float16[6] h = {1, -2, 65504, 0.0000000596046448, inf, 0.333251953125},
     bfloat16[2] b = {1, 3.14}, int4[3] i = {-8, 7, -1}, uint2[5] u = {0, 1, 2, 3, 1},
     bool[2] l = {true, 0}, string[2] s = {"a", "b\n"}, double d = {-1e300},
     uint64[1] q = {18446744073709551615},
     int64[2] e = {9223372036854775807, -9223372036854775808}, float[0] none = {}> {})");
  const auto bytes = [&](const char* name) {
    std::vector<int> values;
    for (const std::byte b : m.graph.initializers.at(name).tensor.bytes()) {
      values.push_back(static_cast<int>(b));
    }
    return values;
  };
  // Halves: 3C00, C000, 7BFF, 0001, 7C00, 3555.
  EXPECT_THAT(bytes("h"), ElementsAre(0, 0x3C, 0, 0xC0, 0xFF, 0x7B, 1, 0, 0, 0x7C, 0x55, 0x35));
  EXPECT_THAT(bytes("b"), ElementsAre(0x80, 0x3F, 0x49, 0x40));
  EXPECT_THAT(bytes("i"), ElementsAre(0x78, 0x0F));
  EXPECT_THAT(bytes("u"), ElementsAre(0xE4, 0x01));
  EXPECT_THAT(bytes("l"), ElementsAre(1, 0));
  EXPECT_THAT(m.graph.initializers.at("s").tensor.strings(), ElementsAre("a", "b\n"));
  EXPECT_THAT(m.graph.initializers.at("d").tensor.data<double>(), ElementsAre(-1e300));
  EXPECT_THAT(m.graph.initializers.at("q").tensor.data<uint64_t>(), ElementsAre(UINT64_MAX));
  EXPECT_THAT(m.graph.initializers.at("e").tensor.data<int64_t>(),
              ElementsAre(INT64_MAX, INT64_MIN));
  EXPECT_EQ(m.graph.initializers.at("none").tensor.count(), 0);
}

TEST(ParseText, PointsAtTheFault) {
  EXPECT_THAT([] { ParseText("g (float x) =>\n  (float y) { y = Relu(x }"); },
              ThrowsError(ErrorCode::kInvalidArgument, "line 2, column 26", HasSubstr("')'")));
  EXPECT_THAT([] { ParseText("g () => () <float[2] w = {1}> {}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "line 1, column 29"));
  EXPECT_THAT([] { ParseText("g () => () <int8 w = {128}> {}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "line 1, column 26", HasSubstr("int8")));
  EXPECT_THAT([] { ParseText("g () => () <int64 w = {9223372036854775808}> {}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "line 1, column 43", HasSubstr("int64")));
  EXPECT_THAT([] { ParseText("g () => () <int8 w = {1.5}> {}"); },
              ThrowsError(ErrorCode::kInvalidArgument, "line 1, column 26"));
  EXPECT_THAT([] { ParseText("g () => () { y = A <a = [1, \"x\"]> () }"); },
              ThrowsError(ErrorCode::kInvalidArgument, "line 1, column 33"));
  EXPECT_THAT([] { ParseText("g () => () { y = A <a = []> () }"); },
              ThrowsError(ErrorCode::kInvalidArgument, "line 1, column 27"));
  EXPECT_THAT([] { ParseText(""); }, ThrowsError(ErrorCode::kInvalidArgument, "line 1, column 1"));
}

TEST(ParseText, LimitsNesting) {
  std::string text = "g () => () { ";
  for (int i = 0; i < 10000; ++i) text += "x = If <then_branch = t () => () { ";
  EXPECT_THAT([&] { ParseText(text); },
              ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("line 1"), HasSubstr("32")));
}

TEST(ToText, ReadsBackAsTheSameText) {
  const std::string text = ToText(ParseText(R"(
    <ir_version: 9, opset_import: ["" : 18, "local" : 1]>
    "a graph" (bool c, float[N,?] x, float[] r, seq(float[2]) q) => (float y)
    <float[2,2] w = {1, 2.5, -0.25, 1e-20}, int4[3] i = {1, -2, 3}, string[1] s = {"\"\\"},
     float16 h = {0.5}, uint8[0] none = {}, float[2] "name/with:signs">
    {
      ["the first"] z, "name/with:signs" = If (c)
        <then_branch = t () => (a, b) { a = Neg <k : ints = [], l = [1.0, 2.5]> (x) b = Abs(a) },
         else_branch = e () => (a, b) { a = Constant <value = float[2] {1, 2}> () b = Neg(a) }>
      y = local.F (z, , w)
    }
    <domain: "local", opset_import: ["" : 18]>
    F <k, m : int = 3> (u, v, w) => (o) { o = Cast <to : int = @m> (u) })"));
  // The carried type of `q` has no text of its own; everything else must survive.
  std::string readable = text;
  const std::string carried = "<carried type> ";
  ASSERT_NE(readable.find(carried), std::string::npos);
  readable.replace(readable.find(carried), carried.size(), "");
  EXPECT_EQ(ToText(ParseText(readable)), readable);
  EXPECT_THAT(text, HasSubstr("{1, 2.5, -0.25, 1e-20}"));
  EXPECT_THAT(text, HasSubstr("int4[3] i = {1, -2, 3}"));
  EXPECT_THAT(text, HasSubstr("[\"the first\"] z, \"name/with:signs\" = If"));
}

TEST(ToText, LeavesOutTheElementsOfLargeTensors) {
  Model m = ParseText("g () => (float[17] w) { }");
  m = WithInitializer(m, "w", Tensor::Make<float>({17}, std::vector<float>(17)));
  EXPECT_THAT(ToText(m), HasSubstr("float[17] w = {... 17 elements}"));
}

}  // namespace
}  // namespace pared
