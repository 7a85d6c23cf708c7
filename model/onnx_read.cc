// ONNX messages to Model. Each Read function takes the bytes of one message; fields that Model has
// no place for are carried.

#include "model/onnx_read.h"

#include "model/onnx_value.h"
#include "model/wire.h"

namespace pared {
namespace {

// Subgraphs within subgraphs. Real models nest 4 deep; a limit keeps the recursion off the stack's
// end.
constexpr int kGraphDepthMax = 32;

[[noreturn]] void Fail(const std::string& message, const std::string& where) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

class Reader {
 public:
  explicit Reader(TensorSource& source) : source_(source) {}

  Model ReadModel(std::string_view message);

 private:
  Graph ReadGraph(std::string_view message);
  Node ReadNode(std::string_view message);
  void ReadAttribute(std::string_view message, const std::string& where, Attributes& attributes);
  void ReadData(WireReader& reader, Attribute& attribute, const std::string& where);
  Function ReadFunction(std::string_view message);
  void ReadInitializer(std::string_view message, Graph& graph);
  void ReadSparse(std::string_view message, Graph& graph, std::string name = "");
  void AddNode(std::string_view message, Graph& graph);
  Tensor ReadAttributeTensor(std::string_view message, Attribute& attribute,
                             const std::string& where);
  void ReadOpset(std::string_view message, Model& model);

  TensorSource& source_;
  int depth_ = 0;
};

constexpr int32_t kSparseTensor = 11;  // AttributeProto.AttributeType

// AttributeProto.type of the field that holds the data; 0: no data field.
int32_t TypeOfField(uint32_t field) {
  return field >= 2 && field <= 11 ? static_cast<int32_t>(field) - 1 : 0;
}

// What the attribute says it is, or what its first data field makes it (IR version 1 has no type).
int32_t FindType(std::string_view message) {
  int32_t stated = 0;
  int32_t found = 0;
  WireReader reader(message, "AttributeProto");
  while (reader.Next()) {
    if (reader.field() == 20) {
      stated = static_cast<int32_t>(reader.Int64());
    } else {
      if (found == 0) found = TypeOfField(reader.field());
      reader.Skip();
    }
  }
  return stated != 0 ? stated : found;
}

// The value a type has before any data is read; a list may be empty.
void SetDefault(Attribute& attribute) {
  switch (attribute.type) {
    case 1:
      attribute.value = 0.0F;
      break;
    case 2:
      attribute.value = int64_t{0};
      break;
    case 3:
      attribute.value = std::string();
      break;
    case 6:
      attribute.value = std::vector<float>();
      break;
    case 7:
      attribute.value = std::vector<int64_t>();
      break;
    case 8:
      attribute.value = std::vector<std::string>();
      break;
    case 9:
      attribute.value = std::vector<Tensor>();
      break;
    case 10:
      attribute.value = std::vector<GraphPtr>();
      break;
    default:
      break;
  }
}

Tensor Reader::ReadAttributeTensor(std::string_view message, Attribute& attribute,
                                   const std::string& where) {
  NamedTensor read = ReadTensor(message, source_, where);
  Unknown& unknown = attribute.tensor_unknown.emplace_back(std::move(read.unknown));
  if (!read.name.empty()) {
    WireWriter name(unknown);
    name.Bytes(8, read.name);
    unknown = name.Finish().Join();
  }
  return std::move(read.tensor);
}

void Reader::ReadData(WireReader& reader, Attribute& attribute, const std::string& where) {
  const auto subgraph = [&] { return std::make_shared<const Graph>(ReadGraph(reader.Bytes())); };
  switch (attribute.type) {
    case 1:
      attribute.value = reader.Float();
      break;
    case 2:
      attribute.value = reader.Int64();
      break;
    case 3:
      attribute.value = std::string(reader.Bytes());
      break;
    case 4:
      attribute.tensor_unknown.clear();
      attribute.value = ReadAttributeTensor(reader.Bytes(), attribute, where);
      break;
    case 5:
      attribute.value = subgraph();
      break;
    case 6:
      reader.EachFloat(
          [&](float x) { std::get<std::vector<float>>(attribute.value).push_back(x); });
      break;
    case 7:
      reader.EachInt64(
          [&](int64_t x) { std::get<std::vector<int64_t>>(attribute.value).push_back(x); });
      break;
    case 8:
      std::get<std::vector<std::string>>(attribute.value).emplace_back(reader.Bytes());
      break;
    case 9:
      std::get<std::vector<Tensor>>(attribute.value)
          .push_back(ReadAttributeTensor(reader.Bytes(), attribute, where));
      break;
    default:
      std::get<std::vector<GraphPtr>>(attribute.value).push_back(subgraph());
  }
}

void Reader::ReadAttribute(std::string_view message, const std::string& where,
                           Attributes& attributes) {
  Attribute attribute;
  attribute.type = FindType(message);
  SetDefault(attribute);
  std::string name;
  WireReader reader(message, "AttributeProto");
  while (reader.Next()) {
    const uint32_t field = reader.field();
    if (field == 1) {
      reader.String(name, attribute.unknown);
    } else if (field == 20) {
      reader.Skip();
    } else if (field == 21) {
      reader.String(attribute.ref_name, attribute.unknown);
    } else if (TypeOfField(field) != 0 && TypeOfField(field) == attribute.type) {
      ReadData(reader, attribute, name.empty() ? where : where + ", attribute " + name);
    } else {
      reader.Carry(attribute.unknown);
    }
  }
  const bool needs_data = attribute.type == 4 || attribute.type == 5;
  if (!attribute.ref_name.empty()) {
    attribute.value = std::monostate();
  } else if (needs_data && std::holds_alternative<std::monostate>(attribute.value)) {
    Fail("attribute " + name + " has no value", where);
  }
  if (attributes.contains(name)) Fail("attribute " + name + " is given twice", where);
  attributes.set(name, std::move(attribute));
}

Node Reader::ReadNode(std::string_view message) {
  Node node;
  std::vector<std::string_view> attributes;  // read last: their errors name the node
  WireReader reader(message, "NodeProto");
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        node.inputs.emplace_back(reader.Bytes());
        break;
      case 2:
        node.outputs.emplace_back(reader.Bytes());
        break;
      case 3:
        reader.String(node.name, node.unknown);
        break;
      case 4:
        reader.String(node.op_type, node.unknown);
        break;
      case 5:
        attributes.push_back(reader.Bytes());
        break;
      case 7:
        reader.String(node.domain, node.unknown);
        break;
      case 8:
        reader.String(node.overload, node.unknown);
        break;
      default:
        reader.Carry(node.unknown);
    }
  }
  for (const std::string_view attribute : attributes) {
    ReadAttribute(attribute, NodeLabel(node), node.attributes);
  }
  return node;
}

