#include "daemon/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "base/log.h"
#include "evaluator/dataset.h"
#include "evaluator/npy.h"
#include "model/onnx.h"
#include "model/tflite.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Pair;
using testing::SizeIs;

const Json kSpec = {{"model", "tiny"},
                    {"chains", {{{"name", "fp16"}, {"passes", {{{"pass", "cast_fp16"}}}}}}},
                    {"evaluate", {{"runs", 3}}}};

// A store, artifacts with the model "tiny", and a worker that is a shell script. In the script
// $FOLDER is the job's folder.
class RunnerTest : public testing::Test {
 protected:
  RunnerTest() : store_(dir_ / "pared.db", {}), artifacts_(dir_ / "artifacts") {
    SetLogLevel(LogLevel::kError);
    SaveOnnx(ModelFromText("g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,0,0,1}> "
                           "{ y = MatMul(x, w) }"),
             dir_ / "tiny.onnx");
    model_ = artifacts_.Put(dir_ / "tiny.onnx");
    store_.PutModel("tiny", model_.sha256, model_.bytes);
  }

  RunnerSettings Script(const std::string& script) const {
    const std::filesystem::path program = dir_ / "worker.sh";
    WriteFile(program, "#!/bin/sh\nFOLDER=$3\n" + script + "\n");
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    return {.program = program,
            .work_dir = dir_ / "work",
            .datasets_dir = dir_ / "datasets",
            .threads = 1,
            .limits = {.time_s = 60}};
  }

  Job WaitUntil(JobId id, const std::function<bool(const Job&)>& holds) const {
    const auto deadline = std::chrono::steady_clock::now() + 120s;  // under load
    while (true) {
      const Job job = *store_.GetJob(id);
      if (holds(job)) return job;
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "job " << id << " is still " << JobStateName(job.state);
        return job;
      }
      std::this_thread::sleep_for(5ms);
    }
  }

  Job WaitForEnd(JobId id) const {
    return WaitUntil(id, [](const Job& job) {
      return job.state != JobState::kQueued && job.state != JobState::kRunning;
    });
  }

  Job WaitForProgress(JobId id) const {
    return WaitUntil(id, [](const Job& job) { return !job.progress.is_null(); });
  }

  // With settings.logs_dir = dir_ / "logs".
  void WaitForLog(JobId id, const std::string& event) const {
    WaitUntil(id, [&](const Job&) {
      return JobLogs(dir_ / "logs").Read(id, 0).text.find(event) != std::string::npos;
    });
  }

  std::vector<pared::Run> RunsOf(JobId id) const {
    RunQuery query;
    query.job = id;
    return store_.Runs(query);
  }

  TempDir dir_;
  Store store_;
  Artifacts artifacts_;
  Artifact model_;
};

// What a worker writes at its end: the baseline, and fp16 with a file.
const char kGoodResult[] = R"sh(
echo '{"step": "all", "fraction": 0.5}'
echo model-bytes > $FOLDER/fp16.onnx
cat > $FOLDER/result.json <<'END'
{"is_complete": true, "machine": {"cpu": "x"}, "runs": [
 {"chain": "baseline", "metrics": {"top1": 0.9}},
 {"chain": "fp16", "file": "fp16.onnx", "metrics": {"top1": 0.8}, "steps": [{"pass": "cast_fp16"}]}]}
END
)sh";

TEST_F(RunnerTest, RecordsWhatTheWorkerMeasured) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Script(kGoodResult));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kSucceeded);
  EXPECT_EQ(job.progress["step"], "ended");
  const std::vector<pared::Run> runs = RunsOf(id);
  ASSERT_THAT(runs, SizeIs(2));
  EXPECT_EQ(runs[0].record.chain, "baseline");
  EXPECT_EQ(runs[0].record.artifact, model_.sha256);
  EXPECT_EQ(runs[1].record.experiment, "default");
  EXPECT_EQ(runs[1].record.model, "tiny");
  EXPECT_EQ(runs[1].record.metrics.at("top1"), 0.8);
  EXPECT_EQ(runs[1].record.machine, Json({{"cpu", "x"}}));
  EXPECT_EQ(ReadFile(artifacts_.Open(runs[1].record.artifact).model), "model-bytes\n");
}

