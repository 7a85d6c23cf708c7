// Stores and computes in float16 what float16 can hold.
//
// Before:  y = Conv(x, w)  z = Resize(y, roi, scales)     float x, z, w, scales
// After:   x_fp16 = Cast(x)  y = Conv(x_fp16, w)  z_fp16 = Resize(y, roi, scales)  z = Cast(z_fp16)
//
// The graph's inputs and outputs keep name, order and type; within subgraphs too. A value is cast
// once for each type and graph, before its first reader that needs it. Declines node by node, with
// a report: constants out of range, values that calibration sees above a quarter of the range,
// differences that cancel, operators without float16, integers held as float. Where no node is left
// the model is unchanged.

#include <algorithm>
#include <memory>

#include "evaluator/half_floats.h"
#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/float_elements.h"
#include "passes/fp16_nodes.h"
#include "passes/int8_fidelity.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"
#include "passes/store_half.h"
#include "passes/weights.h"

namespace pared {
namespace {

enum class Type { kFloat16, kBFloat16 };
enum class Compute { kAuto, kFloat32 };

struct Options {
  Type type = Type::kFloat16;
  Compute compute = Compute::kAuto;
  bool keep_io = true;
  bool freeze_inputs = false;
  std::vector<std::string> exclude;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Choice("type", o.type, {"float16", "bfloat16"}, "In which weights are stored.");
  f.Choice(
      "compute", o.compute, {"auto", "float32"},
      "\"auto\": float16 in float16; bfloat16, for which ONNX Runtime's CPU has no arithmetic, "
      "in float32.");
  f.Flag("keep_io", o.keep_io, "The graph's inputs and outputs stay float32.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs; otherwise they stay float32.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that stay float32; an entry that matches nothing is an error.");
}

// The names under which a float value can be read. Empty: not (yet) in that type.
struct Copies {
  std::string single, half;
};
using CopyMap = std::unordered_map<std::string, Copies>;

Tensor ToHalf(const Tensor& tensor) {
  std::vector<Float16> values;
  values.reserve(static_cast<size_t>(tensor.count()));
  const FloatElements elements(tensor);
  for (const float value : elements.get()) values.push_back(ToFloat16(value));
  tensor.DropPages();
  return Tensor::Make<Float16>(tensor.shape(), std::move(values));
}

bool IsAmong(const std::vector<ValueInfo>& values, const std::string& name) {
  for (const ValueInfo& value : values) {
    if (value.name == name) return true;
  }
  return false;
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
    bool half = false, single = false;
  };
  using ReaderMap = std::unordered_map<std::string, Readers>;

