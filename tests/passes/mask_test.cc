// Zeros that a pruning pass made are there after every pass that may follow.

#include <gmock/gmock.h>

#include <ostream>
#include <set>

#include "evaluator/executor.h"
#include "model/rewrite.h"
#include "passes/weights.h"
#include "tests/passes/run_pass.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

constexpr const char* kModel =
    "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,4,6,6] x) => (float[1,5] y) "
    "<float[16] s = {1,2,1,2,1,2,1,2,1,2,1,2,1,2,1,2}, float[16] t = "
    "{0,0,0,0,0,0,0,0,1,1,1,1,1,1,1,"
    "1}, float[1] c = {2}> {"
    "[first] a = Conv<pads = [1,1,1,1]>(x, w1) n = BatchNormalization(a, s, t, t, s) r = Relu(n) "
    "[second] b = Conv<pads = [1,1,1,1]>(r, w2) q = Relu(b) p = GlobalAveragePool(q) "
    "f = Flatten(p) i = Identity(f) [third] h = Gemm<transB = 1>(i, w3) m = Mul(h, c) "
    "[fourth] y = MatMul(m, w4) }";

Model Dense() {
  Random random(3);
  Model model = ParseText(kModel);
  for (const auto& [name, shape] : std::vector<std::pair<std::string, Shape>>{
           {"w1", {16, 4, 3, 3}}, {"w2", {16, 16, 3, 3}}, {"w3", {32, 16}}, {"w4", {32, 5}}}) {
    model = WithInitializer(std::move(model), name, random.Normal(shape, 1));
  }
  Verify(model);
  return model;
}

// Weighted operators of every form that a pass writes, with the weight's input.
size_t WeightInput(const Node& node) {
  const std::set<std::string> second = {"Conv",        "Gemm",          "MatMul",
                                        "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"};
  if (second.contains(node.op_type)) return 1;
  const std::set<std::string> fourth = {"QLinearConv", "QLinearMatMul", "QGemm"};
  return fourth.contains(node.op_type) ? 3 : 0;
}

// The elements of a weight as its node multiplies by them, whatever they are stored as.
std::vector<double> Seen(const Model& model, const std::string& value, Shape& shape) {
  Model part = model;
  ValueInfo output;
  output.name = value;
  part.graph.outputs = {output};
  EraseDead(part.graph);
  part.graph.inputs.clear();
  const Tensor tensor = part.graph.nodes.empty() ? model.graph.initializers.at(value).tensor
                                                 : Executor(part, {.fuse = false}).Run({})[0];
  shape = tensor.shape();
  std::vector<double> values;
  if (tensor.dtype() == DType::kInt8) {
    for (const int8_t code : tensor.data<int8_t>()) values.push_back(code);
  } else {
    for (const float element : ToFloat(tensor)) values.push_back(element);
  }
  return values;
}

// Of each weight in node order, as [rows of the first axis][rest] of the original's shape.
std::vector<std::vector<double>> WeightsOf(const Model& model, const std::vector<Shape>& shapes) {
  std::vector<std::vector<double>> weights;
  for (const Node& node : model.graph.nodes) {
    const size_t input = WeightInput(node);
    if (input == 0) continue;
    Shape shape;
    std::vector<double> values = Seen(model, node.inputs[input], shape);
    const Shape& want = shapes.at(weights.size());
    if (shape != want && shape.size() == 2) {  // transposed
      std::vector<double> turned;
      for (int64_t row = 0; row < shape[1]; ++row) {
        for (int64_t at = 0; at < shape[0]; ++at) {
          turned.push_back(values[static_cast<size_t>(at * shape[1] + row)]);
        }
      }
      values = turned;
      shape = {shape[1], shape[0]};
    }
    EXPECT_EQ(shape, want) << NodeLabel(node);
    weights.push_back(values);
  }
  return weights;
}

struct Later {
  std::string name;
  Json options;
};
void PrintTo(const Later& later, std::ostream* out) {
  *out << later.name << ' ' << later.options.dump();
}

