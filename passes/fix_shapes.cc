// Gives open dimensions of inputs a length, for runtimes and converters that want to know all.
//
// Before:  model(float[batch,3,height,width] images)   After:  model(float[1,3,320,320] images)
//
// A symbol that has a length has it wherever the model says the symbol. What is computed of shapes
// becomes constant by that; fold_constants takes it out.

#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/joined.h"
#include "model/infer_shapes.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr int64_t kLengthMax = int64_t{1} << 31;

using Lengths = std::map<std::string, int64_t>;  // by symbol

struct Options {
  Json shapes = Json::object(), dims = Json::object();
  std::vector<std::string> exclude;

  void Check(const std::string& pointer) const;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Raw("shapes", o.shapes,
        "The whole shape of inputs by name, {\"images\": [1, 3, 320, 320]}. An input that is not "
        "named, and has a dimension that \"dims\" does not say, gets the shape of the first "
        "calibration sample; without such data it stays open.");
  f.Raw("dims", o.dims, "Lengths of symbols of the model, {\"batch\": 1}.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes whose inputs stay open where they are inputs of the model; an entry that "
             "matches nothing is an error.");
}

bool IsLength(const Json& value) {
  return value.is_number_integer() && value.get<int64_t>() >= 1 &&
         value.get<int64_t>() < kLengthMax;
}

void Options::Check(const std::string& pointer) const {
  const auto require = [](bool holds, const std::string& what, const std::string& where) {
    if (!holds) throw Error(ErrorCode::kInvalidArgument, what, where);
  };
  require(shapes.is_object(), "must be an object: a shape for each input", pointer + "/shapes");
  require(dims.is_object(), "must be an object: a length for each symbol", pointer + "/dims");
  for (const auto& [name, shape] : shapes.items()) {
    const bool fits = shape.is_array() && std::ranges::all_of(shape, IsLength);
    require(fits, "must be a list of lengths of 1 or more", pointer + "/shapes/" + name);
  }
  for (const auto& [name, length] : dims.items()) {
    require(IsLength(length), "must be a length of 1 or more", pointer + "/dims/" + name);
  }
}

bool IsOpen(const ValueInfo& value) {
  return value.shape && std::ranges::any_of(*value.shape, [](const Dim& d) { return d.value < 0; });
}

std::string TextOf(const std::vector<Dim>& shape) {
  std::vector<std::string> parts;
  for (const Dim& dim : shape) {
    parts.push_back(dim.value >= 0      ? std::to_string(dim.value)
                    : dim.param.empty() ? std::string("?")
                                        : dim.param);
  }
  return "[" + Joined(parts) + "]";
}

class Fixer {
 public:
  Fixer(Model& model, const Options& options, PassContext& context)
      : model_(model), options_(options), context_(context), callers_(CallerInputs(model.graph)) {}

  void Run() {
    CheckNames();
    for (const Node* node : SelectNodes(model_, options_.exclude, "exclude")) {
      excluded_.insert(node->inputs.begin(), node->inputs.end());
    }
    for (const auto& [symbol, length] : options_.dims.items()) lengths_[symbol] = length;
    for (ValueInfo& input : model_.graph.inputs) {
      if (IsInput(input)) FixInput(input);
    }
    FixSymbols();
    Report();
  }

 private:
  bool IsInput(const ValueInfo& input) const {
    return !model_.graph.initializers.contains(input.name);
  }

  void CheckNames() const {
    std::set<std::string> inputs, symbols;
    for (const ValueInfo& input : model_.graph.inputs) {
      if (!IsInput(input)) continue;
      inputs.insert(input.name);
      for (const Dim& dim : input.shape.value_or(std::vector<Dim>{})) {
        if (!dim.param.empty()) symbols.insert(dim.param);
      }
    }
    const auto check = [](const Json& named, const std::set<std::string>& known,
                          const std::string& option, const std::string& what) {
      for (const auto& [name, value] : named.items()) {
        if (known.contains(name)) continue;
        throw Error(ErrorCode::kInvalidArgument,
                    "the model's inputs have no such " + what + "; they have " +
                        Joined({known.begin(), known.end()}),
                    option + "/" + name);
      }
    };
    check(options_.shapes, inputs, "shapes", "name");
    check(options_.dims, symbols, "dims", "symbol");
  }

  // The shape that is asked for, or that calibration data has; nullopt: neither is there.
  std::optional<Shape> WantedShape(const ValueInfo& input) const {
    if (const auto asked = options_.shapes.find(input.name); asked != options_.shapes.end()) {
      return asked->get<Shape>();
    }
    if (context_.calibration == nullptr) return std::nullopt;
    for (size_t i = 0; i < callers_.size(); ++i) {
      if (callers_[i].name != input.name) continue;
      return context_.calibration->Sample(0, callers_)[i].shape();
    }
    return std::nullopt;
  }

