// Stores weights in 8 or 4 bits and computes in float.
//
// Before:  y = MatMul(x, w)                      e = Gather(table, ids)
// After:   w = DQ(w_quantized, w_scale)          c = Gather(table_quantized, ids)
//          y = MatMul(x, w)                      s = Gather(table_scale, ids)  e = Cast(c) * s
// or:      y = MatMulNBits(x, w_quantized, w_scale, w_zero_point)
//
// 8 bits: one scale an output channel. 4 bits: one scale and zero point a block along the summed
// axis (DequantizeLinear with block_size, opset 21). Zeros have a code, so that pruned weights stay
// zero. A dequantized value has the weight's old name: every reader, through a Transpose or from
// within a subgraph, sees the same elements, and a tied weight stays one tensor. Tables are looked
// up as codes, so that a lookup does not expand the table.
// Needs no data; where there is some, the blocks of products are rounded by it (round_layers.h),
// and the most sensitive nodes return to float (stored_return.h). Declines, with a report: weights
// that a node reads which stays float, that are computed, or that would not get smaller. Where no
// weight is left, it is an error. Without data one tensor is held at a time.

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <memory>
#include <unordered_map>

#include "base/error.h"
#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/finite_weights.h"
#include "passes/float_bounds.h"
#include "passes/int8_params.h"
#include "passes/layer_progress.h"
#include "passes/log_power.h"
#include "passes/opset_raise.h"
#include "passes/pass.h"
#include "passes/round_layers.h"
#include "passes/select_nodes.h"
#include "passes/stored_return.h"
#include "passes/stored_weights.h"
#include "passes/weight_codes.h"

namespace pared {
namespace {

constexpr int64_t kOpsetOfChannelScales = 13, kOpsetOfBlocks = 21;
constexpr int32_t kIntType = 2;  // AttributeProto.AttributeType

constexpr const char* kMicrosoft = "com.microsoft";

enum class Bits { k8, k4 };
enum class Format { kDequantize, kMatMulNBits };
enum class Scheme { kAsymmetric, kSymmetric };
enum class Rounding { kAuto, kNearest };

struct Options {
  Bits bits = Bits::k8;
  Format format = Format::kDequantize;
  int64_t block_size = 32;
  Scheme scheme = Scheme::kAsymmetric;
  Rounding rounding = Rounding::kAuto;
  double damping = 0;
  FloatBounds bounds;
  std::vector<std::string> op_types = {"Conv",   "ConvTranspose", "Gemm", "MatMul",
                                       "Gather", "LSTM",          "GRU",  "RNN"};
  std::vector<std::string> exclude;
  bool freeze_inputs = false;

  void Check(const std::string& pointer) const {
    if (format != Format::kMatMulNBits || (block_size & (block_size - 1)) == 0) return;
    throw Error(ErrorCode::kInvalidArgument,
                "MatMulNBits has blocks of a power of two, not " + std::to_string(block_size),
                JoinPointer(pointer, "block_size"));
  }
};

void Fields(FieldVisitor& f, Options& o) {
  f.Choice(
      "bits", o.bits, {"8", "4"},
      "Size of a stored weight. 8: a scale for each output channel; 4: a scale for each block, and "
      "8 bits where the summed axis is shorter than a block, which the report tells.");
  f.Choice("format", o.format, {"dequantize", "matmulnbits"},
           "DequantizeLinear before the nodes, or MatMul and Gemm as MatMulNBits of com.microsoft, "
           "in blocks for 8 bits too, with tables in 8 bits.");
  f.Integer("block_size", o.block_size, {16, 4096},
            "Of blocks: so many weights along the summed axis share a scale. A power of two for "
            "\"matmulnbits\".");
  f.Choice("scheme", o.scheme, {"asymmetric", "symmetric"},
           "Whether each block has a zero point. Zeros stay zeros under both.");
  f.Choice("rounding", o.rounding, {"auto", "nearest"},
           "\"auto\": where there is calibration data, the products' blocks are rounded one column "
           "after the other, the later ones making up for the error (second order).");
  f.Number("damping", o.damping, {0, 10},
           "Of the second order: what is added to the second moments of the inputs, against their "
           "mean; 0: what rounds held-out samples best, or the nearest codes where these do.");
  Fields(f, o.bounds);
  f.ChoiceList("op_types", o.op_types,
               {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "LSTM", "GRU", "RNN"},
               "Operators whose weights are stored so.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes whose weights stay float; an entry that matches nothing is an error.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs.");
}

// What one graph gets in place of a constant.
struct Replacement {
  enum class Kind { kDequantize, kTable, kProduct };  // table: lookups read the codes

