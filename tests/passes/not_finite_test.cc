// Weights that are no numbers are named, before anything runs or is written.

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "tests/passes/made_model.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The model with elements 3 and 5 of the named initializer replaced.
Model Spoilt(const Model& model, const std::string& name, float value) {
  const Tensor& tensor = model.graph.initializers.at(name).tensor;
  std::vector<float> values(tensor.data<float>().begin(), tensor.data<float>().end());
  values.at(3) = values.at(5) = value;
  return WithInitializer(model, name, Tensor::Make<float>(tensor.shape(), values));
}

Model Layers() {
  Random random(4);
  Model model = ParseText(R"(g (float[1,3,4,4] x) => (float[1,16] y)
    { c = Conv(x, u, b) r = Relu(c) d = Conv(r, v) p = GlobalAveragePool(d) f = Flatten(p)
      y = Gemm(f, w, g0) })");
  for (const auto& [name, shape] : std::vector<std::pair<std::string, Shape>>{
           {"u", {8, 3, 1, 1}}, {"b", {8}}, {"v", {16, 8, 1, 1}}, {"w", {16, 16}}, {"g0", {16}}}) {
    model = WithInitializer(std::move(model), name, random.Normal(shape, 1));
  }
  Verify(model);
  return model;
}

TEST(NotFinite, WeightsAreNamedByEveryPassThatChangesThem) {
  const Dataset data = Dataset::Random(Layers().graph.inputs, 4, 1);
  for (const char* pass : {"magnitude_prune", "second_order_prune", "channel_prune",
                           "quantize_int8", "quantize_weights", "quantize_dynamic", "cast_fp16"}) {
    Json options = Json::object();
    if (std::string(pass) == "quantize_dynamic") options["op_types"] = {"Conv", "Gemm"};
    for (const char* name : {"u", "v", "w"}) {
      for (const float value : {kNaN, kInfinity, -kInfinity}) {
        EXPECT_THAT([&] { RunStep(pass, options, Spoilt(Layers(), name, value), &data); },
                    ThrowsError(ErrorCode::kInvalidArgument, "tensor " + std::string(name),
                                testing::AllOf(HasSubstr("2 of its"), HasSubstr("index 3"))))
            << pass;
      }
    }
  }
}

TEST(NotFinite, BiasesAreNamedToo) {
  const Dataset data = Dataset::Random(Layers().graph.inputs, 4, 1);
  for (const char* pass : {"quantize_int8", "quantize_weights", "quantize_dynamic", "cast_fp16"}) {
    for (const char* name : {"b", "g0"}) {
      EXPECT_THAT([&] { RunStep(pass, {}, Spoilt(Layers(), name, kNaN), &data); },
                  ThrowsError(ErrorCode::kInvalidArgument, "tensor " + std::string(name),
                              HasSubstr("index 3")))
          << pass;
    }
  }
}

// Two layers on 16 samples of normal numbers, the first number of the first sample replaced.
Model TwoProducts() {
  return Made(R"(g (float[1,16] x) => (float[1,8] y)
    { [a] h = Gemm(x, w, b) r = Relu(h) [c] y = MatMul(r, v) })",
              {{"w", {16, 24}}, {"b", {24}}, {"v", {24, 8}}});
}

Dataset Samples(int64_t spoilt, float value) {
  const Tensor normal = Random(7).Normal({16, 1, 16}, 1);
  std::vector<float> values(normal.data<float>().begin(), normal.data<float>().end());
  for (int64_t sample = 0; sample < spoilt; ++sample) {
    values.at(static_cast<size_t>(16 * sample)) = value;
  }
  return Dataset::Of("calib", {{"x", Tensor::Make<float>({16, 1, 16}, values)}});
}

const std::vector<std::pair<std::string, Json>> kFitted = {
    {"second_order_prune", {{"damping", 0.01}}},
    {"second_order_prune", Json::object()},
    {"magnitude_prune", {{"reconstruct", "on"}, {"damping", 0.01}}},
    {"magnitude_prune", {{"reconstruct", "bias"}}},
    {"magnitude_prune", {{"importance", "wanda"}}},
    {"magnitude_prune", {{"scope", "sensitivity"}}},
    {"channel_prune", {{"multiple_of", 1}}},
    {"channel_prune", {{"multiple_of", 1}, {"damping", 0.01}}},
    {"quantize_weights", {{"bits", "4"}, {"block_size", 16}}}};

TEST(NotFinite, SamplesOfALayerAreLeftOutAndCounted) {
  for (const auto& [pass, options] : kFitted) {
    for (const float value : {kNaN, -kInfinity, 1e25f}) {
      SCOPED_TRACE(pass + options.dump() + std::to_string(value));
      const Dataset data = Samples(1, value);
      const PassResult out = RunStep(pass, options, TwoProducts(), &data);
      for (const auto& [name, initializer] : out.model.graph.initializers) {
        if (initializer.tensor.dtype() != DType::kFloat32) continue;
        for (const float weight : initializer.tensor.data<float>()) {
          EXPECT_TRUE(std::isfinite(weight)) << name;
        }
      }
      EXPECT_THAT(out.report.at("warnings").dump(), HasSubstr("1 of 16 "));
      EXPECT_THAT(out.report.at("left_out").dump(), HasSubstr("MatMul c"));
      EXPECT_THAT(out.report.dump(), testing::Not(HasSubstr("output_sqnr_db\":200.0")));
      if (pass == "second_order_prune" || options.contains("importance")) {
        EXPECT_EQ(std::ranges::count(Elements(out.model, "w"), 0.0f), 192);
        EXPECT_EQ(std::ranges::count(Elements(out.model, "v"), 0.0f), 96);
      }
    }
  }
}

TEST(NotFinite, CalibrationDataOfWhichNothingIsLeftIsAnError) {
  const Dataset data = Samples(16, kNaN);
  for (const auto& [pass, options] : kFitted) {
    const std::string value = pass == "channel_prune" ? "value r" : "value x";
    EXPECT_THAT([&] { RunStep(pass, options, TwoProducts(), &data); },
                ThrowsError(ErrorCode::kInvalidArgument, value, HasSubstr("\"calib\"")))
        << pass << options;
  }
}

TEST(NotFinite, ReconstructedSaysWhetherAnythingWasFitted) {
  const Model model =
      Made("g (float[1,64] x) => (float[1,1] y) { y = MatMul(x, w) }", {{"w", {64, 1}}});
  const Dataset data = Dataset::Random(model.graph.inputs, 4, 1);
  const Json report = RunStep("magnitude_prune", {{"reconstruct", "on"}}, model, &data).report;
  EXPECT_EQ(report.at("changed").at(0).at("fitted"), report.at("reconstructed"));
}

}  // namespace
}  // namespace pared
