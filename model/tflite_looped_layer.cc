#include "model/tflite_looped_layer.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "model/tflite_ops.h"

namespace pared {
namespace {

using Pair = std::array<int64_t, 2>;
using Layer = TfliteLoopedLayer;
using Product = TfliteProduct;

constexpr size_t kStatesMax = 32;  // of a layer there are 7 at most
constexpr size_t kTermsMax = 8;    // 2 products and their biases, or 2 counters

// Fields of the options.
constexpr int kActivation = 0, kGatherAxis = 0, kGatherBatches = 1, kConcatAxis = 0, kSplits = 0;
constexpr int kBeginMask = 0;

class Loop {
 public:
  Loop(const TfliteValues& values, const TfliteOp& op)
      : values_(values),
        op_(op),
        condition_(values.Part(PartsOf(op)[0])),
        body_(values.Part(PartsOf(op)[1])) {
    std::unordered_set<int64_t> read;
    for (const TfliteGraph* graph : {&condition_, &body_}) {
      for (const TfliteOp& made_by : graph->ops) {
        // What is read before it is made, of a damaged file, has no maker: no cycles here.
        read.insert(made_by.inputs.begin(), made_by.inputs.end());
        if (!FaultOf(made_by).empty()) continue;
        for (const int64_t output : made_by.outputs) {
          if (!read.contains(output)) makers_.emplace(output, &made_by);
        }
      }
    }
  }

  std::optional<Layer> Find() {
    const size_t count = op_.inputs.size();
    if (count > kStatesMax || op_.outputs.size() != count || body_.inputs.size() != count ||
        body_.outputs.size() != count || condition_.inputs.size() != count ||
        condition_.outputs.size() != 1 || !FindSteps()) {
      return {};
    }
    const Layer counted = layer_;
    for (size_t i = 0; i < count && layer_.type.empty(); ++i) {
      const TfliteTensor& state = values_.tensor(body_.inputs[i]);
      if (state.rank() != 2 || state.dtype != DType::kFloat32 || state.shape[1] < 1) continue;
      layer_.hidden = i;
      layer_.units = state.shape[1];
      if (!MatchLstm() && !MatchGru() && !MatchRnn()) layer_ = counted;
    }
    if (layer_.type.empty() || !FindSequence() || !FindLists()) return {};
    return layer_;
  }

 private:
  // The operator that makes the tensor where it is of the type, with no activation of its own.
  const TfliteOp* Maker(int64_t t, const std::string& type) const {
    const auto found = makers_.find(t);
    if (found == makers_.end() || found->second->type != type) return nullptr;
    const bool can_have = type == "ADD" || type == "MUL" || type == "SUB" ||
                          type == "FULLY_CONNECTED" || type == "CONCATENATION";
    const int activation = type == "CONCATENATION" ? 1 : kActivation;
    return can_have && found->second->Option<int8_t>(activation) != 0 ? nullptr : found->second;
  }
  // The input of a function of one element; -1: it is none.
  int64_t Inside(int64_t t, const std::string& type) const {
    const TfliteOp* maker = Maker(t, type);
    return maker == nullptr ? -1 : maker->inputs[0];
  }
  // Both orders of the operands of what adds or multiplies; none where the type is another.
  std::vector<Pair> Operands(int64_t t, const std::string& type) const {
    const TfliteOp* maker = Maker(t, type);
    if (maker == nullptr || maker->inputs.size() != 2) return {};
    return {{maker->inputs[0], maker->inputs[1]}, {maker->inputs[1], maker->inputs[0]}};
  }
  int64_t Reshaped(int64_t t) const {
    for (int64_t before = Inside(t, "RESHAPE"); before >= 0; before = Inside(t, "RESHAPE")) {
      t = before;
    }
    return t;
  }
  // Constants of halves come with a DEQUANTIZE.
  int64_t Constant(int64_t t) const {
    if (const int64_t stored = Inside(t, "DEQUANTIZE"); stored >= 0) t = stored;
    return t >= 0 && values_.IsConstant(t) ? t : -1;
  }
  std::optional<int64_t> Number(int64_t t) const {
    if (t < 0 || !values_.IsConstant(t) || values_.tensor(t).constant.count() != 1) return {};
    if (values_.tensor(t).constant.dtype() != DType::kInt32) return {};
    return values_.tensor(t).constant.data<int32_t>()[0];
  }
  std::vector<int64_t> Integers(int64_t t) const {
    const bool is_known = values_.IsConstant(t) && values_.tensor(t).dtype == DType::kInt32;
    return is_known ? values_.Integers(t, "") : std::vector<int64_t>();
  }
  int64_t Last(int64_t t) const {
    return values_.tensor(t).rank() == 0 ? -1 : values_.tensor(t).shape.back();
  }
  int64_t hidden() const { return body_.inputs[layer_.hidden]; }
  int64_t hidden_after() const { return body_.outputs[layer_.hidden]; }
  bool IsCounter(int64_t t, const std::vector<int64_t>& of) const {
    return std::ranges::any_of(layer_.counters, [&](size_t i) { return of[i] == t; });
  }

