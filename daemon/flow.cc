#include "daemon/flow.h"

#include <tbb/flow_graph.h>
#include <tbb/task_arena.h>

#include <chrono>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "daemon/provenance.h"
#include "model/graph.h"
#include "passes/layer_progress.h"

namespace pared {
namespace {

// The exception in flight, as an Error that names the pass.
std::shared_ptr<const Error> CurrentError(const std::string& pass) {
  const std::string prefix = pass.empty() ? "" : "pass " + pass + ": ";
  try {
    throw;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) return std::make_shared<const Error>(error);
    return std::make_shared<const Error>(error.code(), prefix + error.message(), error.where());
  } catch (const std::bad_alloc&) {
    return std::make_shared<const Error>(ErrorCode::kUnavailable,
                                         prefix + "out of memory: the job's limit is too low");
  } catch (const std::exception& error) {
    return std::make_shared<const Error>(ErrorCode::kInternal, prefix + error.what());
  }
}

int ArenaThreads(int64_t threads) {
  return threads == 0 ? tbb::task_arena::automatic : static_cast<int>(threads);
}

Outcome Failed(Outcome outcome, std::shared_ptr<const Error> error) {
  outcome.model = nullptr;
  outcome.error = std::move(error);
  return outcome;
}

}  // namespace

const std::string& FirstChain(const PlanNode& node) {
  const PlanNode* at = &node;
  while (at->chains.empty()) at = &at->next.front();  // a node without a chain has one below it
  return at->chains.front();
}

struct Flow::GraphState {
  using StepNode = tbb::flow::function_node<Outcome, Outcome>;

  GraphState(const PlanNode& plan, FlowContext flow_context, Sink flow_sink)
      : context(std::move(flow_context)),
        sink(std::move(flow_sink)),
        arena(ArenaThreads(context.threads)) {
    // The graph spawns its tasks into the arena it is made in.
    arena.execute([&] {
      graph = std::make_unique<tbb::flow::graph>();
      entry = std::make_unique<tbb::flow::broadcast_node<Outcome>>(*graph);
      Add(plan, *entry, "");
    });
  }

  // A step, and where it stands.
  struct Place {
    Step step;
    std::string label, chain;  // as StepProgress has them
    std::vector<std::string> chains;
    bool has_next = false;
  };

  // One graph node for `plan`, fed by `from`, and those below it.
  void Add(const PlanNode& plan, tbb::flow::sender<Outcome>& from, const std::string& above) {
    std::string label = above;
    if (!plan.step.pass.empty()) label += (above.empty() ? "" : "+") + plan.step.pass;
    nodes.push_back(std::make_unique<StepNode>(
        *graph, tbb::flow::unlimited,
        [this, place = Place{plan.step, label, FirstChain(plan), plan.chains, !plan.next.empty()}](
            const Outcome& in) { return Visit(place, in); }));
    StepNode& node = *nodes.back();
    tbb::flow::make_edge(from, node);
    for (const PlanNode& next : plan.next) Add(next, node, label);
  }

  Outcome Visit(const Place& place, const Outcome& in) const {
    const bool has_step = !place.step.pass.empty();
    Outcome out = has_step && in.error == nullptr ? RunStep(place, in) : in;
    for (const std::string& chain : place.chains) Deliver(chain, out);
    return out;
  }

  // The step boundary: whatever a pass throws ends its branch and nothing else.
  Outcome RunStep(const Place& place, const Outcome& in) const {
    Outcome out = in;
    Json said = {{"pass", place.step.pass}, {"report", Json::object()}};
    Json followed = Json::array();
    const auto begin = std::chrono::steady_clock::now();
    try {
      if (context.cancelled()) throw Error(ErrorCode::kCancelled, "the job was cancelled");
      context.progress({place.label, place.chain, 0});
      LogEvent(LogLevel::kInfo, "step_begun", {{"step", place.label}});
      Place now = place;
      now.step = FollowNodes(place.step, *in.history, followed);
      out.model = std::make_shared<const Model>(FindOrMake(now, in, said));
      if (place.has_next) {
        auto history = std::make_shared<NodeHistory>(*in.history);
        history->Advance(*out.model, place.step.pass);
        out.history = std::move(history);
      }
      out.digest = context.cache != nullptr && place.has_next ? ModelDigest(*out.model) : "";
    } catch (const std::exception&) {
      out = Failed(std::move(out), CurrentError(place.step.pass));
    }
    for (Json& note : followed) said["report"]["references"].push_back(std::move(note));
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    said["seconds"] = elapsed.count();
    LogEvent(LogLevel::kInfo, "step_ended",
             {{"step", place.label},
              {"seconds", elapsed.count()},
              {"cached", said.contains("cached")},
              {"not_cached", said.value("not_cached", "")},
              {"error", out.error == nullptr ? "" : out.error->what()}});
    out.reports.push_back(std::move(said));
    context.progress({place.label, place.chain, 1});
    return out;
  }

