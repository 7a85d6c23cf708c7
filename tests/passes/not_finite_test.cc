// Weights that are no numbers are named, before anything runs or is written.

#include <gmock/gmock.h>

#include <limits>

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

}  // namespace
}  // namespace pared
