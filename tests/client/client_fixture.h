// The client against a daemon in this process, over sockets on the loopback address. Nobody runs
// the jobs: the store says what a test wants to see.

#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "api/http_server.h"
#include "api/routes.h"
#include "client/cli.h"
#include "client/daemon.h"
#include "model/onnx.h"
#include "model/text.h"
#include "tests/testing/temp_dir.h"

namespace pared {

struct Said {
  int code = 0;
  std::string out, err;
};

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    settings_.data_dir = folder_.path().string();
    settings_.port = 0;
    std::filesystem::create_directories(settings_.Datasets() / "digits");
    WriteFile(settings_.Datasets() / "digits" / "dataset.json", "{}");
    store_.PutModel("mnist", std::string(64, 'a'), 26454);
    StartServer();
  }

  void StartServer() {
    server_ = std::make_unique<HttpServer>(settings_, router_, folder_ / "incoming");
    settings_.port = server_->port();  // where it comes back after a restart
  }

  std::string Url() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }

  // `pare ARGUMENTS`.
  Said Pare(std::vector<std::string> arguments) {
    std::ostringstream out, err;
    Terminal terminal = {out, err};
    terminal.has_unicode = has_unicode_;
    terminal.is_terminal = is_terminal_;
    arguments.insert(arguments.begin(), {"--url", Url()});
    Said said;
    try {
      said.code = RunCommandLine(arguments, terminal);
    } catch (const Error& error) {
      said.code = Fail(arguments, terminal, error);
    }
    said.out = out.str();
    said.err = err.str();
    return said;
  }

  static std::string Model() {
    return SerializeOnnx(
        ParseText("<ir_version: 8, opset_import: [\"\" : 17]> "
                  "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"));
  }

  static Json Spec(const std::string& experiment = "default") {
    return {{"model", "mnist"},
            {"experiment", experiment},
            {"chains", {{{"name", "int8"}, {"passes", {{{"pass", "quantize_int8"}}}}}}}};
  }

  static RunRecord Record(const std::string& chain, std::map<std::string, double> metrics) {
    RunRecord record;
    record.experiment = "nightly";
    record.model = "mnist";
    record.chain = chain;
    record.steps = Json::array();
    if (chain != "baseline")
      record.steps.push_back({{"pass", chain}, {"granularity", "per_channel"}});
    record.reports = Json::array();
    record.machine = {{"cpu", "Test CPU"}, {"isa", "avx2"}, {"version", "0.1.0"}};
    record.metrics = std::move(metrics);
    return record;
  }

  // A job that has succeeded with these runs.
  JobId Recorded(const std::vector<RunRecord>& runs, JobState state = JobState::kSucceeded) {
    store_.Submit(Spec("nightly"));
    const Job job = *store_.Claim({});
    store_.Finish(job.id, state, nullptr, runs);
    return job.id;
  }

  // Four runs: 2 and 3 are the front of size and top-1.
  void RecordHistory() {
    Recorded({Record("baseline", {{"top1", 0.9936}, {"size_bytes", 26454}, {"size_ratio", 1}}),
              Record("int8", {{"top1", 0.9934}, {"size_bytes", 12670}, {"size_ratio", 0.479}}),
              Record("p80", {{"top1", 0.965}, {"size_bytes", 9120}, {"size_ratio", 0.345}}),
              Record("fp16", {{"top1", 0.9932}, {"size_bytes", 14330}, {"size_ratio", 0.542}})});
  }

  TempDir folder_;
  Settings settings_;
  Store store_{folder_ / "pared.db", {.queued_max = 10}};
  Artifacts artifacts_{folder_ / "artifacts"};
  Service service_{store_, artifacts_, settings_};
  Router router_{MakeRoutes(service_)};
  std::unique_ptr<HttpServer> server_;
  bool has_unicode_ = false;
  bool is_terminal_ = false;
};

}  // namespace pared
