#include "passes/channel_groups.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>

#include "model/domain.h"
#include "passes/channel_moves.h"

namespace pared {
namespace {

using Ids = std::vector<int64_t>;

// Operators that work on each element by itself.
const std::set<std::string_view> kElementwise = {
    "Relu",     "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Clip",
    "Elu",      "Selu",      "Celu",    "Erf",  "Gelu",        "Mish",      "Softplus",
    "Softsign", "Exp",       "Log",     "Sqrt", "Neg",         "Abs",       "Reciprocal",
    "Identity", "Cast",      "Floor",   "Ceil", "Round",       "Sign",      "ThresholdedRelu",
    "Dropout",  "Swish",     "Sin",     "Cos"};
const std::set<std::string_view> kPools = {"MaxPool",           "AveragePool",   "LpPool",
                                           "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"};
const std::set<std::string_view> kBinary = {"Add", "Sub", "Mul", "Div",  "Pow",
                                            "Min", "Max", "Sum", "Mean", "PRelu"};

class Finder {
 public:
  explicit Finder(const Model& model) : graph_(model.graph), operands_(model) {}

  ChannelGroups Run() {
    for (number_ = 0; number_ < graph_.nodes.size(); ++number_) {
      const Node& node = graph_.nodes[number_];
      PinCaptured(node);
      const bool is_known = IsDefaultDomain(node.domain) && Follow(node);
      if (!is_known) PinInputs(node, "read by " + NodeLabel(node));
    }
    for (const ValueInfo& output : graph_.outputs) {
      Pin(output.name, "\"" + output.name + "\" is an output of the model");
    }
    return Finish();
  }

 private:
  // Groups: a forest of channels, the least number of each tree its root.
  int64_t Root(int64_t id) {
    while (parent_[static_cast<size_t>(id)] != id) {
      int64_t& up = parent_[static_cast<size_t>(id)];
      up = parent_[static_cast<size_t>(up)];
      id = up;
    }
    return id;
  }
  void Join(int64_t a, int64_t b) {
    a = Root(a), b = Root(b);
    parent_[static_cast<size_t>(std::max(a, b))] = std::min(a, b);
  }
  void Join(const Ids& a, const Ids& b) {
    for (size_t i = 0; i < a.size(); ++i) Join(a[i], b[i]);
  }
  Ids Fresh(int64_t count) {
    Ids ids(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), std::ssize(parent_));
    parent_.insert(parent_.end(), ids.begin(), ids.end());
    return ids;
  }

  Channels* Of(const std::string& value) {
    const auto found = values_.find(value);
    return found == values_.end() ? nullptr : &found->second;
  }
  void Pin(const std::string& value, const std::string& reason) {
    if (const Channels* channels = Of(value)) {
      for (const int64_t id : channels->ids) pins_.emplace(id, reason);
    }
  }
  void PinInputs(const Node& node, const std::string& reason) {
    for (const std::string& input : node.inputs) Pin(input, reason);
  }
  void PinCaptured(const Node& node) {
    for (const std::string& captured : CapturedNamesOf(node)) {
      Pin(captured, "read within " + NodeLabel(node));
    }
  }

  const Tensor* Weight(const Node& node, size_t input) const {
    return operands_.Weight(node, input);
  }
  std::optional<Shape> ShapeOf(const std::string& value) const { return operands_.ShapeOf(value); }

  void Put(const Node& node, size_t axis, Ids ids) {
    values_[node.outputs[0]] = {axis, std::move(ids)};
  }
  void Cut(size_t input, size_t axis, const Ids& ids, CutRole role) {
    found_.cuts.push_back({number_, input, axis, ids, role});
  }

  // False: the node cannot be followed; the channels of its inputs are pinned.
  bool Follow(const Node& node) {
    const std::string& op = node.op_type;
    if (op == "Conv") return Conv(node);
    if (op == "ConvTranspose") return ConvTranspose(node);
    if (op == "Gemm" || op == "MatMul") return Product(node);
    if (kBinary.contains(op)) return Binary(node);
    if (op == "Concat") return Concat(node);
    const Channels* x = node.inputs.empty() ? nullptr : Of(node.inputs[0]);
    if (x == nullptr) return false;
    const Channels in = *x;
    if (kElementwise.contains(op)) return Same(node, in);
    if (kPools.contains(op)) return in.axis == 1 && Same(node, in);
    if (op == "BatchNormalization" || op == "InstanceNormalization") return Normalize(node, in);
    return Move(node, in);
  }

  bool Move(const Node& node, const Channels& in) {
    std::optional<ChannelMove> move = MoveChannels(node, in, operands_);
    if (!move) return false;
    if (move->parts > 1) TieGroups(in.ids, move->parts);
    for (SizeCut& size : move->sizes) {
      if (size.node == ChannelMove::kItself) size.node = number_;
      found_.sizes.push_back(std::move(size));
    }
    for (size_t i = 0; i < move->outputs.size(); ++i) {
      if (!node.outputs[i].empty()) values_[node.outputs[i]] = std::move(move->outputs[i]);
    }
    return true;
  }

