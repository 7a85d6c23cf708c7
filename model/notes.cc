#include "model/notes.h"

#include <algorithm>
#include <array>

#include "model/rewrite.h"
#include "model/wire.h"

namespace pared {
namespace {

// doc_string and metadata_props of each message (onnx.proto); 0: it has none.
using Fields = std::array<uint32_t, 2>;
constexpr Fields kNode = {6, 9}, kGraph = {10, 16}, kValue = {3, 4}, kTensor = {12, 16},
                 kFunction = {8, 14}, kAttribute = {13, 0};

class Dropper {
 public:
  explicit Dropper(const std::function<bool(const Node&)>& keep) : keep_(keep) {}

  void Drop(Unknown& unknown, const Fields& fields) {
    Unknown kept, dropped;
    WireReader reader(unknown, "carried fields");
    while (reader.Next()) {
      reader.Carry(std::ranges::count(fields, reader.field()) > 0 ? dropped : kept);
    }
    bytes_ += std::ssize(dropped);
    if (!dropped.empty()) unknown = std::move(kept);
  }

  void DropOf(Node& node) {
    if (!keep_(node)) {
      Drop(node.unknown, kNode);
      DropOf(node.attributes);
    }
    EditSubgraphs(node, [&](Graph& inner) { DropOf(inner); });
  }

  void DropOf(Attributes& attributes) {
    for (const auto& [name, unused] : attributes) {
      Attribute& attribute = *attributes.find(name);
      Drop(attribute.unknown, kAttribute);
      for (Unknown& tensor : attribute.tensor_unknown) Drop(tensor, kTensor);
    }
  }

  void DropOf(Graph& graph) {
    Drop(graph.unknown, kGraph);
    for (Node& node : graph.nodes) DropOf(node);
    for (std::vector<ValueInfo>* values : {&graph.inputs, &graph.outputs}) {
      for (ValueInfo& value : *values) Drop(value.unknown, kValue);
    }
    for (const auto& [name, unused] : graph.values) {
      Drop(graph.values.find(name)->unknown, kValue);
    }
    for (const auto& [name, unused] : graph.initializers) {
      Drop(graph.initializers.find(name)->unknown, kTensor);
    }
  }

  void DropOf(Function& function) {
    Drop(function.unknown, kFunction);
    DropOf(function.default_attributes);
    for (Node& node : function.nodes) DropOf(node);
  }

  int64_t bytes() const { return bytes_; }

 private:
  const std::function<bool(const Node&)>& keep_;
  int64_t bytes_ = 0;
};

}  // namespace

int64_t DropNotes(Model& model, const std::function<bool(const Node&)>& keep) {
  Dropper dropper(keep);
  dropper.DropOf(model.graph);
  for (Function& function : model.functions) dropper.DropOf(function);
  return dropper.bytes();
}

}  // namespace pared
