#include "config/job_spec.h"

#include <gmock/gmock.h>

#include "tests/config/refused.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

constexpr const char* kSmallest =
    R"({"model": "m", "chains": [{"name": "c", "passes": [{"pass": "p"}]}]})";

Json JobWith(const std::string& pointer, const Json& value) {
  Json json = ParseJson(kSmallest);
  json[Json::json_pointer(pointer)] = value;
  return json;
}

TEST(JobSpec, FillsInDefaults) {
  EXPECT_EQ(WriteJobSpec(ReadJobSpec(ParseJson(kSmallest))), ParseJson(R"({
    "model": "m", "model_sha256": "", "experiment": "default", "priority": 0, "seed": 0,
    "artifact": "onnx", "cache": true,
    "calibration": {"dataset": "", "samples": 128},
    "chains": [{"name": "c", "passes": [{"pass": "p"}]}],
    "evaluate": {"dataset": "", "samples": 0, "runs": 50, "threads": 1,
                 "min_sqnr_db": 3.0, "min_agreement": 0.5, "max_accuracy_drop": 100.0},
    "limits": {"memory_mb": 0, "time_s": 0}})"));
}

TEST(JobSpec, ReadsItsCanonicalFormBack) {
  const Json json = ParseJson(R"({
    "model": "resnet18", "experiment": "nightly", "seed": 3,
    "calibration": {"dataset": "cifar10", "samples": 256},
    "chains": [
      {"name": "p80", "passes": [{"pass": "magnitude_prune", "sparsity": 0.8},
                                 {"pass": "quantize_int8", "overrides": [{"x": [1]}]}]},
      {"name": "fp16", "passes": [{"pass": "cast_fp16"}]}],
    "evaluate": {"dataset": "cifar10", "runs": 0}, "limits": {"time_s": 60}})");
  const Json written = WriteJobSpec(ReadJobSpec(json));
  EXPECT_EQ(WriteJobSpec(ReadJobSpec(written)), written);
  EXPECT_EQ(written["chains"], json["chains"]);
  EXPECT_EQ(written["calibration"], json["calibration"]);
}

TEST(JobSpec, PointsAtTheFault) {
  EXPECT_THAT([] { ReadJobSpec(Json::array()); }, RefusedAt(""));
  EXPECT_THAT([] { ReadJobSpec(ParseJson(R"({"chains": []})")); }, RefusedAt("/model"));
  EXPECT_THAT([] { ReadJobSpec(ParseJson(R"({"model": "m"})")); }, RefusedAt("/chains"));
  EXPECT_THAT([] { ReadJobSpec(JobWith("/chains", Json::array())); }, RefusedAt("/chains"));
  EXPECT_THAT([] { ReadJobSpec(JobWith("/model", "../etc")); }, RefusedAt("/model"));
  EXPECT_THAT([] { ReadJobSpec(JobWith("/chains/0/name", "baseline")); },
              RefusedAt("/chains/0/name"));
  EXPECT_THAT([] { ReadJobSpec(JobWith("/chains/0/passes", Json::array())); },
              RefusedAt("/chains/0/passes"));
  EXPECT_THAT([] { ReadJobSpec(JobWith("/chains/0/passes/0", "p")); },
              RefusedAt("/chains/0/passes/0"));
  EXPECT_THAT([] { ReadJobSpec(JobWith("/evaluate/threads", 0)); }, RefusedAt("/evaluate/threads"));
  EXPECT_THAT([] { ReadJobSpec(JobWith("/seed", -1)); }, RefusedAt("/seed"));
  EXPECT_THAT(
      [] {
        ReadJobSpec(JobWith("/evaluate", Json{{"datset", "x"}}));
      },
      ThrowsError(ErrorCode::kInvalidArgument, "/evaluate/datset", HasSubstr("dataset")));
}

TEST(JobSpec, KnowsTheFormsOfAnArtifact) {
  for (const char* form : {"onnx", "packed", "tflite"}) {
    EXPECT_EQ(WriteJobSpec(ReadJobSpec(JobWith("/artifact", form)))["artifact"], form);
  }
  EXPECT_EQ(ReadJobSpec(JobWith("/artifact", "tflite")).artifact, ArtifactForm::kTflite);
  EXPECT_THAT([] { ReadJobSpec(JobWith("/artifact", "tf")); },
              ThrowsError(ErrorCode::kInvalidArgument, "/artifact", HasSubstr("tflite")));
}

TEST(JobSpec, RefusesTwoChainsOfOneName) {
  EXPECT_THAT(
      [] { ReadJobSpec(JobWith("/chains/1", ParseJson(kSmallest)["chains"][0])); },
      ThrowsError(ErrorCode::kInvalidArgument, "/chains/1/name", "two chains are named \"c\""));
}

