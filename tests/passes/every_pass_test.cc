// What holds after every pass, whatever the graph: tests/faults.md says which fault each graph is
// made of. The model is in order, its types infer, it reads back, runs, and computes what it did;
// inputs, outputs, metadata and domains are those of before; names are unique; what was asked for
// and not done is in the report; the bytes do not depend on the number of threads; neither the
// names that the pass makes up nor the size of a free axis matter.

#include <gmock/gmock.h>

#include "model/onnx.h"
#include "tests/passes/made_model.h"
#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

struct GraphCase {
  const char* name;
  const char* text;
  std::vector<std::pair<std::string, Shape>> weights = {};  // random
};

void PrintTo(const GraphCase& graph, std::ostream* os) { *os << graph.name; }

class EveryPass : public ::testing::TestWithParam<GraphCase> {
 protected:
  // What the worst output must have on the samples of the calibration.
  static double LeastDb(const std::string& pass) { return pass.ends_with("prune") ? -20 : 25; }

  // Nothing: the pass refuses the model, naming what would be right.
  static std::optional<PassResult> Try(const std::string& name, const Model& in, int64_t threads) {
    Json options = name.ends_with("prune") ? Json{{"sparsity", 0.3}} : Json::object();
    if (name == "channel_prune") options["multiple_of"] = 1;
    const Dataset data = Samples(in);
    try {
      return RunStep(name, options, in, &data, threads);
    } catch (const Error& error) {
      // Only that there is nothing for it to do.
      EXPECT_THAT(error.message(), ::testing::HasSubstr("no ")) << error.what();
      return std::nullopt;
    }
  }
};

TEST_P(EveryPass, KeepsWhatTheGraphPromises) {
  const Model in = Made(GetParam().text, GetParam().weights);
  for (const PassInfo* pass : Passes()) {
    const std::string name(pass->name);
    SCOPED_TRACE(name);
    const std::optional<PassResult> result = Try(name, in, 1);
    if (!result) continue;
    const Model& out = result->model;
    ExpectSameInterface(in, out);
    ExpectUniqueNames(out);
    ExpectReported(in, name, result->report);
    ExpectFollowed(in, out);
    const auto bytes = std::make_shared<const std::string>(SerializeOnnx(out));
    const Model reread = ParseOnnx(std::as_bytes(std::span(*bytes)), bytes);
    EXPECT_LT(bytes->size(), 2 * SerializeOnnx(in).size() + 4096) << "the file is inflated";
    EXPECT_GT(WorstSqnrDb(in, reread), LeastDb(name));
    if (name != "fix_shapes") {  // its axes are no longer free
      EXPECT_GT(WorstSqnrDb(in, reread, 3), LeastDb(name) - 10) << "with free axes of 3";
    }
    EXPECT_EQ(SerializeOnnx(Try(name, in, 2)->model), *bytes) << "with 2 threads";
    EXPECT_EQ(SerializeOnnx(Try(name, in, 8)->model), *bytes) << "with 8 threads";
  }
}

// The model with a node and an output more for each of the names.
Model WithNames(Model model, const std::set<std::string>& names) {
  const ValueInfo input = CallerInputs(model.graph).at(0);
  for (const std::string& name : names) {
    Node node;
    node.op_type = input.dtype == DType::kBool ? "Not" : "Neg";
    node.name = name;
    node.inputs = {input.name};
    node.outputs = {name};
    model.graph.nodes.push_back(std::move(node));
    ValueInfo output = input;
    output.name = name;
    model.graph.outputs.push_back(std::move(output));
  }
  Verify(model);
  return model;
}

TEST_P(EveryPass, MakesUpNamesThatAreFree) {
  const Model in = Made(GetParam().text, GetParam().weights);
  const std::set<std::string> before = NamesOf(in);
  for (const PassInfo* pass : Passes()) {
    const std::string name(pass->name);
    SCOPED_TRACE(name);
    const std::optional<PassResult> result = Try(name, in, 1);
    if (!result) continue;
    std::set<std::string> made;
    std::ranges::set_difference(NamesOf(result->model), before, std::inserter(made, made.end()));
    if (made.empty()) continue;
    const Model taken = WithNames(in, made);
    const std::optional<PassResult> again = Try(name, taken, 1);
    ASSERT_TRUE(again);
    ExpectUniqueNames(again->model);
    ExpectSameInterface(taken, again->model);
    EXPECT_GT(WorstSqnrDb(taken, again->model), LeastDb(name));
  }
}

