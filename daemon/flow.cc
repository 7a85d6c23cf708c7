#include "daemon/flow.h"

#include <tbb/flow_graph.h>
#include <tbb/task_arena.h>

#include <chrono>
#include <new>
#include <utility>
#include <vector>

#include "model/graph.h"

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

  // One graph node for `plan`, fed by `from`, and those below it.
  void Add(const PlanNode& plan, tbb::flow::sender<Outcome>& from, const std::string& above) {
    std::string label = above;
    if (!plan.step.pass.empty()) label += (above.empty() ? "" : "+") + plan.step.pass;
    nodes.push_back(std::make_unique<StepNode>(
        *graph, tbb::flow::unlimited,
        [this, label, step = plan.step, chains = plan.chains](const Outcome& in) {
          return Visit(step, label, chains, in);
        }));
    StepNode& node = *nodes.back();
    tbb::flow::make_edge(from, node);
    for (const PlanNode& next : plan.next) Add(next, node, label);
  }

  Outcome Visit(const Step& step, const std::string& label, const std::vector<std::string>& chains,
                const Outcome& in) const {
    const bool has_step = !step.pass.empty();
    Outcome out = has_step && in.error == nullptr ? RunStep(step, label, in) : in;
    for (const std::string& chain : chains) Deliver(chain, out);
    return out;
  }

  // The step boundary: whatever a pass throws ends its branch and nothing else.
  Outcome RunStep(const Step& step, const std::string& label, const Outcome& in) const {
    Outcome out = in;
    PassContext pass;
    pass.cancelled = context.cancelled;
    pass.progress = [&](double fraction) { context.progress(label, fraction); };
    pass.calibration = context.calibration;
    pass.calibration_samples = context.calibration_samples;
    pass.seed = context.seed;
    pass.threads = context.threads;
    const auto begin = std::chrono::steady_clock::now();
    try {
      if (context.cancelled()) throw Error(ErrorCode::kCancelled, "the job was cancelled");
      context.progress(label, 0);
      Model model = step.run(*in.model, pass);
      Verify(model);
      out.model = std::make_shared<const Model>(std::move(model));
    } catch (const std::exception&) {
      out = Failed(std::move(out), CurrentError(step.pass));
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    out.reports.push_back(
        {{"pass", step.pass}, {"seconds", elapsed.count()}, {"report", pass.report}});
    context.progress(label, 1);
    return out;
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
  outcome.model = std::make_shared<const Model>(std::move(model));
  state_->arena.execute([&] {
    state_->entry->try_put(outcome);
    state_->graph->wait_for_all();
  });
}

}  // namespace pared
