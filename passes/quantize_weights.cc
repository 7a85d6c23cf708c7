// Stores weights in 8 or 4 bits and computes in float, without calibration data.
//
// Before:  y = MatMul(x, w)                      e = Gather(table, ids)
// After:   w = DQ(w_quantized, w_scale)          c = Gather(table_quantized, ids)
//          y = MatMul(x, w)                      s = Gather(table_scale, ids)  e = Cast(c) * s
//
// 8 bits: one scale an output channel. 4 bits: one scale a block along the summed axis
// (DequantizeLinear with block_size, opset 21). Symmetric, so that pruned weights stay zero. The
// dequantized value has the weight's old name: every reader, through a Transpose or from within a
// subgraph, sees the same elements, and a tied weight stays one tensor. Tables are looked up as
// codes, so that a lookup does not expand the table.
// Declines, with a report: weights that a node reads which stays float, that are computed, or that
// would not get smaller. Where no weight is left, it is an error. One tensor is held at a time.

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <unordered_map>

#include "base/error.h"
#include "model/rewrite.h"
#include "passes/int8_params.h"
#include "passes/opset_raise.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"
#include "passes/weight_codes.h"
#include "passes/weights.h"

namespace pared {
namespace {

constexpr int64_t kOpsetOfChannelScales = 13, kOpsetOfBlocks = 21;
constexpr int32_t kIntType = 2;  // AttributeProto.AttributeType

enum class Bits { k8, k4 };

struct Options {
  Bits bits = Bits::k8;
  int64_t block_size = 32;
  std::vector<std::string> op_types = {"Conv",   "ConvTranspose", "Gemm", "MatMul",
                                       "Gather", "LSTM",          "GRU",  "RNN"};
  std::vector<std::string> exclude;
  bool freeze_inputs = false;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Choice(
      "bits", o.bits, {"8", "4"},
      "Size of a stored weight. 8: a scale for each output channel; 4: a scale for each block.");
  f.Integer("block_size", o.block_size, {16, 4096},
            "For 4 bits: so many weights along the summed axis share a scale.");
  f.TextList("op_types", o.op_types, TextRule::kAny, "Operators whose weights are stored so.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes whose weights stay float; an entry that matches nothing is an error.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs.");
}

// One stored tensor and the nodes that read it as a weight.
struct Stored {
  Tensor tensor;
  std::vector<const WeightSite*> sites;
  std::vector<const Node*> lookups;  // Gather along axis 0 of a matrix
  std::string reason;                // why it stays float; empty: it does not
};

// What one graph gets in place of a constant.
struct Replacement {
  Tensor codes, scales;
  int64_t axis = 0, block_size = 0;  // of scales; axis -1: one scale for all
  bool is_table = false;             // read by lookups only, which read the codes
  DType dtype = DType::kFloat32;     // of the constant
};

bool Names(const std::vector<std::string>& list, const std::string& name) {
  return std::ranges::find(list, name) != list.end();
}

bool IsLookup(const Node& node) {
  return node.op_type == "Gather" && (node.domain.empty() || node.domain == "ai.onnx") &&
         node.inputs.size() == 2;
}

// Whether the node hands its input on as it is, so that its readers are those of a weight.
bool IsView(const Node& node) {
  static const std::unordered_set<std::string> kViews = {
      "Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};
  return kViews.contains(node.op_type);
}

class Quantizer {
 public:
  Quantizer(const Model& model, const Options& options, PassContext& context)
      : model_(model), options_(options), context_(context), scan_(FindWeights(model)) {
    excluded_ = SelectNodes(model, options.exclude, "exclude");
    for (const WeightSite& site : scan_.sites) {
      Stored& stored = stored_[site.root];
      stored.tensor = site.stored;
      stored.sites.push_back(&site);
    }
    FindLookups(model.graph);
    for (auto& [root, stored] : stored_) stored.reason = WhyFloat(root, stored);
  }

  Model Run() {
    std::map<ConstantRef, Replacement> replacements;
    int64_t done = 0;
    for (auto& [root, stored] : stored_) {
      if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while quantizing");
      context_.progress(static_cast<double>(done++) / static_cast<double>(stored_.size()));
      if (!stored.reason.empty()) continue;
      CheckFinite(stored.tensor, root.second);
      Replacement made = Quantize(stored);
      const int64_t bytes = PackedBytes(made.codes.dtype(), made.codes.shape()) +
                            PackedBytes(DType::kFloat32, made.scales.shape());
      stored.tensor.DropPages();
      if (bytes >= PackedBytes(stored.tensor.dtype(), stored.tensor.shape())) {
        stored.reason = "its weight would not get smaller";
        continue;
      }
      replacements.emplace(root, std::move(made));
    }
    Report();
    if (replacements.empty()) {
      const Json& skipped = context_.report.at("skipped");
      const std::string first = skipped.empty() ? "it has none" : skipped[0].dump();
      throw Error(ErrorCode::kInvalidArgument,
                  "no weight of the model can be stored in fewer bits: " + first);
    }
    return Write(replacements);
  }

 private:
  // Tables: constants of the graph itself or of one around it that a Gather reads.
  void FindLookups(const Graph& graph) {
    const GraphIndex index(graph);
    for (const Node& node : graph.nodes) {
      for (const auto& [name, attribute] : node.attributes) {
        if (const GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) FindLookups(**one);
      }
      if (!IsLookup(node)) continue;
      const Tensor* table = ConstantOf(graph, index, node.inputs[0], model_.ir_version);
      if (table == nullptr || table->dtype() != DType::kFloat32) continue;
      Stored& stored = stored_[{&graph, node.inputs[0]}];
      stored.tensor = *table;
      stored.lookups.push_back(&node);
      if (table->rank() != 2 || node.Int("axis", 0) % 2 != 0) {
        stored.reason = "only rows of a matrix are looked up as codes";
      }
    }
  }

  std::string WhyFloat(const ConstantRef& root, const Stored& stored) const {
    if (!stored.reason.empty()) return stored.reason;
    std::unordered_set<const Node*> known(stored.lookups.begin(), stored.lookups.end());
    for (const WeightSite* site : stored.sites) known.insert(site->node);
    for (const Node* node : known) {
      if (excluded_.contains(node)) return "excluded, or shares its weight with an excluded node";
      if (!Names(options_.op_types, node->op_type)) return node->op_type + " is not in op_types";
    }
    std::string reason;
    ForEachNode(*root.first, [&](const Node& node) {
      if (!Names(node.inputs, root.second) || known.contains(&node) || IsView(node)) return;
      reason = "its weight is also read by " + NodeLabel(node) + ", as a value";
    });
    return reason;
  }

  Replacement Quantize(const Stored& stored) const {
    Replacement made;
    made.dtype = stored.tensor.dtype();
    made.is_table = stored.sites.empty() && options_.bits == Bits::k8;
    const std::optional<int64_t> channel = ChannelAxisOf(stored);
    const Shape& shape = stored.tensor.shape();
    WeightCodes codes;
    const int64_t summed = SummedAxis(stored, channel);
    // The few input channels of a first convolution make no block.
    if (options_.bits == Bits::k4 && shape[static_cast<size_t>(summed)] >= options_.block_size) {
      made.axis = summed;
      made.block_size = options_.block_size;
      codes = CodeBlocks(stored.tensor, summed, options_.block_size);
    } else {
      made.axis = channel.value_or(-1);
      codes = CodeChannels(stored.tensor, channel);
    }
    made.codes = std::move(codes.codes);
    made.scales = std::move(codes.scales);
    return made;
  }

  // The axis, as stored, of the output channels; of a table, its rows.
  static std::optional<int64_t> ChannelAxisOf(const Stored& stored) {
    if (stored.sites.empty()) return 0;
    std::optional<int64_t> common = StoredChannelAxis(*stored.sites[0]);
    for (const WeightSite* site : stored.sites) {
      if (StoredChannelAxis(*site) != common) return std::nullopt;
    }
    return common;
  }

  static int64_t SummedAxis(const Stored& stored, std::optional<int64_t> channel) {
    const int64_t rank = stored.tensor.rank();
    if (!channel) return rank - 1;
    if (stored.sites.empty()) return 1;
    const bool is_matrix = stored.sites[0]->shape.size() < 3 || rank < 3;
    if (is_matrix || stored.sites[0]->node->op_type == "MatMul") {
      return *channel == rank - 1 ? rank - 2 : rank - 1;
    }
    const std::string& op = stored.sites[0]->node->op_type;
    if (op == "Conv" || op == "ConvTranspose") return *channel == 0 ? 1 : 0;
    return rank - 1;  // recurrent
  }

  void Report() {
    Json& report = context_.report;
    report["changed"] = Json::array();
    report["skipped"] = Json::array();
    int64_t all = 0, quantized = 0;
    for (const auto& [root, stored] : stored_) {
      all += stored.tensor.count();
      if (stored.reason.empty()) quantized += stored.tensor.count();
      std::vector<const Node*> readers = stored.lookups;
      for (const WeightSite* site : stored.sites) readers.push_back(site->node);
      for (const Node* node : readers) {
        if (stored.reason.empty()) {
          report["changed"].push_back({{"node", NodeLabel(*node)}, {"weight", root.second}});
        } else {
          report["skipped"].push_back({{"node", NodeLabel(*node)}, {"reason", stored.reason}});
        }
      }
    }
    for (const SkippedNode& skipped : scan_.skipped) {
      report["skipped"].push_back({{"node", NodeLabel(*skipped.node)}, {"reason", skipped.reason}});
    }
    report["quantized_weight_share"] =
        all == 0 ? 0.0 : static_cast<double>(quantized) / static_cast<double>(all);
  }

  Model Write(const std::map<ConstantRef, Replacement>& replacements) const {
    Model out = model_;
    FreshNames names(model_);
    std::vector<const Graph*> originals = GraphsOf(model_.graph);
    size_t at = 0;
    EditGraphs(out.graph, [&](Graph& graph) {
      const Graph* original = originals.at(at++);
      for (auto it = replacements.lower_bound({original, ""});
           it != replacements.end() && it->first.first == original; ++it) {
        Put(graph, it->first.second, it->second, names);
      }
    });
    return out;
  }

  // In the order in which EditGraphs visits them.
  static std::vector<const Graph*> GraphsOf(const Graph& graph) {
    std::vector<const Graph*> graphs = {&graph};
    for (const Node& node : graph.nodes) {
      for (const auto& [name, attribute] : node.attributes) {
        std::vector<GraphPtr> subgraphs;
        if (const GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) subgraphs = {*one};
        if (const auto* many = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
          subgraphs = *many;
        }
        for (const GraphPtr& subgraph : subgraphs) {
          const std::vector<const Graph*> inner = GraphsOf(*subgraph);
          graphs.insert(graphs.end(), inner.begin(), inner.end());
        }
      }
    }
    return graphs;
  }

  static void Put(Graph& graph, const std::string& weight, const Replacement& made,
                  FreshNames& names) {
    const std::string codes = names.Make(weight + "_quantized");
    const std::string scale = names.Make(weight + "_scale");
    graph.initializers.set(codes, {made.codes, ""});
    graph.initializers.set(scale, {made.scales, ""});
    if (made.is_table) {
      graph.initializers.find(scale)->tensor = made.scales.Reshaped({made.scales.count(), 1});
      LookUpCodes(graph, weight, {codes, scale}, names);
      EraseDead(graph);
      return;
    }
    Node node;
    node.name = names.Make(weight + "_dequantize");
    node.op_type = "DequantizeLinear";
    node.inputs = {codes, scale};
    node.outputs = {weight};
    if (made.axis >= 0) node.attributes.set("axis", {kIntType, made.axis, "", ""});
    if (made.block_size > 0) node.attributes.set("block_size", {kIntType, made.block_size, "", ""});
    std::vector<Node> front = {std::move(node)};
    if (made.dtype != DType::kFloat32) {  // scales are float32 whatever the weight is
      front[0].outputs[0] = names.Make(weight + "_dequantized");
      front.push_back(MakeCast(front[0].outputs[0], weight, made.dtype, names));
    }
    graph.initializers.erase_if(
        [&](const std::string& name, const auto&) { return name == weight; });
    std::erase_if(graph.nodes, [&](const Node& old) {
      return old.op_type == "Constant" && old.outputs[0] == weight;
    });
    graph.nodes.insert(graph.nodes.begin(), front.begin(), front.end());
  }

  static Node MakeCast(const std::string& from, const std::string& to, DType dtype,
                       FreshNames& names) {
    Node cast;
    cast.name = names.Make(to + "_cast");
    cast.op_type = "Cast";
    cast.inputs = {from};
    cast.outputs = {to};
    cast.attributes.set("to", {kIntType, static_cast<int64_t>(dtype), "", ""});
    return cast;
  }

  struct Table {
    std::string codes, scale;
  };
  static void LookUpCodes(Graph& graph, const std::string& weight, const Table& table,
                          FreshNames& names) {
    std::vector<Node> nodes = std::move(graph.nodes);
    graph.nodes.clear();
    for (Node& node : nodes) {
      if (!IsLookup(node) || node.inputs[0] != weight) {
        graph.nodes.push_back(std::move(node));
        continue;
      }
      const std::string output = node.outputs[0];
      Node scale = node, product;
      node.inputs[0] = table.codes;
      node.outputs[0] = names.Make(output + "_codes");
      scale.inputs[0] = table.scale;
      scale.outputs[0] = names.Make(output + "_scales");
      scale.name = names.Make(scale.outputs[0] + "_gather");
      Node cast = MakeCast(node.outputs[0], names.Make(output + "_cast"), DType::kFloat32, names);
      product.op_type = "Mul";
      product.name = names.Make(output + "_dequantize");
      product.inputs = {cast.outputs[0], scale.outputs[0]};
      product.outputs = {output};
      for (Node* made : {&node, &scale, &cast, &product}) graph.nodes.push_back(std::move(*made));
    }
  }

  const Model& model_;
  const Options& options_;
  PassContext& context_;
  WeightScan scan_;
  std::unordered_set<const Node*> excluded_;
  std::map<ConstantRef, Stored> stored_;
};

Model Run(Model model, const Options& options, PassContext& context) {
  if (options.freeze_inputs) DropInitializerInputs(model);
  const bool has_blocks = options.bits == Bits::k4;
  Json raised = RaiseOpset(model, has_blocks ? kOpsetOfBlocks : kOpsetOfChannelScales);
  Model out = Quantizer(model, options, context).Run();
  context.report["raised"] = std::move(raised);
  return out;
}

}  // namespace

extern const PassInfo kQuantizeWeights;
const PassInfo kQuantizeWeights = DefinePass<Options, Run>(
    "quantize_weights",
    "Stores weights in 8 bits a channel or 4 bits a block and computes in float; needs no data.");

}  // namespace pared
