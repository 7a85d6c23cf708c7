// Least squares after pruning. Expected numbers are numpy's:
//   a = h[kept][:, kept] + lam * eye; w = solve(a, g[kept] + lam * w0[kept])
// with h = x.T @ x, g = h @ w0, lam = 0.01 * trace(h) / k.

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "evaluator/dataset.h"
#include "evaluator/npy.h"
#include "tests/passes/run_pass.h"

namespace pared {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

// A folder with one float input of shape [samples, k].
class Reconstruct : public testing::Test {
 protected:
  Dataset Data(Shape shape, std::vector<float> values) {
    folder_ = std::filesystem::temp_directory_path() /
              ("pared_reconstruct_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    SaveNpy(Tensor::Make(std::move(shape), std::move(values)), folder_ / "x.npy");
    std::ofstream(folder_ / "dataset.json") << R"({"inputs": {"x": "x.npy"}})";
    return Dataset::Open(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

constexpr const char* kSmallMatMul =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,4] x) => (float[1,1] y) "
    "<float[4,1] w = {1, 0.5, 2, 0.25}> { y = MatMul(x, w) }";

TEST_F(Reconstruct, FitsTheWeightsThatStayAsNumpyDoes) {
  const Dataset data = Data({3, 1, 4}, {1, 1, 0, 2, 2, 1, 1, 0, 0, 3, 1, 1});
  const PassResult result = RunPass("magnitude_prune", {{"sparsity", 0.5}, {"damping", 0.01}},
                                    ModelFromText(kSmallMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"),
              ElementsAre(FloatNear(0.939898f, 1e-4f), 0, FloatNear(3.151982f, 1e-4f), 0));
  EXPECT_EQ(result.report.at("reconstructed"), true);
}

// Of x = (a, b), h = sum of x x^T over all of them, lam = 0.01 * trace(h) / 2, what is left of
// a + b / 2 is (h00 + h01 / 2 + lam) / (h00 + lam) a.
TEST_F(Reconstruct, FitsAMatrixProductToEveryToken) {
  std::vector<float> x;
  double aa = 0, ab = 0, bb = 0;
  uint32_t random = 1;
  const auto draw = [&] {
    return static_cast<float>((random = random * 1664525 + 1013904223) >> 8);
  };
  for (int i = 0; i < 6000; ++i) {
    const float a = draw() / (1 << 23) - 1, b = a * a * a + draw() / (1 << 23) - 1;
    x.insert(x.end(), {a, b});
    aa += a * a;
    ab += a * b;
    bb += b * b;
  }
  const Dataset data = Data({2, 3000, 2}, x);
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,3000,2] x) => (float[1,3000,1] y) "
      "<float[2,1] w = {1, 0.5}> { y = MatMul(x, w) }");
  const PassResult result =
      RunPass("magnitude_prune", {{"sparsity", 0.5}, {"damping", 0.01}}, model, &data);
  const double lambda = 0.01 * (aa + bb) / 2;
  const double best = (aa + ab / 2 + lambda) / (aa + lambda);
  EXPECT_THAT(Elements(result.model, "w"),
              ElementsAre(FloatNear(static_cast<float>(best), 1e-4f), 0));
}

// What makes up for the last input on the first sample makes it worse on the second.
TEST_F(Reconstruct, LeavesWeightsAsTheyAreWhereTheOtherSamplesSayOtherwise) {
  const Dataset data = Data({2, 1, 4}, {1, 0, 0, 1, 1, 0, 0, -1});
  const PassResult result =
      RunPass("magnitude_prune", {{"sparsity", 0.5}}, ModelFromText(kSmallMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0, 2, 0));
  EXPECT_EQ(result.report.at("changed")[0].at("fitted"), false);
}

TEST_F(Reconstruct, LeavesWeightsAsTheyAreWhenTurnedOff) {
  const Dataset data = Data({3, 1, 4}, {1, 1, 0, 2, 2, 1, 1, 0, 0, 3, 1, 1});
  const PassResult result = RunPass("magnitude_prune", {{"sparsity", 0.5}, {"reconstruct", "off"}},
                                    ModelFromText(kSmallMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0, 2, 0));
}

TEST_F(Reconstruct, KeepsTheWeightOfAnInputThatIsAlwaysZero) {
  const Dataset data = Data({2, 1, 4}, {0, 1, 0, 2, 0, 1, 0, 1});
  const PassResult result =
      RunPass("second_order_prune", {{"sparsity", 0.25}}, ModelFromText(kSmallMatMul), &data);
  const std::vector<float> w = Elements(result.model, "w");
  EXPECT_EQ(std::ranges::count(w, 0.0f), 1);
  EXPECT_NEAR(w[0] == 0 ? 1.0f : w[0], 1.0f, 1e-6);
  EXPECT_NEAR(w[2] == 0 ? 2.0f : w[2], 2.0f, 1e-6);
}

TEST_F(Reconstruct, ZeroesAsManyBySecondOrderAsByMagnitude) {
  const Dataset data = Data({3, 1, 4}, {1, 1, 0, 2, 2, 1, 1, 0, 0, 3, 1, 1});
  const PassResult result =
      RunPass("second_order_prune", {{"pattern", "2:4"}}, ModelFromText(kSmallMatMul), &data);
  EXPECT_EQ(std::ranges::count(Elements(result.model, "w"), 0.0f), 2);
}

// Where the sum is taken, the second product makes up for what the first, pruned, no longer gives:
// of inputs that know nothing of each other, [[2, 0], [0, 2]] = h, lam = 0.02, the weights of b are
// (2 * (2 + 0.5) + 0.02 * 2) / 2.02.
constexpr const char* kSkip =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2] x) => (float[1,1] y) "
    "<float[2,1] w = {1, 0.5}, float[2,1] v = {0.25, 2}> "
    "{ s = MatMul(x, w) z = MatMul(x, v) y = Add(s, z) }";