  bool Same(const Node& node, const Channels& in) {
    for (size_t i = 1; i < node.outputs.size(); ++i) {
      if (!node.outputs[i].empty() && !operands_.index().consumers(node.outputs[i]).empty())
        return false;
    }
    Put(node, in.axis, in.ids);
    return true;
  }

  // Two nodes of one weight lose the same slices.
  void TieShared(const Node& node, size_t input, const Ids& made, const Ids& read) {
    const auto [shared, is_new] = shared_.try_emplace(node.inputs[input], made, read);
    if (is_new) return;
    if (shared->second.first.size() == made.size()) Join(shared->second.first, made);
    if (shared->second.second.size() == read.size()) Join(shared->second.second, read);
  }

  // Ids of the input's channels, or fresh pinned ones where it has none that can be followed.
  Ids Read(const Node& node, size_t axis, int64_t count) {
    const Channels* x = Of(node.inputs[0]);
    if (x != nullptr && x->axis == axis && std::ssize(x->ids) == count) return x->ids;
    PinInputs(node, "read by " + NodeLabel(node) + " along another axis");
    Ids ids = Fresh(count);
    for (const int64_t id : ids) pins_.emplace(id, "the input of " + NodeLabel(node));
    return ids;
  }

  void CutBias(const Node& node, size_t input, const Ids& made) {
    if (!Operands::IsLeftOut(node, input)) Cut(input, 0, made, CutRole::kCarries);
  }
  bool HasFixedBias(const Node& node) const {
    return Operands::IsLeftOut(node, 2) || Weight(node, 2);
  }

  bool Conv(const Node& node) {
    const Tensor* w = Weight(node, 1);
    if (w == nullptr || w->rank() < 3 || !HasFixedBias(node)) return false;
    const int64_t groups = node.Int("group", 1), out = w->shape()[0], in = w->shape()[1];
    const Ids read = Read(node, 1, groups * in);
    if (in == 1 && groups > 1) return Depthwise(node, read, out / groups);
    const Ids made = Fresh(out);
    TieGroups(read, groups);
    TieGroups(made, groups);
    TieShared(node, 1, made, read);
    Cut(1, 1, Ids(read.begin(), read.begin() + in), CutRole::kReads);
    Cut(1, 0, made, CutRole::kMakes);
    CutBias(node, 2, made);
    Put(node, 1, made);
    return true;
  }

  // So that every group loses as many.
  void TieGroups(const Ids& ids, int64_t groups) {
    const size_t each = ids.size() / static_cast<size_t>(groups);
    for (size_t i = each; i < ids.size(); ++i) Join(ids[i % each], ids[i]);
  }

  bool Depthwise(const Node& node, const Ids& read, int64_t multiplier) {
    const Ids made = RepeatChannels(read, multiplier);
    TieShared(node, 1, made, {});
    Cut(1, 0, made, CutRole::kCarries);
    CutBias(node, 2, made);
    found_.group_attributes[number_] = read;
    Put(node, 1, made);
    return true;
  }

  bool ConvTranspose(const Node& node) {
    const Tensor* w = Weight(node, 1);
    if (w == nullptr || w->rank() < 3 || !HasFixedBias(node)) return false;
    const int64_t groups = node.Int("group", 1), in = w->shape()[0], out = w->shape()[1];
    if (groups == in && out == 1 && groups > 1) return Depthwise(node, Read(node, 1, in), 1);
    if (groups != 1) return false;
    const Ids read = Read(node, 1, in), made = Fresh(out);
    TieShared(node, 1, made, read);
    Cut(1, 0, read, CutRole::kReads);
    Cut(1, 1, made, CutRole::kMakes);
    CutBias(node, 2, made);
    Put(node, 1, made);
    return true;
  }

  bool Product(const Node& node) {
    const Tensor* w = Weight(node, 1);
    const std::optional<Shape> shape = ShapeOf(node.inputs[0]);
    if (w == nullptr || w->rank() != 2 || !shape || shape->empty()) return false;
    if (node.Int("transA", 0) != 0) return false;
    const size_t k_axis = node.Int("transB", 0) != 0 ? 1 : 0;
    const Tensor* c = Weight(node, 2);
    if (!Operands::IsLeftOut(node, 2) && c == nullptr) return false;
    const Ids read = Read(node, shape->size() - 1, w->shape()[k_axis]);
    const Ids made = Fresh(w->shape()[1 - k_axis]);
    TieShared(node, 1, made, read);
    Cut(1, k_axis, read, CutRole::kReads);
    Cut(1, 1 - k_axis, made, CutRole::kMakes);
    if (c != nullptr && c->rank() > 0 && c->shape().back() == std::ssize(made)) {
      Cut(2, static_cast<size_t>(c->rank() - 1), made, CutRole::kCarries);
    }
    Put(node, shape->size() - 1, made);
    return true;
  }

