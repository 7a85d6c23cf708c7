#include "passes/int8_candidate.h"

#include <algorithm>

#include "model/rewrite.h"
#include "passes/int8_params.h"
#include "passes/select_nodes.h"

namespace pared {

Int8Exclusions::Int8Exclusions(Model& model, const std::vector<std::string>& references) {
  const auto selected = SelectNodes(model, references, "exclude");
  FreshNames names(model);
  for (Node& node : model.graph.nodes) {
    if (!selected.contains(&node)) continue;
    KeepName(node, model.graph.nodes);
    if (node.name.empty()) node.name = names.Make("excluded_" + node.op_type);
    names_.insert(node.name);
  }
  for (const Node* node : selected) names_.insert(NameOf(*node));  // of branches, too
}

std::unique_ptr<Int8Candidate> MakeInt8Candidate(
    Model model, const Int8Request& request, const std::unordered_set<std::string>& kept_float) {
  auto candidate = std::make_unique<Int8Candidate>();
  Int8Candidate& c = *candidate;
  c.model = std::move(model);
  c.index = std::make_unique<GraphIndex>(c.model.graph);
  c.scan = FindWeights(c.model);
  c.context = {&c.model, c.index.get(), &c.scan, InferShapes(c.model), {}};
  c.context.quantizes_results = request.options->target == Int8Options::Target::kTflite;
  const auto& types = request.options->op_types;
  for (const Node& node : c.model.graph.nodes) {
    const bool has_weight_type = std::ranges::find(types, node.op_type) != types.end();
    const bool is_weighted = node.op_type == "Conv" || node.op_type == "ConvTranspose" ||
                             node.op_type == "Gemm" || node.op_type == "MatMul";
    const bool is_kept = !node.outputs.empty() && kept_float.contains(node.outputs[0]);
    if (request.exclusions->Contains(node) || is_kept) {
      c.context.excluded.emplace(&node, "excluded");
    } else if (is_weighted && !has_weight_type) {
      c.context.excluded.emplace(&node, node.op_type + " is not in op_types");
    }
  }
  c.choice = ChooseInt8(c.context);
  return candidate;
}

int64_t MacsOf(const Int8Candidate& candidate) {
  int64_t macs = 0;
  for (const auto& [node, site] : candidate.choice.weights) {
    macs += MacsOf(*site, candidate.context.types);
  }
  return macs;
}

std::map<std::string, int64_t> InputChannels(const Int8Choice& choice) {
  std::map<std::string, int64_t> channels;
  for (const auto& [node, site] : choice.weights) {
    if (site->input == 0) continue;
    const int64_t axis = SummedAxis(*node);
    const auto [known, is_new] = channels.emplace(node->inputs[0], axis);
    if (!is_new) known->second = std::max(known->second, axis);
  }
  return channels;
}

Calibration CalibrateInt8(const Int8Candidate& candidate, const Int8Options& options,
                          PassContext& context, KeptValues* kept) {
  const Int8Choice& choice = candidate.choice;
  CalibrationRequest request;
  // Another candidate of the search may ask for more than the ends.
  request.with_bins = options.method != Int8Options::Method::kMinMax || context.shared != nullptr;
  request.values = choice.values;
  request.channels = InputChannels(choice);
  return Calibrate(candidate.model, request, context, kept);
}

}  // namespace pared
