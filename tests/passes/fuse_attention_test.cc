// Attention spelt with products, a softmax and a mask: what becomes ONNX's operator, and what
// stays.

#include <gmock/gmock.h>

#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Not;

const Json kOptions = {{"op_types", {"Attention"}}, {"opset_max", 23}};

struct Spelling {
  const char* name;
  const char* signature;
  const char* nodes;
  double scale;
};

constexpr const char* kConstants =
    "<float two = {2}, float[1] half = {0.5}, float quarter = {0.25}, float big = {-10000}, "
    "float zero = {0}, float one = {1}, int64[4] split = {0,0,2,4}, int64[3] join = {0,0,8}, "
    "int64[2] axes = {1,2}, "
    "float[1,1,3,5] fixed = {0,-1,0,-2,0, 1,0,-30,0,0, 0,0,0,0,-9}> { ";

constexpr const char* kFourAxes =
    "(float[2,2,3,4] q, float[2,2,5,4] k, float[2,2,5,6] v, float[2,1,1,5] m) "
    "=> (float[2,2,3,6] y) ";
constexpr const char* kThreeAxes =
    "(float[4,3,4] q, float[4,5,4] k, float[4,5,6] v, float[4,1,5] m) => (float[4,3,6] y) ";
constexpr const char* kTokens =
    "(float[B,T,8] q, float[B,T,8] k, float[B,T,8] v, float[B,T] m) => (float[B,T,8] y) ";

constexpr Spelling kSpellings[] = {
    {"plain", kFourAxes,
     "kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul(q, kt) p = Softmax <axis = -1> (s) "
     "[last] y = MatMul(p, v)",
     1},
    {"divided_and_masked", kFourAxes,
     "kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul(q, kt) d = Div(s, two) a = Add(d, m) "
     "p = Softmax <axis = 3> (a) [last] y = MatMul(p, v)",
     0.5},
    {"mask_first", kFourAxes,
     "kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul(q, kt) d = Mul(half, s) a = Add(m, d) "
     "p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)",
     0.5},
    {"torch_scales_both", kFourAxes,
     "qs = Mul(q, half) kt = Transpose <perm = [0,1,3,2]> (k) ks = Mul(kt, half) "
     "s = MatMul(qs, ks) a = Add(s, m) p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)",
     0.25},
    {"keys_scaled_before", kFourAxes,
     "ks = Div(k, two) kt = Transpose <perm = [0,1,3,2]> (ks) s = MatMul(q, kt) a = Add(s, m) "
     "p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)",
     0.5},
    {"guarded_as_torch_does", kFourAxes,
     "c = Cast <to = 9> (m) f = Where(c, zero, big) kt = Transpose <perm = [0,1,3,2]> (k) "
     "s = MatMul(q, kt) a = Add(s, f) w = Softmax <axis = -1> (a) n = IsNaN(w) "
     "p = Where(n, zero, w) [last] y = MatMul(p, v)",
     1},
    {"fixed_mask", kFourAxes,
     "kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul(q, kt) a = Add(s, fixed) "
     "p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)",
     1},
    {"keys_as_they_are",
     "(float[2,2,3,4] q, float[2,2,4,5] k, float[2,2,5,6] v) => (float[2,2,3,6] y)",
     "s = MatMul(q, k) p = Softmax <axis = -1> (s) [last] y = MatMul(p, v)", 1},
    {"three_axes", kThreeAxes,
     "kt = Transpose <perm = [0,2,1]> (k) s = MatMul(q, kt) d = Mul(s, quarter) "
     "p = Softmax <axis = -1> (d) [last] y = MatMul(p, v)",
     0.25},
    {"three_axes_masked", kThreeAxes,
     "kt = Transpose <perm = [0,2,1]> (k) s = MatMul(q, kt) a = Add(s, m) "
     "p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)",
     1},
    {"flat_mask",
     "(float[4,3,4] q, float[4,5,4] k, float[4,5,6] v, float[5] m) => (float[4,3,6] y)",
     "kt = Transpose <perm = [0,2,1]> (k) s = MatMul(q, kt) a = Add(s, m) "
     "p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)",
     1},
    {"bert", kTokens,
     "u = Unsqueeze(m, axes) i = Sub(one, u) b = Mul(i, big) "
     "q4 = Reshape(q, split) qt = Transpose <perm = [0,2,1,3]> (q4) "
     "k4 = Reshape(k, split) kt = Transpose <perm = [0,2,3,1]> (k4) "
     "v4 = Reshape(v, split) vt = Transpose <perm = [0,2,1,3]> (v4) "
     "s = MatMul(qt, kt) d = Div(s, two) a = Add(d, b) p = Softmax <axis = -1> (a) "
     "[last] o = MatMul(p, vt) ot = Transpose <perm = [0,2,1,3]> (o) y = Reshape(ot, join)",
     0.5},
};