  bool Normalize(const Node& node, const Channels& in) {
    if (in.axis != 1 || node.Int("training_mode", 0) != 0) return false;
    for (size_t i = 1; i < node.inputs.size(); ++i) {
      if (Weight(node, i) == nullptr) return false;
    }
    for (size_t i = 1; i < node.inputs.size(); ++i) Cut(i, 0, in.ids, CutRole::kCarries);
    return Same(node, in);
  }

  // Broadcasting counts axes from the back.
  bool Binary(const Node& node) {
    const Channels* first = nullptr;
    size_t from_back = 0, rank = 0;
    for (const std::string& input : node.inputs) {
      const std::optional<Shape> shape = ShapeOf(input);
      if (!shape) return false;
      rank = std::max(rank, shape->size());
      const Channels* channels = Of(input);
      if (channels == nullptr || channels->ids.size() == 1) continue;
      if (first == nullptr) from_back = shape->size() - channels->axis;
      if (first == nullptr) first = channels;
    }
    if (first == nullptr) return false;
    const Ids ids = first->ids;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (!CanBroadcast(node, i, ids, from_back)) return false;
    }
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Shape shape = *ShapeOf(node.inputs[i]);
      if (shape.size() < from_back || shape[shape.size() - from_back] == 1) continue;
      if (const Channels* channels = Of(node.inputs[i])) {
        Join(ids, channels->ids);
      } else {
        Cut(i, shape.size() - from_back, ids, CutRole::kCarries);
      }
    }
    Put(node, rank - from_back, ids);
    return true;
  }

  bool CanBroadcast(const Node& node, size_t input, const Ids& ids, size_t from_back) {
    const Shape shape = *ShapeOf(node.inputs[input]);
    if (const Channels* channels = Of(node.inputs[input])) {
      if (shape.size() - channels->axis != from_back) return false;
      return channels->ids.size() == ids.size() || channels->ids.size() == 1;
    }
    if (shape.size() < from_back || shape[shape.size() - from_back] == 1) return true;
    const Tensor* constant = Weight(node, input);
    return constant != nullptr && shape[shape.size() - from_back] == std::ssize(ids);
  }

  bool Concat(const Node& node) {
    const std::optional<Shape> shape = ShapeOf(node.inputs.at(0));
    if (!shape) return false;
    const int64_t axis = node.Int("axis", 0), rank = std::ssize(*shape);
    const size_t at = static_cast<size_t>(axis < 0 ? axis + rank : axis);
    const Channels* first = Of(node.inputs[0]);
    Ids ids;
    for (const std::string& input : node.inputs) {
      const Channels* channels = Of(input);
      if (channels == nullptr || (first != nullptr && channels->axis != first->axis)) return false;
      if (channels->axis == at) {
        ids.insert(ids.end(), channels->ids.begin(), channels->ids.end());
      } else if (channels->ids.size() != first->ids.size()) {
        return false;
      }
    }
    const Channels copy = *first;
    if (copy.axis != at) {
      for (const std::string& input : node.inputs) Join(copy.ids, Of(input)->ids);
      ids = copy.ids;
    }
    Put(node, copy.axis, ids);
    return true;
  }

  ChannelGroups Finish() {
    const auto to_roots = [&](Ids& ids) {
      for (int64_t& id : ids) id = Root(id);
    };
    for (ChannelCut& cut : found_.cuts) to_roots(cut.channels);
    for (SizeCut& size : found_.sizes) to_roots(size.channels);
    for (auto& [node, ids] : found_.group_attributes) to_roots(ids);
    for (auto& [name, channels] : values_) to_roots(channels.ids);
    for (const auto& [id, reason] : pins_) found_.pinned.emplace(Root(id), reason);
    std::set<int64_t> roots;
    for (int64_t id = 0; id < std::ssize(parent_); ++id) roots.insert(Root(id));
    found_.groups.assign(roots.begin(), roots.end());
    found_.values = std::move(values_);
    return std::move(found_);
  }

  const Graph& graph_;
  Operands operands_;
  size_t number_ = 0;  // of the node at hand
  std::vector<int64_t> parent_;
  std::map<int64_t, std::string> pins_;
  std::map<std::string, Channels> values_;
  std::map<std::string, std::pair<Ids, Ids>> shared_;
  ChannelGroups found_;
};

}  // namespace

ChannelGroups FindChannelGroups(const Model& model) { return Finder(model).Run(); }

}  // namespace pared