TEST_F(RunnerTest, RecordsTheTensorFlowLiteFileThatTheWorkerMade) {
  Json spec = kSpec;
  spec["artifact"] = "tflite";
  const JobId plain = store_.Submit(kSpec);
  const JobId id = store_.Submit(spec);
  std::string script = kGoodResult;
  // Of the first job the worker makes none, though the model is the same.
  script +=
      "grep -q '\"artifact\": *\"tflite\"' $FOLDER/order.json || exit 0\n"
      "printf TFL > $FOLDER/fp16.tflite\n"
      "sed -i 's/\"file\"/\"tflite\": \"fp16.tflite\", \"file\"/' $FOLDER/result.json\n";
  const Runner runner(store_, artifacts_, Script(script));
  EXPECT_EQ(WaitForEnd(id).state, JobState::kSucceeded);
  const RunRecord without = RunsOf(plain)[1].record;
  const RunRecord with = RunsOf(id)[1].record;
  EXPECT_EQ(without.artifact, with.artifact);
  EXPECT_FALSE(without.lineage.contains("tflite_sha256"));
  const std::string sha256 = with.lineage.value("tflite_sha256", "");
  EXPECT_EQ(ReadFile(artifacts_.TflitePath(with.artifact, sha256).value()), "TFL");
}

TEST_F(RunnerTest, LeavesNoFolderBehind) {
  std::filesystem::create_directories(dir_ / "work" / "77");  // of a daemon that crashed
  const JobId id = store_.Submit(kSpec);
  {
    const Runner runner(store_, artifacts_, Script(kGoodResult));
    WaitForEnd(id);
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "work"));
}

TEST_F(RunnerTest, AFailedChainFailsTheJobAndKeepsTheOthers) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Script(R"sh(
cat > $FOLDER/result.json <<'END'
{"is_complete": true, "runs": [{"chain": "baseline", "metrics": {"top1": 0.9}},
 {"chain": "fp16", "error": {"code": "unsupported", "message": "no", "where": "conv_1"}}]}
END
)sh"));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error["code"], "unsupported");
  EXPECT_EQ(job.error["message"], "chain fp16: no");
  EXPECT_EQ(job.error["where"], "conv_1");
  EXPECT_THAT(RunsOf(id), SizeIs(2));
}

TEST_F(RunnerTest, AWorkerThatCrashesFailsItsJobAndTheNextOneRuns) {
  const JobId first = store_.Submit(kSpec);
  const JobId second = store_.Submit(kSpec);
  const Runner runner(
      store_, artifacts_,
      Script("[ -e " + (dir_ / "seen").string() + " ] || { touch " + (dir_ / "seen").string() +
             "; echo check failed >&2; kill -ABRT $$; }" + kGoodResult));
  const Job job = WaitForEnd(first);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error["code"], "internal");
  EXPECT_THAT(job.error["message"].get<std::string>(),
              AllOf(HasSubstr("signal 6"), HasSubstr("check failed")));
  EXPECT_EQ(WaitForEnd(second).state, JobState::kSucceeded);
}

TEST_F(RunnerTest, WhatEndedBeforeACrashIsKept) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Script(R"sh(
echo '{"runs": [{"chain": "baseline", "metrics": {"top1": 0.9}}]}' > $FOLDER/result.json
kill -SEGV $$)sh"));
  EXPECT_EQ(WaitForEnd(id).state, JobState::kFailed);
  EXPECT_THAT(RunsOf(id), SizeIs(1));
}

TEST_F(RunnerTest, TheWorkersOwnErrorIsTheJobs) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Script(R"sh(
echo '{"error": {"code": "unsupported", "message": "op Foo", "where": "node f"}}'; exit 1)sh"));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.error, Json({{"code", "unsupported"}, {"message", "op Foo"}, {"where", "node f"}}));
}

TEST_F(RunnerTest, AResultThatIsNotWholeIsNoSuccess) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_,
                      Script("echo '{\"runs\": [' > $FOLDER/result.json; exit 0"));
  EXPECT_EQ(WaitForEnd(id).state, JobState::kFailed);
}

TEST_F(RunnerTest, AWorkerThatSaysNothingIsNoSuccess) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Script("exit 0"));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_THAT(job.error["message"].get<std::string>(), HasSubstr("exit code 0"));
}