TEST(JobSpec, LimitsChainsAndPasses) {
  Json json = ParseJson(kSmallest);
  const Json chain = json["chains"][0];
  for (size_t i = 1; i < kChainsMax; ++i) {
    json["chains"].push_back(chain);
    json["chains"].back()["name"] = "c" + std::to_string(i);
  }
  EXPECT_EQ(ReadJobSpec(json).chains.size(), kChainsMax);
  json["chains"].push_back(chain);
  EXPECT_THAT([&] { ReadJobSpec(json); }, RefusedAt("/chains"));

  const std::vector<Json> passes(kPassesMax, Json{{"pass", "p"}});
  EXPECT_EQ(ReadJobSpec(JobWith("/chains/0/passes", passes)).chains[0].passes.size(), kPassesMax);
  const std::vector<Json> too_many(kPassesMax + 1, Json{{"pass", "p"}});
  EXPECT_THAT([&] { ReadJobSpec(JobWith("/chains/0/passes", too_many)); },
              RefusedAt("/chains/0/passes"));
}

TEST(JobSpec, ASearchIsThereOnlyWhereItIsAskedFor) {
  EXPECT_FALSE(ReadJobSpec(ParseJson(kSmallest)).search);
  const JobSpec spec = ReadJobSpec(JobWith("/search", Json::object()));
  ASSERT_TRUE(spec.search);
  EXPECT_EQ(spec.search->objectives.at(0).metric, "size_compressed_bytes");
  EXPECT_EQ(spec.search->objectives.at(1).metric, "sqnr_db");
  const Json written = WriteJobSpec(spec);
  EXPECT_EQ(WriteJobSpec(ReadJobSpec(written)), written);
}

TEST(JobSpec, PointsAtTheFaultOfASearch) {
  const auto refused = [](const char* search, const std::string& where) {
    EXPECT_THAT([&] { ReadJobSpec(JobWith("/search", ParseJson(search))); }, RefusedAt(where));
  };
  refused("3", "/search");
  refused(R"({"objective": []})", "/search/objective");
  refused(R"({"objectives": [{"metric": "a", "direction": "down"}]})",
          "/search/objectives/0/direction");
  refused(R"({"objectives": [{"metric": "a"}, {"metric": "a"}]})", "/search/objectives/1/metric");
  refused(R"({"bounds": [{"metric": "a"}]})", "/search/bounds/0");
  refused(R"({"bounds": [{"metric": "a", "max": "1"}]})", "/search/bounds/0/max");
  refused(R"({"bounds": [{"metric": "a", "min": 2, "max": 1}]})", "/search/bounds/0/min");
  refused(R"({"over": [{"pass": "p"}]})", "/search/over/0/option");
  refused(R"({"over": [{"pass": "p", "option": "o"}]})", "/search/over/0/values");
  refused(R"({"over": [{"pass": "p", "option": "o", "values": []}]})", "/search/over/0/values");
  refused(R"({"over": [{"pass": "p", "option": "o", "values": [1, 1]}]})",
          "/search/over/0/values/1");
  refused(R"({"over": [{"pass": "p", "option": "o", "from": 2, "to": 1, "step": 1}]})",
          "/search/over/0/to");
  refused(R"({"over": [{"pass": "p", "option": "o", "to": 1, "step": 0.001}]})",
          "/search/over/0/step");
  refused(R"({"over": [{"pass": "p", "option": "o", "values": [1], "step": 1}]})",
          "/search/over/0/step");
  refused(R"({"over": [{"pass": "p", "option": "o", "leave_out": true}]})",
          "/search/over/0/leave_out");
  refused(R"({"budget": {"candidates": 0}})", "/search/budget/candidates");
  Json no_latency = JobWith("/search", {{"bounds", {{{"metric", "latency_ratio"}, {"max", 1}}}}});
  no_latency["evaluate"] = {{"runs", 0}};
  EXPECT_THAT([&] { ReadJobSpec(no_latency); }, RefusedAt("/search/bounds/0/metric"));
}

TEST(JobSpec, InASearchTheLargestDropIsABound) {
  Json json = JobWith("/search", Json::object());
  json["evaluate"] = {{"max_accuracy_drop", 0.02}};
  const JobSpec spec = ReadJobSpec(WriteJobSpec(ReadJobSpec(json)));
  ASSERT_EQ(spec.search->bounds.size(), 1U);
  EXPECT_EQ(BoundText(spec.search->bounds[0]), "accuracy_drop at most 0.02");
}

}  // namespace
}  // namespace pared
