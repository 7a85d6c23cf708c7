#include "daemon/layer_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "evaluator/layers.h"
#include "evaluator/npy.h"
#include "model/onnx.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::Optional;

// One product as QDQ; its weights are exact, so only the rounding of x to steps of 0.5 is left.
const char* const kQuantized = R"(g (float[1,4] x) => (float[1,2] y)
  <float s = {0.5}, uint8 z = {128}, int8[4,2] w = {1,0,2,0,3,0,4,0}, float[2] ws = {0.25, 0.125}, float ys = {0.1}>
  { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear<axis = 1>(w, ws)
    [layer] f = MatMul(d, v) r = Relu(f) c = QuantizeLinear(r, ys, z) y = DequantizeLinear(c, ys, z) })";
const char* const kFloat = R"(g (float[1,4] x) => (float[1,2] f)
  <float[4,2] w = {0.25,0,0.5,0,0.75,0,1,0}> { [layer] f = MatMul(x, w) })";

class LayerReportTest : public testing::Test {
 protected:
  LayerReportTest() {
    SaveNpy(Tensor::Make<float>({1, 4}, {1.1f, 2, 3, -4}), dir_ / "x.npy");
    WriteFile(dir_ / "dataset.json", R"({"inputs": {"x": "x.npy"}})");
  }

  Json Report(const Model& model, LayerReportContext context) const {
    SaveOnnx(model, dir_ / "model.onnx");
    const Dataset dataset = Dataset::Open(dir_.path());
    context.dataset = &dataset;
    return LayerReport(dir_ / "model.onnx", context);
  }
  static Json LayerNamed(const Json& report, const std::string& name) {
    for (const Json& layer : report.at("layers")) {
      if (layer.at("node") == name) return layer;
    }
    return {};
  }

  TempDir dir_;
};

TEST_F(LayerReportTest, TellsWorkTimeScalesAndLossOfALayer) {
  const Model reference = ModelFromText(kFloat);
  const Json layer =
      LayerNamed(Report(ModelFromText(kQuantized), {.reference = &reference}), "layer");
  EXPECT_EQ(layer.at("macs"), 8);
  EXPECT_EQ(layer.at("density"), 0.5);
  EXPECT_GT(layer.at("time_us").get<double>(), 0);
  EXPECT_EQ(layer.at("input_scale"), 0.5);
  EXPECT_EQ(layer.at("output_scale"), 0.1);
  EXPECT_EQ(layer.at("weight_scale_min"), 0.125);
  EXPECT_EQ(layer.at("weight_scale_max"), 0.25);
  // 1.1 becomes 1: of a result of -0.475, -0.5; 20 log10(0.475 / 0.025).
  EXPECT_NEAR(layer.at("sqnr_db").get<double>(), 25.57, 0.01);
}

TEST_F(LayerReportTest, LeavesOutWhatAFloatLayerLacks) {
  const Json layer = LayerNamed(Report(ModelFromText(kFloat), {.runs = 0}), "layer");
  EXPECT_EQ(layer.at("op_type"), "MatMul");
  for (const char* name : {"kernel", "time_us", "sqnr_db", "input_scale", "output_scale"}) {
    EXPECT_FALSE(layer.contains(name)) << name;
  }
}

TEST_F(LayerReportTest, KeepsTheLayersWithTheMostWork) {
  std::string text = "g (float[1,4] x) => (float[1,2] f) <float[4,2] w = {1,1,1,1,1,1,1,1}> { ";
  for (int i = 0; i < 300; ++i) {
    const std::string from = i == 0 ? "x" : "a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + " = " + (i % 2 == 0 ? "Sin" : "Cos") + "(" + from + ")\n";
  }
  const Json report = Report(ModelFromText(text + "[layer] f = MatMul(a299, w) }"), {.runs = 1});
  EXPECT_EQ(report.at("layers").size(), 256u);
  EXPECT_EQ(report.at("layers_left_out"), 45);
  EXPECT_FALSE(LayerNamed(report, "layer").is_null());
}

TEST(ScalesOf, ReadsQuantizedOperators) {
  const Model model = ModelFromText(R"(g (uint8[1,2] x) => (uint8[1,1] y)
    <float a = {0.5}, float b = {0.25}, float c = {2}, uint8 z = {0}, int8 wz = {0}, int8[2,1] w = {1, 2}>
    { [m] y = QLinearMatMul(x, a, z, w, b, wz, c, z) })");
  const LayerScales scales = ScalesOf(model).at("m");
  EXPECT_THAT(scales.input, Optional(0.5));
  EXPECT_THAT(scales.weight_max, Optional(0.25));
  EXPECT_THAT(scales.output, Optional(2));
}

TEST(LayerSqnr, SaysNothingOfAResultOfAnotherShape) {
  const Model whole = ModelFromText(
      "g (float[1,2] x) => (float[1,1] y) <float[2,2] w = {1,0,0,1}, float[2,1] v = {1,1}> "
      "{ [cut] h = MatMul(x, w) [last] y = MatMul(h, v) }");
  const Model cut = ModelFromText(
      "g (float[1,2] x) => (float[1,1] y) <float[2,1] w = {1,0}, float[1,1] v = {1}> "
      "{ [cut] h = MatMul(x, w) [last] y = MatMul(h, v) }");
  std::vector<LayerStats> layers(2);
  layers[0].node = "cut";
  layers[1].node = "last";
  layers[0].macs = layers[1].macs = 1;
  const auto sqnr_db = LayerSqnr(cut, whole, {Tensor::Make<float>({1, 2}, {3, 4})}, layers);
  EXPECT_FALSE(sqnr_db.contains("cut"));
  EXPECT_NEAR(sqnr_db.at("last"), 10 * std::log10(49.0 / 16), 1e-6);  // 7 and 3
}

TEST(LayerSqnr, ComparesAShareOfLongResults) {
  // Each result has 262,144 elements; the second model's are 1 % too large.
  const std::string text = "g (float[512,1] x) => (float[512,512] f) { [layer] f = MatMul(x, w) }";
  const auto with = [&](float value) {
    return WithInitializer(ParseText(text), "w",
                           Tensor::Make<float>({1, 512}, std::vector<float>(512, value)));
  };
  std::vector<LayerStats> layers(1);
  layers[0].node = "layer";
  layers[0].macs = 1;
  const std::vector<Tensor> inputs = {Tensor::Make<float>({512, 1}, std::vector<float>(512, 1.0f))};
  EXPECT_NEAR(LayerSqnr(with(1.01f), with(1), inputs, layers).at("layer"), 40, 1e-3);
}

TEST_F(LayerReportTest, FloatLayersTellTheirDensityToo) {
  const Json layer = LayerNamed(Report(ModelFromText(R"(
      g (float[1,4] x) => (float[1,2] y) <float[4,2] w = {0,1,0,2,3,0,0,0}> {
        [product] y = MatMul(x, w) })"),
                                       {}),
                                "product");
  EXPECT_EQ(layer.at("density"), 0.375);
}

}  // namespace
}  // namespace pared
