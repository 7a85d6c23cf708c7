#include "passes/widen_halves.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"
#include "evaluator/half_floats.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/float_casts.h"
#include "passes/float_elements.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

// Attributes that hold a type.
constexpr const char* kTypeAttributes[] = {"to", "dtype", "output_dtype", "output_datatype"};

bool NamesHalf(const Attribute& attribute) {
  const auto* type = std::get_if<int64_t>(&attribute.value);
  return type != nullptr && (*type == static_cast<int64_t>(DType::kFloat16) ||
                             *type == static_cast<int64_t>(DType::kBFloat16));
}

bool MakesHalf(const Node& node) {
  return std::ranges::any_of(kTypeAttributes, [&](const char* name) {
    const Attribute* attribute = node.attributes.find(name);
    return attribute != nullptr && NamesHalf(*attribute);
  });
}

bool IsCastToFloat(const Node& node) {
  return node.op_type == "Cast" && node.domain.empty() &&
         node.Int("to", 0) == static_cast<int64_t>(DType::kFloat32);
}

const Tensor* HalfAttribute(const Attribute& attribute) {
  const Tensor* tensor = std::get_if<Tensor>(&attribute.value);
  return tensor != nullptr && IsHalfFloat(tensor->dtype()) ? tensor : nullptr;
}

bool HasHalves(const Graph& graph) {
  const auto is_half = [](const ValueInfo& value) { return IsHalfFloat(value.dtype); };
  const auto holds_half = [](const Node& node) {
    return MakesHalf(node) || std::ranges::any_of(node.attributes, [](const auto& attribute) {
             return HalfAttribute(attribute.second) != nullptr;
           });
  };
  bool has = std::ranges::any_of(graph.inputs, is_half) ||
             std::ranges::any_of(graph.outputs, is_half) ||
             std::ranges::any_of(
                 graph.initializers,
                 [](const auto& entry) { return IsHalfFloat(entry.second.tensor.dtype()); }) ||
             std::ranges::any_of(graph.sparse_initializers, [](const auto& entry) {
               return IsHalfFloat(entry.second.values.dtype());
             });
  ForEachNode(graph, [&](const Node& node) {
    has = has || holds_half(node);
    for (const GraphPtr& subgraph : SubgraphsOf(node)) {
      has = has || std::ranges::any_of(subgraph->initializers, [](const auto& entry) {
              return IsHalfFloat(entry.second.tensor.dtype());
            });
    }
  });
  return has;
}

// Widens the types and constants of a model, and counts.
class Widener {
 public:
  explicit Widener(const std::filesystem::path& spill) : spill_(spill) {}

  int64_t count() const { return count_; }

  void Run(Model& model) {
    EditGraphs(model.graph, [&](Graph& graph) { Widen(graph); });
  }

 private:
  void Widen(Graph& graph) {
    for (auto* values : {&graph.inputs, &graph.outputs}) {
      for (ValueInfo& value : *values) Widen(value);
    }
    for (const auto& [name, unused] : NamedList<ValueInfo>(graph.values)) {
      Widen(*graph.values.find(name));
    }
    for (const auto& [name, initializer] : NamedList<Initializer>(graph.initializers)) {
      if (!IsHalfFloat(initializer.tensor.dtype())) continue;
      graph.initializers.find(name)->tensor = Widened(initializer.tensor);
    }
    for (const auto& [name, sparse] : NamedList<SparseTensor>(graph.sparse_initializers)) {
      if (!IsHalfFloat(sparse.values.dtype())) continue;
      graph.sparse_initializers.find(name)->values = Widened(sparse.values);
    }
    for (Node& node : graph.nodes) Widen(node);
  }

  static void Widen(ValueInfo& value) {
    if (IsHalfFloat(value.dtype)) value.dtype = DType::kFloat32;
  }

  void Widen(Node& node) {
    for (const char* name : kTypeAttributes) {
      Attribute* attribute = node.attributes.find(name);
      if (attribute != nullptr && NamesHalf(*attribute)) {
        attribute->value = static_cast<int64_t>(DType::kFloat32);
      }
    }
    for (const auto& [name, attribute] : Attributes(node.attributes)) {
      const Tensor* tensor = HalfAttribute(attribute);
      if (tensor != nullptr) node.attributes.find(name)->value = Widened(*tensor);
    }
  }

