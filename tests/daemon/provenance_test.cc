#include "daemon/provenance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "daemon/flow.h"
#include "passes/plan.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

std::string Entry(const Model& model, const std::string& key) {
  for (const auto& [name, value] : model.metadata) {
    if (name == key) return value;
  }
  return "";
}

// What a chain makes of `text`.
Model RunChain(const std::string& text, std::vector<Json> passes) {
  JobSpec spec;
  spec.chains = {{"c", std::move(passes)}};
  const PlanNode plan = MakePlan(spec);
  Outcome made;
  Flow(plan, {}, [&](const std::string& chain, const Outcome& outcome) {
    if (chain == "c") made = outcome;
  }).Run(ModelFromText(text));
  EXPECT_EQ(made.error, nullptr);
  return *made.model;
}

constexpr const char* kProduct = R"(
    <ir_version: 8, opset_import: ["" : 17], metadata_props: ["names" : "cat,dog", "stride" : "32"]>
    g (float[2,3] x) => (float[2,2] y) <float[3,2] w = {1,-2,3,-4,5,-6}> { a = Identity(x)  y = MatMul(a, w) })";

TEST(Provenance, ListsThePassesThatChangedTheModelInOrder) {
  const Model made = RunChain(kProduct, {{{"pass", "remove_identities"}},
                                         {{"pass", "fold_batch_norm"}},  // nothing to do
                                         {{"pass", "magnitude_prune"}, {"sparsity", 0.25}}});
  const Json passes = ParseJson(Entry(made, "pared.passes"));
  ASSERT_EQ(passes.size(), 2);
  EXPECT_EQ(passes[0].at("pass"), "remove_identities");
  EXPECT_GE(passes[0].at("version"), 1);
  EXPECT_EQ(passes[0].size(), 2);  // nothing but defaults
  EXPECT_EQ(passes[1].at("pass"), "magnitude_prune");
  EXPECT_EQ(passes[1].at("sparsity"), 0.25);
  EXPECT_EQ(passes[1].size(), 3);
  EXPECT_EQ(Entry(made, "pared.version"), PARED_VERSION);
}

TEST(Provenance, KeepsWhatTheExporterWrote) {
  const Model made = RunChain(kProduct, {{{"pass", "cast_fp16"}}});
  EXPECT_THAT(made.metadata,
              testing::IsSupersetOf({Pair("names", "cat,dog"), Pair("stride", "32")}));
  EXPECT_THAT(Entry(made, "pared.passes"), HasSubstr("cast_fp16"));
}

TEST(Provenance, SaysNothingOfWhatChangedNothing) {
  const Model made = RunChain("g (float[N] x) => (float[N] y) { y = Relu(x) }",
                              {{{"pass", "remove_identities"}}, {{"pass", "magnitude_prune"}}});
  EXPECT_THAT(made.metadata, IsEmpty());
}

TEST(Provenance, GoesOnFromAnEarlierChain) {
  Model model = ModelFromText("g (float[N] x) => (float[N] y) { y = Relu(x) }");
  model.metadata = {{"pared.passes", R"([{"pass":"earlier","version":3}])"},
                    {"pared.version", "0.0.1"},
                    {"of", "others"}};
  RecordProvenance({"later", Json::object(), nullptr, false, 2}, model);
  EXPECT_THAT(model.metadata,
              ElementsAre(Pair("pared.passes",
                               R"([{"pass":"earlier","version":3},{"pass":"later","version":2}])"),
                          Pair("pared.version", PARED_VERSION), Pair("of", "others")));
}

TEST(Provenance, ReplacesWhatIsNoListOfPasses) {
  for (const char* const text : {"by hand", "{}", "[1", ""}) {
    Model model = ModelFromText("g (float[N] x) => (float[N] y) { y = Relu(x) }");
    model.metadata = {{"pared.passes", text}};
    RecordProvenance({"later", Json::object(), nullptr, false, 2}, model);
    EXPECT_EQ(Entry(model, "pared.passes"), R"([{"pass":"later","version":2}])");
  }
}

TEST(Provenance, SurvivesWhatIsNestedWithoutEnd) {
  const size_t depth = 1'000'000;
  Model model = ModelFromText("g (float[N] x) => (float[N] y) { y = Relu(x) }");
  model.metadata = {{"pared.passes", std::string(depth, '[') + std::string(depth, ']')}};
  RecordProvenance({"later", Json::object(), nullptr, false, 2}, model);
  EXPECT_THAT(Entry(model, "pared.passes"), testing::EndsWith(R"(,{"pass":"later","version":2}])"));
  EXPECT_LT(Entry(model, "pared.passes").size(), 1000);
}

}  // namespace
}  // namespace pared