const Json kLightDamping = {{"sparsity", 0.5}, {"damping", 0.01}};

TEST_F(Reconstruct, MakesUpForWhatASkipConnectionLost) {
  const Dataset data = Data({4, 1, 2}, {1, 0, 0, 1, 1, 0, 0, 1});
  const PassResult result = RunPass("magnitude_prune", kLightDamping, ModelFromText(kSkip), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(FloatNear(1, 1e-5f), 0));
  EXPECT_THAT(Elements(result.model, "v"), ElementsAre(0, FloatNear(2.495050f, 1e-4f)));
  EXPECT_EQ(result.report.at("changed")[1].at("skip"), "s");
}

// A convolution is left to its own output.
TEST_F(Reconstruct, TakesNothingFromTheSkipConnectionOfAConvolution) {
  const Dataset data = Data({1, 2, 2, 2}, {0, 1, 0, 1, 0, 0, 1, 1});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2,2,2] x) => (float[1,1,2,2] y) "
      "<float[1,2,1,1] w = {1, 0.5}, float[1,2,1,1] v = {0.25, 2}> "
      "{ s = Conv(x, w) z = Conv(x, v) y = Add(z, s) }");
  const PassResult result = RunPass("magnitude_prune", kLightDamping, model, &data);
  EXPECT_THAT(Elements(result.model, "v"), ElementsAre(0, FloatNear(2, 1e-5f)));
}

// A bias may stand in between: means are taken out, h = [[1, 0], [0, 1]], lam = 0.01, and
// (2 + 0.5 + 0.01 * 2) / 1.01. The skip connection has none: its weight of a becomes
// (2.5 + 0.02) / 2.02, so that it loses 0.5 / 2 - 0.247525 / 2 of the mean, which the bias takes
// up.
TEST_F(Reconstruct, MakesUpForASkipConnectionAfterABias) {
  const Dataset data = Data({2, 2, 2}, {0, 0, 1, 0, 0, 1, 1, 1});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2,2] x) => (float[1,2,1] y) "
      "<float[2,1] w = {1, 0.5}, float[2,1] v = {0.25, 2}, float[1] b = {1}> "
      "{ s = MatMul(x, w) z = MatMul(x, v) zb = Add(z, b) y = Add(s, zb) }");
  const PassResult result = RunPass("magnitude_prune", kLightDamping, model, &data);
  EXPECT_THAT(Elements(result.model, "v"), ElementsAre(0, FloatNear(2.495050f, 1e-4f)));
  EXPECT_THAT(Elements(result.model, result.model.graph.nodes[2].inputs[1]),
              ElementsAre(FloatNear(1 + 1.125f + 0.126238f - 2.495050f / 2, 1e-4f)));
}

