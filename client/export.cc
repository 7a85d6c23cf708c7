// The conversation with an MLflow tracking server.

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "client/commands.h"
#include "client/mlflow.h"

namespace pared {
namespace {

constexpr int64_t kPageMax = 1'000;

class Mlflow {
 public:
  explicit Mlflow(const std::string& url) : http_(ParseUrl(url), {}) {
    const char* token = std::getenv("MLFLOW_TRACKING_TOKEN");
    if (token != nullptr) token_ = token;
  }

  // Its id; made where it is missing.
  std::string ExperimentId(const std::string& name) const {
    const std::optional<Json> found =
        Ask("GET", TargetOf("experiments/get-by-name", {{"experiment_name", name}}), nullptr);
    if (found) return found->at("experiment").at("experiment_id").get<std::string>();
    return Post("experiments/create", {{"name", name}}).at("experiment_id").get<std::string>();
  }

  // The id of the run with this identity; empty: there is none.
  std::string FindRun(const std::string& experiment, const std::string& identity) const {
    const Json answer = Post("runs/search", {{"experiment_ids", {experiment}},
                                             {"filter", "tags.`pared.run` = '" + identity + "'"},
                                             {"max_results", 1}});
    const Json runs = answer.value("runs", Json::array());
    return runs.empty() ? "" : runs.at(0).at("info").at("run_id").get<std::string>();
  }

  // Throws kInternal with what the server said.
  Json Post(const std::string& call, const Json& body) const {
    const std::optional<Json> answer = Ask("POST", call, body);
    if (answer) return *answer;
    throw Error(ErrorCode::kInternal, "MLflow knows no such thing", call);
  }

 private:
  // nullopt: 404.
  std::optional<Json> Ask(const std::string& method, const std::string& call,
                          const Json& body) const {
    HttpRequest request = {.method = method, .target = "/api/2.0/mlflow/" + call};
    if (!token_.empty()) request.headers["authorization"] = "Bearer " + token_;
    if (!body.is_null()) {
      request.headers["content-type"] = "application/json";
      request.body = DumpJson(body);
    }
    const HttpReply reply = http_.Send(request);
    const bool is_json = reply.header("content-type").starts_with("application/json");
    if (reply.status == 404 && is_json) return std::nullopt;
    if (reply.status / 100 == 2 && is_json) return ParseJson(reply.body);
    std::string said = "answered " + std::to_string(reply.status);
    if (is_json) said += ": " + ParseJson(reply.body).value("message", "");
    if (!is_json) said += " without JSON: is this an MLflow tracking server?";
    throw Error(ErrorCode::kInternal, said, http_.url().text() + request.target);
  }

  HttpClient http_;
  std::string token_;
};

// The newest runs that the options ask for, oldest first: that is the order in which MLflow shows
// equal times.
std::vector<int64_t> RunIds(const Daemon& daemon, const ExportOptions& options) {
  std::vector<int64_t> ids;
  std::string after;
  while (static_cast<int64_t>(ids.size()) < options.limit) {
    const int64_t count = std::min(kPageMax, options.limit - static_cast<int64_t>(ids.size()));
    const Json page = daemon.Get(TargetOf("/v1/runs", {{"filter", options.filter},
                                                       {"experiment", options.only_experiment},
                                                       {"model", options.model},
                                                       {"sort", "-id"},
                                                       {"columns", "id"},
                                                       {"limit", std::to_string(count)},
                                                       {"after", after}}));
    for (const Json& run : page.at("runs")) ids.push_back(run.at("id").get<int64_t>());
    if (page.at("next").is_null()) break;
    after = page.at("next").dump();
  }
  return {ids.rbegin(), ids.rend()};
}

// Whether the run is new there.
bool PutRun(const Mlflow& mlflow, const std::string& experiment, const Json& run,
            const std::string& url) {
  std::string id = mlflow.FindRun(experiment, MlflowIdentity(run, url));
  const bool is_new = id.empty();
  if (is_new) {
    const Json made = mlflow.Post(
        "runs/create", {{"experiment_id", experiment},
                        {"run_name", run.value("model", "") + " " + run.value("chain", "")},
                        {"start_time", run.at("created_ms")},
                        {"tags", {{{"key", "mlflow.source.name"}, {"value", "pared"}}}}});
    id = made.at("run").at("info").at("run_id").get<std::string>();
  }
  for (Json& batch : MlflowBatches(run, url)) {
    batch["run_id"] = id;
    mlflow.Post("runs/log-batch", batch);
  }
  mlflow.Post("runs/update", {{"run_id", id},
                              {"status", run.at("error").is_object() ? "FAILED" : "FINISHED"},
                              {"end_time", run.at("created_ms")}});
  return is_new;
}

}  // namespace

int ExportToMlflow(const Context& context, const ExportOptions& options) {
  const std::vector<int64_t> ids = RunIds(context.daemon, options);
  const Mlflow mlflow(options.url);
  const std::string experiment = mlflow.ExperimentId(options.experiment);
  int64_t made = 0;
  for (const int64_t id : ids) {
    const Json run = context.daemon.Get("/v1/runs/" + std::to_string(id));
    if (PutRun(mlflow, experiment, run, context.daemon.url())) ++made;
  }
  const int64_t known = static_cast<int64_t>(ids.size()) - made;
  if (context.is_json) {
    context.terminal.out << DumpJson(
                                {{"experiment_id", experiment}, {"new", made}, {"updated", known}})
                         << "\n";
  } else {
    context.terminal.out << made << " runs exported, " << known
                         << " were there and are up to date\n";
  }
  return kExitDone;
}

}  // namespace pared
