// What takes elements out.

#include <limits>

#include "model/tflite_ops.h"

namespace pared {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
constexpr int64_t kBeforeStart = std::numeric_limits<int64_t>::min();

// One entry an axis that is cut.
struct Cut {
  std::vector<int64_t> starts, ends, axes, steps;
  void Add(int64_t start, int64_t end, int64_t axis, int64_t step) {
    starts.push_back(start);
    ends.push_back(end);
    axes.push_back(axis);
    steps.push_back(step);
  }
};

std::string Slice(TfliteValues& values, const std::string& from, const Cut& cut,
                  const std::string& base) {
  if (cut.axes.empty()) return from;
  return values.Emit("Slice",
                     {from, values.AddInt64(cut.starts), values.AddInt64(cut.ends),
                      values.AddInt64(cut.axes), values.AddInt64(cut.steps)},
                     base);
}

// Inputs: the value, where each axis begins, how many are taken (-1: the rest).
void TakeSlice(TfliteValues& values, const TfliteOp& op) {
  const int64_t input = op.inputs[0], output = op.outputs[0];
  if (!values.IsConstant(op.inputs[1]) || !values.IsConstant(op.inputs[2])) {
    const std::string begin = values.Int64(op.inputs[1]), size = values.Int64(op.inputs[2]);
    const std::string base = values.BaseOf(output);
    const std::string is_rest = values.Emit("Less", {size, values.AddInt64({0})}, base + "_rest");
    const std::string behind = values.Emit("Add", {begin, size}, base + "_behind");
    const std::string end =
        values.Emit("Where", {is_rest, values.AddInt64({kEnd}), behind}, base + "_end");
    return values.DefinePlain(op, values.Emit("Slice", {values.Plain(input), begin, end}, base));
  }
  const std::vector<int64_t> begin = values.Integers(op.inputs[1], "the begin");
  const std::vector<int64_t> size = values.Integers(op.inputs[2], "the size");
  values.Require(std::ssize(begin) == values.tensor(input).rank() && size.size() == begin.size(),
                 "begin and size must have a number for each axis");
  const Form form = values.CommonForm({input}, output);
  Cut cut;
  for (size_t i = 0; i < begin.size(); ++i) {
    const auto axis = static_cast<int64_t>(i);
    if (begin[i] == 0 && (size[i] < 0 || size[i] == values.Dim(input, axis))) continue;
    cut.Add(begin[i], size[i] < 0 ? kEnd : begin[i] + size[i], AxisIn(form, axis), 1);
  }
  values.Define(output, form, Slice(values, values.Get(input, form), cut, values.BaseOf(output)));
}

// The masks of STRIDED_SLICE, its first fields: a bit for each entry of begin, end and strides.
struct Masks {
  int64_t begin, end, ellipsis, new_axis, shrink;
};

// Where entries lead: cuts of the input, axes of the result of it that go, axes that come.
struct Strided {
  Cut cut;
  std::vector<int64_t> squeezed, added;
};

class StridedReader {
 public:
  StridedReader(const TfliteValues& values, const TfliteOp& op)
      : values_(values),
        rank_(values.tensor(op.inputs[0]).rank()),
        begin_(values.Integers(op.inputs[1], "the begin")),
        end_(values.Integers(op.inputs[2], "the end")),
        strides_(values.Integers(op.inputs[3], "the strides")),
        masks_{op.Option<int32_t>(0), op.Option<int32_t>(1), op.Option<int32_t>(2),
               op.Option<int32_t>(3), op.Option<int32_t>(4)} {
    values.Require(
        begin_.size() == end_.size() && begin_.size() == strides_.size() && begin_.size() <= 32,
        "begin, end and strides must be as many");
    values.Require(op.Option<uint8_t>(5) == 0, "ends as offsets are not supported");
  }

