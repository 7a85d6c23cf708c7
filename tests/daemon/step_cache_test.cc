#include "daemon/step_cache.h"

#include <gmock/gmock.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>

#include "daemon/flow.h"
#include "kernels/cpu.h"
#include "model/onnx.h"
#include "passes/plan.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

Model Started() {
  return ModelFromText(
      "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,0,0,1}> { y = MatMul(x, w) }");
}

class StepCacheTest : public testing::Test {
 protected:
  StepCacheTest() { fs::create_directories(folder_); }

  StepCache Cache(const StepInputs& inputs = {}) const {
    return {PassCache(folder_, "1", int64_t{1} << 30), inputs};
  }

  // The plan's chains, each with its model's bytes; and which steps came from the cache.
  struct Ended {
    std::map<std::string, std::string> bytes;
    std::map<std::string, Json> reports;
  };
  static Ended Run(const PlanNode& plan, const StepCache* cache, const Model& model,
                   const Dataset* calibration = nullptr) {
    Ended ended;
    std::mutex mutex;
    FlowContext context;
    context.cache = cache;
    context.threads = 2;
    context.calibration = calibration;
    context.calibration_samples = 8;
    Flow(plan, context, [&](const std::string& chain, const Outcome& outcome) {
      const std::lock_guard lock(mutex);
      ended.bytes[chain] = outcome.error ? outcome.error->what() : SerializeOnnx(*outcome.model);
      ended.reports[chain] = outcome.reports;
    }).Run(model);
    return ended;
  }

  PlanNode CountingPlan() {
    Pass run = [this](Model model, PassContext& context) {
      ++calls_;
      context.report["said"] = "so";
      model.producer_name += "+";
      return model;
    };
    return {{},
            {"baseline"},
            {{{"p", {{"sparsity", 0.5}}, run}, {"a"}, {{{"q", {}, run}, {"b"}, {}}}}}};
  }

  size_t EntryCount() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }

  TempDir dir_;
  const fs::path folder_ = dir_ / "m";
  std::atomic<int> calls_ = 0;
};

TEST_F(StepCacheTest, AStepThatHasRunDoesNotRunAgainAndSaysSo) {
  const StepCache cache = Cache();
  const Ended first = Run(CountingPlan(), &cache, Started());
  EXPECT_EQ(calls_, 2);
  EXPECT_FALSE(first.reports.at("b")[0].contains("cached"));
  const Ended second = Run(CountingPlan(), &cache, Started());
  EXPECT_EQ(calls_, 2);
  EXPECT_EQ(second.bytes, first.bytes);
  for (const Json& entry : second.reports.at("b")) {
    EXPECT_EQ(entry.at("cached"), true);
    EXPECT_EQ(entry.at("report"), Json({{"said", "so"}}));
  }
}

TEST_F(StepCacheTest, AnythingThatTheResultDependsOnGivesAnotherKey) {
  const Step step = {"p", {{"sparsity", 0.5}}, {}, false, 1};
  Step other_pass = step, other_option = step, other_version = step;
  other_pass.pass = "q";
  other_option.options["sparsity"] = 0.6;
  other_version.version = 2;
  std::set<std::string> keys = {Cache().KeyOf("m", step),
                                Cache().KeyOf("n", step),
                                Cache().KeyOf("m", other_pass),
                                Cache().KeyOf("m", other_option),
                                Cache().KeyOf("m", other_version),
                                Cache({.calibration_sha256 = "d"}).KeyOf("m", step),
                                Cache({.calibration_samples = 3}).KeyOf("m", step),
                                Cache({.seed = 3}).KeyOf("m", step)};
  EXPECT_EQ(keys.size(), 8u);
  EXPECT_EQ(Cache().KeyOf("m", step), Cache().KeyOf("m", step));
}

TEST_F(StepCacheTest, ADamagedResultIsMadeAgain) {
  const StepCache cache = Cache();
  const Ended first = Run(CountingPlan(), &cache, Started());
  for (const auto& entry : fs::directory_iterator(folder_)) {
    std::string bytes = ReadFile(entry.path() / "model.onnx");
    bytes[bytes.size() / 2] ^= 1;
    WriteFile(entry.path() / "model.onnx", bytes);
  }
  const Ended second = Run(CountingPlan(), &cache, Started());
  EXPECT_EQ(calls_, 4);
  EXPECT_EQ(second.bytes, first.bytes);
  Run(CountingPlan(), &cache, Started());
  EXPECT_EQ(calls_, 4);
}

TEST_F(StepCacheTest, AFailedStepLeavesNothing) {
  const StepCache cache = Cache();
  const Pass run = [](Model, PassContext& context) -> Model {
    context.report["seen"] = true;
    throw Error(ErrorCode::kUnsupported, "no");
  };
  const Ended ended = Run({{}, {}, {{{"p", {}, run}, {"a"}, {}}}}, &cache, Started());
  EXPECT_EQ(EntryCount(), 0u);
  EXPECT_EQ(ended.reports.at("a")[0].at("report"), Json({{"seen", true}}));
}

TEST_F(StepCacheTest, WhereItCannotBeWrittenTheStepRunsAllTheSameAndTheReportSaysWhy) {
  const StepCache cache = Cache();
  fs::remove_all(folder_);
  const Ended ended = Run(CountingPlan(), &cache, Started());
  EXPECT_EQ(calls_, 2);
  EXPECT_THAT(ended.reports.at("a")[0].at("not_cached").get<std::string>(),
              testing::HasSubstr("cannot create"));
}

// Every pass that there is, over a real network: the bytes are the same without a cache, with an
// empty one, with a full one, and where only the first step of each chain is there.
TEST_F(StepCacheTest, TheBytesAreThoseOfARunWithoutACache) {
  PARED_REQUIRE_MODEL("mnist-conv/mnist-conv.onnx");
  const Model model = LoadOnnx(RealModelFolder() / "mnist-conv/mnist-conv.onnx");
  const Dataset data = Dataset::Random(CallerInputs(model.graph), 8, 0);
  JobSpec spec;
  spec.calibration.dataset = "random";
  const auto chain = [](const std::string& name, std::vector<Json> passes) {
    return ChainSpec{name, std::move(passes)};
  };
  const Json fold = {{"pass", "fold_batch_norm"}};
  const Json prune = {{"pass", "magnitude_prune"}, {"sparsity", 0.8}};
  const Json second = {{"pass", "second_order_prune"}, {"sparsity", 0.5}};
  const Json int8 = {{"pass", "quantize_int8"}};
  spec.chains = {chain("a", {fold, prune, int8}), chain("b", {second, int8}),
                 chain("c", {prune, {{"pass", "cast_fp16"}}})};
  const PlanNode plan = MakePlan(spec);
  const StepCache cache = Cache();
  const Ended without = Run(plan, nullptr, model, &data);
  const Ended cold = Run(plan, &cache, model, &data);
  const Ended warm = Run(plan, &cache, model, &data);
  EXPECT_EQ(cold.bytes, without.bytes);
  EXPECT_EQ(warm.bytes, without.bytes);
  for (const char* name : {"a", "b", "c"}) {
    for (const Json& entry : warm.reports.at(name)) {
      EXPECT_TRUE(entry.contains("cached")) << name << " " << entry.at("pass");
    }
  }
  fs::remove_all(folder_);
  fs::create_directories(folder_);
  spec.chains = {chain("a", {fold}), chain("b", {second}), chain("c", {prune})};
  Run(MakePlan(spec), &cache, model, &data);
  EXPECT_EQ(Run(plan, &cache, model, &data).bytes, without.bytes);
}

}  // namespace
}  // namespace pared