  Tensor Widened(const Tensor& half) {
    ++count_;
    Tensor widened = Spilled(Tensor::Make<float>(half.shape(), ToFloat(half)), spill_);
    half.DropPages();
    return widened;
  }

  const std::filesystem::path& spill_;
  int64_t count_ = 0;
};

// What an edit made of the widened model, told to the original. Both have the same nodes.
class Retold {
 public:
  Retold(const Model& model, const std::filesystem::path& spill)
      : types_(ShapesIfConsistent(model)), spill_(spill) {}

  // `before`: the widened graph as the edit got it.
  void Tell(const Graph& before, const Graph& after, Graph& graph) const {
    PARED_CHECK(after.nodes.size() == graph.nodes.size());
    std::map<std::string, DType> added;
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      TellNode(before.nodes[i], after.nodes[i], graph.nodes[i], added);
    }
    std::erase_if(graph.inputs, [&](const ValueInfo& v) { return !IsAmong(after.inputs, v.name); });
    graph.initializers.erase_if([&](const std::string& name, const Initializer&) {
      return !after.initializers.contains(name);
    });
    for (const auto& [name, edited] : after.initializers) {
      const Initializer* original = graph.initializers.find(name);
      if (original == nullptr) {
        const auto dtype = added.find(name);
        const bool is_half = dtype != added.end() && IsHalfFloat(dtype->second);
        graph.initializers.set(
            name, {is_half ? InHalf(edited.tensor, dtype->second) : edited.tensor, edited.unknown});
        continue;
      }
      const Initializer* was = before.initializers.find(name);
      graph.initializers.find(name)->tensor =
          Edited(original->tensor, was == nullptr ? nullptr : &was->tensor, edited.tensor);
    }
  }

 private:
  void TellNode(const Node& before, const Node& after, Node& node,
                std::map<std::string, DType>& added) const {
    for (size_t i = 0; i < after.inputs.size(); ++i) {
      const bool is_new = i >= before.inputs.size() || before.inputs[i] != after.inputs[i];
      const auto type = types_.find(node.outputs[0]);
      if (is_new && type != types_.end()) added.emplace(after.inputs[i], type->second.dtype);
    }
    node.inputs = after.inputs;
    const Tensor* was = before.TensorOf("value");
    const Tensor* edited = after.TensorOf("value");
    if (node.op_type == "Constant" && was != nullptr && edited != nullptr) {
      node.attributes.find("value")->value = Edited(*node.TensorOf("value"), was, *edited);
    }
    const auto graphs_before = SubgraphsOf(before), graphs_after = SubgraphsOf(after);
    size_t at = 0;
    EditSubgraphs(node, [&](Graph& graph) {
      Tell(*graphs_before[at], *graphs_after[at], graph);
      ++at;
    });
  }

  Tensor Edited(const Tensor& original, const Tensor* before, const Tensor& after) const {
    if (before != nullptr && before->bytes().data() == after.bytes().data()) return original;
    if (!IsHalfFloat(original.dtype())) return after;
    return Spilled(InHalf(after, original.dtype()), spill_);
  }

  const std::unordered_map<std::string, ValueType> types_;
  const std::filesystem::path& spill_;
};

// Constant nodes of half floats as initializers, which can be stored anew.
void LiftConstants(Graph& graph) {
  std::erase_if(graph.nodes, [&](const Node& node) {
    const Tensor* value = node.op_type == "Constant" ? node.TensorOf("value") : nullptr;
    if (value == nullptr || !IsHalfFloat(value->dtype())) return false;
    if (IsAmong(graph.outputs, node.outputs[0])) return false;
    graph.initializers.set(node.outputs[0], {*value, ""});
    return true;
  });
}