TEST_F(RunnerTest, AFileOutsideTheFolderIsNotTakenIn) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Script(R"sh(
echo '{"is_complete": true, "runs": [{"chain": "fp16", "file": "../../tiny.onnx"}]}' > $FOLDER/result.json)sh"));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_THAT(job.error["message"].get<std::string>(), HasSubstr("outside its folder"));
}

TEST_F(RunnerTest, CancelTakesEffectWithinASecondEvenWhereTheWorkerIgnoresIt) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Script(R"sh(
trap '' TERM; echo '{"step": "long", "fraction": 0}'; while :; do sleep 0.05; done)sh"));
  WaitForProgress(id);
  const auto begin = std::chrono::steady_clock::now();
  store_.RequestCancel(id);
  EXPECT_EQ(WaitForEnd(id).state, JobState::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
}

TEST_F(RunnerTest, TheTimeLimitEndsTheJob) {
  Json spec = kSpec;
  spec["limits"] = {{"time_s", 1}};
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Script("exec sleep 60"));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error["code"], "unavailable");
  EXPECT_EQ(job.error["where"], "/limits/time_s");
  EXPECT_THAT(job.error["message"].get<std::string>(), HasSubstr("1 s"));
}

TEST_F(RunnerTest, TheMemoryLimitEndsTheJob) {
  Json spec = kSpec;
  spec["limits"] = {{"memory_mb", 16}};
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_,
                      Script("x=$(head -c 64000000 /dev/zero | tr '\\0' x); exec sleep 60"));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error["where"], "/limits/memory_mb");
  EXPECT_THAT(job.error["message"].get<std::string>(), HasSubstr("16 MB"));
}

Json SearchSpecOf(const Json& others = Json::object()) {
  Json spec = kSpec;
  spec["chains"] = {{{"name", "c"}, {"passes", {{{"pass", "magnitude_prune"}}}}}};
  spec["search"] = {{"objectives", {{{"metric", "size_bytes"}}}},
                    {"over",
                     {{{"pass", "magnitude_prune"},
                       {"option", "sparsity"},
                       {"values", {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}}}}}};
  spec["search"]["objectives"].push_back({{"metric", "sqnr_db"}, {"direction", "max"}});
  spec["search"].update(others);
  return spec;
}

// Shell commands of a worker that is at candidate c.NUMBER.
std::string Begins(int number) {
  const std::string n = std::to_string(number);
  return "echo '{\"step\": \"c." + n + "\", \"fraction\": 0, \"begins\": {\"chain\": \"c." + n +
         "\", \"steps\": [], \"search\": {\"number\": " + n + ", \"from\": \"c\", \"point\": [" +
         n + "], \"choice\": {}}}}'\n";
}

std::string Ends(int number, const Json& metrics) {
  const std::string name = "c." + std::to_string(number);
  const Json result = {{"runs",
                        {{{"chain", name},
                          {"file", name + ".onnx"},
                          {"metrics", metrics},
                          {"search",
                           {{"number", number},
                            {"from", "c"},
                            {"point", {number}},
                            {"choice", Json::object()},
                            {"seconds", 1}}}}}}};
  return "echo model-of-" + name + " > $FOLDER/" + name + ".onnx\ncat > $FOLDER/" + name +
         ".json <<'END'\n" + DumpJson(result) + "\nEND\necho '{\"step\": \"" + name +
         "\", \"fraction\": 1, \"kept\": \"" + name + "\"}'\n";
}

const char kComplete[] = "echo '{\"is_complete\": true, \"runs\": []}' > $FOLDER/result.json\n";

