// Which samples a stream holds before each layer, and that its values are those of a whole run.

#include "passes/layer_stream.h"

#include <gtest/gtest.h>

#include "evaluator/executor.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

// Alive before the nodes, in floats: 1024, 2048, 2048, 2 (and as much in the edited model).
constexpr const char* kNarrowing = R"(
    <ir_version: 8, opset_import: ["" : 17]> g (float[1,1,32,32] x) => (float[1,3] y)
    <float[2,1,1,1] k = {1, -2}, float[2,3] w = {1, 2, 3, 4, 5, 6}> {
      c = Conv(x, k)
      r = Relu(c)
      p = GlobalAveragePool(r)
      f = Flatten(p)
      y = MatMul(f, w)
    })";
constexpr size_t kConv = 0, kMatMul = 4;
constexpr int64_t kBytesOfOne = 2 * 2048 * 4;

class LayerStreamTest : public testing::Test {
 protected:
  void SetUp() override { context_.calibration = &data_; }

  // `value` of a whole run, and of the stream, for each of its samples.
  static std::vector<Tensor> Expected(const Model& model, const std::string& value,
                                      const Dataset& data, const std::vector<int64_t>& samples) {
    const Executor executor(model, {.fuse = false});
    std::vector<Tensor> expected;
    for (const int64_t sample : samples) {
      const Observer observe = [&](const std::string& name, const Tensor& tensor) {
        if (name == value) expected.push_back(tensor);
      };
      executor.Run(data.Sample(sample, executor.inputs()), &observe);
    }
    return expected;
  }

  Model model_ = ModelFromText(kNarrowing);
  Dataset data_ = Dataset::Random(CallerInputs(model_.graph), 20, 1);
  PassContext context_;
};

TEST_F(LayerStreamTest, HoldsAllSamplesWhereTheyFit) {
  LayerStream stream(model_, context_, {.samples = 100});
  stream.AdvanceTo(kConv, model_);
  EXPECT_EQ(stream.sample_count(), 20);
  EXPECT_THAT(*stream.Original(3, "x"), SameTensor(data_.Sample(3, CallerInputs(model_.graph))[0]));
}

TEST_F(LayerStreamTest, TakesSamplesEvenly) {
  LayerStream stream(model_, context_, {.samples = 4});
  stream.AdvanceTo(kConv, model_);
  ASSERT_EQ(stream.sample_count(), 4);
  EXPECT_THAT(*stream.Original(3, "x"),
              SameTensor(data_.Sample(15, CallerInputs(model_.graph))[0]));
}

TEST_F(LayerStreamTest, SamplesJoinWhereTheirValuesAreSmall) {
  LayerStream stream(model_, context_,
                     {.samples = 100, .live_bytes = 5 * kBytesOfOne + kBytesOfOne / 2});
  stream.AdvanceTo(kConv, model_);
  EXPECT_EQ(stream.sample_count(), 5);
  Model edited = model_;
  edited.graph.initializers.find("k")->tensor = Tensor::Make<float>({2, 1, 1, 1}, {3, 1});
  stream.AdvanceTo(kMatMul, edited);
  ASSERT_EQ(stream.sample_count(), 20);
  std::vector<int64_t> all(20);
  for (int64_t i = 0; i < 20; ++i) all[static_cast<size_t>(i)] = i;
  const std::vector<Tensor> original = Expected(model_, "f", data_, all);
  const std::vector<Tensor> changed = Expected(edited, "f", data_, all);
  for (int64_t i = 0; i < 20; ++i) {
    EXPECT_THAT(*stream.Original(i, "f"),
                NearTensor(original[static_cast<size_t>(i)], Tolerance{1e-6}));
    EXPECT_THAT(*stream.Edited(i, "f"),
                NearTensor(changed[static_cast<size_t>(i)], Tolerance{1e-6}));
  }
}

TEST_F(LayerStreamTest, OneSampleBeginsHoweverLargeItIs) {
  LayerStream stream(model_, context_, {.samples = 100, .live_bytes = 1});
  stream.AdvanceTo(kConv, model_);
  EXPECT_EQ(stream.sample_count(), 1);
  stream.AdvanceTo(kMatMul, model_);
  EXPECT_EQ(stream.sample_count(), 1);
}

}  // namespace
}  // namespace pared