const GraphCase kGraphs[] = {
    // Every name that a pass could make up is taken.
    {"CollidingNames",
     R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
     { w_quantized = Conv(x, w, b) w_scale = Relu(w_quantized) x_fp16 = Conv(w_scale, w, b)
       b_quantized = Add(x_fp16, x) w_zero_point = Conv(b_quantized, v) x_quantized = Neg(w_zero_point)
       x_scale = Neg(x_quantized) x_dequantized = Exp(x_scale) y = Mul(x_dequantized, x) })",
     {{"w", {2, 2, 1, 1}}, {"b", {2}}, {"v", {2, 2, 1, 1}}}},
    {"UnnamedNodes",
     R"(g (float[2,4] x, float[2,4] a) => (float[2,4] y, float[2,4] z)
     { m = Mul(x, a) s = Add(x, a) y = MatMul(m, w) z = MatMul(s, w) })",
     {{"w", {4, 4}}}},
    {"UnnamedNodesThatAreFolded",
     R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2] one = {1,2}, float[2] zero = {0,0.5}>
     { c = Conv(x, w) n = BatchNormalization(c, one, zero, zero, one) r = Relu(n)
       d = Conv(r, v) y = BatchNormalization(d, one, zero, zero, one) })",
     {{"w", {2, 2, 1, 1}}, {"v", {2, 2, 1, 1}}}},
    {"WeightsInHalf",
     R"(g (float16[2,8] x) => (float16[2,8] y, float[2,8] z) <float16[8] b = {1,2,3,4,5,6,7,8}>
     { [a] m = Cast <to = 10> (w) [p] h = MatMul(x, m) s = Add(h, b) [r] t = Relu(s) y = MatMul(t, m)
       f = Cast <to = 1> (y) z = MatMul(f, w) })",
     {{"w", {8, 8}}}},
    {"PadsWithoutValue",
     R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y) <int64[8] p = {0,0,1,1,0,0,1,1}, float k = {200}>
     { a = Pad(x, p) c = Conv(a, w) s = Mul(c, k) b = Pad(s, p) y = Conv(b, v) })",
     {{"w", {2, 2, 3, 3}}, {"v", {2, 2, 3, 3}}}},
    {"DecomposedLayerNorm",
     R"(g (float[1,3,8] x) => (float[1,3,4] y) <float two = {2}, float e = {1e-5}>
     { h = MatMul(x, u) m = ReduceMean <axes = [-1]> (h) c = Sub(h, m) q = Pow(c, two)
       v = ReduceMean <axes = [-1]> (q) t = Add(v, e) s = Sqrt(t) n = Div(c, s) g1 = Mul(n, gamma)
       o = Add(g1, beta) y = MatMul(o, w) })",
     {{"u", {8, 8}}, {"w", {8, 4}}, {"gamma", {8}}, {"beta", {8}}}},
    {"WeightsThroughOtherNodes",
     R"(g (float[2,4] x) => (float[2,4] a, float[2,4] b, float[2,4] c, float[2,4] d, float[1,2,4] e)
     <int64[2] s = {4, 4}, int64[1] zero = {0}>
     { k = Constant <value = float[4,4] {1,2,3,4,-1,5,2,7,8,-3,1,2,4,4,6,-2}> () a = MatMul(x, k)
       i = Identity(w1) b = MatMul(x, i) t = Transpose <perm = [1, 0]> (w2) c = MatMul(x, t)
       r = Reshape(w3, s) d = MatMul(x, r) u = Unsqueeze(w4, zero) e = MatMul(x, u) })",
     {{"w1", {4, 4}}, {"w2", {4, 4}}, {"w3", {2, 8}}, {"w4", {4, 4}}}},
    {"SharedWeight",
     R"(g (float[2,4] x) => (float[2,4] y, float[4,4] z)
     { h = MatMul(x, w) y = Gemm <transB = 1> (h, w) z = Relu(w) })",
     {{"w", {4, 4}}}},
    {"TiedEmbedding",
     R"(g (int64[3] ids) => (float[3,5] y)
     { e = Gather(table, ids) h = MatMul(e, w) t = Transpose <perm = [1, 0]> (table) y = MatMul(h, t) })",
     {{"table", {5, 4}}, {"w", {4, 4}}}},
    {"SharedBias",
     R"(g (float[2,4] x) => (float[2,4] y) <float k = {50}>
     { h = Gemm(x, v, b) s = Mul(h, k) y = Gemm(s, w, b) })",
     {{"v", {4, 4}}, {"w", {4, 4}}, {"b", {4}}}},
    {"BiasOfOneRow",
     R"(g (float[3,4] x) => (float[3,4] y) { y = Gemm(x, w, b) })",
     {{"w", {4, 4}}, {"b", {1, 4}}}},
    {"BiasOfOneElement",
     R"(g (float[3,4] x) => (float[3,4] y) { y = Gemm <beta = 0.5> (x, w, b) })",
     {{"w", {4, 4}}, {"b", {1}}}},
    {"InitializersAsInputs",
     R"(<ir_version: 3, opset_import: ["" : 9]>
     g (float[1,2,4,4] x, float[2,2,1,1] w, float[2] b) => (float[1,2,4,4] y) { y = Conv(x, w, b) })",
     {{"w", {2, 2, 1, 1}}, {"b", {2}}}},
    {"IfCapturesAWeight",
     R"(g (bool c, float[2,4] x) => (float[2,4] y) {
       h = MatMul(x, v)
       y = If (c) <then_branch = t () => (float[2,4] p) { p = MatMul(h, w) },
                   else_branch = e () => (float[2,4] q) { r = Exp(x) q = MatMul(r, w) }> })",
     {{"w", {4, 4}}, {"v", {4, 4}}}},
    {"LoopCarriesState",
     R"(g (float[2,4] x) => (float[2,4] y) <int64 n = {3}> {
       y = Loop (n, , x) <body = b (int64 i, bool c, float[2,4] s) => (bool d, float[2,4] o)
         { d = Identity(c) m = MatMul(s, w) o = Tanh(m) }> })",
     {{"w", {4, 4}}}},
    {"ScanOverRows",
     R"(g (float[4] x, float[3,4] rows) => (float[4] y, float[3,4] all) {
       y, all = Scan <num_scan_inputs = 1,
         body = b (float[4] s, float[4] r) => (float[4] o, float[4] t)
         { a = Add(s, r) o = MatMul(a, w) t = Identity(o) }> (x, rows) })",
     {{"w", {4, 4}}}},
    {"LocalFunction",
     R"(<opset_import: ["" : 17, "local" : 1]> g (float[2,4] x) => (float[2,4] y)
     { h = local.Product(x, w) y = MatMul(h, v) }
     <domain: "local", opset_import: ["" : 17]> Product (a, b) => (o) { [inner] m = MatMul(a, b) [last] o = Exp(m) })",
     {{"w", {4, 4}}, {"v", {4, 4}}}},
    {"OutputReadInside",
     R"(g (float[2,4] x) => (float[2,4] a, float[2,4] y, float[2,4] z)
     { a = MatMul(x, w) y = MatMul(a, v) z = Relu(a) })",
     {{"w", {4, 4}}, {"v", {4, 4}}}},
    {"ResizeWithSizes",
     R"(g (float[1,2,4,4] x) => (float[1,2,8,8] y) <int64[4] s = {1,2,8,8}>
     { c = Conv(x, w) r = Resize <mode = "nearest"> (c, , , s) y = Conv(r, v) })",
     {{"w", {2, 2, 1, 1}}, {"v", {2, 2, 1, 1}}}},
    {"ResizeWithScales",
     R"(g (float[1,2,4,4] x) => (float[1,2,8,8] y) <float[4] s = {1,1,2,2}>
     { c = Conv(x, w) y = Resize <mode = "linear"> (c, , s) })",
     {{"w", {2, 2, 1, 1}}}},
    {"EmptyAndScalarTensors",
     R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[1,0,4,4] none = {}, float k = {0.5}>
     { c = Conv(x, w) j = Concat <axis = 1> (c, none) s = Mul(j, k) y = Conv(s, v) })",
     {{"w", {2, 2, 1, 1}}, {"v", {2, 2, 1, 1}}}},
    {"OtherDomainsAndMetadata",
     R"(<opset_import: ["" : 17, "ai.onnx.ml" : 3, "of.mine" : 1], metadata_props: ["names" : "a,b", "stride" : "32"]>
     g (float[2,4] x) => (float[2,4] y) { y = MatMul(x, w) })",
     {{"w", {4, 4}}}},
    {"OldOpset",
     R"(<ir_version: 4, opset_import: ["" : 9]>
     g (float[1,2,4,4] x) => (float[1,2,6,8] y) <float[4] s = {1,1,2,2}, float[2] m = {0,0}, float[2] v1 = {1,2}>
     { [first] c = Conv(x, w) n = BatchNormalization(c, g1, b, m, v1) r = Clip <min = 0.0, max = 6.0> (n)
       u = Upsample <mode = "nearest"> (r, s) k = Slice <axes = [2], starts = [1], ends = [-1]> (u)
       y = Conv(k, v) })",
     {{"w", {2, 2, 1, 1}}, {"v", {2, 2, 1, 1}}, {"g1", {2}}, {"b", {2}}}},
    {"ConcatOfOne",
     R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
     { c = Conv(x, w) j = Concat <axis = 1> (c) y = Conv(j, v) })",
     {{"w", {2, 2, 1, 1}}, {"v", {2, 2, 1, 1}}}},
    {"TwoEdgesBetweenTwoNodes",
     R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
     { a = Conv(x, w) s = Mul(a, a) d = Add(s, s) y = Conv(d, v) })",
     {{"w", {2, 2, 1, 1}}, {"v", {2, 2, 1, 1}}}},
    {"BatchOfUnknownSize",
     R"(g (float[N,2,2,2] x) => (float[N,4] y) <int64[1] zero = {0}, int64[1] rest = {-1}>
     { c = Conv(x, w) s = Shape(c) n = Gather(s, zero) t = Concat <axis = 0> (n, rest)
       r = Reshape(c, t) y = MatMul(r, v) })",
     {{"w", {2, 2, 1, 1}}, {"v", {8, 4}}}},
    {"FillsThatAreLarge",
     R"(g (float[1,4] x) => (float[1,4] y) <int64[2] s = {1024, 4}, int64[1] zero = {0}>
     { m = MatMul(x, w) k = ConstantOfShape <value = float[1] {0.5}> (s) f = ReduceMean <axes = [0]> (k)
       y = Add(m, f) })",
     {{"w", {4, 4}}}},
    {"TransposedConvolutionInGroups",
     R"(g (float[1,4,3,3] x) => (float[1,6,5,5] y) { y = ConvTranspose <group = 2> (x, w, b) })",
     {{"w", {4, 3, 3, 3}}, {"b", {6}}}},
    {"DepthwiseAndGrouped",
     R"(g (float[1,4,4,4] x) => (float[1,4,4,4] y)
     { d = Conv <group = 4, pads = [1,1,1,1]> (x, w) r = Relu(d) y = Conv <group = 2> (r, v, b) })",
     {{"w", {4, 1, 3, 3}}, {"v", {4, 2, 1, 1}}, {"b", {4}}}},
    {"WeightOnTheLeft",
     R"(g (float[4,3] x) => (float[4,3] y, float[4,3] z)
     { y = MatMul(w, x) z = Gemm <transA = 1> (v, x) })",
     {{"w", {4, 4}}, {"v", {4, 4}}}},
    {"RecurrentLayers",
     R"(g (float[3,1,4] x) => (float[3,1,1,2] a, float[3,1,1,2] b)
     { a = GRU <hidden_size = 2> (x, w, r) b = LSTM <hidden_size = 2> (x, u, s) })",
     {{"w", {1, 6, 4}}, {"r", {1, 6, 2}}, {"u", {1, 8, 4}}, {"s", {1, 8, 2}}}},
    {"RecurrentLayersBeforeAProduct",
     R"(g (float[3,N,4] x) => (float[3,N,5] y) <int64[1] one = {1}>
     { [gates] a = GRU <hidden_size = 2> (x, w, r) q = Squeeze(a, one) [head] y = MatMul(q, v) })",
     {{"w", {1, 6, 4}}, {"r", {1, 6, 2}}, {"v", {2, 5}}}},
    {"OneWeightOfTwoOperators",
     R"(g (float[N,4,3,3] x) => (float[N,6,3,3] y, float[N,3,3,6] z) <int64[2] s = {6,4}>
     { y = Conv(x, w) r = Reshape(w, s) t = Transpose <perm = [1,0]> (r)
       p = Transpose <perm = [0,2,3,1]> (x) z = MatMul(p, t) })",
     {{"w", {6, 4, 1, 1}}}},
    {"SharedWeightIsABiasToo",
     R"(g (float[N,4] x) => (float[N,4] y, float[N,4] z) <int64[1] four = {4}>
     { h = Gemm(x, w, b) r = Reshape(b, four) y = Add(h, r) z = Mul(h, b) })",
     {{"w", {4, 4}}, {"b", {4}}}},
    {"IfWithinIf",
     R"(g (bool c, float[N,6] x) => (float[N,6] y) {
       h = Relu(x)
       y = If (c) <then_branch = t () => (float[N,6] p) {
                     n = Not(c)
                     p = If (n) <then_branch = tt () => (float[N,6] p1) { p1 = MatMul(h, w) },
                                 else_branch = te () => (float[N,6] p2) { k = Tanh(x) p2 = MatMul(k, w) }> },
                   else_branch = e () => (float[N,6] q) { q = Identity(h) }> })",
     {{"w", {6, 6}}}},
    {"LoopThatCollects",
     R"(g (float[N,4] x) => (float[N,4] y, float[3,N,4] all) <int64 n = {3}, bool yes = {1}> {
       h = Sigmoid(x)
       y, all = Loop (n, yes, h) <body = b (int64 i, bool c, float[N,4] s) => (bool d, float[N,4] o, float[N,4] t)
         { d = Identity(c) f = Cast <to = 1> (i) m = Add(s, f) o = Tanh(m) t = Add(o, h) }> })",
     {}},
    {"ConvolutionsOfOneAndThreeAxes",
     R"(g (float[N,3,8] x) => (float[N,4,8] y, float[N,2,2,2,2] z) <int64[5] s = {-1,3,2,2,2}>
     { c = Conv <pads = [1,1]> (x, w, b) r = Relu(c) y = Conv(r, v) t = Reshape(x, s) z = Conv(t, u) })",
     {{"w", {4, 3, 3}}, {"b", {4}}, {"v", {4, 4, 1}}, {"u", {2, 3, 1, 1, 1}}}},
    {"BiasOfOneColumn",
     R"(g (float[3,4] x) => (float[3,4] y, float[3,4] z) <float k = {0.25}>
     { h = Gemm <alpha = 0.5> (x, w, b) r = Relu(h) y = Gemm(r, v, k) z = Gemm(r, v, f) })",
     {{"w", {4, 4}}, {"b", {3, 1}}, {"v", {4, 4}}, {"f", {3, 4}}}},
    {"MeanOfANormalizationIsRead",
     R"(g (float[N,3,6] x) => (float[N,3,6] y, float[N,3,1] m)
     { n, m, d = LayerNormalization(x, s, b) k = Mul(n, d) a = Add(k, m) y = MatMul(a, w) })",
     {{"s", {6}}, {"b", {6}}, {"w", {6, 6}}}},
    {"WeightIsAnOutputToo",
     R"(g (float[N,4] x) => (float[N,4] y, float[4,4] z, float[4] s) <int64[1] zero = {0}>
     { y = MatMul(x, w) z = Identity(w) s = ReduceSum <keepdims = 0> (w, zero) })",
     {{"w", {4, 4}}}},
    {"DimensionsThatAreComputedWith",
     R"(g (float[N,3,4,4] x) => (float[N,4] y) <int64[1] zero = {0}, int64[1] rest = {-1}, int64 first = {0}>
     { c = Conv(x, w) s = Shape(c) n = Gather(s, zero) t = Concat <axis = 0> (n, rest) r = Reshape(c, t)
       m = MatMul(r, v) q = Shape(x) d = Gather(q, first) f = Cast <to = 1> (d) y = Div(m, f) })",
     {{"w", {2, 3, 1, 1}}, {"v", {32, 4}}}},
    {"HeadOfADetector",
     R"(g (float[1,3,8,8] x) => (float[1,6,64] y) <int64[4] s = {1,4,16,64}, int64[3] four = {1,4,64},
       int64[3] two = {1,2,64}, int64[1] n0 = {0}, int64[1] n1 = {1}, int64[1] n2 = {2}, int64[1] n4 = {4},
       float half = {2}, float stride = {32},
       float[1,16,1,1] bins = {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}>
     { f = Conv <pads = [1,1,1,1]> (x, w0, b0) g0 = Sigmoid(f) f2 = Mul(f, g0)
       bx = Conv(f2, wb, bb) cl = Conv(f2, wc)
       b1 = Reshape(bx, s) b2 = Transpose <perm = [0,2,1,3]> (b1) b3 = Softmax <axis = 1> (b2)
       b4 = Conv(b3, bins) b5 = Reshape(b4, four)
       lt = Slice(b5, n0, n2, n1) rb = Slice(b5, n2, n4, n1) lo = Sub(anchor, lt) hi = Add(anchor, rb)
       sum = Add(lo, hi) mid = Div(sum, half) wh = Sub(hi, lo) box = Concat <axis = 1> (mid, wh)
       boxes = Mul(box, stride) c1 = Reshape(cl, two) scores = Sigmoid(c1)
       y = Concat <axis = 1> (boxes, scores) })",
     {{"w0", {16, 3, 3, 3}},
      {"b0", {16}},
      {"wb", {64, 16, 1, 1}},
      {"bb", {64}},
      {"wc", {2, 16, 1, 1}},
      {"anchor", {1, 2, 64}}}},
};