TEST_F(RunnerTest, ACandidateThatRunsIntoTheMemoryLimitHasFailedAndTheSearchGoesOn) {
  Json spec = SearchSpecOf();
  spec["limits"] = {{"memory_mb", 16}};
  const JobId id = store_.Submit(spec);
  // The second worker is told of the first candidate.
  RunnerSettings settings =
      Script("if grep -q c.1 $FOLDER/order.json; then\n" + Begins(2) +
             Ends(2, {{"size_bytes", 8}, {"sqnr_db", 20}}) + kComplete + "else\n" + Begins(1) +
             "x=$(head -c 64000000 /dev/zero | tr '\\0' x); exec sleep 60\nfi\n");
  settings.logs_dir = dir_ / "logs";
  const Runner runner(store_, artifacts_, settings);
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kSucceeded) << job.error;
  EXPECT_EQ(job.tries, 1);
  EXPECT_EQ(job.search["candidates"], 2);
  EXPECT_EQ(job.search["best"]["chain"], "c.2");
  ASSERT_THAT(job.search["failed"], SizeIs(1));
  EXPECT_EQ(job.search["failed"][0]["chain"], "c.1");
  EXPECT_THAT(job.search["failed"][0]["reason"].get<std::string>(),
              HasSubstr("memory limit of 16 MB"));
  EXPECT_EQ(RunsOf(id)[0].record.error["where"], "/limits/memory_mb");
  WaitForLog(id, "job_ended");
  EXPECT_THAT(JobLogs(dir_ / "logs").Read(id, 0).text,
              AllOf(HasSubstr("worker_died"), HasSubstr("memory limit of 16 MB")));
}

// c.2 beats c.1 and c.3, which comes after it; c.4 is smaller than all.
const std::string kFourCandidates = Begins(1) + Ends(1, {{"size_bytes", 10}, {"sqnr_db", 20}}) +
                                    Begins(2) + Ends(2, {{"size_bytes", 8}, {"sqnr_db", 25}}) +
                                    Begins(3) + Ends(3, {{"size_bytes", 9}, {"sqnr_db", 21}}) +
                                    Begins(4) + Ends(4, {{"size_bytes", 5}, {"sqnr_db", 10}}) +
                                    kComplete;

TEST_F(RunnerTest, OfASearchOnlyTheFrontsModelsStay) {
  const JobId id = store_.Submit(SearchSpecOf());
  const Runner runner(store_, artifacts_, Script(kFourCandidates));
  EXPECT_EQ(WaitForEnd(id).state, JobState::kSucceeded);
  std::vector<std::string> models;
  for (const pared::Run& run : RunsOf(id)) {
    const std::string& artifact = run.record.artifact;
    models.push_back(artifact.empty() ? "" : ReadFile(artifacts_.Open(artifact).model));
  }
  EXPECT_THAT(models, testing::ElementsAre("", "model-of-c.2\n", "", "model-of-c.4\n"));
  // What was there until it was beaten is garbage: the model itself, c.2 and c.4 are not.
  EXPECT_EQ(artifacts_.Sweep(store_.ReferencedArtifacts(), 0s, false).count, 1);
  EXPECT_EQ(artifacts_.Sweep({}, 0s, true).count, 3);
}

TEST_F(RunnerTest, EveryCandidatesModelStaysWhereThatIsAsked) {
  const JobId id = store_.Submit(SearchSpecOf({{"keep", "all"}}));
  const Runner runner(store_, artifacts_, Script(kFourCandidates));
  EXPECT_EQ(WaitForEnd(id).state, JobState::kSucceeded);
  for (const pared::Run& run : RunsOf(id)) EXPECT_FALSE(run.record.artifact.empty());
  EXPECT_EQ(artifacts_.Sweep(store_.ReferencedArtifacts(), 0s, true).count, 0);
}

TEST_F(RunnerTest, AJobThatRunsWhenTheDaemonStopsGoesBackIntoTheQueue) {
  const JobId id = store_.Submit(kSpec);
  {
    const Runner runner(store_, artifacts_,
                        Script("echo '{\"step\": \"long\", \"fraction\": 0}'; exec sleep 60"));
    WaitForProgress(id);
  }
  EXPECT_EQ(store_.GetJob(id)->state, JobState::kQueued);
  const Runner runner(store_, artifacts_, Script(kGoodResult));
  EXPECT_EQ(WaitForEnd(id).state, JobState::kSucceeded);
}

// Each worker waits for the other's mark: one at a time would never end.
TEST_F(RunnerTest, RunsSeveralJobsAtOnceWhereItIsTold) {
  const JobId first = store_.Submit(kSpec);
  const JobId second = store_.Submit(kSpec);
  RunnerSettings settings = Script(
      "touch $FOLDER/../../mark-${FOLDER##*/}\n"
      "while [ $(ls $FOLDER/../../mark-* | wc -l) -lt 2 ]; do sleep 0.01; done" +
      std::string(kGoodResult));
  settings.jobs_max = 2;
  const Runner runner(store_, artifacts_, settings);
  EXPECT_EQ(WaitForEnd(first).state, JobState::kSucceeded);
  EXPECT_EQ(WaitForEnd(second).state, JobState::kSucceeded);
}

