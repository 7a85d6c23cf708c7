#include "passes/search_space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/matchers.h"

namespace pared {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

JobSpec Spec(const std::string& search, const std::string& others = "") {
  return ReadJobSpec(ParseJson(R"({"model": "m", "calibration": {"dataset": "d"}, "chains": [
    {"name": "a", "passes": [{"pass": "magnitude_prune", "sparsity": 0.7}, {"pass": "quantize_int8"}]},
    {"name": "b", "passes": [{"pass": "quantize_int8"}]}], "search": )" +
                               search + others + "}"));
}

std::vector<std::string> NamesOf(const SearchChain& chain) {
  std::vector<std::string> names;
  for (const SearchAxis& axis : chain.axes) names.push_back(axis.name);
  return names;
}

auto RefusedAt(const std::string& where) { return ThrowsError(ErrorCode::kInvalidArgument, where); }

TEST(SearchSpace, AnAxisBelongsToEachChainThatHasThePass) {
  const SearchSpace space = MakeSearchSpace(Spec(R"({"over": [
    {"pass": "quantize_int8", "option": "method", "values": ["mse", "auto"]},
    {"pass": "magnitude_prune", "option": "sparsity", "from": 0.5, "to": 0.9, "step": 0.1},
    {"pass": "quantize_int8", "chain": "b", "option": "granularity", "values": ["per_tensor"]},
    {"pass": "magnitude_prune", "leave_out": true}]})"));
  EXPECT_THAT(NamesOf(space.chains[0]),
              ElementsAre("quantize_int8.method", "magnitude_prune.sparsity", "magnitude_prune"));
  EXPECT_THAT(NamesOf(space.chains[1]),
              ElementsAre("quantize_int8.method", "quantize_int8.granularity"));
  const SearchAxis& sparsity = space.chains[0].axes[1];
  EXPECT_THAT(sparsity.values, ElementsAre(0.5, 0.6, 0.7, 0.8, 0.9));
  EXPECT_TRUE(sparsity.is_ordered);
  EXPECT_EQ(sparsity.start, 2U);  // the chain's own
  EXPECT_EQ(space.chains[0].axes[0].start, 1U);
  EXPECT_FALSE(space.chains[0].axes[0].is_ordered);
}

TEST(SearchSpace, APointIsAChain) {
  const SearchSpace space = MakeSearchSpace(Spec(R"({"over": [
    {"pass": "magnitude_prune", "option": "sparsity", "values": [0.9, 0.5]},
    {"pass": "magnitude_prune", "leave_out": true}]})"));
  const std::vector<Json> both = PassesAt(space, {0, {1, 0}});
  ASSERT_THAT(both, SizeIs(2));
  EXPECT_EQ(both[0]["sparsity"], 0.9);
  EXPECT_EQ(both[0]["scope"], "layer");  // all options are there
  EXPECT_EQ(ChoiceAt(space, {0, {1, 0}}),
            Json({{"magnitude_prune.sparsity", 0.9}, {"magnitude_prune", true}}));
  const std::vector<Json> one = PassesAt(space, {0, {1, 1}});
  ASSERT_THAT(one, SizeIs(1));
  EXPECT_EQ(one[0]["pass"], "quantize_int8");
  EXPECT_EQ(ChoiceAt(space, {0, {1, 1}}), Json({{"magnitude_prune", false}}));
}

TEST(SearchSpace, WithoutOverEachPassBringsItsOwn) {
  const SearchSpace space = MakeSearchSpace(Spec("{}"));
  EXPECT_THAT(NamesOf(space.chains[0]),
              ElementsAre("magnitude_prune.sparsity", "magnitude_prune.pattern", "magnitude_prune",
                          "quantize_int8.min_sqnr_db", "quantize_int8.method", "quantize_int8"));
  // A chain of one pass is nothing without it.
  EXPECT_THAT(NamesOf(space.chains[1]),
              ElementsAre("quantize_int8.min_sqnr_db", "quantize_int8.method"));
  // The chain as it is written is where it begins.
  const SearchAxis& sparsity = space.chains[0].axes[0];
  EXPECT_EQ(sparsity.values[sparsity.start], 0.7);
}

TEST(SearchSpace, PointsAtTheFault) {
  const auto over = [](const std::string& axis) {
    return [axis] { MakeSearchSpace(Spec(R"({"over": [)" + axis + "]}")); };
  };
  EXPECT_THAT(over(R"({"pass": "cast_fp16", "leave_out": true})"),
              RefusedAt("/search/over/0/pass"));
  EXPECT_THAT(
      over(R"({"pass": "quantize_int8", "chain": "x", "option": "method", "values": ["mse"]})"),
      RefusedAt("/search/over/0/chain"));
  EXPECT_THAT(over(R"({"pass": "quantize_int8", "option": "metod", "values": ["mse"]})"),
              RefusedAt("/search/over/0/option"));
  EXPECT_THAT(over(R"({"pass": "quantize_int8", "option": "method", "values": ["mse", "best"]})"),
              RefusedAt("/search/over/0/values/1"));
  EXPECT_THAT(over(R"({"pass": "magnitude_prune", "option": "sparsity", "values": [1.5]})"),
              RefusedAt("/search/over/0/values/0"));
  EXPECT_THAT(over(R"({"pass": "magnitude_prune", "option": "sparsity", "values": ["0.5"]})"),
              RefusedAt("/search/over/0/values/0"));
  EXPECT_THAT(
      over(
          R"({"pass": "magnitude_prune", "option": "sparsity", "from": 0.5, "to": 1.5, "step": 0.1})"),
      RefusedAt("/search/over/0/to"));
  EXPECT_THAT(over(R"({"pass": "quantize_int8", "option": "reduce_range", "values": [1]})"),
              RefusedAt("/search/over/0/values/0"));
  EXPECT_THAT(over(R"({"pass": "quantize_int8", "option": "method", "values": ["mse"]},
                      {"pass": "quantize_int8", "option": "method", "values": ["auto"]})"),
              RefusedAt("/search/over/1"));
  EXPECT_THAT(over(R"({"pass": "magnitude_prune", "option": "exclude", "values": [["re:("]]})"),
              RefusedAt("/search/over/0/values/0/exclude/0"));
}

TEST(SearchSpace, APassThatStandsTwiceIsNotVaried) {
  JobSpec spec = ReadJobSpec(ParseJson(R"({"model": "m", "search": {}, "chains": [{"name": "a",
    "passes": [{"pass": "magnitude_prune"}, {"pass": "magnitude_prune", "pattern": "2:4"}]}]})"));
  EXPECT_THAT(MakeSearchSpace(spec).chains[0].axes, IsEmpty());
  AxisSpec axis;
  axis.pass = "magnitude_prune";
  axis.leave_out = true;
  spec.search->over = {axis};
  EXPECT_THAT([&] { MakeSearchSpace(spec); }, RefusedAt("/search/over/0/pass"));
}

}  // namespace
}  // namespace pared