void Reader::ReadInitializer(std::string_view message, Graph& graph) {
  NamedTensor read = ReadTensor(message, source_, "an initializer without a name");
  if (graph.initializers.contains(read.name)) {
    Fail("the initializer is assigned twice", read.name);
  }
  graph.initializers.set(read.name, {std::move(read.tensor), std::move(read.unknown)});
}

// `name`: empty where the values have it, as those of an initializer do.
void Reader::ReadSparse(std::string_view message, Graph& graph, std::string name) {
  SparseTensor sparse;
  WireReader reader(message, "SparseTensorProto");
  while (reader.Next()) {
    switch (reader.field()) {
      case 1: {
        NamedTensor values = ReadTensor(reader.Bytes(), source_, "values of a sparse initializer");
        if (name.empty()) name = std::move(values.name);
        sparse.values = std::move(values.tensor);
        sparse.values_unknown = std::move(values.unknown);
        break;
      }
      case 2: {
        NamedTensor indices = ReadTensor(reader.Bytes(), source_, "indices of " + name);
        sparse.indices = std::move(indices.tensor);
        sparse.indices_unknown = std::move(indices.unknown);
        if (!indices.name.empty()) {
          WireWriter writer(sparse.indices_unknown);
          writer.Bytes(8, indices.name);
          sparse.indices_unknown = writer.Finish().Join();
        }
        break;
      }
      case 3:
        reader.EachInt64([&](int64_t dim) { sparse.dims.push_back(dim); });
        break;
      default:
        reader.Carry(sparse.unknown);
    }
  }
  if (graph.sparse_initializers.contains(name)) Fail("the initializer is assigned twice", name);
  graph.sparse_initializers.set(name, std::move(sparse));
}

// The first field of that number; empty: there is none.
std::string_view FieldOf(std::string_view message, uint32_t field) {
  WireReader reader(message, "field");
  while (reader.Next()) {
    if (reader.field() == field) return reader.Bytes();
    reader.Skip();
  }
  return {};
}

