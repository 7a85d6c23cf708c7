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
#include "passes/stored_weights.h"
#include "passes/weight_codes.h"

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

// What one graph gets in place of a constant.
struct Replacement {
  Tensor codes, scales;
  int64_t axis = 0, block_size = 0;  // of scales; axis -1: one scale for all
  bool is_table = false;             // read by lookups only, which read the codes
  DType dtype = DType::kFloat32;     // of the constant
};

class Quantizer {
 public:
  Quantizer(const Model& model, const Options& options, PassContext& context)
      : model_(model), options_(options), context_(context), scan_(FindWeights(model)) {
    stored_ = FindStoredWeights(model, scan_,
                                {options.op_types, SelectNodes(model, options.exclude, "exclude")});
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
    context_.report.update(ReportStored(stored_, scan_));
    if (replacements.empty()) {
      const Json& skipped = context_.report.at("skipped");
      const std::string first = skipped.empty() ? "it has none" : skipped[0].dump();
      throw Error(ErrorCode::kInvalidArgument,
                  "no weight of the model can be stored in fewer bits: " + first);
    }
    return Write(replacements);
  }

 private:
  Replacement Quantize(const StoredWeight& stored) const {
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
  static std::optional<int64_t> ChannelAxisOf(const StoredWeight& stored) {
    if (stored.sites.empty()) return 0;
    std::optional<int64_t> common = StoredChannelAxis(*stored.sites[0]);
    for (const WeightSite* site : stored.sites) {
      if (StoredChannelAxis(*site) != common) return std::nullopt;
    }
    return common;
  }

  static int64_t SummedAxis(const StoredWeight& stored, std::optional<int64_t> channel) {
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

  using Replacements = std::map<ConstantRef, Replacement>;

  Model Write(const Replacements& replacements) const {
    Model out = model_;
    FreshNames names(model_);
    std::unordered_map<const Node*, TableCodes> lookups;
    EditBeside(out, model_.graph, [&](const Graph& original, Graph& graph) {
      const auto each = [&](const auto& put) {
        for (auto it = replacements.lower_bound({&original, ""});
             it != replacements.end() && it->first.first == &original; ++it) {
          put(it->first, it->second);
        }
      };
      each([&](const ConstantRef& root, const Replacement& made) {
        if (!made.is_table) return;
        const TableCodes codes = PutTable(graph, root.second, made, names);
        for (const Node* lookup : stored_.at(root).lookups) lookups[lookup] = codes;
      });
      std::vector<Node> nodes = std::move(graph.nodes);
      graph.nodes.clear();
      for (size_t i = 0; i < nodes.size(); ++i) {
        const auto lookup = lookups.find(&original.nodes[i]);
        if (lookup == lookups.end()) {
          graph.nodes.push_back(std::move(nodes[i]));
        } else {
          AddLookup(std::move(nodes[i]), lookup->second, graph, names);
        }
      }
      each([&](const ConstantRef& root, const Replacement& made) {
        if (!made.is_table) Put(graph, root.second, made, names);
      });
    });
    if (!lookups.empty()) EditGraphs(out.graph, EraseDead);
    return out;
  }

  static TableCodes PutTable(Graph& graph, const std::string& table, const Replacement& made,
                             FreshNames& names) {
    const TableCodes codes = {names.Make(table + "_quantized"), names.Make(table + "_scale")};
    graph.initializers.set(codes.codes, {made.codes, ""});
    graph.initializers.set(codes.scale, {made.scales.Reshaped({made.scales.count(), 1}), ""});
    return codes;
  }

  static void Put(Graph& graph, const std::string& weight, const Replacement& made,
                  FreshNames& names) {
    const std::string codes = names.Make(weight + "_quantized");
    const std::string scale = names.Make(weight + "_scale");
    graph.initializers.set(codes, {made.codes, ""});
    graph.initializers.set(scale, {made.scales, ""});
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

  const Model& model_;
  const Options& options_;
  PassContext& context_;
  WeightScan scan_;
  StoredWeights stored_;
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