  void FixInput(ValueInfo& input) {
    if (excluded_.contains(input.name)) return;
    const bool is_asked = options_.shapes.contains(input.name);
    if (!IsOpen(input) && !is_asked) return;
    const std::string where = is_asked ? "shapes/" + input.name : "the calibration data";
    const std::optional<Shape> wanted = WantedShape(input);
    if (!wanted) return;
    if (!input.shape || input.shape->size() != wanted->size()) {
      throw Error(ErrorCode::kInvalidArgument,
                  input.name + " has the shape " +
                      (input.shape ? TextOf(*input.shape) : std::string("of an open rank")) +
                      ", not " + ShapeText(*wanted),
                  where);
    }
    ForgetAmbiguous(input, *wanted);
    for (size_t axis = 0; axis < wanted->size(); ++axis) {
      const Dim& dim = (*input.shape)[axis];
      const auto length = lengths_.find(dim.param);
      const int64_t known = dim.value >= 0                                  ? dim.value
                            : dim.param.empty() || length == lengths_.end() ? -1
                                                                            : length->second;
      // A length that "dims" says stands where data would say another.
      const int64_t given = (*wanted)[axis];
      if (known >= 0 && known != given && (is_asked || dim.value >= 0)) {
        throw Error(ErrorCode::kInvalidArgument,
                    "axis " + std::to_string(axis) + " of " + input.name + " is " +
                        std::to_string(known) + ", not " + std::to_string(given),
                    where);
      }
      Note(input, axis, known >= 0 ? known : given);
    }
  }

  // Some exporters give one symbol to all open dimensions: one that is to be two lengths says
  // nothing.
  void ForgetAmbiguous(ValueInfo& input, const Shape& wanted) const {
    std::map<std::string, std::set<int64_t>> asked;
    for (size_t axis = 0; axis < wanted.size(); ++axis) {
      const Dim& dim = (*input.shape)[axis];
      if (dim.value < 0 && !dim.param.empty()) asked[dim.param].insert(wanted[axis]);
    }
    for (Dim& dim : *input.shape) {
      const auto found = asked.find(dim.param);
      const bool is_said = options_.dims.contains(dim.param);
      if (found != asked.end() && found->second.size() > 1 && !is_said) dim.param.clear();
    }
  }

  void Note(ValueInfo& input, size_t axis, int64_t length) {
    Dim& dim = (*input.shape)[axis];
    if (dim.value >= 0) return;
    before_.try_emplace(input.name, TextOf(*input.shape));
    if (!dim.param.empty()) lengths_[dim.param] = length;
    dim.value = length;
    dim.param.clear();
  }

  // Wherever the symbols stand; what else follows is inferred.
  void FixSymbols() {
    Graph& graph = model_.graph;
    for (ValueInfo& input : graph.inputs) {
      for (size_t axis = 0; input.shape && axis < input.shape->size(); ++axis) {
        const auto length = lengths_.find((*input.shape)[axis].param);
        if (length == lengths_.end() || excluded_.contains(input.name)) continue;
        Note(input, axis, length->second);
      }
    }
    if (before_.empty()) return;
    graph.values.erase_if([](const std::string&, const ValueInfo& value) { return IsOpen(value); });
    for (ValueInfo& output : graph.outputs) {
      if (!output.shape) continue;
      for (Dim& dim : *output.shape) {
        if (lengths_.contains(dim.param)) dim = {-1, "", {}};
      }
    }
    const auto types = InferShapes(model_);
    for (ValueInfo& output : graph.outputs) {
      const auto type = types.find(output.name);
      if (type == types.end() || !type->second.shape || !output.shape) continue;
      for (size_t i = 0; i < output.shape->size() && i < type->second.shape->size(); ++i) {
        const Dim& known = (*type->second.shape)[i];
        if (known.value >= 0) (*output.shape)[i] = known;
      }
    }
  }

  void Report() {
    context_.report["changed"] = Json::array();
    context_.report["skipped"] = Json::array();
    Json& inputs = context_.report["inputs"] = Json::array();
    for (const ValueInfo& input : model_.graph.inputs) {
      const auto before = before_.find(input.name);
      if (before == before_.end() && !IsOpen(input)) continue;
      Json entry = {{"input", input.name}, {"after", TextOf(*input.shape)}};
      if (before != before_.end()) entry["before"] = before->second;
      if (IsOpen(input)) {
        entry["reason"] = excluded_.contains(input.name)
                              ? "a node that is excluded reads it"
                              : "neither \"shapes\" nor \"dims\" say it, and there is no "
                                "calibration data";
      }
      inputs.push_back(std::move(entry));
    }
  }

  Model& model_;
  const Options& options_;
  PassContext& context_;
  const std::vector<ValueInfo> callers_;  // as they were
  std::set<std::string> excluded_;
  Lengths lengths_;
  std::map<std::string, std::string> before_;  // shapes of inputs that were changed
};

Model Fix(Model model, const Options& options, PassContext& context) {
  Fixer(model, options, context).Run();
  return model;
}

}  // namespace

extern const PassInfo kFixShapes = DefinePass<Options, Fix>(
    "fix_shapes", "Gives open dimensions of inputs a length: from options, or calibration data.");

}  // namespace pared