Model Spelt(const Spelling& spelling, int64_t opset = 13) {
  return ModelFromText("<ir_version: 8, opset_import: [\"\" : " + std::to_string(opset) + "]> g " +
                       spelling.signature + kConstants + spelling.nodes + "}");
}

class AttentionTest : public ::testing::TestWithParam<Spelling> {};

TEST_P(AttentionTest, IsRecognizedHoweverItIsSpelt) {
  const Model in = Spelt(GetParam());
  const PassResult out = RunStep("fuse_patterns", kOptions, in);
  EXPECT_EQ(out.model.Opset(""), 23);
  const std::vector<std::string> types = OpTypes(out.model.graph);
  EXPECT_THAT(types, Contains("Attention"));
  EXPECT_THAT(types, Not(Contains("Softmax")));
  EXPECT_THAT(types, Not(Contains("MatMul")));
  for (const Node& node : out.model.graph.nodes) {
    if (node.op_type != "Attention") continue;
    EXPECT_EQ(node.name, "last");
    EXPECT_FLOAT_EQ(node.Float("scale", 0), static_cast<float>(GetParam().scale));
  }
  EXPECT_GT(WorstSqnrDb(in, out.model), 110);
}

// By default nothing is raised that far.
TEST_P(AttentionTest, StaysUnlessAskedFor) {
  const PassResult out = RunStep("fuse_patterns", Json::object(), Spelt(GetParam()));
  EXPECT_EQ(out.model.Opset(""), 13);
  EXPECT_THAT(OpTypes(out.model.graph), Contains("Softmax"));
}

INSTANTIATE_TEST_SUITE_P(Spellings, AttentionTest, ::testing::ValuesIn(kSpellings),
                         [](const auto& spelling) { return std::string(spelling.param.name); });

