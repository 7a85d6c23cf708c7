// Nodes that return to float under quantize_dynamic and quantize_weights.

#include <gmock/gmock.h>
#include <sys/mman.h>

#include <memory>

#include "passes/shared_statistics.h"
#include "tests/passes/made_model.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Form {
  const char* name;
  const char* pass;
  Json options;
};

void PrintTo(const Form& form, std::ostream* out) { *out << form.name; }

const std::vector<Form> kForms = {
    {"Dynamic", "quantize_dynamic", {{"smooth", "off"}}},
    {"Smoothed", "quantize_dynamic", Json::object()},
    {"Bits8", "quantize_weights", Json::object()},
    {"Bits4", "quantize_weights", {{"bits", "4"}, {"block_size", 16}}},
    {"MatMulNBits",
     "quantize_weights",
     {{"bits", "4"}, {"block_size", 16}, {"format", "matmulnbits"}}},
    {"MatMulNBits8",
     "quantize_weights",
     {{"bits", "8"}, {"block_size", 16}, {"format", "matmulnbits"}}}};

// The rows of `bad` come in pairs of nearly the same, and what follows subtracts one from the
// other: the difference is less than a step of the codes.
Model Cancelling(const std::string& text, int64_t layers) {
  Random random(7);
  Model model = ModelFromText(text);
  for (int64_t layer = 0; layer < layers; ++layer) {
    model.graph.initializers.set("w" + std::to_string(layer), {random.Normal({32, 32}, 0.2f), ""});
  }
  const Tensor base = random.Normal({32, 16}, 0.2f), little = random.Normal({32, 16}, 0.0005f);
  std::vector<float> bad;
  for (size_t row = 0; row < 32; ++row) {
    for (size_t at = 0; at < 16; ++at) {
      const float value = base.data<float>()[row * 16 + at];
      bad.push_back(value);
      bad.push_back(value + little.data<float>()[row * 16 + at]);
    }
  }
  model.graph.initializers.set("bad", {Tensor::Make<float>({32, 32}, std::move(bad)), ""});
  return model;
}

// Four layers, and differences of neighbours in the fifth.
Model Chain() {
  return Cancelling(R"(g (float[1,32] x) => (float[1,16] y)
    <float[1,1] w0 = {0}, float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1,1] w3 = {0},
     float[1,1] bad = {0}, int64[3] pairs = {1,16,2}, int64[1] last = {2},
     float[2] signs = {1000,-1000}>
    { [n0] a = MatMul(x, w0) b = Tanh(a) [n1] c = MatMul(b, w1) d = Tanh(c)
      [n2] e = MatMul(d, w2) f = Tanh(e) [n3] g = MatMul(f, w3) h = Tanh(g)
      [culprit] i = MatMul(h, bad) j = Reshape(i, pairs) k = Mul(j, signs)
      y = ReduceSum<keepdims = 0>(k, last) })",
                    4);
}

Json With(Json options, const Json& more) {
  options.update(more);
  return options;
}

class StoredReturn : public testing::TestWithParam<Form> {
 protected:
  PassResult Run(const Json& more, const Dataset* data, int64_t threads = 1) const {
    return RunStep(GetParam().pass, With(GetParam().options, more), model_, data, threads);
  }

  const Model model_ = Chain();
  const Dataset data_ = Dataset::Random(model_.graph.inputs, 16, 1);
};

std::string Bytes(const Model& model) { return ModelDigest(model); }

TEST_P(StoredReturn, ThePoorNodeReturnsByItself) {
  const PassResult off = Run({{"keep_float", "off"}}, &data_);
  EXPECT_LT(SqnrDbOn(data_, model_, off.model), 20);
  EXPECT_FALSE(off.report.contains("returned_to_float"));
  const PassResult out = Run(Json::object(), &data_);
  EXPECT_THAT(out.report.at("returned_to_float"), ElementsAre("MatMul culprit"));
  EXPECT_THAT(SkippedReason(out.report, "MatMul culprit"), HasSubstr("returned to float"));
  EXPECT_EQ(out.report.at("changed").size(), 4U);
  EXPECT_NEAR(out.report.at("calibration_sqnr_db").get<double>(),
              SqnrDbOn(data_, model_, out.model), 1);
  EXPECT_GT(SqnrDbOn(data_, model_, out.model), SqnrDbOn(data_, model_, off.model) + 5);
}