// The second job wants more than the first leaves: it never sees the first's mark gone.
TEST_F(RunnerTest, AJobThatDoesNotFitWaitsUntilTheOtherHasEnded) {
  Json large = kSpec;
  large["limits"] = {{"memory_mb", 600}};
  const JobId first = store_.Submit(large);
  const JobId second = store_.Submit(large);
  RunnerSettings settings = Script(
      "mkdir $FOLDER/../../alone || exit 3; echo '{\"step\": \"a\", \"fraction\": 0}'\n"
      "while [ ! -e $FOLDER/../../go ]; do sleep 0.01; done; rmdir $FOLDER/../../alone" +
      std::string(kGoodResult));
  settings.jobs_max = 2;
  settings.limits.memory_total_mb = 1'000;
  const Runner runner(store_, artifacts_, settings);
  // Which of the two comes first is open: both were claimed at once.
  const auto waits = [&](JobId id) {
    const Json progress = store_.GetJob(id)->progress;
    return progress.is_object() && progress["step"] == "waits for memory or threads";
  };
  WaitUntil(second, [&](const Job&) { return waits(first) || waits(second); });
  WriteFile(dir_ / "go", "");
  EXPECT_EQ(WaitForEnd(first).state, JobState::kSucceeded);
  EXPECT_EQ(WaitForEnd(second).state, JobState::kSucceeded);
}

TEST_F(RunnerTest, AKilledWorkersJobIsTriedAgainAndSaysSo) {
  const JobId id = store_.Submit(kSpec);
  const std::string seen = (dir_ / "seen").string();
  RunnerSettings settings =
      Script("[ -e " + seen + " ] || { touch " + seen + "; kill -KILL $$; }" + kGoodResult);
  settings.logs_dir = dir_ / "logs";
  const Runner runner(store_, artifacts_, settings);
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kSucceeded);
  EXPECT_EQ(job.tries, 2);
  EXPECT_EQ(job.requeues, 1);
  WaitForLog(id, "job_ended");  // told after the job has ended
  EXPECT_THAT(job.requeue["message"].get<std::string>(), HasSubstr("signal 9"));
  EXPECT_THAT(JobLogs(dir_ / "logs").Read(id, 0).text,
              AllOf(HasSubstr("job_requeued"), HasSubstr("signal 9"), HasSubstr("job_ended")));
}

TEST_F(RunnerTest, AJobWhoseWorkerIsKilledEachTimeIsFailedAndTheNextOneRuns) {
  const JobId poison = store_.Submit(kSpec);
  Json sane = kSpec;
  sane["experiment"] = "sane";
  const JobId next = store_.Submit(sane);
  RunnerSettings settings =
      Script("grep -q sane $FOLDER/order.json || kill -KILL $$" + std::string(kGoodResult));
  settings.limits.tries_max = 3;
  const Runner runner(store_, artifacts_, settings);
  const Job job = WaitForEnd(poison);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.tries, 3);
  EXPECT_THAT(job.error["message"].get<std::string>(),
              AllOf(HasSubstr("signal 9"), HasSubstr("3 tries"), HasSubstr("tries_max, 3")));
  EXPECT_EQ(WaitForEnd(next).state, JobState::kSucceeded);
}

// A worker that ends as many steps as it has been begun, then is killed.
TEST_F(RunnerTest, AKillAfterAStepMoreThanBeforeIsForgiven) {
  const JobId id = store_.Submit(kSpec);
  const std::string seen = (dir_ / "seen").string();
  RunnerSettings settings =
      Script("echo x >> " + seen + "; n=$(wc -l < " + seen + "); [ $n -gt 4 ] && n=4\n" +
             "for i in $(seq $n); do echo '{\"step\": \"'$i'\", \"fraction\": 1}'; done\n" +
             "sleep 0.2; kill -KILL $$");
  settings.limits.tries_max = 2;
  const Runner runner(store_, artifacts_, settings);
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);  // at the second time that it came to the fourth step
  EXPECT_EQ(job.requeues, 4);
  EXPECT_EQ(job.tries, 2);
}