  Kind kind = Kind::kDequantize;
  WeightCodes codes;
  int64_t axis = 0, block_size = 0;  // of scales; axis -1: one scale for all
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
    if (HasBlocks() && options_.rounding == Rounding::kAuto && context_.calibration != nullptr) {
      rounded_ = RoundLayers(model_, ProductsToRound(), {Form(), options_.damping}, context_);
    }
    const std::filesystem::path spill = SpillFolder(model_, context_.scratch);
    Replacements replacements;
    Json in_8_bits = Json::array();
    size_t done = 0;
    for (auto& [root, stored] : stored_) {
      if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while quantizing");
      TellLayer(context_, root.second, ++done, stored_.size());
      if (!stored.reason.empty()) continue;
      if (stored.sites.empty()) CheckFinite(stored.tensor, root.second);  // a table
      Replacement made = Quantize(root, stored);
      const int64_t bytes = PackedBytes(made.codes.codes.dtype(), made.codes.codes.shape()) +
                            PackedBytes(DType::kFloat32, made.codes.scales.shape());
      stored.tensor.DropPages();
      if (bytes >= PackedBytes(stored.tensor.dtype(), stored.tensor.shape())) {
        stored.reason = "its weight would not get smaller";
        continue;
      }
      if (options_.bits == Bits::k4 && made.block_size == 0) {
        in_8_bits.push_back({{"weight", root.second}, {"reason", WhyNoBlocks(made)}});
      }
      made.codes.codes = Spilled(made.codes.codes, spill);
      replacements.emplace(root, std::move(made));
    }
    context_.report.update(ReportStored(stored_, scan_));
    if (options_.bits == Bits::k4) context_.report["stored_in_8_bits"] = std::move(in_8_bits);
    if (replacements.empty()) {
      throw Error(
          ErrorCode::kInvalidArgument,
          "no weight of the model can be stored in fewer bits: " + FirstSkipped(context_.report));
    }
    return Write(replacements);
  }

  std::vector<StoredUnit> Units(const Json& untied) const { return UnitsOf(stored_, untied); }

  // Whether all nodes that read the weight can be MatMulNBits, which takes it as [rows][k].
  static bool IsProduct(const StoredWeight& stored);

 private:
  using Replacements = std::map<ConstantRef, Replacement>;

  bool IsMatMulNBits() const { return options_.format == Format::kMatMulNBits; }
  bool HasBlocks() const { return options_.bits == Bits::k4 || IsMatMulNBits(); }
  BlockForm Form() const {
    return {options_.bits == Bits::k4 ? 4 : 8, options_.block_size,
            options_.scheme == Scheme::kSymmetric};
  }

  // What the second order can round: products in blocks with a weight of their own, in node order.
  std::vector<const WeightSite*> ProductsToRound() const {
    std::vector<const WeightSite*> sites;
    for (const WeightSite& site : scan_.sites) {
      const StoredWeight& stored = stored_.at(site.root);
      const bool is_alone = stored.sites.size() == 1 && site.graph == &model_.graph &&
                            site.root.first == &model_.graph;
      if (!stored.reason.empty() || !is_alone || !IsProduct(stored)) continue;
      if (site.layout.k >= options_.block_size && WhyNoStatistics(site).empty()) {
        sites.push_back(&site);
      }
    }
    return sites;
  }