TEST_P(StoredReturn, AsIfExcludeNamedIt) {
  const PassResult named = Run({{"keep_float", "off"}, {"exclude", {"culprit"}}}, &data_);
  EXPECT_EQ(Bytes(Run(Json::object(), &data_).model), Bytes(named.model));
}

TEST_P(StoredReturn, ABoundHolds) {
  const PassResult two = Run({{"keep_float", "off"}, {"exclude", {"culprit"}}}, &data_);
  const double bound = SqnrDbOn(data_, model_, two.model) + 1;
  const PassResult out = Run({{"min_sqnr_db", bound}}, &data_);
  EXPECT_GE(out.report.at("calibration_sqnr_db").get<double>(), bound);
  EXPECT_GE(SqnrDbOn(data_, model_, out.model), bound - 0.5);
  EXPECT_GE(out.report.at("returned_to_float").size(), 2U);
  EXPECT_EQ(out.report.at("returned_to_float")[0], "MatMul culprit");
  EXPECT_THAT(
      [&] {
        Run({{"min_sqnr_db", bound}, {"max_nodes_float", 1}}, &data_);
      },
      ThrowsError(ErrorCode::kUnsupported, "",
                  HasSubstr("dB with at most 1 of its 5 nodes in float")));
}

TEST_P(StoredReturn, ABoundThatHoldsChangesNothing) {
  const PassResult out = Run({{"min_sqnr_db", 0.5}, {"exclude", {"culprit"}}}, &data_);
  const PassResult off = Run({{"keep_float", "off"}, {"exclude", {"culprit"}}}, &data_);
  EXPECT_EQ(Bytes(out.model), Bytes(off.model));
  EXPECT_FALSE(out.report.contains("returned_to_float"));
}

TEST_P(StoredReturn, ABoundOfAccuracyHolds) {
  const double bound = GetParam().options.value("bits", "8") == "4" ? 0.15 : 0;
  const PassResult out = Run({{"max_accuracy_drop", bound}}, &data_);
  EXPECT_LE(out.report.at("accuracy_drop").at("agreement").get<double>(), bound);
  EXPECT_EQ(out.report.at("returned_to_float")[0], "MatMul culprit");
}

TEST_P(StoredReturn, WithoutDataNothingReturnsAndABoundIsAnError) {
  const PassResult out = Run(Json::object(), nullptr);
  EXPECT_FALSE(out.report.contains("returned_to_float"));
  EXPECT_FALSE(out.report.contains("calibration_sqnr_db"));
  EXPECT_THAT(
      [&] {
        Run({{"min_sqnr_db", 25}}, nullptr);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "min_sqnr_db",
                  HasSubstr("min_sqnr_db 25.0 is measured on calibration data")));
  EXPECT_THAT(
      [&] {
        Run({{"max_accuracy_drop", 0.01}}, nullptr);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "max_accuracy_drop", HasSubstr("give some")));
}

TEST_P(StoredReturn, SharedStatisticsAndThreadsGiveTheSameBytes) {
  const PassResult alone = Run(Json::object(), &data_);
  EXPECT_EQ(Bytes(Run(Json::object(), &data_, 2).model), Bytes(alone.model));
  SharedStatistics shared;
  const PassInfo* pass = FindPass(GetParam().pass);
  for (int time = 0; time < 2; ++time) {
    PassContext context;
    context.calibration = &data_;
    context.shared = &shared;
    const Json options = With(GetParam().options, {{"pass", GetParam().pass}});
    const Model out = BindPass(*pass, options, "").run(model_, context);
    EXPECT_EQ(Bytes(out), Bytes(alone.model));
    EXPECT_EQ(context.report.at("returned_to_float"), alone.report.at("returned_to_float"));
  }
}

