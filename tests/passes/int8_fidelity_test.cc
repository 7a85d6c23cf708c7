#include "passes/int8_fidelity.h"

#include <gmock/gmock.h>

#include "tests/testing/models.h"

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

TEST(JudgedValues, OtherwiseTheOutputsThemselves) {
  EXPECT_THAT(Judged("g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Relu(x) z = Exp(y) }"),
              ElementsAre("y", "z"));
}

}  // namespace
}  // namespace pared