  Strided Run() {
    int64_t axis = 0, made = 0;  // of the input, of the output
    for (size_t i = 0; i < begin_.size(); ++i) {
      if (Has(masks_.ellipsis, i)) {
        const int64_t rest = rank_ - axis - EntriesBehind(i);
        values_.Require(rest >= 0, "there are more entries than axes");
        axis += rest;
        made += rest;
      } else if (Has(masks_.new_axis, i)) {
        read_.added.push_back(made++);
      } else {
        values_.Require(axis < rank_, "there are more entries than axes");
        AddEntry(i, axis);
        if (!Has(masks_.shrink, i)) ++made;
        ++axis;
      }
    }
    return std::move(read_);
  }

 private:
  static bool Has(int64_t mask, size_t i) { return (mask >> i & 1) != 0; }

  int64_t EntriesBehind(size_t at) const {
    int64_t entries = 0;
    for (size_t i = at + 1; i < begin_.size(); ++i) entries += Has(masks_.new_axis, i) ? 0 : 1;
    return entries;
  }

  void AddEntry(size_t i, int64_t axis) {
    if (Has(masks_.shrink, i)) {
      read_.cut.Add(begin_[i], begin_[i] == -1 ? kEnd : begin_[i] + 1, axis, 1);
      read_.squeezed.push_back(axis);
      return;
    }
    const int64_t step = strides_[i];
    values_.Require(step != 0, "a stride is 0");
    const bool is_forward = step > 0;
    const int64_t begin = !Has(masks_.begin, i) ? begin_[i] : is_forward ? 0 : kEnd;
    const int64_t end = !Has(masks_.end, i) ? end_[i] : is_forward ? kEnd : kBeforeStart;
    if (begin == 0 && end == kEnd && step == 1) return;
    read_.cut.Add(begin, end, axis, step);
  }

