#include "model/graph.h"

#include <gtest/gtest.h>

#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> OpTypes(const Graph& graph) {
  std::vector<std::string> types;
  for (const Node& node : graph.nodes) types.push_back(node.op_type);
  return types;
}

TEST(NamedList, KeepsTheOrderOfInsertion) {
  NamedList<int> list;
  list.set("b", 1);
  list.set("a", 2);
  list.set("b", 3);
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list.begin()->first, "b");
  EXPECT_EQ(list.at("b"), 3);
  list.erase_if([](const std::string& name, int) { return name == "b"; });
  EXPECT_EQ(list.find("b"), nullptr);
  EXPECT_EQ(list.at("a"), 2);
}

TEST(Node, AccessorsNameTheNodeWhereTheTypeIsWrong) {
  const Model m = ParseText("g (float x) => (float y) { [n] y = Foo <a = 1, f = 2.5> (x) }");
  const Node& node = m.graph.nodes[0];
  EXPECT_EQ(node.Int("absent", 7), 7);
  EXPECT_EQ(node.TensorOf("absent"), nullptr);
  EXPECT_EQ(node.GraphOf("absent"), nullptr);
  EXPECT_THAT(node.Ints("absent", {1}), ElementsAre(1));
  EXPECT_THAT([&] { node.Float("a", 0); },
              ThrowsError(ErrorCode::kInvalidArgument, "Foo n", HasSubstr("attribute a")));
  EXPECT_THAT([&] { node.Int("f", 0); }, ThrowsError(ErrorCode::kInvalidArgument, "Foo n"));
  EXPECT_THAT([&] { node.GraphOf("a"); }, ThrowsError(ErrorCode::kInvalidArgument, "Foo n"));
}

TEST(SortNodes, PutsProducersFirstAndKeepsTheRest) {
  Model m = ParseText(R"(g (float x) => (float y) {
    y = Add(b, c)  c = Abs(a)  z = Neg(x)  a = Relu(x)  b = Sqrt(x) })");
  SortNodes(m.graph);
  EXPECT_THAT(OpTypes(m.graph), ElementsAre("Neg", "Relu", "Abs", "Sqrt", "Add"));
  Verify(m);
}

TEST(SortNodes, LeavesAGraphInOrderAlone) {
  Model m = ParseText("g (float x) => (float c) { b = Abs(x) a = Neg(x) c = Add(a, b) }");
  SortNodes(m.graph);
  EXPECT_THAT(OpTypes(m.graph), ElementsAre("Abs", "Neg", "Add"));
}

TEST(SortNodes, CountsWhatSubgraphsCapture) {
  Model m = ParseText(R"(g (bool c, float x) => (float y) {
    y = If (c) <then_branch = t () => (float p) { p = Abs(q) q = Neg(a) },
                else_branch = e () => (float r) { r = Neg(x) }>
    a = Relu(x) })");
  SortNodes(m.graph);
  EXPECT_THAT(OpTypes(m.graph), ElementsAre("Relu", "If"));
  EXPECT_THAT(OpTypes(*m.graph.nodes[1].GraphOf("then_branch")), ElementsAre("Neg", "Abs"));
  Verify(m);
}

TEST(SortNodes, NamesANodeOfACycle) {
  Model m = ParseText("g (float x) => (float y) { [p] a = Add(x, b) [q] b = Neg(a) y = Abs(x) }");
  EXPECT_THAT([&] { SortNodes(m.graph); },
              ThrowsError(ErrorCode::kInvalidArgument, "Add p", HasSubstr("cycle")));
}

TEST(SortNodes, RefusesANodeThatReadsItself) {
  Model m = ParseText("g () => (float y) { y = Neg(y) }");
  EXPECT_THAT([&] { SortNodes(m.graph); },
              ThrowsError(ErrorCode::kInvalidArgument, "Neg producing y"));
}

TEST(SortNodes, SortsAHundredThousandNodes) {
  Model m;
  for (int i = 100000; i > 0; --i) {
    Node node;
    node.op_type = "Neg";
    node.inputs = {"v" + std::to_string(i - 1)};
    node.outputs = {"v" + std::to_string(i)};
    m.graph.nodes.push_back(std::move(node));
  }
  SortNodes(m.graph);
  EXPECT_EQ(m.graph.nodes.front().inputs[0], "v0");
  EXPECT_EQ(m.graph.nodes.back().outputs[0], "v100000");
}

void ExpectRefused(const char* text, const std::string& where) {
  const Model m = ParseText(text);
  EXPECT_THAT([&] { Verify(m); }, ThrowsError(ErrorCode::kInvalidArgument, where)) << text;
}

TEST(Verify, RefusesANameAssignedTwice) {
  ExpectRefused("g (float x) => (float y) { y = Abs(x) y = Neg(x) }", "y");
  ExpectRefused("g (float x) => (float y) { x = Abs(x) y = Neg(x) }", "x");
  ExpectRefused("g (float x, float x) => (float y) { y = Neg(x) }", "x");
  ExpectRefused("g (float x) => (float y) <float w = {1}> { w = Abs(x) y = Neg(x) }", "w");
}

TEST(Verify, RefusesANameThatNothingAssignsBefore) {
  ExpectRefused("g (float x) => (float y) { y = Abs(z) }", "Abs producing y");
  ExpectRefused("g (float x) => (float y) { [n] y = Abs(z) z = Neg(x) }", "Abs n");
  ExpectRefused("g (float x) => (float nowhere) { y = Abs(x) }", "nowhere");
}

