// What runs other graphs of the file: WHILE and IF are Loop and If with the operators of those.

#include <utility>

#include "model/tflite_ops.h"

namespace pared {
namespace {

std::vector<std::string> PlainOf(TfliteValues& values, std::span<const int64_t> tensors) {
  std::vector<std::string> names;
  for (const int64_t t : tensors) names.push_back(values.Plain(t));
  return names;
}

// The graph's outputs, its operators added here.
std::vector<std::string> RunGraph(TfliteValues& values, const TfliteGraph& graph,
                                  const std::vector<std::string>& inputs) {
  values.Enter(graph, inputs);
  for (const TfliteOp& op : graph.ops) AddTfliteOp(values, op);
  std::vector<std::string> outputs = PlainOf(values, graph.outputs);
  values.Leave();
  return outputs;
}

// Of a state: a length that the file has otherwise before, within and behind may change.
ValueInfo StateInfo(const TfliteValues& values, const std::string& name,
                    const std::vector<int64_t>& tensors) {
  const DType dtype = values.HeldType(tensors[0]);
  values.Require(dtype != DType::kUndefined && dtype != DType::kComplex64,
                 values.BaseOf(tensors[0]) + " is no plain tensor");
  ValueInfo info{name, dtype, std::nullopt, "", "", ""};
  const Shape& first = values.tensor(tensors[0]).shape;
  for (const int64_t t : tensors) {
    if (values.tensor(t).rank() != std::ssize(first)) return info;
  }
  info.shape.emplace(first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    int64_t length = first[i];
    for (const int64_t t : tensors) {
      if (values.tensor(t).shape[i] != length) length = -1;
    }
    (*info.shape)[i].value = length;
  }
  return info;
}

// A state that the body hands on is what it was before; the others are those of a Loop, whose
// condition is computed once before it and then at the end of each iteration.
void RunWhile(TfliteValues& values, const TfliteOp& op) {
  if (AddLoopedLayer(values, op)) return;
  const std::vector<int64_t> parts = PartsOf(op);
  const TfliteGraph &condition = values.Part(parts[0]), &body = values.Part(parts[1]);
  const size_t count = op.inputs.size();
  values.Require(op.outputs.size() == count && body.inputs.size() == count &&
                     body.outputs.size() == count && condition.outputs.size() == 1,
                 "the graphs that it runs have other inputs or outputs");
  const std::vector<std::string> before = PlainOf(values, op.inputs);
  const std::string first = RunGraph(values, condition, before)[0];
  const std::string base = values.BaseOf(op.outputs[0]);
  std::vector<ValueInfo> inputs = {
      {values.FreshName(base + "_iteration"), DType::kInt64, std::vector<Dim>{}, "", "", ""},
      {values.FreshName(base + "_goes_on"), DType::kBool, std::vector<Dim>{}, "", "", ""}};
  std::vector<std::string> loop_inputs = {"", first}, names = before, bases;
  std::vector<size_t> states;
  for (size_t i = 0; i < count; ++i) {
    if (body.outputs[i] == body.inputs[i]) continue;
    states.push_back(i);
    names[i] = values.FreshName(values.BaseOf(body.inputs[i]));
    inputs.push_back(StateInfo(values, names[i], {body.inputs[i], op.inputs[i], body.outputs[i]}));
    loop_inputs.push_back(before[i]);
    bases.push_back(values.BaseOf(op.outputs[i]));
  }
  values.Require(!states.empty(), "its body changes nothing");
  values.BeginGraph();
  const std::vector<std::string> after = RunGraph(values, body, names);
  std::vector<std::string> outputs = RunGraph(values, condition, after);
  for (const size_t i : states) outputs.push_back(after[i]);
  const GraphPtr graph = values.EndGraph(std::move(inputs), outputs);
  const std::vector<std::string> made =
      values.EmitSeveral("Loop", loop_inputs, bases, GraphAttribute("body", graph));
  for (size_t i = 0; i < count; ++i) {
    if (body.outputs[i] == body.inputs[i]) values.DefineAs(op.outputs[i], op.inputs[i]);
  }
  for (size_t i = 0; i < states.size(); ++i) {
    values.Define(op.outputs[states[i]], Form::kPlain, made[i]);
  }
}

void RunIf(TfliteValues& values, const TfliteOp& op) {
  const std::vector<std::string> inputs = PlainOf(values, std::span(op.inputs).subspan(1));
  NamedAttributes branches;
  for (const int64_t part : PartsOf(op)) {
    const TfliteGraph& graph = values.Part(part);
    values.Require(graph.outputs.size() == op.outputs.size(),
                   "the graphs that it runs have other outputs");
    values.BeginGraph();
    const std::vector<std::string> outputs = RunGraph(values, graph, inputs);
    const char* name = branches.empty() ? "then_branch" : "else_branch";
    branches = branches + GraphAttribute(name, values.EndGraph({}, outputs));
  }
  std::vector<std::string> bases;
  for (const int64_t t : op.outputs) bases.push_back(values.BaseOf(t));
  const std::vector<std::string> made =
      values.EmitSeveral("If", {values.Plain(op.inputs[0])}, bases, branches);
  for (size_t i = 0; i < made.size(); ++i) values.Define(op.outputs[i], Form::kPlain, made[i]);
}

constexpr TfliteOpInfo kOps[] = {{"WHILE", RunWhile}, {"IF", RunIf}};

}  // namespace

std::span<const TfliteOpInfo> TfliteControlOps() { return kOps; }

}  // namespace pared
