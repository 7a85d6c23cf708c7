// `pared bench`: what each layer's line says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "config/fields.h"
#include "daemon/commands.h"
#include "model/onnx.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::HasSubstr;

// A product of 64 rows with one weight in sixteen, as QDQ where `is_quantized`.
Model Product(bool is_quantized) {
  std::vector<int8_t> codes(256 * 64, 0);
  std::vector<float> values(codes.size(), 0.0F);
  for (size_t i = 0; i < codes.size(); i += 16) {
    codes[i] = static_cast<int8_t>(i / 16 % 100 + 1);
    values[i] = static_cast<float>(codes[i]) * 0.01F;
  }
  Model model = ParseText(
      is_quantized ? R"(g (float[64,256] x) => (float[64,64] y)
        <float s = {0.02}, uint8 z = {128}, float ws = {0.01}, float ys = {0.1}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, ws)
          [layer] f = MatMul(d, v) c = QuantizeLinear(f, ys, z) y = DequantizeLinear(c, ys, z) })"
                   : R"(g (float[64,256] x) => (float[64,64] f) { [layer] f = MatMul(x, w) })");
  const Tensor w = is_quantized ? Tensor::Make<int8_t>({256, 64}, std::move(codes))
                                : Tensor::Make<float>({256, 64}, std::move(values));
  model.graph.initializers.set("w", Initializer{.tensor = w, .unknown = {}});
  return model;
}

class BenchTest : public testing::Test {
 protected:
  BenchTest() {
    SaveOnnx(Product(true), dir_ / "int8.onnx");
    SaveOnnx(Product(false), dir_ / "float.onnx");
  }
  std::string Bench(std::vector<std::string> arguments) const {
    std::ostringstream out;
    RunBench(arguments, out);
    return out.str();
  }
  static Json LayerNamed(const Json& report, const std::string& name) {
    for (const Json& layer : report["layers"]) {
      if (layer["node"] == name) return layer;
    }
    return {};
  }

  TempDir dir_;
};

TEST_F(BenchTest, SaysWhatASparseLayerGainsAndHowFarItIsFromFloat) {
  const Json report = ParseJson(Bench({(dir_ / "int8.onnx").string(), "--json", "--runs=3",
                                       "--reference=" + (dir_ / "float.onnx").string()}));
  const Json layer = LayerNamed(report, "layer");
  EXPECT_EQ(layer["shape"], Json({64, 64}));
  EXPECT_EQ(layer["density"], 1.0 / 16);
  EXPECT_EQ(layer["macs"], 64 * 64 * 256);
  EXPECT_THAT(layer["reason"].get<std::string>(), HasSubstr("predicted over dense"));
  // Weights are exact, so only the rounding of x to steps of 0.02 is left.
  EXPECT_GT(layer["sqnr_db"].get<double>(), 20);
  EXPECT_LT(layer["sqnr_db"].get<double>(), 60);
  EXPECT_GT(report["peak_activation_bytes"].get<double>(), 64 * 256);
  if (!layer["kernel"].get<std::string>().starts_with("sparse")) {
    GTEST_SKIP() << "this instruction set has no sparse kernels";
  }
  EXPECT_GT(layer["predicted_gain"].get<double>(), 1.5);
  EXPECT_GT(layer["measured_gain"].get<double>(), 0);
}

TEST_F(BenchTest, HasNoGainsOfFloatLayers) {
  const Json report = ParseJson(Bench({(dir_ / "float.onnx").string(), "--json", "--runs=1"}));
  const Json layer = LayerNamed(report, "layer");
  EXPECT_EQ(layer["kernel"], "");
  EXPECT_TRUE(layer["predicted_gain"].is_null());
  EXPECT_TRUE(layer["measured_gain"].is_null());
  EXPECT_TRUE(layer["sqnr_db"].is_null());
}

TEST_F(BenchTest, WritesATable) {
  EXPECT_THAT(Bench({(dir_ / "int8.onnx").string(), "--runs=1"}), HasSubstr("predicted"));
}

}  // namespace
}  // namespace pared