INSTANTIATE_TEST_SUITE_P(Graphs, EveryPass, ::testing::ValuesIn(kGraphs),
                         [](const auto& named) { return std::string(named.param.name); });

// As onnxruntime writes a model that it has optimized.
TEST(FusedOperators, TheirWeightsAreReported) {
  Model in = ParseText(R"(<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[1,3,6,6] x) => (float[1,4,6,3] y) {
      a = com.microsoft.FusedConv <activation = "Relu"> (x, w) b = com.microsoft.Gelu(a) y = MatMul(b, v) })");
  in = WithInitializer(std::move(in), "w", Random(3).Normal({4, 3, 1, 1}, 1));
  in = WithInitializer(std::move(in), "v", Random(4).Normal({6, 3}, 1));
  const Dataset data = Dataset::Random(in.graph.inputs, 4, 1);
  for (const char* pass : {"magnitude_prune", "second_order_prune", "quantize_int8",
                           "quantize_dynamic", "quantize_weights"}) {
    const Json options =
        std::string(pass).ends_with("prune") ? Json{{"sparsity", 0.5}} : Json::object();
    const PassResult out = RunStep(pass, options, in, &data);
    EXPECT_THAT(SkippedReason(out.report, "FusedConv producing a"),
                testing::HasSubstr("before onnxruntime optimized it"))
        << pass;
    EXPECT_FALSE(out.report.at("changed").empty()) << pass;
  }
}