  const TfliteValues& values_;
  const int64_t rank_;
  const std::vector<int64_t> begin_, end_, strides_;
  const Masks masks_;
  Strided read_;
};

// Begin and end that are computed: no mask may look at them.
void TakeComputedSlice(TfliteValues& values, const TfliteOp& op) {
  for (int field = 0; field <= 5; ++field) {
    values.Require(op.Option<int32_t>(field) == 0 || field == 4,
                   "masks of a begin or end that is computed are not supported");
  }
  const std::vector<int64_t> strides = values.Integers(op.inputs[3], "the strides");
  std::vector<int64_t> axes, squeezed, lasts;
  for (size_t i = 0; i < strides.size(); ++i) {
    axes.push_back(static_cast<int64_t>(i));
    const bool is_one = (op.Option<int32_t>(4) >> i & 1) != 0;
    if (is_one) squeezed.push_back(static_cast<int64_t>(i));
    lasts.push_back(is_one ? -1 : kEnd);
  }
  const std::string base = values.BaseOf(op.outputs[0]);
  const std::string begin = values.Int64(op.inputs[1]);
  std::string end = values.Int64(op.inputs[2]);
  if (!squeezed.empty()) {  // the last one ends at the end, not at 0
    const std::string is_last =
        values.Emit("Equal", {begin, values.AddInt64(lasts)}, base + "_last");
    end = values.Emit("Where", {is_last, values.AddInt64({kEnd}), end}, base + "_end");
  }
  std::string made = values.Emit(
      "Slice",
      {values.Plain(op.inputs[0]), begin, end, values.AddInt64(axes), values.AddInt64(strides)},
      base);
  if (!squeezed.empty()) made = values.Emit("Squeeze", {made, values.AddInt64(squeezed)}, base);
  values.DefinePlain(op, made);
}

void TakeStridedSlice(TfliteValues& values, const TfliteOp& op) {
  if (!values.IsConstant(op.inputs[1]) || !values.IsConstant(op.inputs[2])) {
    return TakeComputedSlice(values, op);
  }
  Strided read = StridedReader(values, op).Run();
  const int64_t input = op.inputs[0], output = op.outputs[0];
  const bool keeps_axes = read.squeezed.empty() && read.added.empty();
  const Form form = keeps_axes ? values.CommonForm({input}, output) : Form::kPlain;
  for (int64_t& axis : read.cut.axes) axis = AxisIn(form, axis);
  const std::string base = values.BaseOf(output);
  std::string made = Slice(values, values.Get(input, form), read.cut, base);
  if (!read.squeezed.empty()) {
    made = values.Emit("Squeeze", {made, values.AddInt64(read.squeezed)}, base);
  }
  if (!read.added.empty()) {
    made = values.Emit("Unsqueeze", {made, values.AddInt64(read.added)}, base);
  }
  values.Define(output, form, made);
}

void Gather(TfliteValues& values, const TfliteOp& op) {
  // EMBEDDING_LOOKUP has its rows first and the table behind.
  const bool is_lookup = op.type == "EMBEDDING_LOOKUP";
  const int64_t table = op.inputs[is_lookup ? 1 : 0], places = op.inputs[is_lookup ? 0 : 1];
  const int64_t axis =
      is_lookup ? 0 : values.Axis(op.Option<int32_t>(0), values.tensor(table).rank());
  const std::string base = values.BaseOf(op.outputs[0]);
  const int64_t batch = is_lookup ? 0 : op.Option<int32_t>(1);
  if (batch == 0) {
    return values.DefinePlain(op, values.Emit("Gather", {values.Plain(table), values.Plain(places)},
                                              base, IntAttribute("axis", axis)));
  }
  values.Require(batch == axis, "batch_dims must be 0 or the axis");
  const std::string rows =
      values.Emit("Unsqueeze", {values.Int64(places), values.AddInt64({-1})}, base + "_rows");
  values.DefinePlain(op, values.Emit("GatherND", {values.Plain(table), rows}, base,
                                     IntAttribute("batch_dims", batch)));
}

void GatherByPlace(TfliteValues& values, const TfliteOp& op) {
  values.DefinePlain(
      op, values.Emit("GatherND", {values.Plain(op.inputs[0]), values.Int64(op.inputs[1])},
                      values.BaseOf(op.outputs[0])));
}

// Inputs: places, values, the shape; values for one place are added.
void ScatterByPlace(TfliteValues& values, const TfliteOp& op) {
  const std::string base = values.BaseOf(op.outputs[0]);
  const std::string updates = values.Plain(op.inputs[1]);
  const std::string zero =
      values.Cast(values.AddInitializer(base + "_zero", Tensor::Scalar<float>(0)),
                  values.HeldType(op.inputs[1]));
  const std::string zeros =
      values.Emit("Expand", {zero, values.Int64(op.inputs[2])}, base + "_zeros");
  values.DefinePlain(op, values.Emit("ScatterND", {zeros, values.Int64(op.inputs[0]), updates},
                                     base, TextAttribute("reduction", "add")));
}

// ONNX has a column a place, TensorFlow a row.
void FindTrue(TfliteValues& values, const TfliteOp& op) {
  const std::string base = values.BaseOf(op.outputs[0]);
  const std::string places =
      values.Emit("NonZero", {values.Plain(op.inputs[0])}, base + "_columns");
  values.DefinePlain(op, values.Emit("Transpose", {places}, base, IntsAttribute("perm", {1, 0})));
}

// Inputs: places, depth, the value at them, the value elsewhere. ONNX counts places below 0 from
// the end, TensorFlow has none there. onnxruntime computes floats and int64.
void OneHot(TfliteValues& values, const TfliteOp& op) {
  const std::string base = values.BaseOf(op.outputs[0]);
  const DType dtype = values.HeldType(op.outputs[0]);
  const std::string one = values.AddInt64({1});
  const std::string off = values.Emit("Reshape", {values.Plain(op.inputs[3]), one}, base + "_off");
  const std::string on = values.Emit("Reshape", {values.Plain(op.inputs[2]), one}, base + "_on");
  std::string both = values.Emit("Concat", {off, on}, base + "_values", IntAttribute("axis", 0));
  if (dtype != DType::kFloat32) both = values.Cast(both, DType::kInt64);
  const std::string depth =
      values.Emit("Reshape", {values.Int64(op.inputs[1]), one}, base + "_depth");
  const std::string places = values.Int64(op.inputs[0]);
  const std::string is_none = values.Emit("Less", {places, values.AddInt64({0})}, base + "_none");
  const std::string known = values.Emit("Where", {is_none, depth, places}, base + "_places");
  const std::string made = values.Emit("OneHot", {known, depth, both}, base,
                                       IntAttribute("axis", op.Option<int32_t>(0)));
  values.DefinePlain(op, dtype == DType::kFloat32 ? made : values.Cast(made, dtype));
}

// What is found, to `count` elements behind which there are zeros.
std::string Filled(TfliteValues& values, const std::string& found, const std::string& count,
                   const std::string& base) {
  const std::string length = values.Emit("Shape", {found}, base + "_found");
  const std::string missing = values.Emit("Sub", {count, length}, base + "_missing");
  const std::string pads = values.Emit("Concat", {values.AddInt64({0}), missing}, base + "_pads",
                                       IntAttribute("axis", 0));
  return values.Emit("Pad", {found, pads}, base);
}

// Inputs: boxes [N,4], scores [N], how many at most, thresholds of overlap and score; of V5 the
// sigma by which scores shrink, too. Outputs: places, of V5 their scores, and how many there are.
void SuppressBoxes(TfliteValues& values, const TfliteOp& op) {
  const bool has_scores = op.type == "NON_MAX_SUPPRESSION_V5";
  values.Require(op.outputs.size() == (has_scores ? 3 : 2), "it must have other outputs");
  if (has_scores) {
    const int64_t sigma = op.inputs[5];
    const bool is_hard = values.IsConstant(sigma) && values.tensor(sigma).constant.count() == 1 &&
                         values.tensor(sigma).dtype == DType::kFloat32 &&
                         values.tensor(sigma).constant.data<float>()[0] == 0;
    values.Require(is_hard, "scores that shrink (soft_nms_sigma) are not supported");
  }
  const int64_t last = op.outputs.back();
  const std::string base = values.BaseOf(op.outputs[0]), one = values.AddInt64({1});
  const std::string scores = values.Plain(op.inputs[1]);
  const auto single = [&](const std::string& value, const char* name) {
    return values.Emit("Reshape", {value, one}, base + name);
  };
  const std::string count = single(values.Int64(op.inputs[2]), "_count");
  const std::string found =
      values.Emit("NonMaxSuppression",
                  {values.Emit("Unsqueeze", {values.Plain(op.inputs[0]), values.AddInt64({0})},
                               base + "_boxes"),
                   values.Emit("Unsqueeze", {scores, values.AddInt64({0, 1})}, base + "_scores"),
                   count, single(values.Plain(op.inputs[3]), "_overlap"),
                   single(values.Plain(op.inputs[4]), "_least")},
                  base + "_triples");
  const std::string column = values.AddInitializer(base + "_column", Tensor::Scalar<int64_t>(2));
  const std::string places =
      values.Emit("Gather", {found, column}, base + "_places", IntAttribute("axis", 1));
  values.DefinePlain(op, values.Cast(Filled(values, places, count, base), DType::kInt32));
  if (has_scores) {
    const std::string chosen = values.Emit("Gather", {scores, places}, base + "_chosen");
    values.Define(op.outputs[1], Form::kPlain,
                  Filled(values, chosen, count, values.BaseOf(op.outputs[1])));
  }
  const std::string length = values.Emit("Shape", {places}, base + "_length");
  values.Define(
      last, Form::kPlain,
      values.Cast(values.Emit("Squeeze", {length, values.AddInt64({0})}, values.BaseOf(last)),
                  DType::kInt32));
}

constexpr TfliteOpInfo kOps[] = {
    {"NON_MAX_SUPPRESSION_V4", SuppressBoxes, 5},
    {"NON_MAX_SUPPRESSION_V5", SuppressBoxes, 6},
    {"SLICE", TakeSlice, 3},
    {"STRIDED_SLICE", TakeStridedSlice, 4},
    {"GATHER", Gather, 2},
    {"EMBEDDING_LOOKUP", Gather, 2},
    {"GATHER_ND", GatherByPlace, 2},
    {"SCATTER_ND", ScatterByPlace, 3},
    {"WHERE", FindTrue},
    {"ONE_HOT", OneHot, 4},
};

}  // namespace

std::span<const TfliteOpInfo> TfliteSelectOps() { return kOps; }

}  // namespace pared
