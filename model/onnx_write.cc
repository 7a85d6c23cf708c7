// Model to ONNX messages, fields in the order of their numbers: what was read from a file of the
// protobuf library is written as it was.

#include "model/onnx_write.h"

#include "model/onnx_value.h"

namespace pared {
namespace {

class Writer {
 public:
  explicit Writer(const PlaceTensor& place) : place_(place) {}

  WireText WriteModel(const Model& model) const;

 private:
  WireText WriteGraph(const Graph& graph) const;
  WireText WriteNode(const Node& node) const;
  WireText WriteAttribute(const std::string& name, const Attribute& attribute) const;
  void WriteData(WireWriter& writer, const Attribute& attribute) const;
  WireText WriteTensor(const std::string& name, const Tensor& tensor, const Unknown& unknown) const;
  WireText WriteSparse(const std::string& name, const SparseTensor& sparse) const;
  WireText WriteFunction(const Function& function) const;

  const PlaceTensor& place_;
};

WireText WriteEntry(std::string_view key, std::string_view value) {
  WireWriter writer;
  writer.Bytes(1, key);
  writer.Bytes(2, value);
  return writer.Finish();
}

WireText Writer::WriteTensor(const std::string& name, const Tensor& tensor,
                             const Unknown& unknown) const {
  WireWriter writer(unknown);
  for (const int64_t dim : tensor.shape()) writer.Int64(1, dim);
  writer.Int64(2, static_cast<int64_t>(tensor.dtype()));
  if (tensor.dtype() == DType::kString) {
    for (const std::string& text : tensor.strings()) writer.Bytes(6, text);
    writer.OptionalBytes(8, name);
    return writer.Finish();
  }
  writer.OptionalBytes(8, name);
  if (tensor.bytes().empty()) return writer.Finish();  // an empty raw_data, if any, is carried
  const std::optional<ExternalPlace> external = place_(tensor);
  if (!external.has_value()) {
    writer.TensorBytes(9, tensor);
    return writer.Finish();
  }
  writer.Message(13, WriteEntry("location", external->location));
  writer.Message(13, WriteEntry("offset", std::to_string(external->offset)));
  writer.Message(13, WriteEntry("length", std::to_string(tensor.bytes().size())));
  writer.Int64(14, 1);
  return writer.Finish();
}

// AttributeProto.type. The value decides where there is one: whoever sets it need not set both.
int32_t TypeOf(const Attribute& attribute) {
  constexpr int32_t kTypeOfAlternative[] = {0, 2, 1, 3, 4, 5, 7, 6, 8, 9, 10};
  const size_t alternative = attribute.value.index();
  return alternative == 0 ? attribute.type : kTypeOfAlternative[alternative];
}

void Writer::WriteData(WireWriter& writer, const Attribute& attribute) const {
  const auto unknown = [&](size_t i) {
    return i < attribute.tensor_unknown.size() ? attribute.tensor_unknown[i] : Unknown();
  };
  if (const auto* number = std::get_if<float>(&attribute.value)) {
    writer.Float(2, *number);
  } else if (const auto* integer = std::get_if<int64_t>(&attribute.value)) {
    writer.Int64(3, *integer);
  } else if (const auto* text = std::get_if<std::string>(&attribute.value)) {
    writer.Bytes(4, *text);
  } else if (const auto* tensor = std::get_if<Tensor>(&attribute.value)) {
    writer.Message(5, WriteTensor("", *tensor, unknown(0)));
  } else if (const auto* graph = std::get_if<GraphPtr>(&attribute.value)) {
    writer.Message(6, WriteGraph(**graph));
  } else if (const auto* numbers = std::get_if<std::vector<float>>(&attribute.value)) {
    for (const float each : *numbers) writer.Float(7, each);
  } else if (const auto* integers = std::get_if<std::vector<int64_t>>(&attribute.value)) {
    for (const int64_t each : *integers) writer.Int64(8, each);
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&attribute.value)) {
    for (const std::string& each : *texts) writer.Bytes(9, each);
  } else if (const auto* tensors = std::get_if<std::vector<Tensor>>(&attribute.value)) {
    for (size_t i = 0; i < tensors->size(); ++i) {
      writer.Message(10, WriteTensor("", (*tensors)[i], unknown(i)));
    }
  } else if (const auto* graphs = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
    for (const GraphPtr& each : *graphs) writer.Message(11, WriteGraph(*each));
  }
}

WireText Writer::WriteAttribute(const std::string& name, const Attribute& attribute) const {
  WireWriter writer(attribute.unknown);
  writer.OptionalBytes(1, name);
  WriteData(writer, attribute);
  writer.OptionalInt64(20, TypeOf(attribute));
  writer.OptionalBytes(21, attribute.ref_name);
  return writer.Finish();
}

WireText Writer::WriteNode(const Node& node) const {
  WireWriter writer(node.unknown);
  for (const std::string& input : node.inputs) writer.Bytes(1, input);
  for (const std::string& output : node.outputs) writer.Bytes(2, output);
  writer.OptionalBytes(3, node.name);
  writer.OptionalBytes(4, node.op_type);
  for (const auto& [name, attribute] : node.attributes) {
    writer.Message(5, WriteAttribute(name, attribute));
  }
  writer.OptionalBytes(7, node.domain);
  writer.OptionalBytes(8, node.overload);
  return writer.Finish();
}

WireText Writer::WriteSparse(const std::string& name, const SparseTensor& sparse) const {
  WireWriter writer(sparse.unknown);
  writer.Message(1, WriteTensor(name, sparse.values, sparse.values_unknown));
  writer.Message(2, WriteTensor("", sparse.indices, sparse.indices_unknown));
  for (const int64_t dim : sparse.dims) writer.Int64(3, dim);
  return writer.Finish();
}

WireText Writer::WriteGraph(const Graph& graph) const {
  WireWriter writer(graph.unknown);
  for (const Node& node : graph.nodes) writer.Message(1, WriteNode(node));
  writer.OptionalBytes(2, graph.name);
  for (const auto& [name, initializer] : graph.initializers) {
    writer.Message(5, WriteTensor(name, initializer.tensor, initializer.unknown));
  }
  for (const ValueInfo& input : graph.inputs) writer.Message(11, WriteValueInfo(input));
  for (const ValueInfo& output : graph.outputs) writer.Message(12, WriteValueInfo(output));
  for (const auto& [name, value] : graph.values) writer.Message(13, WriteValueInfo(value));
  for (const auto& [name, sparse] : graph.sparse_initializers) {
    writer.Message(15, WriteSparse(name, sparse));
  }
  return writer.Finish();
}

WireText WriteOpset(std::string_view domain, int64_t version, const Unknown& unknown) {
  WireWriter writer(unknown);
  writer.OptionalBytes(1, domain);
  writer.OptionalInt64(2, version);
  return writer.Finish();
}

WireText Writer::WriteFunction(const Function& function) const {
  WireWriter writer(function.unknown);
  writer.OptionalBytes(1, function.name);
  for (const std::string& input : function.inputs) writer.Bytes(4, input);
  for (const std::string& output : function.outputs) writer.Bytes(5, output);
  for (const std::string& attribute : function.attributes) writer.Bytes(6, attribute);
  for (const Node& node : function.nodes) writer.Message(7, WriteNode(node));
  for (const auto& [domain, version] : function.opsets) {
    writer.Message(9, WriteOpset(domain, version, {}));
  }
  writer.OptionalBytes(10, function.domain);
  for (const auto& [name, attribute] : function.default_attributes) {
    writer.Message(11, WriteAttribute(name, attribute));
  }
  writer.OptionalBytes(13, function.overload);
  return writer.Finish();
}

WireText Writer::WriteModel(const Model& model) const {
  WireWriter writer(model.unknown);
  writer.Int64(1, model.ir_version);
  writer.OptionalBytes(2, model.producer_name);
  writer.OptionalBytes(3, model.producer_version);
  writer.OptionalBytes(4, model.domain);
  writer.OptionalInt64(5, model.model_version);
  writer.OptionalBytes(6, model.doc_string);
  writer.Message(7, WriteGraph(model.graph));
  const bool has_unknown = model.opset_unknown.size() == model.opsets.size();
  for (size_t i = 0; i < model.opsets.size(); ++i) {
    const auto& [domain, version] = model.opsets[i];
    writer.Message(8, WriteOpset(domain, version, has_unknown ? model.opset_unknown[i] : ""));
  }
  for (const auto& [key, value] : model.metadata) writer.Message(14, WriteEntry(key, value));
  for (const Function& function : model.functions) writer.Message(25, WriteFunction(function));
  return writer.Finish();
}

}  // namespace

WireText WriteModel(const Model& model, const PlaceTensor& place) {
  return Writer(place).WriteModel(model);
}

}  // namespace pared