// Both products read the poor weight: neither returns without the other.
TEST_P(StoredReturn, ReadersOfOneWeightReturnTogether) {
  const Model model = Cancelling(R"(g (float[1,32] x) => (float[1,16] y)
    <float[1,1] w0 = {0}, float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1,1] w3 = {0},
     float[1,1] w4 = {0}, float[1,1] w5 = {0}, float[1,1] w6 = {0}, float[1,1] w7 = {0},
     float[1,1] bad = {0}, int64[3] pairs = {1,16,2}, int64[1] last = {2},
     float[2] signs = {1000,-1000}>
    { a = MatMul(x, w0) b = MatMul(a, w1) c = MatMul(b, w2) d = MatMul(c, w3)
      e = MatMul(d, w4) f = MatMul(e, w5) g = MatMul(f, w6) h = MatMul(g, w7) q = Tanh(h)
      [one] i = MatMul(q, bad) [other] m = MatMul(f, bad) n = Add(i, m) j = Reshape(n, pairs)
      k = Mul(j, signs) y = ReduceSum<keepdims = 0>(k, last) })",
                                 8);
  const auto run = [&](const Json& more) {
    return RunStep(GetParam().pass, With(GetParam().options, more), model, &data_);
  };
  const PassResult out = run(Json::object());
  EXPECT_THAT(out.report.at("returned_to_float"), ElementsAre("MatMul one", "MatMul other"));
  EXPECT_TRUE(out.model.graph.initializers.contains("bad"));
  for (const char* name : {"one", "other"}) {
    EXPECT_EQ(Bytes(run({{"keep_float", "off"}, {"exclude", {name}}}).model), Bytes(out.model));
  }
  // Where one node at most may return, these two do not.
  EXPECT_THAT(run({{"max_nodes_float", 1}}).report.at("returned_to_float"),
              ::testing::Not(::testing::Contains("MatMul one")));
}

// A table that the last product reads, too, has a copy for it only where both are stored in codes.
TEST_P(StoredReturn, ATiedTableReturnsAsExcludeHasIt) {
  Model model = Cancelling(R"(g (int64[4] ids) => (float[4,16] y)
    <float[1,1] w0 = {0}, float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1,1] w3 = {0},
     float[1,1] bad = {0}, int64[3] pairs = {4,16,2}, int64[1] last = {2},
     float[2] signs = {1000,-1000}>
    { [look] x = Gather(bad, ids) a = MatMul(x, w0) b = MatMul(a, w1) c = MatMul(b, w2)
      d = MatMul(c, w3) [head] i = MatMul(d, bad) j = Reshape(i, pairs) k = Mul(j, signs)
      y = ReduceSum<keepdims = 0>(k, last) })",
                           4);
  const Dataset data = Dataset::Random(model.graph.inputs, 16, 1);
  const auto run = [&](const Json& more) {
    return RunStep(GetParam().pass, With(GetParam().options, more), model, &data);
  };
  const double least = run({{"keep_float", "off"}}).report.value("calibration_sqnr_db", 0.0);
  const PassResult out = run({{"min_sqnr_db", std::max(least, 0.0) + 12}});
  ASSERT_THAT(out.report.at("returned_to_float"), ::testing::Contains("MatMul head"));
  EXPECT_THAT(out.report.at("returned_to_float"), ::testing::Contains("Gather look"));
  Json names = Json::array();
  for (const Json& label : out.report.at("returned_to_float")) {
    const std::string text = label;
    const bool is_named = text.ends_with("look") || text.ends_with("head");
    names.push_back(is_named ? text.substr(text.find(' ') + 1) : text.substr(text.rfind(' ') + 1));
  }
  EXPECT_EQ(Bytes(run({{"keep_float", "off"}, {"exclude", names}}).model), Bytes(out.model));
}

TEST_P(StoredReturn, WithinSubgraphsToo) {
  const Model model = Cancelling(R"(g (float[1,32] x) => (float[1,16] y)
    <float[1,1] w0 = {0}, float[1,1] w1 = {0}, float[1,1] w2 = {0}, float[1,1] w3 = {0},
     float[1,1] bad = {0}, int64[3] pairs = {1,16,2}, int64[1] last = {2},
     float[2] signs = {1000,-1000}, bool yes = {1}>
    { a = MatMul(x, w0) b = MatMul(a, w1) c = MatMul(b, w2) d = MatMul(c, w3) h = Tanh(d)
      j = If (yes) <then_branch = t () => (float[1,16,2] p)
                      { [inner] i = MatMul(h, bad) p = Reshape(i, pairs) },
                    else_branch = e () => (float[1,16,2] q) { q = Reshape(h, pairs) }>
      k = Mul(j, signs) y = ReduceSum<keepdims = 0>(k, last) })",
                                 4);
  const auto run = [&](const Json& more) {
    return RunStep(GetParam().pass, With(GetParam().options, more), model, &data_);
  };
  const PassResult out = run(Json::object());
  EXPECT_THAT(out.report.at("returned_to_float"), ElementsAre("MatMul inner"));
  EXPECT_EQ(Bytes(run({{"keep_float", "off"}, {"exclude", {"inner"}}}).model), Bytes(out.model));
}