// Each stays as it is, and the report says why.
constexpr struct {
  Spelling spelling;
  const char* reason;
} kRefused[] = {
    {{"five_axes",
      "(float[1,2,2,3,4] q, float[1,2,2,4,5] k, float[1,2,2,5,6] v) => (float[1,2,2,3,6] y)",
      "s = MatMul(q, k) p = Softmax <axis = -1> (s) [last] y = MatMul(p, v)", 1},
     "rank 3 or 4"},
    {{"shared_keys", "(float[2,4,3,4] q, float[2,1,4,5] k, float[2,1,5,6] v) => (float[2,4,3,6] y)",
      "s = MatMul(q, k) p = Softmax <axis = -1> (s) [last] y = MatMul(p, v)", 1},
     "broadcast along axis 1"},
    {{"batch_not_known_alike",
      "(float[B,2,3,4] q, float[1,2,4,5] k, float[1,2,5,6] v) => (float[B,2,3,6] y)",
      "s = MatMul(q, k) p = Softmax <axis = -1> (s) [last] y = MatMul(p, v)", 1},
     "broadcast along axis 0"},
    {{"another_axis",
      "(float[2,2,5,4] q, float[2,2,4,5] k, float[2,2,5,6] v) => (float[2,2,5,6] y)",
      "s = MatMul(q, k) p = Softmax <axis = 2> (s) [last] y = MatMul(p, v)", 1},
     "not along the last axis"},
    {{"mask_widens",
      "(float[1,2,3,4] q, float[1,2,4,5] k, float[1,2,5,6] v, float[2,1,1,5] m) => "
      "(float[2,2,3,6] y)",
      "s = MatMul(q, k) a = Add(s, m) p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)", 1},
     "larger than its scores along axis 0"},
    {{"mask_of_five_axes",
      "(float[1,2,3,4] q, float[1,2,4,5] k, float[1,2,5,6] v, "
      "float[1,1,1,1,5] m) => (float[1,1,2,3,6] y)",
      "s = MatMul(q, k) a = Add(s, m) p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)", 1},
     "another rank"},
    {{"two_masks", kFourAxes,
      "kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul(q, kt) a = Add(s, fixed) b = Add(a, m) "
      "p = Softmax <axis = -1> (b) [last] y = MatMul(p, v)",
      1},
     "two masks"},
    {{"scaled_mask", kFourAxes,
      "kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul(q, kt) a = Add(s, m) b = Mul(a, half) "
      "p = Softmax <axis = -1> (b) [last] y = MatMul(p, v)",
      1},
     "mask is scaled"},
    {{"guarded_against_rows_that_are_masked", kFourAxes,
      "kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul(q, kt) a = Add(s, m) "
      "w = Softmax <axis = -1> (a) n = IsNaN(w) p = Where(n, zero, w) [last] y = MatMul(p, v)",
      1},
     "masked as a whole"},
    {{"weights_transposed",
      "(float[1,2,4,3] q, float[1,2,4,5] k, float[1,2,6,5] v) => (float[1,2,6,3] y)",
      "qt = Transpose <perm = [0,1,3,2]> (q) s = MatMul(qt, k) p = Softmax <axis = -1> (s) "
      "pt = Transpose <perm = [0,1,3,2]> (p) [last] y = MatMul(v, pt)",
      1},
     "its weights are transposed"},
    {{"where",
      "(float[2,2,3,4] q, float[2,2,4,5] k, float[2,2,5,6] v, bool[2,1,1,5] m) => "
      "(float[2,2,3,6] y)",
      "s = MatMul(q, k) a = Where(m, s, big) p = Softmax <axis = -1> (a) [last] y = MatMul(p, v)",
      1},
     "Where masks it"},
};

TEST(FuseAttention, WhatTheOperatorDoesNotCoverStaysWithTheReason) {
  for (const auto& [spelling, reason] : kRefused) {
    SCOPED_TRACE(spelling.name);
    const PassResult out = RunPass("fuse_patterns", kOptions, Spelt(spelling));
    EXPECT_THAT(OpTypes(out.model.graph), Not(Contains("Attention")));
    EXPECT_EQ(out.model.Opset(""), 13);
    EXPECT_THAT(SkippedReason(out.report, "MatMul last"), HasSubstr(reason));
  }
}

// Probabilities that somebody reads are no attention's inside.
TEST(FuseAttention, ScoresThatOthersReadStay) {
  const Model in = ModelFromText(R"(<ir_version: 8, opset_import: ["" : 13]>
      g (float[2,2,3,4] q, float[2,2,4,5] k, float[2,2,5,6] v)
        => (float[2,2,3,6] y, float[2,2,3,5] p)
      { s = MatMul(q, k) p = Softmax <axis = -1> (s) y = MatMul(p, v) })");
  const PassResult out = RunStep("fuse_patterns", kOptions, in);
  EXPECT_EQ(out.model.graph.nodes.size(), 3U);
}

TEST(FuseAttention, ALaterOpsetThanAllowedIsReported) {
  const PassResult out = RunStep("fuse_patterns", {{"op_types", {"Attention"}}, {"opset_max", 21}},
                                 Spelt(kSpellings[0]));
  EXPECT_EQ(out.model.Opset(""), 13);
  EXPECT_THAT(SkippedReason(out.report, "MatMul last"), HasSubstr("needs opset 23"));
}

TEST(FuseAttention, ExcludedOnesStay) {
  Json options = kOptions;
  options["exclude"] = {"last"};
  const PassResult out = RunStep("fuse_patterns", options, Spelt(kSpellings[0]));
  EXPECT_THAT(SkippedReason(out.report, "MatMul last"), Eq("excluded"));
  EXPECT_EQ(out.model.Opset(""), 13);
}

}  // namespace
}  // namespace pared
