#include "passes/growth.h"

#include <gmock/gmock.h>

#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A weight that two products read.
Model Shared() {
  return WithInitializer(ModelFromText(R"(g (float[N,64] x) => (float[N,64] y) <float[1] w = {0}>
    { [one] a = MatMul(x, w) r = Relu(a) [two] y = MatMul(r, w) })"),
                         "w", Random(1).Normal({64, 64}, 0.2f));
}

TEST(Growth, AFloatCopyBesideTheCodesIsToldWithItsSize) {
  const Model model = Shared();
  const Dataset data = Dataset::Of("rows", {{"x", Random(2).Normal({8, 64}, 1)}});
  const PassResult out = RunStep("quantize_int8", {{"exclude", {"two"}}}, model, &data);
  const std::string warnings = out.report.at("warnings").dump();
  EXPECT_THAT(warnings, HasSubstr("\\\"w\\\") are stored in INT8 and in float"));
  EXPECT_THAT(warnings, HasSubstr("16384 bytes"));
  EXPECT_THAT(warnings, HasSubstr("the file grows"));
  const PassResult whole = RunStep("quantize_int8", Json::object(), model, &data);
  EXPECT_EQ(whole.report.value("warnings", Json()).dump().find("are stored in INT8 and"),
            std::string::npos);
}

TEST(Growth, ByAboutTheBytesOfTheFile) {
  const Model small = ModelFromText("g (float[4] x) => (float[4] y) { y = Relu(x) }");
  const Model large = ModelFromText(
      "g (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}> { a = Mul(x, w) "
      "b = LeakyRelu <alpha = 0.5> (a) c = Cast <to = 10> (b) d = Cast <to = 1> (c) y = Relu(d) }");
  const int64_t want = std::ssize(SerializeOnnx(large)) - std::ssize(SerializeOnnx(small));
  const int64_t got = BytesOf(large.graph) - BytesOf(small.graph);
  EXPECT_NEAR(static_cast<double>(got), static_cast<double>(want), 0.2 * static_cast<double>(want));
}

TEST(MergeNewConstants, LeavesOneOfThoseThatAreEqual) {
  const Model before = ModelFromText(
      "g (float[2] x) => (float[2] y) <float[2] old = {1,2}, float[2] same = {1,2}> "
      "{ a = Add(x, old) y = Add(a, same) }");
  Model after = ModelFromText(R"(g (bool q, float[2] x) => (float[1,2] y)
    <float[2] old = {1,2}, float[2] same = {1,2}, float[1,2] p = {3,4}, float[1,2] r = {3,4}, float[2] t = {3,4},
     float[2] s = {3,4}>
    { a = Add(x, old) b = Add(a, same) c = Add(b, p) i = Add(c, s) d = Sub(i, t)
      y = If(q) <then_branch = v () => (float[1,2] e) { e = Mul(d, r) },
                 else_branch = w () => (float[1,2] f) { f = Neg(d) }> })");
  MergeNewConstants(before.graph, after.graph);
  std::vector<std::string> names;
  for (const auto& [name, initializer] : after.graph.initializers) names.push_back(name);
  EXPECT_THAT(names, ElementsAre("old", "same", "p", "t", "s"));
  Verify(after);
  const Tensor x = Tensor::Make<float>({2}, {1, 1});
  EXPECT_THAT(Output(after, {Tensor::Scalar<bool>(true), x}), ElementsAre(18, 36));
}

}  // namespace
}  // namespace pared