TEST(Verify, RefusesADomainWithoutOpset) {
  ExpectRefused("g (float x) => (float y) { y = com.acme.Odd(x) }", "Odd producing y");
}

TEST(Verify, LetsSubgraphsReadOuterNamesButNotLaterOnes) {
  Verify(ParseText(R"(g (bool c, float x) => (float y) {
    a = Neg(x)
    y = If (c) <then_branch = t () => (float p) { p = Abs(a) },
                else_branch = e () => (float p) { p = Neg(x) }> })"));
  ExpectRefused(R"(g (bool c, float x) => (float y) {
    y = If (c) <then_branch = t () => (float p) { p = Abs(a) },
                else_branch = e () => (float p) { p = Neg(x) }>
    a = Neg(x) })",
                "Abs producing p");
}

TEST(Verify, AllowsInputsWithDefaults) {
  Verify(ParseText("g (float x, float w = {2}) => (float y) { y = Mul(x, w) }"));
}

TEST(Verify, ChecksFunctions) {
  ExpectRefused(R"(<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
    g (float x) => (float y) { y = f.F(x) }
    <domain: "f", opset_import: ["" : 17]> F (a) => (b) { b = Neg(c) })",
                "Neg producing b");
  ExpectRefused(R"(<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
    g (float x) => (float y) { y = f.F(x) }
    <domain: "f", opset_import: ["" : 17]> F (a) => (b) { c = Neg(a) })",
                "function F");
}

Model WithSparse(SparseTensor sparse) {
  Model m = ParseText("g (float[2,3] x) => (float[2,3] y) { y = Add(x, w) }");
  m.graph.sparse_initializers.set("w", std::move(sparse));
  return m;
}

SparseTensor Coo(Tensor indices) {
  SparseTensor sparse;
  sparse.values = Tensor::Make<float>({2}, {1, 2});
  sparse.indices = std::move(indices);
  sparse.dims = {2, 3};
  return sparse;
}

TEST(Verify, ChecksSparseInitializers) {
  Verify(WithSparse(Coo(Tensor::Make<int64_t>({2}, {0, 5}))));
  Verify(WithSparse(Coo(Tensor::Make<int64_t>({2, 2}, {0, 0, 1, 2}))));
  const auto refused = [](Tensor indices) {
    EXPECT_THAT([&] { Verify(WithSparse(Coo(indices))); },
                ThrowsError(ErrorCode::kInvalidArgument, "w"));
  };
  refused(Tensor::Make<int64_t>({2}, {0, 6}));
  refused(Tensor::Make<int64_t>({2}, {-1, 5}));
  refused(Tensor::Make<int64_t>({3}, {0, 1, 2}));
  refused(Tensor::Make<int64_t>({2, 2}, {0, 0, 1, 3}));
  refused(Tensor::Make<int64_t>({2, 3}, {0, 0, 0, 0, 0, 0}));
  refused(Tensor::Make<int32_t>({2}, {0, 1}));
}

TEST(GraphIndex, KnowsProducersAndConsumersWithCaptures) {
  const Model m = ModelFromText(R"(g (bool c, float x) => (float y, float a) {
    a = Neg(x)
    b = Mul(a, a)
    y = If (c) <then_branch = t () => (float p) { p = Abs(a) },
                else_branch = e () => (float p) { p = Neg(b) }> })");
  const GraphIndex index(m.graph);
  EXPECT_EQ(index.producer("a"), &m.graph.nodes[0]);
  EXPECT_EQ(index.producer("x"), nullptr);
  EXPECT_EQ(index.producer("p"), nullptr);
  EXPECT_THAT(index.consumers("a"), ElementsAre(&m.graph.nodes[1], &m.graph.nodes[2]));
  EXPECT_THAT(index.consumers("b"), ElementsAre(&m.graph.nodes[2]));
  EXPECT_TRUE(index.consumers("nobody").empty());
  EXPECT_TRUE(index.is_output("a"));
  EXPECT_FALSE(index.is_output("b"));
}

TEST(CapturedNames, LooksThroughNestedSubgraphs) {
  const Model m = ParseText(R"(g (float i) => (float y) <float w = {1}> {
    y = If (c) <then_branch = t () => (float p) {
      l = Neg(o1)
      p = If (l) <then_branch = u () => (float q) { q = Add(l, o2) },
                  else_branch = v () => (float q) { q = Add(o1, w) }> }>
    z = Neg(i) })");
  EXPECT_THAT(CapturedNames(m.graph), ElementsAre("c", "o1", "o2"));
}

TEST(ConstantOf, SeesInitializersAndConstantNodes) {
  const Model m = ModelFromText(R"(g (float x, float d = {3}) => (float y) <float w = {1}> {
    k = Constant <value = float {2}> ()
    n = Neg(w)
    y = Sum(x, d, w, k, n) })");
  const GraphIndex index(m.graph);
  EXPECT_EQ(ConstantOf(m.graph, index, "w", 8)->data<float>()[0], 1);
  EXPECT_EQ(ConstantOf(m.graph, index, "k", 8)->data<float>()[0], 2);
  EXPECT_EQ(ConstantOf(m.graph, index, "n", 8), nullptr);
  EXPECT_EQ(ConstantOf(m.graph, index, "x", 8), nullptr);
  // From IR version 4 on an initializer among the inputs is a default that callers may override.
  EXPECT_EQ(ConstantOf(m.graph, index, "d", 4), nullptr);
  EXPECT_EQ(ConstantOf(m.graph, index, "d", 3)->data<float>()[0], 3);
}

}  // namespace
}  // namespace pared
