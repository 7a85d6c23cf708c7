#include "passes/plan.h"

#include <gmock/gmock.h>

#include "tests/passes/run_pass.h"

namespace pared {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

JobSpec Chains(const std::vector<std::pair<std::string, std::string>>& chains) {
  JobSpec spec;
  spec.calibration.dataset = "digits";
  for (const auto& [name, passes] : chains) {
    spec.chains.push_back({name, ParseJson(passes).get<std::vector<Json>>()});
  }
  return spec;
}

TEST(Plan, MergesEqualPrefixesWhateverIsSpelledOut) {
  const PlanNode root = MakePlan(
      Chains({{"a", R"([{"pass": "magnitude_prune", "sparsity": 0.8}, {"pass": "quantize_int8"}])"},
              {"b", R"([{"pass": "magnitude_prune", "sparsity": 0.8, "scope": "layer"},
                {"pass": "cast_fp16"}])"},
              {"c", R"([{"pass": "cast_fp16"}])"},
              {"d", R"([{"pass": "magnitude_prune", "sparsity": 0.8}])"}}));
  EXPECT_THAT(root.chains, ElementsAre("baseline"));
  ASSERT_THAT(root.next, SizeIs(2));
  EXPECT_THAT(root.next[0].chains, ElementsAre("d"));
  ASSERT_THAT(root.next[0].next, SizeIs(2));
  EXPECT_THAT(root.next[0].next[0].chains, ElementsAre("a"));
  EXPECT_THAT(root.next[0].next[1].chains, ElementsAre("b"));
  EXPECT_THAT(root.next[1].chains, ElementsAre("c"));
}

TEST(Plan, AChainWithoutPassesEndsAtTheRoot) {
  EXPECT_THAT(MakePlan(Chains({{"as-is", "[]"}})).chains, ElementsAre("baseline", "as-is"));
}

TEST(Plan, KeepsTheStepsWithAllTheirOptions) {
  const PlanNode root = MakePlan(Chains({{"a", R"([{"pass": "magnitude_prune"}])"}}));
  const Json steps = ChainSteps(root, "a");
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0]["pass"], "magnitude_prune");
  EXPECT_EQ(steps[0]["sparsity"], 0.5);
  EXPECT_EQ(steps[0]["pattern"], "unstructured");
  EXPECT_EQ(ChainSteps(root, "baseline"), Json::array());
}

TEST(Plan, NamesTheNearestPassWhereNoneHasTheName) {
  EXPECT_THAT(
      [] {
        MakePlan(Chains({{"a", "[]"}, {"b", R"([{"pass": "quantise_int8"}])"}}));
      },
      ThrowsError(ErrorCode::kInvalidArgument, "/chains/1/passes/0/pass",
                  AllOf(HasSubstr("quantise_int8"), HasSubstr("nearest: \"quantize_int8\""))));
}

TEST(Plan, PointsAtTheOptionThatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"pass": "magnitude_prune", "sparsity": 1.8})", "/0/sparsity"},
      {R"({"pass": "magnitude_prune", "pattern": "3x3"})", "/0/pattern"},
      {R"({"pass": "cast_fp16", "sparsty": 1})", "/0/sparsty"},
      {R"({"pass": "quantize_weights", "op_types": ["Gemm", "Matmul"]})", "/0/op_types/1"},
      // Options that do not go together.
      {R"({"pass": "quantize_int8", "format": "qoperator", "target": "openvino"})", "/0/format"},
      {R"({"pass": "quantize_weights", "format": "matmulnbits", "block_size": 24})",
       "/0/block_size"},
      {"{}", "/0/pass"},
      {R"("cast_fp16")", "/0"},
  };
  for (const auto& [pass, where] : cases) {
    EXPECT_THAT(
        [&] {
          MakePlan(Chains({{"a", "[" + std::string(pass) + "]"}}));
        },
        ThrowsError(ErrorCode::kInvalidArgument, std::string("/chains/0/passes") + where))
        << pass;
  }
}

TEST(Plan, RefusesAPassThatNeedsDataTheJobDoesNotName) {
  JobSpec spec = Chains({{"a", R"([{"pass": "cast_fp16"}, {"pass": "quantize_int8"}])"}});
  EXPECT_NO_THROW(MakePlan(spec));
  spec.calibration.dataset.clear();
  EXPECT_THAT([&] { MakePlan(spec); },
              ThrowsError(ErrorCode::kInvalidArgument, "/chains/0/passes/1",
                          HasSubstr("/calibration/dataset")));
}

// Which takes data without a bound, and could not tell whether one holds.
TEST(Plan, RefusesABoundWithoutData) {
  for (const std::string pass : {"quantize_dynamic", "quantize_weights"}) {
    const auto plan = [&](const std::string& options) {
      return [&pass, options] {
        JobSpec spec = Chains({{"a", R"([{"pass": ")" + pass + "\"" + options + "}]"}});
        spec.calibration.dataset.clear();
        MakePlan(spec);
      };
    };
    EXPECT_NO_THROW(plan("")()) << pass;
    EXPECT_THAT(plan(R"(, "min_sqnr_db": 20)"),
                ThrowsError(ErrorCode::kInvalidArgument, "/chains/0/passes/0",
                            HasSubstr(pass + " with min_sqnr_db 20")));
    EXPECT_THAT(plan(R"(, "max_accuracy_drop": 0.01)"),
                ThrowsError(ErrorCode::kInvalidArgument, "/chains/0/passes/0",
                            HasSubstr("with max_accuracy_drop 0.01 needs calibration data")));
  }
}

TEST(Registry, DescribesEveryPassOnce) {
  std::set<std::string_view> names;
  for (const PassInfo* pass : Passes()) {
    EXPECT_TRUE(names.insert(pass->name).second) << pass->name;
    EXPECT_EQ(FindPass(pass->name), pass);
    EXPECT_FALSE(pass->summary.empty());
    EXPECT_TRUE(pass->describe().is_array());
  }
  EXPECT_EQ(FindPass("magnitude"), nullptr);
}

}  // namespace
}  // namespace pared