  // What operators of the type join to the tensor. Empty: more than a layer has.
  std::vector<int64_t> Terms(int64_t t, const std::string& type) const {
    std::vector<int64_t> terms = {t};
    for (size_t i = 0; i < terms.size();) {
      if (type == "ADD" && values_.Dim(hidden(), 0) == 1) terms[i] = Reshaped(terms[i]);
      const TfliteOp* both = Maker(terms[i], type);
      if (both == nullptr) {
        ++i;
        continue;
      }
      if (terms.size() == kTermsMax) return {};
      terms[i] = both->inputs[0];
      terms.push_back(both->inputs[1]);
    }
    return terms;
  }

  // The condition is that counters are below constants.
  bool FindSteps() {
    for (const int64_t t : Terms(condition_.outputs[0], "LOGICAL_AND")) {
      if (!AddCounter(t)) return false;
    }
    return layer_.steps > 0;
  }
  // From 0 by steps of 1.
  bool AddCounter(int64_t below) {
    const TfliteOp* less = Maker(below, "LESS");
    if (less == nullptr) return false;
    const auto at = std::ranges::find(condition_.inputs, less->inputs[0]);
    const std::optional<int64_t> end = Number(less->inputs[1]);
    if (at == condition_.inputs.end() || !end) return false;
    const auto i = static_cast<size_t>(at - condition_.inputs.begin());
    const auto counts = [&](const Pair& sum) {
      return sum[0] == body_.inputs[i] && Number(sum[1]) == 1;
    };
    if (Number(op_.inputs[i]) != 0 || values_.tensor(op_.inputs[i]).rank() != 0 ||
        !std::ranges::any_of(Operands(body_.outputs[i], "ADD"), counts)) {
      return false;
    }
    layer_.steps = layer_.counters.empty() ? *end : std::min(layer_.steps, *end);
    layer_.counters.push_back(i);
    return true;
  }

  // The tensor is a sum of products and a constant. Where both products add to one value the
  // constant belongs to the step's.
  bool AddTerms(int64_t t, Layer& found) const {
    const std::vector<int64_t> terms = Terms(t, "ADD");
    return !terms.empty() &&
           std::ranges::all_of(terms, [&](int64_t term) { return AddTerm(term, found); });
  }
  bool AddTerm(int64_t t, Layer& found) const {
    const TfliteOp* maker = Maker(t, "FULLY_CONNECTED");
    if (maker == nullptr) {
      const int64_t bias = Constant(t);
      return bias >= 0 && std::exchange(found.of_step.bias, bias) < 0;
    }
    Product product{maker->inputs[0], Constant(maker->inputs[1]), -1};
    Product& place = product.input == hidden() ? found.of_state : found.of_step;
    if (maker->HasInput(2)) {
      product.bias = Constant(maker->inputs[2]);
      if (product.bias < 0 || place.bias >= 0) return false;
    } else {
      product.bias = place.bias;
    }
    if (place.weight >= 0 || product.weight < 0) return false;
    place = product;
    return true;
  }

  // Which part of SPLIT or which STRIDED_SLICE of a whole of `gates` the tensor is, and the whole.
  std::optional<Pair> PartOf(int64_t t, int64_t gates) const {
    if (Last(t) != layer_.units) return {};
    int64_t place = -1, whole = -1;
    if (const TfliteOp* split = Maker(t, "SPLIT")) {
      place = std::ranges::find(split->outputs, t) - split->outputs.begin();
      whole = split->inputs[1];
      if (split->Option<int32_t>(kSplits) != gates) return {};
    } else if (const TfliteOp* slice = Maker(t, "STRIDED_SLICE")) {
      const std::vector<int64_t> begin = Integers(slice->inputs[1]);
      if (begin.size() != 2 || Integers(slice->inputs[3]) != std::vector<int64_t>{1, 1}) return {};
      const bool is_open = (slice->Option<int32_t>(kBeginMask) >> 1 & 1) != 0;
      place = is_open ? 0 : begin[1] / layer_.units;
      whole = slice->inputs[0];
      const bool has_all_rows = values_.tensor(t).rank() == 2 &&
                                values_.tensor(whole).rank() == 2 &&
                                values_.Dim(t, 0) == values_.Dim(whole, 0);
      if (!has_all_rows || (!is_open && begin[1] % layer_.units != 0)) return {};
    }
    if (place < 0 || place >= gates || Last(whole) != gates * layer_.units) return {};
    return Pair{place, whole};
  }
  // Parts of one whole, by their places in it; which is then in `whole`.
  bool Places(const std::vector<int64_t>& parts, std::vector<int64_t>& places,
              int64_t& whole) const {
    for (const int64_t t : parts) {
      const std::optional<Pair> part = PartOf(t, std::ssize(parts));
      if (!part || std::ranges::count(places, (*part)[0]) > 0) return false;
      if (!places.empty() && (*part)[1] != whole) return false;
      places.push_back((*part)[0]);
      whole = (*part)[1];
    }
    return true;
  }