  Replacement Quantize(const ConstantRef& root, const StoredWeight& stored) const {
    Replacement made;
    made.dtype = stored.tensor.dtype();
    const std::optional<int64_t> channel = ChannelAxisOf(stored);
    const Shape& shape = stored.tensor.shape();
    const int64_t summed = SummedAxis(stored, channel);
    const bool is_product = IsMatMulNBits() && IsProduct(stored);
    const bool is_table = stored.sites.empty() && (options_.bits == Bits::k8 || IsMatMulNBits());
    // The few input channels of a first convolution make no block.
    const bool is_vector = shape.size() < 2;  // as a Reshape shows it: nothing is summed along it
    const bool is_long = !is_vector && shape[static_cast<size_t>(summed)] >= options_.block_size;
    const bool has_blocks = is_product || (options_.bits == Bits::k4 && !is_table && is_long);
    if (!has_blocks) {
      if (is_table) made.kind = Replacement::Kind::kTable;
      const std::optional<int64_t> axis =
          channel && IsStack(stored) ? StackAxis(stored.tensor, *channel) : channel;
      made.axis = axis.value_or(-1);
      made.codes = CodeChannels(stored.tensor, axis);
      return made;
    }
    const auto rounded = rounded_.find(root);
    const BlockMatrix matrix =
        rounded != rounded_.end() ? rounded->second : RoundAlong(stored.tensor, summed, Form());
    made.axis = summed;
    made.block_size = options_.block_size;
    if (is_product) made.kind = Replacement::Kind::kProduct;
    made.codes = is_product ? PackForMatMulNBits(matrix) : PackBlocks(matrix, shape, summed);
    return made;
  }

  std::string WhyNoBlocks(const Replacement& made) const {
    if (made.kind == Replacement::Kind::kTable) return "a lookup reads no blocks of MatMulNBits";
    return "a row of it is shorter than a block of " + std::to_string(options_.block_size);
  }

  // Whether it is several matrices that stand as they are multiplied.
  static bool IsStack(const StoredWeight& stored) {
    return stored.tensor.rank() > 2 &&
           std::ranges::all_of(stored.sites, [](const WeightSite* site) {
             return site->node->op_type == "MatMul" && site->input == 1 && site->order.empty() &&
                    site->shape == site->stored.shape();
           });
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
    if (!channel || rank < 2) return rank - 1;
    if (stored.sites.empty()) return 1;
    const bool is_matrix = stored.sites[0]->shape.size() < 3 || rank < 3;
    if (is_matrix || stored.sites[0]->node->op_type == "MatMul") {
      return *channel == rank - 1 ? rank - 2 : rank - 1;
    }
    const std::string& op = stored.sites[0]->node->op_type;
    if (op == "Conv" || op == "ConvTranspose") return *channel == 0 ? 1 : 0;
    return rank - 1;  // recurrent
  }

  // The initializers in place of a constant.
  struct Names {
    std::string codes, scale, zero_point;  // zero_point "": none
  };

  // What takes the place of a node: of a lookup, or of a product.
  struct NewNode {
    Names names;
    const WeightSite* site = nullptr;  // null: a lookup
  };

  Model Write(const Replacements& replacements) const {
    Model out = model_;
    FreshNames names(model_);
    std::unordered_map<const Node*, NewNode> new_nodes;
    EditBeside(out, model_.graph, [&](const Graph& original, Graph& graph) {
      std::vector<Node> front;
      for (auto it = replacements.lower_bound({&original, ""});
           it != replacements.end() && it->first.first == &original; ++it) {
        const Names put = PutCodes(graph, it->first.second, it->second, names);
        const StoredWeight& stored = stored_.at(it->first);
        if (it->second.kind == Replacement::Kind::kDequantize) {
          Dequantize(graph, it->first.second, it->second, put, names, front);
        }
        if (it->second.kind == Replacement::Kind::kTable) {
          for (const Node* lookup : stored.lookups) new_nodes[lookup] = {put};
        }
        if (it->second.kind == Replacement::Kind::kProduct) {
          for (const WeightSite* site : stored.sites) new_nodes[site->node] = {put, site};
        }
      }
      Rewrite(original, new_nodes, std::move(front), graph, names);
    });
    if (!new_nodes.empty()) EditGraphs(out.graph, EraseDead);
    const auto is_contributed = [](const auto& entry) { return entry.second.site != nullptr; };
    if (std::ranges::any_of(new_nodes, is_contributed)) ImportDomain(out, kMicrosoft, 1);
    return out;
  }