// Gives the inputs and outputs of a graph of float32 the types of `inputs` and `outputs`, with
// Casts between.
void CastInterface(Graph& graph, const std::vector<ValueInfo>& inputs,
                   const std::vector<ValueInfo>& outputs, FreshNames& names) {
  std::vector<Node> first, last;
  for (const ValueInfo& input : inputs) {
    if (!IsHalfFloat(input.dtype)) continue;
    const std::string widened = names.Make(input.name + "_float");
    ReplaceUses(graph, input.name, widened);
    first.push_back(MakeCast(input.name, widened, DType::kFloat32, names));
    if (Initializer* preset = graph.initializers.find(input.name)) {
      preset->tensor = InHalf(preset->tensor, input.dtype);
    }
  }
  for (const ValueInfo& output : outputs) {
    if (!IsHalfFloat(output.dtype) || IsAmong(inputs, output.name)) continue;
    const std::string widened = names.Make(output.name + "_float");
    for (Node& node : graph.nodes) {
      if (std::ranges::find(node.outputs, output.name) == node.outputs.end()) continue;
      KeepName(node, graph.nodes);
      std::ranges::replace(node.outputs, output.name, widened);
    }
    if (const Initializer* constant = graph.initializers.find(output.name)) {
      graph.initializers.set(widened, Initializer(*constant));
      graph.initializers.erase_if(
          [&](const std::string& name, const auto&) { return name == output.name; });
    }
    graph.values.erase_if(
        [&](const std::string& name, const auto&) { return name == output.name; });
    ReplaceUses(graph, output.name, widened);
    last.push_back(MakeCast(widened, output.name, output.dtype, names));
  }
  std::ranges::move(graph.nodes, std::back_inserter(first));
  std::ranges::move(last, std::back_inserter(first));
  graph.nodes = std::move(first);
  graph.inputs = inputs;
  graph.outputs = outputs;
}

// Whether a node but a Constant makes or a caller gives a half float.
bool ComputesInHalf(const Model& model) {
  const auto types = ShapesIfConsistent(model);
  const auto is_half = [&](const std::string& value) {
    const auto type = types.find(value);
    return type != types.end() && IsHalfFloat(type->second.dtype);
  };
  return std::ranges::any_of(model.graph.nodes, [&](const Node& node) {
    return node.op_type != "Constant" && std::ranges::any_of(node.outputs, is_half);
  });
}

// Takes out casts to float32 of what is that already. One that makes an output of the graph gives
// its name to what it reads, where a node makes that.
void EraseCasts(Model& model) {
  const auto types = ShapesIfConsistent(model);
  Graph& graph = model.graph;
  std::set<std::string> erased;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node cast = graph.nodes[i];
    const auto type = cast.inputs.empty() ? types.end() : types.find(cast.inputs[0]);
    if (!IsCastToFloat(cast) || type == types.end()) continue;
    if (type->second.dtype != DType::kFloat32 || erased.contains(cast.inputs[0])) continue;
    std::string from = cast.outputs[0], to = cast.inputs[0];
    if (IsAmong(graph.outputs, from)) {
      if (IsAmong(graph.outputs, to)) continue;
      const auto maker = std::ranges::find_if(graph.nodes, [&](const Node& node) {
        return std::ranges::find(node.outputs, to) != node.outputs.end();
      });
      if (maker == graph.nodes.end()) continue;
      KeepName(*maker, graph.nodes);
      std::ranges::replace(maker->outputs, to, from);
      std::swap(from, to);
    }
    ReplaceUses(graph, from, to);
    graph.values.erase_if([&](const std::string& name, const auto&) { return name == from; });
    graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(i--));
    erased.insert(from);
  }
}

// Half initializers that only a Cast reads are what the Cast makes: they get its name.
void AbsorbCasts(Graph& graph) {
  const GraphIndex index(graph);
  std::map<std::string, std::string> absorbed;  // by what the Cast makes
  for (const Node& node : graph.nodes) {
    if (!IsCastToFloat(node) || IsAmong(graph.outputs, node.outputs[0])) continue;
    const std::string& input = node.inputs[0];
    const Initializer* half = graph.initializers.find(input);
    if (half == nullptr || !IsHalfFloat(half->tensor.dtype())) continue;
    if (IsAmong(graph.inputs, input) || IsAmong(graph.outputs, input)) continue;
    if (index.consumers(input).size() == 1) absorbed.emplace(node.outputs[0], input);
  }
  std::set<std::string> renamed;
  for (const auto& [output, input] : absorbed) {
    const Initializer half = graph.initializers.at(input);
    graph.initializers.set(output, half);
    renamed.insert(input);
  }
  graph.initializers.erase_if(
      [&](const std::string& name, const auto&) { return renamed.contains(name); });
  std::erase_if(graph.nodes, [&](const Node& node) { return absorbed.contains(node.outputs[0]); });
}

}  // namespace

bool HasHalves(const Model& model) { return HasHalves(model.graph); }