TEST_F(RunnerTest, WhatTheWorkerLogsIsKeptWithTheJob) {
  const JobId id = store_.Submit(kSpec);
  RunnerSettings settings =
      Script("echo '{\"event\": \"hello\"}' >&2; echo plain >&2" + std::string(kGoodResult));
  settings.logs_dir = dir_ / "logs";
  const Runner runner(store_, artifacts_, settings);
  WaitForEnd(id);
  WaitForLog(id, "job_ended");
  EXPECT_THAT(JobLogs(dir_ / "logs").Read(id, 0).text,
              AllOf(HasSubstr("job_started"), HasSubstr("{\"event\": \"hello\"}\n"),
                    HasSubstr("\"text\":\"plain\"")));
}

TEST(Budget, WaitsForWhatThereIsNotAndLetsALargeJobRunAlone) {
  Budget budget({100, 4});
  const std::optional<Resources> all = budget.Take({1'000, 1}, {});
  EXPECT_EQ(all->memory_mb, 100);
  std::stop_source stopped;
  stopped.request_stop();
  bool has_waited = false;
  EXPECT_FALSE(budget.Take({1, 1}, stopped.get_token(), [&] { has_waited = true; }));
  EXPECT_TRUE(has_waited);
  budget.GiveBack(*all);
  EXPECT_TRUE(budget.Take({60, 3}, {}));
  EXPECT_FALSE(budget.Take({50, 1}, stopped.get_token()));
  EXPECT_FALSE(budget.Take({40, 2}, stopped.get_token()));
  EXPECT_TRUE(budget.Take({40, 1}, {}));
}

TEST_F(RunnerTest, AModelThatIsGoneFailsTheJob) {
  Json spec = kSpec;
  spec["model"] = "none";
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Script(kGoodResult));
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.error["code"], "not_found");
  EXPECT_EQ(job.error["where"], "/model");
}

// The program itself, with a model of four weights.
class RealWorkerTest : public RunnerTest {
 protected:
  RunnerSettings Real() const {
    return {.program = PARED_PROGRAM,
            .work_dir = dir_ / "work",
            .datasets_dir = dir_ / "datasets",
            .cache_dir = dir_ / "cache",
            .threads = 2,
            .limits = {.cache_mb = 64, .time_s = 60}};
  }

  // Another model by this name.
  void PutTiny(const std::string& text) {
    SaveOnnx(ModelFromText(text), dir_ / "other.onnx");
    const Artifact other = artifacts_.Put(dir_ / "other.onnx");
    store_.PutModel("tiny", other.sha256, other.bytes);
  }

  // "ones": two samples of [1, 1] for the only input.
  void WriteOnes() const {
    const std::filesystem::path folder = dir_.path() / "datasets" / "ones";
    std::filesystem::create_directories(folder);
    SaveNpy(Tensor::Make<float>({2, 2}, {1, 1, 1, 1}), folder / "x.npy");
    WriteFile(folder / "dataset.json", R"({"inputs": {"*": "x.npy"}})");
  }
};

TEST_F(RealWorkerTest, MeasuresTheBaselineAndTheChain) {
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, Real());
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.error, Json());
  ASSERT_EQ(job.state, JobState::kSucceeded);
  const std::vector<pared::Run> runs = RunsOf(id);
  ASSERT_THAT(runs, SizeIs(2));
  EXPECT_EQ(runs[0].record.machine["confinement"]["seccomp"], true);
  EXPECT_EQ(runs[0].record.metrics.at("sqnr_db"), 200);
  EXPECT_EQ(runs[0].record.metrics.at("size_bytes"), static_cast<double>(model_.bytes));
  EXPECT_EQ(runs[0].record.metrics.at("size_ratio"), 1);
  EXPECT_EQ(runs[0].record.metrics.at("latency_ratio"), 1);
  // The identity of normal numbers in float16: 11 bits of mantissa, at least 60 dB.
  EXPECT_GT(runs[1].record.metrics.at("sqnr_db"), 60);
  EXPECT_THAT(runs[1].record.metrics, Contains(Key("latency_ms_p50")));
  const Json& report = runs[1].record.reports.back();
  EXPECT_EQ(report["pass"], "evaluate");
  EXPECT_EQ(report["report"]["random_inputs"], true);
  EXPECT_EQ(LoadOnnx(artifacts_.Open(runs[1].record.artifact).model).graph.inputs.size(), 1u);
}