  static Names PutCodes(Graph& graph, const std::string& weight, const Replacement& made,
                        FreshNames& names) {
    Names put = {names.Make(weight + "_quantized"), names.Make(weight + "_scale"), ""};
    const bool is_table = made.kind == Replacement::Kind::kTable;
    const Tensor& scales = made.codes.scales;
    graph.initializers.set(put.codes, {made.codes.codes, ""});
    graph.initializers.set(put.scale,
                           {is_table ? scales.Reshaped({scales.count(), 1}) : scales, ""});
    if (made.codes.zero_points) {
      put.zero_point = names.Make(weight + "_zero_point");
      graph.initializers.set(put.zero_point, {*made.codes.zero_points, ""});
    }
    return put;
  }

  // Adds to `front` the nodes that make the value `weight`, whose constant goes.
  static void Dequantize(Graph& graph, const std::string& weight, const Replacement& made,
                         const Names& put, FreshNames& names, std::vector<Node>& front) {
    Node node;
    node.name = names.Make(weight + "_dequantize");
    node.op_type = "DequantizeLinear";
    node.inputs = {put.codes, put.scale};
    if (!put.zero_point.empty()) node.inputs.push_back(put.zero_point);
    node.outputs = {weight};
    if (made.axis >= 0) node.attributes.set("axis", {kIntType, made.axis, "", ""});
    if (made.block_size > 0) node.attributes.set("block_size", {kIntType, made.block_size, "", ""});
    front.push_back(std::move(node));
    if (made.dtype != DType::kFloat32) {  // scales are float32 whatever the weight is
      front.back().outputs[0] = names.Make(weight + "_dequantized");
      front.push_back(MakeCast(front.back().outputs[0], weight, made.dtype, names));
    }
    graph.initializers.erase_if(
        [&](const std::string& name, const auto&) { return name == weight; });
  }

  void Rewrite(const Graph& original, const std::unordered_map<const Node*, NewNode>& new_nodes,
               std::vector<Node> front, Graph& graph, FreshNames& names) const {
    std::unordered_set<std::string> made;
    for (const Node& node : front) made.insert(node.outputs[0]);
    std::vector<Node> nodes = std::move(graph.nodes);
    graph.nodes = std::move(front);
    for (size_t i = 0; i < nodes.size(); ++i) {
      const auto found = new_nodes.find(&original.nodes[i]);
      if (found == new_nodes.end()) {
        const bool is_old = nodes[i].op_type == "Constant" && made.contains(nodes[i].outputs[0]);
        if (!is_old) graph.nodes.push_back(std::move(nodes[i]));
      } else if (found->second.site == nullptr) {
        const Names& put = found->second.names;
        AddLookup(std::move(nodes[i]), {put.codes, put.scale}, graph, names);
      } else {
        AddProduct(std::move(nodes[i]), found->second, graph, names);
      }
    }
  }

