#include "daemon/flow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "model/rewrite.h"
#include "passes/layer_progress.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::UnorderedElementsAre;

Model Start() { return ModelFromText("g (float[N] x) => (float[N] y) { y = Identity(x) }"); }

// A pass that writes its name at the end of the producer's.
Pass Append(const std::string& text, std::atomic<int>* calls = nullptr) {
  return [text, calls](Model model, PassContext& context) {
    if (calls != nullptr) ++*calls;
    context.report["wrote"] = text;
    model.producer_name += text;
    return model;
  };
}

Pass Throws(const Error& error) {
  return [error](Model, PassContext& context) -> Model {
    context.report["seen"] = true;
    throw error;
  };
}

PlanNode NodeOf(const std::string& pass, Pass run, std::vector<std::string> chains,
                std::vector<PlanNode> next = {}) {
  return {{pass, Json::object(), std::move(run), false}, std::move(chains), std::move(next)};
}

PlanNode Root(std::vector<PlanNode> next) { return {{}, {"baseline"}, std::move(next)}; }

// What each chain ended with, in one line: the producer's name, or the error.
class Collector {
 public:
  Sink sink() {
    return [this](const std::string& chain, const Outcome& outcome) {
      const std::lock_guard lock(mutex_);
      ++calls_[chain];
      outcomes_[chain] = outcome;
    };
  }
  std::string Of(const std::string& chain) const {
    const Outcome& outcome = outcomes_.at(chain);
    return outcome.error != nullptr ? "error: " + outcome.error->message()
                                    : outcome.model->producer_name;
  }
  const std::map<std::string, Outcome>& outcomes() const { return outcomes_; }
  const std::map<std::string, int>& calls() const { return calls_; }

 private:
  std::mutex mutex_;
  std::map<std::string, Outcome> outcomes_;
  std::map<std::string, int> calls_;
};

TEST(Flow, RunsASharedPrefixOnce) {
  std::atomic<int> prunes = 0;
  const PlanNode plan =
      Root({NodeOf("prune", Append("p", &prunes), {"p"},
                   {NodeOf("int8", Append("i"), {"p-i"}), NodeOf("fp16", Append("f"), {"p-f"})}),
            NodeOf("fp16", Append("f"), {"f"})});
  Collector ended;
  Flow(plan, {.threads = 2}, ended.sink()).Run(Start());
  EXPECT_EQ(prunes, 1);
  EXPECT_EQ(ended.Of("baseline"), "");
  EXPECT_EQ(ended.Of("p"), "p");
  EXPECT_EQ(ended.Of("p-i"), "pi");
  EXPECT_EQ(ended.Of("p-f"), "pf");
  EXPECT_EQ(ended.Of("f"), "f");
}

TEST(Flow, TwoChainsMayEndInOneStep) {
  const PlanNode plan = Root({NodeOf("prune", Append("p"), {"a", "b"})});
  Collector ended;
  Flow(plan, {}, ended.sink()).Run(Start());
  EXPECT_EQ(ended.Of("a"), "p");
  EXPECT_EQ(ended.Of("b"), "p");
}

TEST(Flow, AnErrorEndsItsOwnBranch) {
  std::atomic<int> after = 0;
  const PlanNode plan =
      Root({NodeOf("broken", Throws({ErrorCode::kUnsupported, "no such layer", "conv_1"}), {"a"},
                   {NodeOf("int8", Append("i", &after), {"a-i"})}),
            NodeOf("fp16", Append("f"), {"f"})});
  Collector ended;
  Flow(plan, {.threads = 2}, ended.sink()).Run(Start());
  EXPECT_EQ(after, 0);
  EXPECT_EQ(ended.Of("f"), "f");
  EXPECT_EQ(ended.Of("a"), "error: pass broken: no such layer");
  EXPECT_EQ(ended.Of("a-i"), "error: pass broken: no such layer");
  EXPECT_EQ(ended.outcomes().at("a-i").error->where(), "conv_1");
  EXPECT_EQ(ended.outcomes().at("a-i").error->code(), ErrorCode::kUnsupported);
}

// Needs data as little as magnitude_prune does, and cannot run the model on them.
Model RunsOnData(Model model, PassContext& context) {
  if (context.calibration != nullptr) {
    throw Error(ErrorCode::kUnsupported, "operator Twirl is not implemented", "t");
  }
  model.producer_name = "without data";
  return model;
}