// Pads make a result of 16 TB of an input of one value.
TEST_F(RealWorkerTest, AnAllocationBeyondTheLimitNamesTheLimit) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer ends the process itself";
#endif
  const std::filesystem::path file = dir_ / "padded.onnx";
  SaveOnnx(ParseText("g (float[1,1,1,1] x) => (float[1,1,2097153,2097153] y) "
                     "<float[1,1,1,1] w = {1}> "
                     "{ y = Conv <pads = [1048576, 1048576, 1048576, 1048576]> (x, w) }"),
           file);
  const Artifact padded = artifacts_.Put(file);
  store_.PutModel("padded", padded.sha256, padded.bytes);
  Json spec = kSpec;
  spec["model"] = "padded";
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Real());
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error["code"], "unavailable");
  EXPECT_THAT(job.error["message"].get<std::string>(),
              AllOf(HasSubstr("out of memory"), HasSubstr("limits.memory_mb")));
}

// The cache is the only folder beside its own that a confined worker may write.
TEST_F(RealWorkerTest, TheSecondJobUsesWhatTheFirstHasMadeUnlessItIsToldNotTo) {
  Json anew = kSpec;
  anew["cache"] = false;
  const JobId first = store_.Submit(kSpec);
  const JobId second = store_.Submit(kSpec);
  const JobId third = store_.Submit(anew);
  const Runner runner(store_, artifacts_, Real());
  for (const JobId id : {first, second, third}) ASSERT_EQ(WaitForEnd(id).error, Json());
  const RunRecord made = RunsOf(first)[1].record;
  const RunRecord found = RunsOf(second)[1].record;
  EXPECT_FALSE(made.reports[0].contains("cached")) << made.reports;
  EXPECT_FALSE(made.reports[0].contains("not_cached")) << made.reports;
  EXPECT_EQ(found.reports[0].at("cached"), true);
  EXPECT_EQ(found.artifact, made.artifact);
  EXPECT_FALSE(RunsOf(third)[1].record.reports[0].contains("cached"));
}

TEST_F(RealWorkerTest, TheCacheStaysWithinItsBound) {
  RunnerSettings settings = Real();
  settings.limits.cache_mb = 1;
  const std::filesystem::path old = settings.cache_dir / "other" / "key";
  std::filesystem::create_directories(old);
  WriteFile(old / "model.onnx", std::string(size_t{1} << 20, 'x'));
  std::filesystem::last_write_time(old, std::filesystem::file_time_type::clock::now() - 1h);
  const JobId id = store_.Submit(kSpec);
  const Runner runner(store_, artifacts_, settings);
  WaitForEnd(id);
  EXPECT_FALSE(std::filesystem::exists(old));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(settings.cache_dir / model_.sha256),
                          std::filesystem::directory_iterator()),
            1);
}

TEST_F(RealWorkerTest, ADatasetThatIsNotThereFailsTheJobByName) {
  Json spec = kSpec;
  spec["evaluate"]["dataset"] = "none";
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Real());
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.error["code"], "not_found");
  EXPECT_THAT(job.error["where"].get<std::string>(), HasSubstr("none"));
}

TEST_F(RealWorkerTest, QuantizingNothingIsNoSuccess) {
  PutTiny("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }");
  WriteOnes();
  Json spec = kSpec;
  spec["calibration"] = {{"dataset", "ones"}};
  spec["chains"] = {{{"name", "int8"}, {"passes", {{{"pass", "quantize_int8"}}}}}};
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Real());
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
}

TEST_F(RealWorkerTest, AModelThatCannotBeRunIsOptimizedAllTheSameAndNotEvaluated) {
  PutTiny(
      "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {4,3,2,1}> "
      "{ h = MatMul(x, w) [odd] y = Twirl(h) }");
  Json spec = kSpec;
  spec["chains"] = {
      {{"name", "half"}, {"passes", {{{"pass", "magnitude_prune"}, {"sparsity", 0.5}}}}}};
  const JobId id = store_.Submit(spec);
  spec["evaluate"]["max_accuracy_drop"] = 1;
  const JobId bounded = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Real());
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error["code"], "not_evaluated");
  EXPECT_THAT(job.error["message"].get<std::string>(), HasSubstr("Twirl"));
  const std::vector<pared::Run> runs = RunsOf(id);
  EXPECT_EQ(runs[0].record.error, Json());
  EXPECT_EQ(runs[1].record.metrics.at("sparsity"), 0.5);
  EXPECT_FALSE(runs[1].record.metrics.contains("sqnr_db"));
  EXPECT_FALSE(runs[1].record.artifact.empty());
  EXPECT_EQ(WaitForEnd(bounded).error["code"], "unsupported");
}