  void AddProduct(Node node, const NewNode& made, Graph& graph, FreshNames& names) const {
    const MatrixLayout& layout = made.site->layout;
    const std::string bias =
        node.op_type == "Gemm" && node.inputs.size() > 2 ? node.inputs[2] : std::string();
    const std::string output = node.outputs[0];
    node.op_type = "MatMulNBits";
    node.domain = kMicrosoft;
    node.inputs = {node.inputs[0], made.names.codes, made.names.scale};
    if (!made.names.zero_point.empty()) node.inputs.push_back(made.names.zero_point);
    node.attributes = {};
    const auto set = [&](const char* name, int64_t value) {
      node.attributes.set(name, {kIntType, value, "", ""});
    };
    set("K", layout.k);
    set("N", layout.rows);
    set("bits", Form().bits);
    set("block_size", options_.block_size);
    if (!bias.empty()) node.outputs[0] = names.Make(output + "_product");
    const std::string product = node.outputs[0];
    graph.nodes.push_back(std::move(node));
    if (bias.empty()) return;
    Node add;
    add.op_type = "Add";
    add.name = names.Make(output + "_bias");
    add.inputs = {product, bias};
    add.outputs = {output};
    graph.nodes.push_back(std::move(add));
  }

  const Model& model_;
  const Options& options_;
  PassContext& context_;
  WeightScan scan_;
  StoredWeights stored_;
  RoundedLayers rounded_;  // by the second order
};

bool Quantizer::IsProduct(const StoredWeight& stored) {
  if (stored.sites.empty() || !stored.lookups.empty() || stored.tensor.rank() != 2) return false;
  if (stored.tensor.dtype() != DType::kFloat32 || !ChannelAxisOf(stored)) return false;
  return std::ranges::all_of(stored.sites, [](const WeightSite* site) {
    const Node& node = *site->node;
    const bool is_plain = node.op_type == "Gemm" && node.Int("transA", 0) == 0 &&
                          node.Float("alpha", 1) == 1 && node.Float("beta", 1) == 1;
    return site->input == 1 && site->shape.size() == 2 && (node.op_type == "MatMul" || is_plain);
  });
}

bool HasBlocks(const Node& node) {
  return node.op_type == "DequantizeLinear" && node.attributes.contains("block_size");
}

// What it says of the model, where that has blocks.
std::vector<std::string> RaiseForBlocks(Model& model) {
  if (!HasNode(model.graph, HasBlocks)) return {};
  return RaiseOpset(model, kOpsetOfBlocks);
}

StoredResult Make(Model model, const Options& options, PassContext& context) {
  Json untied = Json::array();
  if (options.format == Format::kMatMulNBits) {
    untied = UntieTables(model, {options.op_types, SelectNodes(model, options.exclude, "exclude")},
                         [](const StoredWeight& stored) { return Quantizer::IsProduct(stored); });
    if (!untied.empty()) context.report["untied"] = untied;
  }
  Quantizer quantizer(model, options, context);
  StoredResult made;
  made.model = quantizer.Run();
  made.units = quantizer.Units(untied);
  made.source = model;
  for (std::string& raised : RaiseForBlocks(made.model)) {
    context.report["raised"].push_back(std::move(raised));
  }
  return made;
}

Model Run(Model model, const Options& options, PassContext& context) {
  if (options.freeze_inputs || model.ir_version < 4) DropInitializerInputs(model);
  CheckFiniteWeights(model);
  context.report["raised"] = RaiseOpset(model, kOpsetOfChannelScales);
  const StoredPass pass = {[&](const std::vector<std::string>& names, const FidelityJudge*) {
                             return Make(model, Excluding(names, options), context);
                           },
                           [&](const Model& source, const std::vector<std::string>& names) {
                             Options alone = Excluding(names, options);
                             alone.rounding = Rounding::kNearest;
                             Model out = Quantizer(source, alone, context).Run();
                             RaiseForBlocks(out);
                             return out;
                           }};
  Model out = MakeWithinBounds(model, options.bounds, false, pass, context);
  WarnOfLogPower(model, context.report);
  return out;
}

}  // namespace

extern const PassInfo kQuantizeWeights;
const PassInfo kQuantizeWeights = DefinePass<Options, Run>(
    "quantize_weights",
    "Stores weights in 8 bits a channel or 4 bits a block and computes in float; needs no data.",
    [](const Json& options) { return !BoundIn(options).empty(); }, 14);

}  // namespace pared