TEST_F(Reconstruct, TakesNothingFromASkipConnectionOfAnotherShape) {
  const Dataset data = Data({1, 4, 2}, {1, 0, 0, 1, 1, 0, 0, 1});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,4,2] x) => (float[1,4,1] y) "
      "<float[2,1] w = {1, 0.5}, float[2,1] v = {0.25, 2}, int64[1] axes = {1}> "
      "{ t = MatMul(x, w) s = ReduceSum(t, axes) z = MatMul(x, v) y = Add(s, z) }");
  const PassResult result = RunPass("magnitude_prune", kLightDamping, model, &data);
  EXPECT_THAT(Elements(result.model, "v"), ElementsAre(0, FloatNear(2, 1e-5f)));
}

// The sum has another reader in between: what it lost may be wanted there.
TEST_F(Reconstruct, TakesNothingFromASkipConnectionWhereTheOutputIsReadElsewhere) {
  const Dataset data = Data({4, 1, 2}, {1, 0, 0, 1, 1, 0, 0, 1});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2] x) => (float[1,1] y, float[1,1] r) "
      "<float[2,1] w = {1, 0.5}, float[2,1] v = {0.25, 2}> "
      "{ s = MatMul(x, w) z = MatMul(x, v) y = Add(s, z) r = Relu(z) }");
  const PassResult result = RunPass("magnitude_prune", kLightDamping, model, &data);
  EXPECT_THAT(Elements(result.model, "v"), ElementsAre(0, FloatNear(2, 1e-5f)));
}

TEST_F(Reconstruct, LeavesASharedWeightToItsMask) {
  const Dataset data = Data({2, 1, 2}, {1, 2, 3, 1});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2] x) => (float[1,2] y) "
      "<float[2,2] w = {1, 0.5, 2, 0.25}> { h = MatMul(x, w) y = MatMul(h, w) }");
  const PassResult result = RunPass("magnitude_prune", {{"sparsity", 0.5}}, model, &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0, 2, 0));
  EXPECT_EQ(result.report.at("changed")[0].at("not_reconstructed"),
            "other nodes read its weight too");
  EXPECT_EQ(result.report.at("reconstructed"), false);
}

constexpr const char* kDepthwise =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2,1,2] x) => (float[1,2,1,1] y) "
    "<float[2,1,1,2] w = {1, 0.5, 0.25, 2}> { y = Conv<group = 2, kernel_shape = [1, 2]>(x, w) }";
const Json kBiasOnly = {{"sparsity", 0.5}, {"depthwise", true}, {"reconstruct", "bias"}};

TEST_F(Reconstruct, KeepsTheMeanOfEachGroupOfAConvolution) {
  const Dataset data = Data({2, 2, 1, 2}, {1, 3, 2, 2, 5, 1, 1, 4});
  const PassResult result = RunPass("magnitude_prune", kBiasOnly, ModelFromText(kDepthwise), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0, 0, 2));
  // Means of what was zeroed: 0.5 * (3 + 1) / 2 and 0.25 * (2 + 1) / 2.
  EXPECT_THAT(Elements(result.model, result.model.graph.nodes[0].inputs[2]),
              ElementsAre(FloatNear(1.0f, 1e-6f), FloatNear(0.375f, 1e-6f)));
}

// What the second channel loses is 0.5 on the first sample and 0 on the other: its mean is farther
// from both, held out, than no change is.
TEST_F(Reconstruct, LeavesABiasThatWouldNotHoldOnOtherSamples) {
  const Dataset data = Data({2, 2, 1, 2}, {1, 3, 2, 2, 5, 1, 0, 4});
  const PassResult result = RunPass("magnitude_prune", kBiasOnly, ModelFromText(kDepthwise), &data);
  EXPECT_THAT(Elements(result.model, result.model.graph.nodes[0].inputs[2]),
              ElementsAre(FloatNear(1.0f, 1e-6f), 0));
  EXPECT_EQ(result.report.at("changed")[0].at("fitted"), false);
}