TEST(OpTypes, AnOperatorThatThePassDoesNotKnowIsRefused) {
  const Model in = ModelFromText(
      "g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1,2,3,4}> { y = MatMul(x, w) }");
  const Dataset data = Dataset::Random(in.graph.inputs, 4, 1);
  for (const char* pass : {"quantize_int8", "quantize_dynamic", "quantize_weights"}) {
    EXPECT_THAT(
        [&] {
          RunStep(pass, {{"op_types", {"Gemm", "Matmul"}}}, in, &data);
        },
        ThrowsError(ErrorCode::kInvalidArgument, "/op_types/1",
                    testing::HasSubstr("did you mean \"MatMul\"?")))
        << pass;
  }
}

TEST(QuantizedAlready, ProductsOfOtherFormsAreReported) {
  const Model in = ModelFromText(
      "g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1,2,3,4}> { y = MatMul(x, w) }");
  const Model quantized = RunStep("quantize_dynamic", {}, in).model;
  for (const char* pass : {"magnitude_prune", "channel_prune", "quantize_weights"}) {
    const Json options =
        std::string(pass).ends_with("prune") ? Json{{"sparsity", 0.5}} : Json::object();
    if (std::string(pass) == "quantize_weights") {
      EXPECT_THAT(
          [&] { RunStep(pass, options, quantized); },
          ThrowsError(ErrorCode::kInvalidArgument, "", testing::HasSubstr("quantized already")));
      continue;
    }
    const PassResult out = RunStep(pass, options, quantized);
    ASSERT_EQ(out.report.at("skipped").size(), 1u) << pass;
    EXPECT_EQ(out.report.at("skipped")[0].at("reason"), "it is quantized already") << pass;
  }
}

TEST(NothingToPrune, IsAWarning) {
  const Model in = ModelFromText("g (float[2] x) => (float[2] y) { y = Relu(x) }");
  for (const char* pass : {"magnitude_prune", "channel_prune"}) {
    const PassResult out = RunStep(pass, {{"sparsity", 0.5}}, in);
    EXPECT_THAT(out.report.at("warnings"),
                testing::Contains(testing::HasSubstr("no operator with weights")))
        << pass;
  }
}

}  // namespace
}  // namespace pared