// A Constant whose value is sparse is a sparse initializer in another spelling, which everything
// that looks at constants knows.
void Reader::AddNode(std::string_view message, Graph& graph) {
  Node node = ReadNode(message);
  const bool is_constant = node.op_type == "Constant" && node.domain.empty();
  const Attribute* sparse = is_constant ? node.attributes.find("sparse_value") : nullptr;
  if (sparse == nullptr || sparse->type != kSparseTensor || node.attributes.size() != 1 ||
      node.outputs.size() != 1) {
    graph.nodes.push_back(std::move(node));
    return;
  }
  ReadSparse(FieldOf(FieldOf(message, 5), 22), graph, node.outputs[0]);
}

Graph Reader::ReadGraph(std::string_view message) {
  if (++depth_ > kGraphDepthMax) {
    Fail("subgraphs nest deeper than " + std::to_string(kGraphDepthMax), "graph");
  }
  Graph graph;
  WireReader reader(message, "GraphProto");
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        AddNode(reader.Bytes(), graph);
        break;
      case 2:
        reader.String(graph.name, graph.unknown);
        break;
      case 5:
        ReadInitializer(reader.Bytes(), graph);
        break;
      case 11:
        graph.inputs.push_back(ReadValueInfo(reader.Bytes()));
        break;
      case 12:
        graph.outputs.push_back(ReadValueInfo(reader.Bytes()));
        break;
      case 13: {
        ValueInfo value = ReadValueInfo(reader.Bytes());
        std::string name = value.name;
        graph.values.set(name, std::move(value));
        break;
      }
      case 15:
        ReadSparse(reader.Bytes(), graph);
        break;
      default:
        reader.Carry(graph.unknown);
    }
  }
  --depth_;
  return graph;
}

struct Opset {
  std::string domain;
  int64_t version = 0;
  Unknown unknown;
};

Opset ReadOpsetId(std::string_view message) {
  Opset opset;
  WireReader reader(message, "OperatorSetIdProto");
  while (reader.Next()) {
    if (reader.field() == 1) {
      reader.String(opset.domain, opset.unknown);
    } else if (reader.field() == 2) {
      reader.Integer(opset.version, opset.unknown);
    } else {
      reader.Carry(opset.unknown);
    }
  }
  return opset;
}

void Reader::ReadOpset(std::string_view message, Model& model) {
  Opset opset = ReadOpsetId(message);
  model.opsets.emplace_back(std::move(opset.domain), opset.version);
  model.opset_unknown.push_back(std::move(opset.unknown));
}

Function Reader::ReadFunction(std::string_view message) {
  Function function;
  WireReader reader(message, "FunctionProto");
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        reader.String(function.name, function.unknown);
        break;
      case 4:
        function.inputs.emplace_back(reader.Bytes());
        break;
      case 5:
        function.outputs.emplace_back(reader.Bytes());
        break;
      case 6:
        function.attributes.emplace_back(reader.Bytes());
        break;
      case 7:
        function.nodes.push_back(ReadNode(reader.Bytes()));
        break;
      case 9: {
        const Opset opset = ReadOpsetId(reader.Bytes());
        function.opsets[opset.domain] = opset.version;
        break;
      }
      case 10:
        reader.String(function.domain, function.unknown);
        break;
      case 11:
        ReadAttribute(reader.Bytes(), "function " + function.name, function.default_attributes);
        break;
      case 13:
        reader.String(function.overload, function.unknown);
        break;
      default:
        reader.Carry(function.unknown);
    }
  }
  return function;
}

Model Reader::ReadModel(std::string_view message) {
  Model model;
  model.ir_version = 0;
  bool has_graph = false;
  WireReader reader(message, "ModelProto");
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        model.ir_version = reader.Int64();
        break;
      case 2:
        reader.String(model.producer_name, model.unknown);
        break;
      case 3:
        reader.String(model.producer_version, model.unknown);
        break;
      case 4:
        reader.String(model.domain, model.unknown);
        break;
      case 5:
        reader.Integer(model.model_version, model.unknown);
        break;
      case 6:
        reader.String(model.doc_string, model.unknown);
        break;
      case 7:
        if (has_graph) Fail("not an ONNX model, or damaged: it has two graphs", "");
        has_graph = true;
        model.graph = ReadGraph(reader.Bytes());
        break;
      case 8:
        ReadOpset(reader.Bytes(), model);
        break;
      case 14:
        model.metadata.push_back(ReadEntry(reader.Bytes()));
        break;
      case 25:
        model.functions.push_back(ReadFunction(reader.Bytes()));
        break;
      default:
        reader.Carry(model.unknown);
    }
  }
  if (!has_graph) Fail("not an ONNX model: it has no graph", "");
  return model;
}

}  // namespace

Model ReadModel(std::string_view message, TensorSource& source) {
  return Reader(source).ReadModel(message);
}

}  // namespace pared
