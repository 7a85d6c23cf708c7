#include "passes/half_rewrite.h"

#include <algorithm>
#include <memory>

#include "evaluator/half_floats.h"
#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/held_casts.h"
#include "passes/index_values.h"
#include "passes/select_nodes.h"
#include "passes/weights.h"
#include "passes/widen_halves.h"

namespace pared {
namespace {

// The names under which a float value can be read. Empty: not (yet) in that type.
struct Copies {
  std::string single, half;
};
using CopyMap = std::unordered_map<std::string, Copies>;

Tensor ToHalf(const Tensor& tensor) {
  Tensor half = InHalf(tensor, DType::kFloat16);
  tensor.DropPages();
  return half;
}

class Rewriter {
 public:
  // `spill`: where constants go that are made, as Spilled has it.
  Rewriter(const Model& model, const HalfChoice& choice, bool keeps_io, std::filesystem::path spill)
      : model_(model),
        choice_(choice),
        names_(model),
        opset_(model.Opset("")),
        keeps_io_(keeps_io),
        spill_(std::move(spill)) {}

  Graph Run() { return Rewrite(model_.graph, {}, InferShapes(model_)); }

 private:
  // How the nodes of a graph and its subgraphs read each value.
  struct Readers {
    bool half = false, single = false, integer = false;
  };
  using ReaderMap = std::unordered_map<std::string, Readers>;

  void FindReaders(const Graph& graph, ReaderMap& readers) const {
    ForEachNode(graph, [&](const Node& node) {
      if (ReadsShape(node)) return;
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        Readers& reader = readers[node.inputs[i]];
        (ReadsHalf(node, i) ? reader.half : reader.single) = true;
        const auto kept = choice_.kept.find(&node);
        reader.integer =
            reader.integer || (kept != choice_.kept.end() && kept->second == kEndsAsIntegers);
      }
    });
    for (const ValueInfo& output : graph.outputs) readers[output.name].single = true;
  }

  // The type of what it reads does not matter.
  bool ReadsShape(const Node& node) const {
    return choice_.half.contains(&node) && (node.op_type == "Shape" || node.op_type == "Size");
  }

  bool ReadsHalf(const Node& node, size_t input) const {
    return choice_.half.contains(&node) && !StaysSingle(node, input, opset_);
  }

  Graph Rewrite(const Graph& graph, CopyMap copies, const TypeMap& types) {
    Graph out = graph;
    out.nodes.clear();
    ReaderMap readers;
    FindReaders(graph, readers);
    for (ValueInfo& input : out.inputs) {
      if (TypeOf(types, input.name) != DType::kFloat32) continue;
      copies[input.name] = {input.name, ""};
      if (KeepsType(graph) || !readers[input.name].half || readers[input.name].integer) continue;
      if (graph.initializers.contains(input.name)) continue;  // a default
      copies[input.name] = {"", input.name};
      input.dtype = DType::kFloat16;
    }
    for (const auto& [name, initializer] : graph.initializers) {
      if (initializer.tensor.dtype() != DType::kFloat32) continue;
      if (!IsAmong(graph.inputs, name))
        StoreInitializer(name, initializer, readers[name], copies, out);
    }
    for (const auto& [name, sparse] : graph.sparse_initializers) {
      if (sparse.values.dtype() != DType::kFloat32) continue;
      copies[name] = {name, ""};
      if (!readers[name].half || readers[name].single || IsAmong(graph.inputs, name)) continue;
      copies[name] = {"", name};
      out.sparse_initializers.find(name)->values = ToHalf(sparse.values);
    }
    for (const Node& node : graph.nodes) AddNode(graph, node, readers, types, copies, out);
    for (ValueInfo& output : out.outputs) {
      if (!KeepsType(graph) && copies.contains(output.name) &&
          copies[output.name].half == output.name) {
        output.dtype = DType::kFloat16;
      } else {
        KeepOutput(output, types, copies, out);
      }
    }
    RetypeValues(copies, out);
    return out;
  }

  // Whether the graph's inputs and outputs stay float32.
  bool KeepsType(const Graph& graph) const { return keeps_io_ || &graph != &model_.graph; }