  void FindReaders(const Graph& graph, ReaderMap& readers) const {
    ForEachNode(graph, [&](const Node& node) {
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        Readers& reader = readers[node.inputs[i]];
        (ReadsHalf(node, i) ? reader.half : reader.single) = true;
      }
    });
    for (const ValueInfo& output : graph.outputs) readers[output.name].single = true;
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
      if (KeepsType(graph) || !readers[input.name].half) continue;
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
      if (is_half && node.op_type == "Cast") {
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
      if (!is_half) {
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

void Report(const Model& model, const HalfChoice& choice, Json& report) {
  report["changed"] = Json::array();
  report["skipped"] = Json::array();
  ForEachNode(model.graph, [&](const Node& node) {
    if (choice.half.contains(&node)) report["changed"].push_back({{"node", NodeLabel(node)}});
    const auto kept = choice.kept.find(&node);
    if (kept == choice.kept.end()) return;
    report["skipped"].push_back({{"node", NodeLabel(node)}, {"reason", kept->second}});
  });
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (initializer.tensor.dtype() != DType::kFloat32) continue;
    if (IsAmong(model.graph.inputs, name) && model.ir_version >= 4) {
      report["inputs"].push_back(
          {{"name", name}, {"reason", "stays float32: a caller may override it"}});
    }
    const HalfLoss loss = LossOf(initializer.tensor);
    if (loss.overflow + loss.underflow + loss.subnormal == 0) continue;
    report["tensors"].push_back({{"name", name},
                                 {"overflow", loss.overflow},
                                 {"underflow", loss.underflow},
                                 {"subnormal", loss.subnormal}});
  }
}

Graph Rewritten(const Model& model, const HalfChoice& choice, bool keeps_io,
                const PassContext& context) {
  Graph graph = Rewriter(model, choice, keeps_io, SpillFolder(model, context.scratch)).Run();
  EraseDead(graph);
  return graph;
}

// Chooses by what is seen when the model runs with every result rounded to float16.
class Verifier {
 public:
  Verifier(const Model& model, Reasons single, PassContext& context)
      : model_(model),
        single_(std::move(single)),
        context_(context),
        ranges_(MeasureRanges(model, context)) {}

  HalfChoice Run() {
    HalfChoice choice = Finite();
    if (ranges_.empty() || choice.half.empty()) return choice;
    double sqnr_db = SqnrDb(choice);
    if (sqnr_db < kEnoughDb) {
      Reasons more = FindCancelling(model_, context_);
      if (!more.empty()) {
        single_.merge(more);
        HalfChoice other = Finite();
        const double other_db = other.half.empty() ? 0 : SqnrDb(other);
        if (other_db >= sqnr_db + kGainDb) {
          choice = std::move(other);
          sqnr_db = other_db;
        }
      }
    }
    context_.report["calibration_sqnr_db"] = sqnr_db;
    return choice;
  }

 private:
  static constexpr int kRoundsMax = 20;
  static constexpr int64_t kJudgeSamples = 16;
  // Below, differences that cancel are looked for; and kept in float where that gains as much.
  static constexpr double kEnoughDb = 45, kGainDb = 3;

  // A node that makes what is no number from what still is one returns to float, until there is
  // none.
  HalfChoice Finite() {
    HalfChoice choice = ChooseHalfNodes(model_, single_, ranges_);
    if (ranges_.empty()) return choice;
    for (int round = 0; round < kRoundsMax && !choice.half.empty(); ++round) {
      const std::unordered_set<std::string> faults = FindNotFinite(Half(choice), ranges_, context_);
      if (faults.empty()) break;
      for (const Node& node : model_.graph.nodes) KeepIfFaulty(node, faults, choice);
      choice = ChooseHalfNodes(model_, single_, ranges_);
    }
    return choice;
  }

  void KeepIfFaulty(const Node& node, const std::unordered_set<std::string>& faults,
                    const HalfChoice& choice) {
    const auto is_fault = [&](const std::string& value) { return faults.contains(value); };
    const auto fault = std::ranges::find_if(node.outputs, is_fault);
    if (fault == node.outputs.end() || std::ranges::any_of(node.inputs, is_fault)) return;
    const std::string reason = "\"" + *fault +
                               "\" becomes infinite or NaN in float16, in float it is at most " +
                               std::to_string(ranges_.at(*fault).largest);
    single_.emplace(&node, reason);
    // Where it is no half node, one before it lost what it divides by.
    if (choice.half.contains(&node)) return;
    const GraphIndex index(model_.graph);
    for (const std::string& input : node.inputs) {
      if (const Node* maker = index.producer(input)) single_.emplace(maker, reason);
    }
  }

  Model Half(const HalfChoice& choice) const {
    Model half = model_;
    half.graph = Rewritten(model_, choice, true, context_);
    return half;
  }

  // By the outputs: values inside are float16, under other names.
  double SqnrDb(const HalfChoice& choice) {
    std::vector<std::string> outputs;
    for (const ValueInfo& output : model_.graph.outputs) outputs.push_back(output.name);
    return FidelityJudge(model_, context_, kJudgeSamples, outputs).SqnrDb(Half(choice));
  }

  const Model& model_;
  Reasons single_;
  PassContext& context_;
  const HalfRanges ranges_;
};

Model CastToHalf(Model model, const Options& options, PassContext& context) {
  if (options.freeze_inputs) DropInitializerInputs(model);
  const auto excluded = SelectNodes(model, options.exclude, "exclude");
  if (options.type == Type::kBFloat16 || options.compute == Compute::kFloat32) {
    const DType dtype = options.type == Type::kBFloat16 ? DType::kBFloat16 : DType::kFloat16;
    return StoreInHalf(std::move(model), dtype, excluded, context);
  }
  Reasons single;
  for (const Node* node : excluded) single.emplace(node, "excluded");
  const HalfChoice choice = Verifier(model, std::move(single), context).Run();
  Report(model, choice, context.report);
  if (choice.half.empty()) return model;
  if (model.ir_version < 4)
    DropInitializerInputs(model);  // the nodes stay where they are: the choice still points at them
  model.graph = Rewritten(model, choice, options.keep_io, context);
  return model;
}

}  // namespace

extern const PassInfo kCastFp16 = DefinePass<Options, CastToHalf>(
    "cast_fp16", "Stores weights in 16-bit floats, and computes in float16 what float16 can hold.",
    [](const Json&) { return false; }, 4);

}  // namespace pared