  Model FindOrMake(const Place& place, const Outcome& in, Json& said) const {
    if (context.cache == nullptr) return Make(place, in, said);
    const std::string key = context.cache->KeyOf(in.digest, place.step);
    if (std::optional<StepResult> found = Find(key)) {
      said["report"] = std::move(found->report);
      said["cached"] = true;
      return std::move(found->model);
    }
    Model model = Make(place, in, said);
    Keep(key, model, said);
    return model;
  }

  // A pass that can do without data does so where the model cannot be run on them.
  Model Make(const Place& place, const Outcome& in, Json& said) const {
    try {
      return MakeWith(context.calibration, place, in, said);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported || context.calibration == nullptr ||
          place.step.needs_calibration) {
        throw;
      }
      Model model = MakeWith(nullptr, place, in, said);
      said["report"]["warnings"].push_back(std::string("calibration data was not used: ") +
                                           error.what());
      return model;
    }
  }

  Model MakeWith(const Dataset* calibration, const Place& place, const Outcome& in,
                 Json& said) const {
    PassContext pass;
    pass.cancelled = context.cancelled;
    pass.progress = [&](double fraction) {
      context.progress({place.label, place.chain, fraction, pass.report.value(kAtLayer, Json())});
    };
    pass.calibration = calibration;
    pass.calibration_samples = context.calibration_samples;
    pass.seed = context.seed;
    pass.threads = context.threads;
    pass.shared = context.shared;
    pass.scratch = context.scratch;
    // What it has said until then is told of a pass that fails, too.
    const auto tell = [&] {
      pass.report.erase(kAtLayer);
      said["report"] = std::move(pass.report);
    };
    try {
      Model model = place.step.run(*in.model, pass);
      if (!pass.report.value("changed", Json::array()).empty()) {
        RecordProvenance(place.step, model);
      }
      Verify(model);
      tell();
      return model;
    } catch (const std::exception&) {
      tell();
      throw;
    }
  }

  // The cache saves time and is no reason to fail: where it cannot be read or written the step runs
  // all the same.
  std::optional<StepResult> Find(const std::string& key) const {
    try {
      std::optional<StepResult> found = context.cache->Find(key);
      if (found) Verify(found->model);
      return found;
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  void Keep(const std::string& key, const Model& model, Json& said) const {
    try {
      if (!context.cache->Put(key, model, said.at("report"))) {
        said["not_cached"] = "is larger than the cache";
      }
    } catch (const std::exception& error) {
      said["not_cached"] = error.what();
    }
  }

  void Deliver(const std::string& chain, const Outcome& outcome) const {
    std::shared_ptr<const Error> error;
    try {
      sink(chain, outcome);
    } catch (const std::exception&) {
      if (outcome.error != nullptr) throw;
      error = CurrentError("");
    }
    if (error != nullptr) sink(chain, Failed(outcome, error));
  }

  const FlowContext context;
  const Sink sink;
  tbb::task_arena arena;
  std::unique_ptr<tbb::flow::graph> graph;
  std::unique_ptr<tbb::flow::broadcast_node<Outcome>> entry;
  std::vector<std::unique_ptr<StepNode>> nodes;
};

Flow::Flow(const PlanNode& plan, FlowContext context, Sink sink)
    : state_(std::make_unique<GraphState>(plan, std::move(context), std::move(sink))) {}

Flow::~Flow() = default;

void Flow::Run(Model model) {
  Outcome outcome;
  if (state_->context.cache != nullptr) outcome.digest = ModelDigest(model);
  outcome.history = std::make_shared<const NodeHistory>(model);
  outcome.model = std::make_shared<const Model>(std::move(model));
  state_->arena.execute([&] {
    state_->entry->try_put(outcome);
    state_->graph->wait_for_all();
  });
}

}  // namespace pared