// Norms of the inputs: sqrt(2), sqrt(20), sqrt(2), sqrt(200); times the weights 1, 0.5, 2, 0.25:
// 1.41, 2.24, 2.83, 3.54.
TEST_F(Reconstruct, RanksByMagnitudeTimesInputWhereAsked) {
  const Dataset data = Data({2, 1, 4}, {1, 2, 1, 10, 1, -4, 1, 10});
  const PassResult result = RunPass(
      "magnitude_prune", {{"sparsity", 0.5}, {"importance", "wanda"}, {"reconstruct", "off"}},
      ModelFromText(kSmallMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(0, 0, 2, 0.25));
}

TEST_F(Reconstruct, RanksNofMByMagnitudeTimesInput) {
  const Dataset data = Data({2, 1, 4}, {1, 2, 1, 10, 1, -4, 1, 10});
  const PassResult result = RunPass(
      "magnitude_prune", {{"pattern", "1:2"}, {"importance", "wanda"}, {"reconstruct", "off"}},
      ModelFromText(kSmallMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(0, 0.5, 0, 0.25));
}

TEST_F(Reconstruct, SaysWhichWeightsNoInputCanRank) {
  const Dataset data = Data({2, 1, 2}, {1, 2, 3, 1});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2] x) => (float[2,2] y) "
      "<float[2,1] w = {1, 0.5}> { y = MatMul(w, x) }");
  const PassResult result =
      RunPass("magnitude_prune", {{"importance", "wanda"}, {"reconstruct", "off"}}, model, &data);
  EXPECT_EQ(result.report.at("chosen_by_magnitude")[0].at("reason"),
            "its weight is the left operand");
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0));
}

// Two layers of equal weights; what the second makes is worth a thousandth.
constexpr const char* kUnequal =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,4] x) => (float[1,2] y) "
    "<float[4,2] a = {1, 2, 3, 4, 5, 6, 7, 8}, float[4,2] b = {1, 2, 3, 4, 5, 6, 7, 8}, "
    "float little = {0.001}> { p = MatMul(x, a) q = MatMul(x, b) r = Mul(q, little) y = Add(p, r) "
    "}";

TEST_F(Reconstruct, SparesTheLayerThatTheOutputsDependOn) {
  const Dataset data = Data({4, 1, 4}, {1, 2, 1, 1, 1, -4, 1, 2, 3, 1, -1, 2, -2, 1, 4, 1});
  const PassResult result = RunPass(
      "magnitude_prune",
      {{"sparsity", 0.45}, {"scope", "sensitivity"}, {"keep_min", 0.1}, {"reconstruct", "off"}},
      ModelFromText(kUnequal), &data);
  EXPECT_EQ(std::ranges::count(Elements(result.model, "a"), 0.0f), 0);
  EXPECT_EQ(std::ranges::count(Elements(result.model, "b"), 0.0f), 7);  // 0.9 of 8
  EXPECT_NEAR(result.report.at("budget").at("saved").get<double>(), 0.45, 1e-9);
}

// One of the layers runs at four positions: its weights count four times.
TEST_F(Reconstruct, SavesTheShareOfMultiplicationsThatIsAsked) {
  const Dataset data = Data({2, 4, 2}, {1, 2, 1, 1, 1, -4, 1, 2, 3, 1, -1, 2, -2, 1, 4, 1});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4,2] x) => (float[1,5] y) "
      "<float[2,5] a = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, float[1,4] ones = {1, 1, 1, 1}, "
      "float[5,5] b = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, "
      "22, 23, 24, 25}> { p = MatMul(x, a) q = MatMul(ones, p) y = MatMul(q, b) }");
  const PassResult result = RunPass(
      "magnitude_prune",
      {{"sparsity", 0.4}, {"scope", "sensitivity"}, {"budget", "macs"}, {"reconstruct", "off"}},
      model, &data);
  const double zeros =
      4.0 * static_cast<double>(std::ranges::count(Elements(result.model, "a"), 0)) +
      static_cast<double>(std::ranges::count(Elements(result.model, "b"), 0));
  EXPECT_NEAR(zeros / 65, 0.4, 0.05);  // within one weight of a and one of b
}

TEST_F(Reconstruct, NeedsDataToAllocateASparsity) {
  EXPECT_THAT(
      [] {
        RunPass("magnitude_prune", {{"scope", "sensitivity"}}, ModelFromText(kUnequal));
      },
      ThrowsError(ErrorCode::kInvalidArgument, "calibration"));
}

}  // namespace
}  // namespace pared