TEST(Flow, APassThatCanDoWithoutDataDoesSoWhereTheModelCannotRun) {
  const Dataset dataset = Dataset::Random(Start().graph.inputs, 2, 1);
  PlanNode needs = NodeOf("quantize", RunsOnData, {"needs"});
  needs.step.needs_calibration = true;
  const PlanNode plan = Root({NodeOf("prune", RunsOnData, {"can"}), needs});
  Collector ended;
  Flow(plan, {.calibration = &dataset}, ended.sink()).Run(Start());
  EXPECT_EQ(ended.Of("can"), "without data");
  EXPECT_EQ(ended.outcomes().at("can").reports[0]["report"]["warnings"],
            Json({"calibration data was not used: t: operator Twirl is not implemented"}));
  EXPECT_EQ(ended.Of("needs"), "error: pass quantize: operator Twirl is not implemented");
}

TEST(Flow, TellsWhatEachStepReportedAlsoTheOneThatFailed) {
  const PlanNode plan = Root({NodeOf(
      "prune", Append("p"), {}, {NodeOf("broken", Throws({ErrorCode::kInternal, "no"}), {"a"})})});
  Collector ended;
  Flow(plan, {}, ended.sink()).Run(Start());
  const Json& reports = ended.outcomes().at("a").reports;
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0]["pass"], "prune");
  EXPECT_EQ(reports[0]["report"], Json({{"wrote", "p"}}));
  EXPECT_GE(reports[0]["seconds"], 0.0);
  EXPECT_EQ(reports[1]["report"], Json({{"seen", true}}));
}

TEST(Flow, VerifiesWhatAPassReturns) {
  const Pass breaks = [](Model model, PassContext&) {
    model.graph.nodes.clear();  // nobody makes the output y now
    return model;
  };
  const PlanNode plan = Root({NodeOf("breaks", breaks, {"a"})});
  Collector ended;
  Flow(plan, {}, ended.sink()).Run(Start());
  EXPECT_THAT(ended.Of("a"), HasSubstr("error: pass breaks: "));
}

TEST(Flow, ForeignExceptionsBecomeErrors) {
  const Pass throws = [](Model, PassContext&) -> Model { throw std::runtime_error("odd"); };
  const Pass exhausts = [](Model, PassContext&) -> Model { throw std::bad_alloc(); };
  const PlanNode plan = Root({NodeOf("a", throws, {"a"}), NodeOf("b", exhausts, {"b"})});
  Collector ended;
  Flow(plan, {}, ended.sink()).Run(Start());
  EXPECT_EQ(ended.outcomes().at("a").error->code(), ErrorCode::kInternal);
  EXPECT_EQ(ended.Of("a"), "error: pass a: odd");
  EXPECT_EQ(ended.outcomes().at("b").error->code(), ErrorCode::kUnavailable);
  EXPECT_THAT(ended.Of("b"), HasSubstr("out of memory"));
}

TEST(Flow, AsksBeforeEachStepWhetherItIsCancelled) {
  std::atomic<bool> cancelled = false;
  std::atomic<int> after = 0;
  const Pass cancels = [&](Model model, PassContext&) {
    cancelled = true;
    return model;
  };
  const PlanNode plan =
      Root({NodeOf("cancels", cancels, {"a"}, {NodeOf("int8", Append("i", &after), {"a-i"})})});
  Collector ended;
  Flow(plan, {.cancelled = [&] { return cancelled.load(); }}, ended.sink()).Run(Start());
  EXPECT_EQ(after, 0);
  EXPECT_EQ(ended.outcomes().at("a-i").error->code(), ErrorCode::kCancelled);
}

TEST(Flow, AChainThatCannotBeDeliveredFails) {
  const PlanNode plan = Root({NodeOf("prune", Append("p"), {"a", "b"})});
  Collector ended;
  const Sink collect = ended.sink();
  const Sink sink = [&](const std::string& chain, const Outcome& outcome) {
    if (chain == "a" && outcome.model != nullptr) throw Error(ErrorCode::kUnavailable, "disk full");
    collect(chain, outcome);
  };
  Flow(plan, {}, sink).Run(Start());
  EXPECT_EQ(ended.Of("a"), "error: disk full");
  EXPECT_EQ(ended.Of("b"), "p");
  EXPECT_THAT(ended.calls(), UnorderedElementsAre(testing::Pair("baseline", 1),
                                                  testing::Pair("a", 1), testing::Pair("b", 1)));
}

