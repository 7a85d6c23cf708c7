// Graphs within the graph: what TfliteValues holds while operators run other graphs of the file.

#include <algorithm>
#include <unordered_set>

#include "model/tflite_values.h"

namespace pared {
namespace {

constexpr size_t kCostMax = 500'000, kDepthMax = 50;

}  // namespace

void TfliteValues::Enter(const TfliteGraph& graph, const std::vector<std::string>& inputs) {
  const auto is_graph = [&](const auto& entered) { return entered.first == &graph; };
  Require(std::ranges::none_of(entered_, is_graph), "it runs a graph that it is part of");
  Require(entered_.size() < kDepthMax,
          "graphs that run each other are more than " + std::to_string(kDepthMax) + " deep");
  Require(graph.inputs.size() == inputs.size(), "the graph that it runs has other inputs");
  Forget(graph);
  for (size_t i = 0; i < inputs.size(); ++i) held_[graph.inputs[i]].plain = inputs[i];
  entered_.emplace_back(&graph, op_);
}

void TfliteValues::Forget(const TfliteGraph& graph) {
  cost_ += graph.ops.size() + static_cast<size_t>(graph.tensors_end - graph.tensors_begin) + 1;
  Require(cost_ <= kCostMax, "the graphs that operators run have more than " +
                                 std::to_string(kCostMax) + " operators and tensors together");
  const bool is_first = run_.insert(&graph).second;
  for (int64_t t = graph.tensors_begin; t < graph.tensors_end; ++t) {
    held_.erase(t);
    sources_.erase(t);
    scales_.erase(t);
    // Each run adds the constants that it reads.
    const Tensor& constant = tensor(t).constant;
    if (!is_first && constant.defined()) file_.file->CountCopied(constant.bytes().size());
  }
  permuted_.erase(permuted_.lower_bound({graph.tensors_begin, {}}),
                  permuted_.lower_bound({graph.tensors_end, {}}));
}

void TfliteValues::Leave() {
  op_ = entered_.back().second;
  entered_.pop_back();
}

void TfliteValues::BeginGraph() {
  around_.push_back(std::move(model_.graph));
  model_.graph = Graph();
}

GraphPtr TfliteValues::EndGraph(std::vector<ValueInfo> inputs,
                                const std::vector<std::string>& outputs) {
  Graph& graph = model_.graph;
  std::unordered_set<std::string> made;  // and no output yet
  for (const Node& node : graph.nodes) made.insert(node.outputs.begin(), node.outputs.end());
  for (const std::string& output : outputs) {
    const bool is_own = made.erase(output) > 0;
    graph.outputs.emplace_back().name = is_own ? output : Emit("Identity", {output}, output);
  }
  graph.name = BaseOf(op_->outputs[0]);
  graph.inputs = std::move(inputs);
  EraseDead(graph);
  auto ended = std::make_shared<const Graph>(std::move(graph));
  model_.graph = std::move(around_.back());
  around_.pop_back();
  return ended;
}

}  // namespace pared