  void StoreInitializer(const std::string& name, const Initializer& initializer,
                        const Readers& readers, CopyMap& copies, Graph& out) {
    Copies& copy = copies[name];
    copy.single = name;
    if (!readers.half) return;
    if (!readers.single) {
      copy = {"", name};
      out.initializers.find(name)->tensor = Spilled(ToHalf(initializer.tensor), spill_);
      return;
    }
    copy.half = names_.Make(name + "_fp16");
    out.initializers.set(copy.half, {Spilled(ToHalf(initializer.tensor), spill_), ""});
  }

  void AddNode(const Graph& graph, const Node& node, ReaderMap& readers, const TypeMap& types,
               CopyMap& copies, Graph& out) {
    Node copy = node;
    const Tensor* value = node.op_type == "Constant" ? node.TensorOf("value") : nullptr;
    if (value != nullptr && value->dtype() == DType::kFloat32) {
      AddConstant(node, *value, readers[node.outputs[0]], copies, out);
      return;
    }
    const bool is_half = choice_.half.contains(&node);
    for (size_t i = 0; i < copy.inputs.size(); ++i) {
      if (!copies.contains(copy.inputs[i])) continue;  // no float, or left out
      if (ReadsShape(node) || (is_half && node.op_type == "Cast")) {
        copy.inputs[i] = Available(copies[copy.inputs[i]]);
      } else {
        copy.inputs[i] = ReadsHalf(node, i) ? Half(copy.inputs[i], copies, out)
                                            : Single(copy.inputs[i], copies, out);
      }
    }
    for (const auto& [name, attribute] : node.attributes) {
      RewriteSubgraphs(*copy.attributes.find(name), copies, types);
    }
    if (is_half && node.op_type == "Cast" && TypeOf(types, node.outputs[0]) == DType::kFloat32) {
      copy.attributes.find("to")->value = static_cast<int64_t>(DType::kFloat16);
    }
    out.nodes.push_back(std::move(copy));
    NameOutputs(graph, is_half, types, copies, out);
  }

  static std::string Available(const Copies& copies) {
    return copies.half.empty() ? copies.single : copies.half;
  }

  void AddConstant(const Node& node, const Tensor& value, const Readers& readers, CopyMap& copies,
                   Graph& out) {
    const std::string& name = node.outputs[0];
    Copies& copy = copies[name];
    if (readers.single || !readers.half) {
      copy.single = name;
      out.nodes.push_back(node);
    }
    if (!readers.half) return;
    Node half = node;
    half.attributes.find("value")->value = Spilled(ToHalf(value), spill_);
    copy.half = name;
    if (readers.single) {
      copy.half = names_.Make(name + "_fp16");
      half.name = names_.Make(copy.half + "_constant");
      half.outputs = {copy.half};
    }
    out.nodes.push_back(std::move(half));
  }

  // Names what the last node added makes. A float16 value that is an output of the graph gets
  // another name; its own belongs to the copy that keeps the output's type.
  void NameOutputs(const Graph& graph, bool is_half, const TypeMap& types, CopyMap& copies,
                   Graph& out) {
    const size_t at = out.nodes.size() - 1;
    for (size_t i = 0; i < out.nodes[at].outputs.size(); ++i) {
      const std::string name = out.nodes[at].outputs[i];
      if (name.empty() || TypeOf(types, name) != DType::kFloat32) continue;
      if (!is_half || MakesSingle(out.nodes[at], i)) {
        copies[name] = {name, ""};
      } else if (!KeepsType(graph) || !IsAmong(graph.outputs, name)) {
        copies[name] = {"", name};
      } else {
        const std::string half = names_.Make(name + "_fp16");
        out.nodes[at].outputs[i] = half;
        out.nodes.push_back(MakeCast(half, name, DType::kFloat32, names_));
        copies[name] = {name, half};
      }
    }
  }

  std::string Half(const std::string& name, CopyMap& copies, Graph& out) {
    Copies& copy = copies[name];
    if (copy.half.empty()) {
      copy.half = names_.Make(name + "_fp16");
      out.nodes.push_back(MakeCast(copy.single, copy.half, DType::kFloat16, names_));
    }
    return copy.half;
  }