TEST_F(RealWorkerTest, AModelIsKeptAsTensorFlowLiteToo) {
  Json spec = kSpec;
  spec["artifact"] = "tflite";
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Real());
  ASSERT_EQ(WaitForEnd(id).error, Json());
  const std::vector<pared::Run> runs = RunsOf(id);
  EXPECT_FALSE(runs[0].record.metrics.contains("tflite_sqnr_db"));
  const RunRecord& run = runs[1].record;
  EXPECT_GT(run.metrics.at("tflite_sqnr_db"), 50);  // halves here, floats there
  EXPECT_EQ(run.reports.back()["report"]["tflite"]["samples"], 16);
  const auto tflite = artifacts_.TflitePath(run.artifact, run.lineage.value("tflite_sha256", ""));
  ASSERT_TRUE(tflite);
  EXPECT_TRUE(IsTfliteFile(*tflite));
  EXPECT_EQ(run.metrics.at("size_tflite_bytes"),
            static_cast<double>(std::filesystem::file_size(*tflite)));
  EXPECT_EQ(LoadOnnx(artifacts_.Open(run.artifact).model).graph.outputs.size(), 1u);
}

TEST_F(RealWorkerTest, WhereTensorFlowLiteHasNoCounterpartTheRunIsASuccessAndSaysSo) {
  PutTiny(
      "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,0,0,1}> "
      "{ h = MatMul(x, w) y = Asinh(h) }");
  Json spec = kSpec;
  spec["artifact"] = "tflite";
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Real());
  ASSERT_EQ(WaitForEnd(id).error, Json());
  const RunRecord run = RunsOf(id)[1].record;
  EXPECT_EQ(run.error, Json());
  EXPECT_TRUE(artifacts_.Has(run.artifact));
  EXPECT_GT(run.metrics.at("sqnr_db"), 30);
  EXPECT_FALSE(run.metrics.contains("size_tflite_bytes"));
  EXPECT_FALSE(run.lineage.contains("tflite_sha256"));
  const Json& report = run.reports.back()["report"];
  EXPECT_EQ(report["tflite"]["error"]["code"], "unsupported");
  EXPECT_THAT(report["warnings"].dump(),
              AllOf(HasSubstr("no TensorFlow Lite file was kept"), HasSubstr("Asinh")));
}

TEST_F(RealWorkerTest, AChainThatCollapsesIsNoSuccessAndSaysWhy) {
  WriteOnes();
  Json spec = kSpec;
  spec["evaluate"] = {{"dataset", "ones"}, {"runs", 0}};
  // Of w = {1,0,0,1} three quarters are zeroed: half of the output is gone, 3.01 dB.
  spec["chains"] = {
      {{"name", "gone"}, {"passes", {{{"pass", "magnitude_prune"}, {"sparsity", 0.75}}}}},
      {{"name", "fp16"}, {"passes", {{{"pass", "cast_fp16"}}}}}};
  spec["evaluate"]["min_sqnr_db"] = 3.1;
  const JobId id = store_.Submit(spec);
  const Runner runner(store_, artifacts_, Real());
  const Job job = WaitForEnd(id);
  EXPECT_EQ(job.state, JobState::kSucceeded);
  EXPECT_EQ(job.progress["degraded"][0]["chain"], "gone");
  EXPECT_NE(job.progress["best"], "gone");
  const std::vector<pared::Run> runs = RunsOf(id);
  EXPECT_EQ(runs[1].record.error["code"], "degraded");
  EXPECT_EQ(runs[1].record.metrics.at("degraded"), 1);
  EXPECT_FALSE(runs[1].record.artifact.empty());
  EXPECT_EQ(runs[2].record.error, Json());
}

}  // namespace
}  // namespace pared
