#include "passes/int8_branches.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/error.h"
#include "evaluator/executor.h"
#include "model/rewrite.h"
#include "passes/calibrate.h"
#include "passes/select_nodes.h"
#include "passes/weights.h"

namespace pared {
namespace {

constexpr int64_t kSeenBytesMax = int64_t{256} << 20;  // of what all branches read, together
constexpr int64_t kAtOnce = 16;                        // samples, between looks at that bound

constexpr const char* kBranches[] = {"then_branch", "else_branch"};

using Values = std::map<std::string, Tensor>;

struct Branch {
  size_t node = 0;  // the If
  std::string attribute, label;
  GraphPtr graph;
  std::string condition;
  bool taken_if = false;
  std::vector<std::string> constants, inputs;  // of the names it captures
  std::vector<Values> samples;
};

// The nodes that could be INT8, of graphs within it too.
std::vector<std::string> LabelsOf(const Graph& graph) {
  std::vector<std::string> labels;
  ForEachNode(graph, [&](const Node& node) {
    const bool is_product = node.op_type == "Conv" || node.op_type == "ConvTranspose" ||
                            node.op_type == "Gemm" || node.op_type == "MatMul";
    if (is_product) labels.push_back(NodeLabel(node));
  });
  return labels;
}

// The constants of the graph that nobody may override.
const Tensor* FixedConstant(const Graph& graph, const GraphIndex& index, const std::string& value) {
  if (IsAmong(graph.inputs, value)) return nullptr;
  return ConstantOf(graph, index, value, 4);
}

std::vector<Branch> FindBranches(const Graph& graph) {
  const GraphIndex index(graph);
  std::vector<Branch> branches;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (node.op_type != "If" || !node.domain.empty()) continue;
    for (const char* attribute : kBranches) {
      Branch branch{i,
                    attribute,
                    std::string(attribute) + " of " + NodeLabel(node),
                    node.GraphOf(attribute),
                    node.inputs[0],
                    attribute == kBranches[0],
                    {},
                    {},
                    {}};
      if (branch.graph == nullptr || LabelsOf(*branch.graph).empty()) continue;
      for (const std::string& name : CapturedNames(*branch.graph)) {
        const bool is_constant = FixedConstant(graph, index, name) != nullptr;
        (is_constant ? branch.constants : branch.inputs).push_back(name);
      }
      branches.push_back(std::move(branch));
    }
  }
  return branches;
}

// Runs the model and keeps, for each branch, what it reads where it is taken.
void Look(const Model& model, std::vector<Branch>& branches, PassContext& context) {
  std::set<std::string> wanted;
  for (const Branch& branch : branches) {
    wanted.insert(branch.condition);
    wanted.insert(branch.inputs.begin(), branch.inputs.end());
  }
  const GraphIndex index(model.graph);
  const Executor executor(model, {.fuse = false, .seed = context.seed});
  const int64_t count = CalibrationCount(context);
  int64_t bytes = 0;
  for (int64_t first = 0; first < count && bytes < kSeenBytesMax; first += kAtOnce) {
    std::vector<Values> seen(static_cast<size_t>(std::min(kAtOnce, count - first)));
    tbb::parallel_for(size_t{0}, seen.size(), [&](size_t at) {
      if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while calibrating");
      const Observer observer = [&](const std::string& value, const Tensor& tensor) {
        if (wanted.contains(value)) seen[at].emplace(value, tensor);
      };
      const int64_t sample = first + static_cast<int64_t>(at);
      executor.Run(context.calibration->Sample(sample, executor.inputs()), &observer);
    });
    for (const Values& values : seen) {
      for (Branch& branch : branches) {
        const auto made = values.find(branch.condition);
        const Tensor* condition = made != values.end()
                                      ? &made->second
                                      : FixedConstant(model.graph, index, branch.condition);
        if (condition == nullptr || condition->data<bool>()[0] != branch.taken_if) continue;
        Values& kept = branch.samples.emplace_back();
        for (const std::string& input : branch.inputs) {
          const auto value = values.find(input);
          if (value == values.end()) continue;  // of no tensor type
          kept.emplace(input, value->second);
          bytes += static_cast<int64_t>(value->second.bytes().size());
        }
      }
    }
  }
}

// Empty: the branch can be looked at.
std::string WhyNot(const Branch& branch, bool is_excluded) {
  if (is_excluded) return "excluded";
  if (branch.inputs.empty()) return "it reads constants only";
  if (branch.samples.empty()) return "no calibration sample takes it";
  for (const std::string& input : branch.inputs) {
    if (!branch.samples[0].contains(input)) return "it reads \"" + input + "\", which is no tensor";
  }
  return "";
}

// The samples that have the shapes of the first: a dataset has no others.
Dataset DataOf(const Branch& branch) {
  std::vector<const Values*> alike;
  for (const Values& sample : branch.samples) {
    const bool is_alike = std::ranges::all_of(branch.samples[0], [&](const auto& value) {
      return sample.at(value.first).shape() == value.second.shape();
    });
    if (is_alike) alike.push_back(&sample);
  }
  Values arrays;
  for (const auto& [name, first] : branch.samples[0]) {
    const auto bytes = std::make_shared<std::vector<std::byte>>();
    for (const Values* sample : alike) {
      const std::span<const std::byte> part = sample->at(name).bytes();
      bytes->insert(bytes->end(), part.begin(), part.end());
    }
    Shape shape = first.shape();
    shape.insert(shape.begin(), std::ssize(alike));
    arrays.emplace(name, Tensor::View(first.dtype(), std::move(shape), *bytes, bytes));
  }
  return Dataset::Of(branch.label, arrays);
}

// The branch, what it captures being inputs and initializers.
Model Alone(const Model& model, const Branch& branch) {
  const GraphIndex index(model.graph);
  Model alone;
  alone.ir_version = model.ir_version;
  alone.opsets = model.opsets;
  alone.graph = *branch.graph;
  for (const std::string& name : branch.constants) {
    alone.graph.initializers.set(name, {*FixedConstant(model.graph, index, name), ""});
  }
  for (const std::string& name : branch.inputs) {
    ValueInfo input;
    input.name = name;
    input.dtype = branch.samples[0].at(name).dtype();
    input.shape.emplace();
    for (const int64_t size : branch.samples[0].at(name).shape()) {
      input.shape->push_back({.value = size, .param = "", .unknown = ""});
    }
    alone.graph.inputs.push_back(std::move(input));
  }
  return alone;
}

bool SameTensor(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && a.bytes().size() == b.bytes().size() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

using Renames = std::map<std::string, std::string>;

void Rename(Graph& graph, const Renames& values, const Renames& nodes) {
  const auto rename = [](std::string& name, const Renames& renames) {
    if (const auto found = renames.find(name); found != renames.end()) name = found->second;
  };
  for (Node& node : graph.nodes) {
    rename(node.name, nodes);
    for (std::string& input : node.inputs) rename(input, values);
    for (std::string& output : node.outputs) rename(output, values);
    EditSubgraphs(node, [&](Graph& inner) { Rename(inner, values, nodes); });
  }
}

// Puts quantized branches in their places, under names that are free in the whole model.
class Planter {
 public:
  explicit Planter(Model& model) : model_(model), names_(model) {}

  void Plant(const Branch& branch, const Model& alone, Model quantized) {
    Graph graph = std::move(quantized.graph);
    graph.inputs.clear();
    std::set<std::string> known, known_nodes = {""};
    ForEachNode(alone.graph, [&](const Node& node) {
      known.insert(node.outputs.begin(), node.outputs.end());
      known_nodes.insert(node.name);
    });
    Renames values, nodes;
    ForEachNode(graph, [&](const Node& node) {
      if (!known_nodes.contains(node.name)) nodes.emplace(node.name, names_.Make(node.name));
      for (const std::string& output : node.outputs) {
        if (!known.contains(output)) values.emplace(output, names_.Make(output));
      }
    });
    for (const auto& [name, initializer] : graph.initializers) {
      const Initializer* before = alone.graph.initializers.find(name);
      const bool is_same =
          before != nullptr && before->tensor.bytes().data() == initializer.tensor.bytes().data();
      if (!is_same) values.emplace(name, Hoisted(name, initializer.tensor));
    }
    graph.initializers.erase_if([&](const std::string& name, const Initializer&) {
      return values.contains(name) || !branch.graph->initializers.contains(name);
    });
    graph.values = branch.graph->values;
    Rename(graph, values, nodes);
    EraseDead(graph);
    model_.graph.nodes[branch.node].attributes.find(branch.attribute)->value =
        std::make_shared<const Graph>(std::move(graph));
  }

 private:
  // The name that the tensor has as an initializer of the main graph.
  std::string Hoisted(const std::string& name, const Tensor& tensor) {
    for (const std::string& other : hoisted_) {
      if (SameTensor(model_.graph.initializers.at(other).tensor, tensor)) return other;
    }
    hoisted_.push_back(names_.Make(name));
    model_.graph.initializers.set(hoisted_.back(), {tensor, ""});
    return hoisted_.back();
  }

  Model& model_;
  FreshNames names_;
  std::vector<std::string> hoisted_;
};

Json LeftFloat(const Branch& branch, const std::string& reason) {
  Json skipped = Json::array();
  for (const std::string& label : LabelsOf(*branch.graph)) {
    skipped.push_back({{"node", label}, {"reason", "in " + branch.label + ": " + reason}});
  }
  return {{"changed", Json::array()}, {"skipped", skipped}, {"int8_weight_count", 0}};
}

}  // namespace

Json QuantizeBranches(Model& model, const QuantizeBranch& quantize,
                      const std::function<bool(const Node&)>& is_excluded, PassContext& context) {
  Json told = Json::array();
  std::vector<Branch> branches = FindBranches(model.graph);
  if (branches.empty() || CalibrationCount(context) == 0) return told;
  Look(model, branches, context);
  Planter planter(model);
  for (const Branch& branch : branches) {
    Json& entry = told.emplace_back(Json{{"branch", branch.label}});
    const std::string reason = WhyNot(branch, is_excluded(model.graph.nodes[branch.node]));
    if (!reason.empty()) {
      entry["report"] = LeftFloat(branch, reason);
      continue;
    }
    const Dataset data = DataOf(branch);
    PassContext inner = context;
    inner.calibration = &data;
    inner.calibration_samples = 0;
    inner.shared = nullptr;  // what it keeps is of one dataset
    inner.progress = [](double) {};
    inner.report = Json::object();
    const Model alone = Alone(model, branch);
    std::optional<Model> quantized = quantize(alone, inner);
    inner.report["samples"] = data.sample_count();
    entry["report"] = std::move(inner.report);
    if (quantized) planter.Plant(branch, alone, std::move(*quantized));
  }
  EraseDead(model.graph);
  return told;
}

}  // namespace pared