  std::string Single(const std::string& name, CopyMap& copies, Graph& out) {
    Copies& copy = copies[name];
    if (copy.single.empty()) {
      copy.single = names_.Make(name + "_fp32");
      out.nodes.push_back(MakeCast(copy.half, copy.single, DType::kFloat32, names_));
    }
    return copy.single;
  }

  void RewriteSubgraphs(Attribute& attribute, const CopyMap& copies, const TypeMap& types) {
    const auto rewritten = [&](const GraphPtr& graph) {
      return std::make_shared<const Graph>(
          Rewrite(*graph, copies, TypesOfSubgraph(model_, *graph, types)));
    };
    if (GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) *one = rewritten(*one);
    if (auto* many = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
      for (GraphPtr& graph : *many) graph = rewritten(graph);
    }
  }

  // A subgraph may return a captured value, which is float16 by now; such an output is renamed,
  // which is free: the outputs of subgraphs are known by their place.
  void KeepOutput(ValueInfo& output, const TypeMap& types, CopyMap& copies, Graph& out) {
    const auto copy = copies.find(output.name);
    if (copy == copies.end() || TypeOf(types, output.name) != DType::kFloat32) return;
    output.name = Single(output.name, copies, out);
  }

  static void RetypeValues(const CopyMap& copies, Graph& out) {
    NamedList<ValueInfo> values;
    for (const auto& [name, value] : out.values) {
      ValueInfo info = value;
      const auto copy = copies.find(name);
      if (copy != copies.end() && copy->second.half == name) info.dtype = DType::kFloat16;
      values.set(name, std::move(info));
    }
    out.values = std::move(values);
  }

  static DType TypeOf(const TypeMap& types, const std::string& name) {
    const auto found = types.find(name);
    return found == types.end() ? DType::kUndefined : found->second.dtype;
  }

  const Model& model_;
  const HalfChoice& choice_;
  FreshNames names_;
  int64_t opset_;
  bool keeps_io_;
  std::filesystem::path spill_;
};

}  // namespace

Graph RewriteHalf(const Model& model, const HalfChoice& choice, bool keeps_io,
                  const PassContext& context) {
  Model half = model;
  half.graph = Rewriter(model, choice, keeps_io, SpillFolder(model, context.scratch)).Run();
  EraseDead(half.graph);
  HoldCasts(half);
  return std::move(half.graph);
}

Model WithHalf(const Model& model, const HalfChoice& choice, const PassContext& context) {
  Model half = model;
  half.graph = RewriteHalf(model, choice, true, context);
  return half;
}

namespace {

// Adds to `single` what makes one of the faults from inputs that are none.
void KeepFaulty(const Model& model, const std::unordered_set<std::string>& faults,
                const HalfChoice& choice, const HalfRanges& ranges, Reasons& single) {
  const auto is_fault = [&](const std::string& value) { return faults.contains(value); };
  const GraphIndex index(model.graph);
  for (const Node& node : model.graph.nodes) {
    const auto fault = std::ranges::find_if(node.outputs, is_fault);
    if (fault == node.outputs.end() || std::ranges::any_of(node.inputs, is_fault)) continue;
    const std::string reason = "\"" + *fault +
                               "\" becomes infinite or NaN in float16, in float it is at most " +
                               ShortNumber(ranges.at(*fault).largest);
    single.emplace(&node, reason);
    // Where it is no half node, one before it lost what it divides by.
    if (choice.half.contains(&node)) continue;
    for (const std::string& input : node.inputs) {
      if (const Node* maker = index.producer(input)) single.emplace(maker, reason);
    }
  }
}

}  // namespace

HalfChoice ChooseFiniteHalf(const Model& model, Reasons& single, const HalfRanges& ranges,
                            PassContext& context) {
  constexpr int kRoundsMax = 20;
  HalfChoice choice = ChooseHalfNodes(model, single, ranges);
  if (ranges.empty()) return choice;
  for (int round = 0; round < kRoundsMax && !choice.half.empty(); ++round) {
    const std::unordered_set<std::string> faults =
        FindNotFinite(WithHalf(model, choice, context), ranges, context);
    if (faults.empty()) break;
    KeepFaulty(model, faults, choice, ranges, single);
    choice = ChooseHalfNodes(model, single, ranges);
  }
  return choice;
}

}  // namespace pared
