// Least squares after pruning. Expected numbers are numpy's:
//   a = h[kept][:, kept] + lam * eye; w = solve(a, g[kept] + lam * w0[kept])
// with h = x.T @ x, g = h @ w0, lam = 0.01 * trace(h) / k.

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "evaluator/dataset.h"
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

constexpr const char* kMatMul =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,4] x) => (float[1,1] y) "
    "<float[4,1] w = {1, 0.5, 2, 0.25}> { y = MatMul(x, w) }";

TEST_F(Reconstruct, FitsTheWeightsThatStayAsNumpyDoes) {
  const Dataset data = Data({3, 1, 4}, {1, 1, 0, 2, 2, 1, 1, 0, 0, 3, 1, 1});
  const PassResult result = RunPass("magnitude_prune", {{"sparsity", 0.5}, {"damping", 0.01}},
                                    ModelFromText(kMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"),
              ElementsAre(FloatNear(0.939898f, 1e-4f), 0, FloatNear(3.151982f, 1e-4f), 0));
  EXPECT_EQ(result.report.at("reconstructed"), true);
}

// What makes up for the last input on the first sample makes it worse on the second.
TEST_F(Reconstruct, LeavesWeightsAsTheyAreWhereTheOtherSamplesSayOtherwise) {
  const Dataset data = Data({2, 1, 4}, {1, 0, 0, 1, 1, 0, 0, -1});
  const PassResult result =
      RunPass("magnitude_prune", {{"sparsity", 0.5}}, ModelFromText(kMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0, 2, 0));
  EXPECT_EQ(result.report.at("changed")[0].at("fitted"), false);
}

TEST_F(Reconstruct, LeavesWeightsAsTheyAreWhenTurnedOff) {
  const Dataset data = Data({3, 1, 4}, {1, 1, 0, 2, 2, 1, 1, 0, 0, 3, 1, 1});
  const PassResult result = RunPass("magnitude_prune", {{"sparsity", 0.5}, {"reconstruct", "off"}},
                                    ModelFromText(kMatMul), &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0, 2, 0));
}

TEST_F(Reconstruct, KeepsTheWeightOfAnInputThatIsAlwaysZero) {
  const Dataset data = Data({2, 1, 4}, {0, 1, 0, 2, 0, 1, 0, 1});
  const PassResult result =
      RunPass("second_order_prune", {{"sparsity", 0.25}}, ModelFromText(kMatMul), &data);
  const std::vector<float> w = Elements(result.model, "w");
  EXPECT_EQ(std::ranges::count(w, 0.0f), 1);
  EXPECT_EQ(w[0] == 0 ? 1.0f : w[0], 1.0f);
  EXPECT_EQ(w[2] == 0 ? 2.0f : w[2], 2.0f);
}

TEST_F(Reconstruct, ZeroesAsManyByTheSurgeonAsByMagnitude) {
  const Dataset data = Data({3, 1, 4}, {1, 1, 0, 2, 2, 1, 1, 0, 0, 3, 1, 1});
  const PassResult result =
      RunPass("second_order_prune", {{"pattern", "2:4"}}, ModelFromText(kMatMul), &data);
  EXPECT_EQ(std::ranges::count(Elements(result.model, "w"), 0.0f), 2);
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
}

TEST_F(Reconstruct, KeepsTheMeanOfEachGroupOfAConvolution) {
  const Dataset data = Data({2, 2, 1, 2}, {1, 3, 2, 2, 5, 1, 0, 4});
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2,1,2] x) => (float[1,2,1,1] y) "
      "<float[2,1,1,2] w = {1, 0.5, 0.25, 2}> { y = Conv<group = 2, kernel_shape = [1, 2]>(x, w) "
      "}");
  const PassResult result =
      RunPass("magnitude_prune", {{"sparsity", 0.5}, {"depthwise", true}, {"reconstruct", "bias"}},
              model, &data);
  EXPECT_THAT(Elements(result.model, "w"), ElementsAre(1, 0, 0, 2));
  // Means of what was zeroed: 0.5 * (3 + 1) / 2 and 0.25 * (2 + 0) / 2.
  EXPECT_THAT(Elements(result.model, result.model.graph.nodes[0].inputs[2]),
              ElementsAre(FloatNear(1.0f, 1e-6f), FloatNear(0.25f, 1e-6f)));
}

}  // namespace
}  // namespace pared