  bool MatchLstm() {
    const auto is_state = [&](int64_t after, int64_t t) {
      for (size_t i = 0; i < body_.outputs.size(); ++i) {
        layer_.cell = i;
        if (body_.outputs[i] == after && body_.inputs[i] == t) return true;
      }
      return false;
    };
    for (const auto& [gate, made] : Operands(hidden_after(), "MUL")) {
      const int64_t output = Inside(gate, "LOGISTIC"), cell = Inside(made, "TANH");
      if (output < 0 || cell < 0) continue;
      for (const auto& [kept, added] : Operands(cell, "ADD")) {
        for (const auto& [forget, before] : Operands(kept, "MUL")) {
          for (const auto& [input, candidate] : Operands(added, "MUL")) {
            const std::vector<int64_t> gates = {Inside(input, "LOGISTIC"), output,
                                                Inside(forget, "LOGISTIC"),
                                                Inside(candidate, "TANH")};
            int64_t whole = -1;
            std::vector<int64_t> places;
            if (std::ranges::count(gates, -1) > 0 || !is_state(cell, before)) continue;
            if (!Places(gates, places, whole) || !AddTerms(whole, layer_)) return false;
            layer_.type = "LSTM";
            layer_.of_step_order = layer_.of_state_order = places;
            return IsWhole(4);
          }
        }
      }
    }
    return false;
  }

  // The update gate, and the candidate's sum.
  std::optional<Pair> GruGates() const {
    for (const auto& [kept, added] : Operands(hidden_after(), "ADD")) {
      for (const auto& [gate, before] : Operands(kept, "MUL")) {
        for (const auto& [rest, candidate] : Operands(added, "MUL")) {
          const TfliteOp* opposite = Maker(rest, "SUB");
          const int64_t update = Inside(gate, "LOGISTIC"), sum = Inside(candidate, "TANH");
          if (before == hidden() && opposite != nullptr && opposite->inputs[1] == gate &&
              IsOne(opposite->inputs[0]) && update >= 0 && sum >= 0) {
            return Pair{update, sum};
          }
        }
      }
    }
    return {};
  }
  bool IsOne(int64_t t) const {
    t = Constant(t);
    if (t < 0 || values_.tensor(t).constant.count() != 1) return false;
    constexpr uint16_t kOneOfHalves = 0x3c00;
    const Tensor& value = values_.tensor(t).constant;
    if (value.dtype() == DType::kFloat16) return value.data<Float16>()[0].bits == kOneOfHalves;
    return value.dtype() == DType::kFloat32 && value.data<float>()[0] == 1.0F;
  }

  bool MatchGru() {
    const std::optional<Pair> gates = GruGates();
    if (!gates) return false;
    for (const auto& [step_update, state_update] : Operands((*gates)[0], "ADD")) {
      for (const auto& [step_candidate, reset_candidate] : Operands((*gates)[1], "ADD")) {
        for (const auto& [gate, state_candidate] : Operands(reset_candidate, "MUL")) {
          for (const auto& [step_reset, state_reset] : Operands(Inside(gate, "LOGISTIC"), "ADD")) {
            Layer found = layer_;
            int64_t of_step = -1, of_state = -1;
            if (Places({step_update, step_reset, step_candidate}, found.of_step_order, of_step) &&
                Places({state_update, state_reset, state_candidate}, found.of_state_order,
                       of_state) &&
                AddTerms(of_state, found) && IsOfStateOnly(found) && AddTerms(of_step, found)) {
              found.type = "GRU";
              layer_ = std::move(found);
              return IsWhole(3);
            }
          }
        }
      }
    }
    return false;
  }

  // What the reset gate multiplies is the state's product: the step's is another layer.
  static bool IsOfStateOnly(const Layer& found) {
    return found.of_step.weight < 0 && found.of_step.bias < 0;
  }

  bool MatchRnn() {
    const int64_t sum = Inside(hidden_after(), "TANH");
    if (sum < 0 || !AddTerms(sum, layer_)) return false;
    layer_.type = "RNN";
    layer_.of_step_order = layer_.of_state_order = {0};
    return IsWhole(1);
  }