Tensor InHalf(const Tensor& tensor, DType dtype) {
  const FloatElements elements(tensor);
  const std::span<const float> values = elements.get();
  if (dtype == DType::kFloat16) {
    std::vector<Float16> halves;
    halves.reserve(values.size());
    for (const float value : values) halves.push_back(ToFloat16(value));
    return Tensor::Make<Float16>(tensor.shape(), std::move(halves));
  }
  std::vector<BFloat16> halves;
  halves.reserve(values.size());
  for (const float value : values) halves.push_back(ToBFloat16(value));
  return Tensor::Make<BFloat16>(tensor.shape(), std::move(halves));
}

Model EditWidened(const Model& model, const std::filesystem::path& spill,
                  const std::function<Model(Model)>& edit) {
  if (!HasHalves(model)) return edit(model);
  Model widened = model;
  Widener(spill).Run(widened);
  const Model edited = edit(widened);
  Model out = model;
  out.ir_version = edited.ir_version;
  Retold(model, spill).Tell(widened.graph, edited.graph, out.graph);
  return out;
}

HalfStorage::HalfStorage(Model& model, const std::filesystem::path& spill) {
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (initializer.tensor.dtype() == DType::kFloat32) float_.insert(name);
  }
  if (HasHalves(model)) Widen(model, spill);
  FloatCasts casts = FoldFloatCasts(model, CastSources::kAll, spill);
  casts_ = std::move(casts.folded);
  for (const auto& [name, original] : casts.smaller) {
    stored_[name] = {original, model.graph.initializers.at(name).tensor};
  }
}

void HalfStorage::Widen(Model& model, const std::filesystem::path& spill) {
  is_widened_ = true;
  computed_in_half_ = ComputesInHalf(model);
  inputs_ = model.graph.inputs;
  outputs_ = model.graph.outputs;
  LiftConstants(model.graph);
  AbsorbCasts(model.graph);
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (!IsHalfFloat(initializer.tensor.dtype()) || IsAmong(inputs_, name)) continue;
    stored_[name].original = initializer.tensor;
  }
  Widener widener(spill);
  widener.Run(model);
  constant_count_ = widener.count();
  for (auto& [name, stored] : stored_) stored.widened = model.graph.initializers.at(name).tensor;
  EraseCasts(model);
  EraseDead(model.graph);
}

Tensor HalfStorage::Narrowed(const std::string& name, const Tensor& now, Changed changed) const {
  if (now.count() < kWorthACast) return {};
  const auto stored = stored_.find(name);
  const bool was_stored = stored != stored_.end();
  if (was_stored && now.bytes().data() == stored->second.widened.bytes().data()) {
    return stored->second.original;
  }
  if (changed == Changed::kStayWide || now.dtype() != DType::kFloat32 || float_.contains(name)) {
    return {};
  }
  // What is cut of a constant, or fitted, has a name of its own.
  const auto half = std::ranges::find_if(stored_, [&](const auto& entry) {
    return IsHalfFloat(entry.second.original.dtype()) && (!was_stored || entry.first == name);
  });
  return half == stored_.end() ? Tensor() : InHalf(now, half->second.original.dtype());
}

void HalfStorage::Restore(Model& model, Json& report, Changed changed) const {
  FreshNames names(model);
  if (is_widened_) CastInterface(model.graph, inputs_, outputs_, names);
  std::vector<Node> casts;
  std::set<std::string> restored;
  std::vector<std::string> names_now;
  for (const auto& [name, stored] : stored_) names_now.push_back(name);
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (!stored_.contains(name)) names_now.push_back(name);
  }
  for (const std::string& name : names_now) {
    const Initializer* now = model.graph.initializers.find(name);
    if (now == nullptr) continue;
    const Tensor narrowed = Narrowed(name, now->tensor, changed);
    if (!narrowed.defined()) continue;
    const DType dtype = narrowed.dtype();
    const std::string original = names.Make(name + "_" + DTypeName(dtype));
    casts.push_back(MakeCast(original, name, DType::kFloat32, names));
    model.graph.initializers.set(original, {narrowed, ""});
    restored.insert(name);
  }
  model.graph.initializers.erase_if(
      [&](const std::string& name, const auto&) { return restored.contains(name); });
  std::ranges::move(model.graph.nodes, std::back_inserter(casts));
  model.graph.nodes = std::move(casts);
  if (!casts_.empty()) report["computed_weights"] = casts_;
  if (!is_widened_) return;
  report["widened"] = {{"constants", constant_count_},
                       {"stored_as_before", restored.size()},
                       {"computes_in", computed_in_half_ ? "float32 instead of half" : "float32"}};
}

}  // namespace pared