const std::vector<Later>& AllLater() {
  static const std::vector<Later> kLater = {
      {"fix_shapes", Json::object()},
      {"fold_constants", Json::object()},
      {"remove_identities", Json::object()},
      {"fuse_patterns", Json::object()},
      {"fold_batch_norm", Json::object()},
      {"magnitude_prune", {{"sparsity", 0.3}}},
      {"magnitude_prune", {{"sparsity", 0.3}, {"pattern", "4x1"}}},
      {"magnitude_prune", {{"sparsity", 0.3}, {"scope", "sensitivity"}, {"importance", "wanda"}}},
      {"second_order_prune", {{"sparsity", 0.3}}},
      {"second_order_prune", {{"sparsity", 0.3}, {"pattern", "2x1"}}},
      {"second_order_prune", {{"pattern", "2:4"}}},
      {"quantize_int8", Json::object()},
      {"quantize_int8", {{"granularity", "per_tensor"}, {"method", "minmax"}}},
      {"quantize_int8", {{"format", "qoperator"}}},
      {"quantize_int8", {{"exclude", {"second", "third"}}, {"keep_as", "float16"}}},
      {"quantize_dynamic", Json::object()},
      {"quantize_weights", {{"bits", "8"}}},
      {"quantize_weights", {{"bits", "4"}, {"block_size", 16}}},
      {"cast_fp16", Json::object()},
      {"strip_notes", Json::object()},
  };
  return kLater;
}

class Mask : public testing::TestWithParam<Later> {};

TEST_P(Mask, KeepsEveryZero) {
  const Dataset data = Dataset::Random(Dense().graph.inputs, 8, 1);
  const Model pruned =
      RunPass("magnitude_prune", {{"sparsity", 0.6}, {"reconstruct", "off"}}, Dense()).model;
  const std::vector<Shape> shapes = {{16, 4, 3, 3}, {16, 16, 3, 3}, {32, 16}, {32, 5}};
  const std::vector<std::vector<double>> before = WeightsOf(pruned, shapes);
  const PassResult after = RunPass(GetParam().name, GetParam().options, pruned, &data);
  const std::vector<std::vector<double>> now = WeightsOf(after.model, shapes);
  ASSERT_EQ(now.size(), 4u);
  for (size_t i = 0; i < before.size(); ++i) {
    const int64_t zeros = std::ranges::count(before[i], 0.0);
    EXPECT_GE(zeros, static_cast<int64_t>(before[i].size()) / 2);
    int64_t kept = 0;
    for (size_t j = 0; j < before[i].size(); ++j) {
      kept += static_cast<int64_t>(before[i][j] == 0 && now[i][j] == 0);
    }
    EXPECT_EQ(kept, zeros) << "weight " << i;
    EXPECT_LT(std::ranges::count(now[i], 0.0), std::ssize(now[i])) << "weight " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Passes, Mask, testing::ValuesIn(AllLater()));

// Taps, which removing channels leaves where they are.
TEST(Mask, OfTapsStaysWhereChannelsGo) {
  Model model = Dense();
  for (const std::string name : {"w1", "w2"}) {
    const Tensor& tensor = model.graph.initializers.at(name).tensor;
    std::vector<float> values(tensor.data<float>().begin(), tensor.data<float>().end());
    for (size_t i = 0; i < values.size(); i += 9) values[i] = values[i + 5] = 0;
    model = WithInitializer(std::move(model), name, Tensor::Make(tensor.shape(), values));
  }
  const Dataset data = Dataset::Random(model.graph.inputs, 8, 1);
  const PassResult out = RunPass("channel_prune", {{"reconstruct", "on"}}, model, &data);
  const Tensor& second = out.model.graph.initializers.at(out.model.graph.nodes[3].inputs[1]).tensor;
  ASSERT_EQ(out.model.graph.nodes[3].name, "second");
  ASSERT_LT(second.count(), 16 * 16 * 9);
  const std::span<const float> values = second.data<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(values[i] == 0, i % 9 == 0 || i % 9 == 5) << i;
  }
}

TEST(Mask, IsTestedForEveryPass) {
  for (const PassInfo* pass : Passes()) {
    if (pass->name == "channel_prune") continue;
    EXPECT_TRUE(std::ranges::any_of(AllLater(), [&](const Later& later) {
      return later.name == pass->name;
    })) << pass->name;
  }
}

}  // namespace
}  // namespace pared