  // Both products are there, with rows for so many gates.
  bool IsWhole(int64_t gates) const {
    for (const Product* product : {&layer_.of_step, &layer_.of_state}) {
      if (product->weight < 0 || values_.tensor(product->weight).rank() != 2 ||
          values_.Dim(product->weight, 0) != gates * layer_.units ||
          (product == &layer_.of_state && values_.Dim(product->weight, 1) != layer_.units)) {
        return false;
      }
      const int64_t bias = product->bias, rows = gates * layer_.units;
      const bool fits =
          bias < 0 || (values_.tensor(bias).constant.count() == rows && Last(bias) == rows);
      if (!fits) return false;
    }
    return layer_.of_state.input == hidden();
  }

  bool FindSequence() {
    const TfliteOp* step = Maker(layer_.of_step.input, "GATHER");
    if (step == nullptr || step->Option<int32_t>(kGatherAxis) != 0 ||
        step->Option<int32_t>(kGatherBatches) != 0 || !IsCounter(step->inputs[1], body_.inputs)) {
      return false;
    }
    const auto at = std::ranges::find(body_.inputs, step->inputs[0]);
    if (at == body_.inputs.end()) return false;
    layer_.sequence = static_cast<size_t>(at - body_.inputs.begin());
    const int64_t t = op_.inputs[layer_.sequence];
    return body_.outputs[layer_.sequence] == *at && values_.tensor(t).rank() == 3 &&
           values_.Dim(t, 0) == layer_.steps &&
           values_.Dim(t, 2) == values_.Dim(layer_.of_step.weight, 1) &&
           BeginsFor(values_.Dim(t, 1), layer_.hidden) &&
           (layer_.type != "LSTM" || BeginsFor(values_.Dim(t, 1), layer_.cell));
  }
  // The state is [batch,H] from the beginning, as far as lengths are known.
  bool BeginsFor(int64_t batch, size_t state) const {
    const Shape& shape = values_.tensor(op_.inputs[state]).shape;
    return shape.size() == 2 && shape[1] == layer_.units &&
           (shape[0] == batch || shape[0] < 0 || batch < 0);
  }

  // All other states are lists of outputs.
  bool FindLists() {
    for (size_t i = 0; i < body_.inputs.size(); ++i) {
      const bool is_cell = layer_.type == "LSTM" && i == layer_.cell;
      if (i == layer_.sequence || i == layer_.hidden || is_cell ||
          std::ranges::count(layer_.counters, i) > 0) {
        continue;
      }
      const int64_t after = body_.outputs[i];
      if (values_.tensor(after).rank() != 3 || Last(after) != layer_.units) return false;
      const bool is_last = Maker(after, "RESHAPE") != nullptr &&
                           Reshaped(after) == hidden_after() && values_.Dim(after, 0) == 1;
      if (!is_last && !SetsOutput(body_.inputs[i], after)) return false;
      layer_.lists.emplace_back(i, !is_last);
    }
    return true;
  }

  // `after` is `before` with the output in the place of the counter.
  bool SetsOutput(int64_t before, int64_t after) const {
    const TfliteOp* all = Maker(after, "CONCATENATION");
    if (all == nullptr || all->inputs.size() != 3 || all->Option<int32_t>(kConcatAxis) != 0 ||
        values_.tensor(before).rank() != 3 || values_.Dim(before, 0) != layer_.steps ||
        Reshaped(all->inputs[1]) != hidden_after()) {
      return false;
    }
    const TfliteOp *head = Maker(all->inputs[0], "SLICE"), *tail = Maker(all->inputs[2], "SLICE");
    if (head == nullptr || tail == nullptr || head->inputs[0] != before ||
        tail->inputs[0] != before) {
      return false;
    }
    const auto counts = [&](int64_t t, const std::vector<int64_t>& of) {
      const TfliteOp* joined = Maker(t, "CONCATENATION");
      return joined != nullptr && IsCounter(Reshaped(joined->inputs[0]), of);
    };
    return Integers(head->inputs[1]) == std::vector<int64_t>(3, 0) &&
           counts(head->inputs[2], body_.inputs) && counts(tail->inputs[1], body_.outputs);
  }

  const TfliteValues& values_;
  const TfliteOp& op_;
  const TfliteGraph &condition_, &body_;
  Layer layer_;
  std::unordered_map<int64_t, const TfliteOp*> makers_;
};

}  // namespace

std::optional<TfliteLoopedLayer> FindLoopedLayer(const TfliteValues& values, const TfliteOp& op) {
  return Loop(values, op).Find();
}

}  // namespace pared