TEST(Flow, ReportsTheBeginningAndTheEndOfEachStep) {
  const Pass half = [](Model model, PassContext& context) {
    context.progress(0.5);
    TellLayer(context, "conv3", 3, 3);
    return model;
  };
  const PlanNode plan = Root({NodeOf("prune", half, {}, {NodeOf("int8", half, {"a"})})});
  std::vector<std::string> lines;
  FlowContext context;
  context.progress = [&](const StepProgress& progress) {
    lines.push_back(progress.step + " " + std::to_string(progress.fraction).substr(0, 3));
    if (progress.layer.is_object())
      lines.back() += " " + progress.layer.at("layer").get<std::string>();
    EXPECT_EQ(progress.chain, "a");
  };
  Collector ended;
  Flow(plan, context, ended.sink()).Run(Start());
  EXPECT_THAT(
      lines, ElementsAre("prune 0.0", "prune 0.5", "prune 0.6 conv3", "prune 1.0", "prune+int8 0.0",
                         "prune+int8 0.5", "prune+int8 0.6 conv3", "prune+int8 1.0"));
}

TEST(Flow, HandsThePassWhatTheJobGives) {
  const Dataset dataset = Dataset::Random(Start().graph.inputs, 4, 1);
  const Dataset* seen = nullptr;
  int64_t seed = 0;
  const Pass looks = [&](Model model, PassContext& context) {
    seen = context.calibration;
    seed = context.seed + context.calibration_samples;
    return model;
  };
  Collector ended;
  Flow(Root({NodeOf("looks", looks, {"a"})}),
       {.calibration = &dataset, .calibration_samples = 3, .seed = 40}, ended.sink())
      .Run(Start());
  EXPECT_EQ(seen, &dataset);
  EXPECT_EQ(seed, 43);
}

// A convolution and its normalization, which the first pass joins.
Model Normalized() {
  return ModelFromText(R"(g (float[1,2,4,4] x) => (float[1,2,4,4] y)
    <float[2] one = {1,2}, float[2] zero = {0,0.5}, float[2,2,1,1] w = {1,2,3,4}>
    { [conv] c = Conv(x, w) [norm] n = BatchNormalization(c, one, zero, zero, one)
      [last] y = Conv(n, w) })");
}

JobSpec FoldAndPrune(const Json& exclude) {
  JobSpec spec;
  const Json fold = {{"pass", "fold_batch_norm"}};
  for (const double sparsity : {0.25, 0.5}) {
    spec.chains.push_back(
        {sparsity == 0.25 ? "a" : "b",
         {fold, {{"pass", "magnitude_prune"}, {"sparsity", sparsity}, {"exclude", exclude}}}});
  }
  return spec;
}

TEST(Flow, NamesOfTheJobsModelHoldInEveryStep) {
  const TempDir folder;
  const StepCache cache(PassCache(folder.path(), "test", int64_t{1} << 20), {});
  for (const bool is_cached : {false, true}) {
    Collector ended;
    Flow(MakePlan(FoldAndPrune({"norm"})), {.cache = &cache}, ended.sink()).Run(Normalized());
    for (const char* chain : {"a", "b"}) {
      const Outcome& outcome = ended.outcomes().at(chain);
      ASSERT_EQ(outcome.error, nullptr) << outcome.error->what();
      const Json& step = outcome.reports.at(1);
      EXPECT_EQ(step.contains("cached"), is_cached);
      EXPECT_EQ(step["report"]["references"],
                Json::array({{{"reference", "norm"}, {"nodes", {"Conv conv"}}}}));
      EXPECT_EQ(step["report"]["skipped"][0],
                Json({{"node", "Conv conv"}, {"reason", "excluded"}}));
    }
  }
}

TEST(Flow, AReferenceOfWhichNothingIsLeftIsReportedAndNoError) {
  Model model = Normalized();
  model.graph.nodes[2].inputs[0] = "i";
  FreshNames names(model);
  model.graph.nodes.insert(model.graph.nodes.begin() + 2, MakeNode("Identity", {"n"}, "i", names));
  JobSpec spec = FoldAndPrune({"i_Identity", "op:Identity"});
  const Json remove = {{"pass", "remove_identities"}};
  spec.chains[0].passes.insert(spec.chains[0].passes.begin(), remove);
  Collector ended;
  Flow(MakePlan(spec), {}, ended.sink()).Run(std::move(model));
  ASSERT_EQ(ended.outcomes().at("a").error, nullptr);
  EXPECT_THAT(ended.outcomes().at("a").reports[2]["report"]["references"][1]["reason"].dump(),
              HasSubstr("Identity i_Identity: taken out by remove_identities"));
  EXPECT_EQ(ended.outcomes().at("b").error, nullptr);
}

}  // namespace
}  // namespace pared