TEST_P(StoredReturn, WeightsOfBfloat16Too) {
  const Model half = RunStep("cast_fp16", {{"type", "bfloat16"}}, model_).model;
  const auto run = [&](const Json& more) {
    return RunStep(GetParam().pass, With(GetParam().options, more), half, &data_);
  };
  const PassResult out = run({{"max_nodes_float", 1}});
  EXPECT_THAT(out.report.at("returned_to_float"), ElementsAre("MatMul culprit"));
  int64_t halves = 0;
  for (const auto& [name, initializer] : out.model.graph.initializers) {
    if (initializer.tensor.dtype() == DType::kBFloat16) halves += initializer.tensor.count();
  }
  EXPECT_EQ(halves, 32 * 32);
  EXPECT_EQ(Bytes(run({{"keep_float", "off"}, {"exclude", {"culprit"}}}).model), Bytes(out.model));
}

// Weights of two values have codes of their own in 4 bits too.
TEST_P(StoredReturn, AModelOfMoreThan20DbKeepsItsBytes) {
  Model model = Made(R"(g (float[1,32] x) => (float[1,32] y)
    { a = MatMul(x, w) r = Relu(a) b = MatMul(r, u) q = Relu(b) y = MatMul(q, v) })",
                     {{"w", {32, 32}}, {"u", {32, 32}}, {"v", {32, 32}}});
  for (const char* name : {"w", "u", "v"}) {
    std::vector<float> values = ValuesOf(model.graph.initializers.at(name).tensor);
    for (float& value : values) value = value > 0 ? 0.25f : -0.25f;
    model.graph.initializers.set(name, {Tensor::Make<float>({32, 32}, std::move(values)), ""});
  }
  const PassResult out = RunStep(GetParam().pass, GetParam().options, model, &data_);
  const PassResult off =
      RunStep(GetParam().pass, With(GetParam().options, {{"keep_float", "off"}}), model, &data_);
  EXPECT_GT(out.report.at("calibration_sqnr_db").get<double>(), 20);
  EXPECT_EQ(Bytes(out.model), Bytes(off.model));
  EXPECT_FALSE(out.report.contains("returned_to_float"));
}

// Zeros that take no memory: a model of more than 512 MiB is not run.
TEST_P(StoredReturn, ABoundOfAModelThatIsTooLargeToRunIsAnError) {
  constexpr int64_t kRows = 16384, kColumns = 8200;
  constexpr size_t kBytes = kRows * kColumns * sizeof(float);
  void* const zeros = mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(zeros, MAP_FAILED);
  const std::shared_ptr<void> owner(zeros, [](void* place) { munmap(place, kBytes); });
  Model model = ModelFromText(R"(g (float[1,16384] x) => (float[1,8200] y)
    <float[1,1] w = {0}> { y = MatMul(x, w) })");
  model.graph.initializers.set("w",
                               {Tensor::View(DType::kFloat32, {kRows, kColumns},
                                             {static_cast<const std::byte*>(zeros), kBytes}, owner),
                                ""});
  const Dataset data = Dataset::Random(model.graph.inputs, 1, 1);
  EXPECT_THAT(
      [&] {
        RunStep(GetParam().pass, With(GetParam().options, {{"min_sqnr_db", 20}}), model, &data);
      },
      ThrowsError(ErrorCode::kUnsupported, "min_sqnr_db",
                  HasSubstr("min_sqnr_db 20.0 cannot be measured")));
}

INSTANTIATE_TEST_SUITE_P(Forms, StoredReturn, ::testing::ValuesIn(kForms),
                         [](const auto& named) { return std::string(named.param.name); });

}  // namespace
}  // namespace pared
