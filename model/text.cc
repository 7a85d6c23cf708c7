// ParseText: recursive descent over the grammar of the "ONNX Textual Syntax" page.

#include "model/text.h"

#include "base/error.h"
#include "model/text_literal.h"
#include "model/text_scanner.h"
#include "model/wire.h"

namespace pared {
namespace {

constexpr int kDepthMax = 32;

class Parser {
 public:
  explicit Parser(std::string_view text) : scan_(text) {}

  Model ParseModel();

 private:
  template <class Item>
  void List(char close, Item item);
  void ParseHeader(Model& model);
  std::vector<std::pair<std::string, std::string>> ParseEntries();
  std::vector<std::pair<std::string, int64_t>> ParseOpsets();
  Graph ParseGraph();
  void ParseGraphInput(Graph& graph);
  void ParseGraphValue(Graph& graph);
  Function ParseFunction();
  void ParseFunctionAttribute(Function& function);
  std::vector<Node> ParseNodes();
  Node ParseNode();
  void ParseAttributes(Attributes& attributes);
  void ParseAttribute(Attributes& attributes);
  Attribute ParseAttributeValue(int32_t type);
  Attribute ParseList(int32_t type);
  bool ParseType(ValueInfo& value);
  std::string ParseTypeBytes();
  std::vector<Dim> ParseDims();
  Tensor ParseTensorAfterType(const ValueInfo& type);

  TextScanner scan_;
  int depth_ = 0;
};

int32_t TypeOfKeyword(const std::string& word) {
  constexpr const char* kWords[] = {"float",  "int",  "string",  "tensor",  "graph",
                                    "floats", "ints", "strings", "tensors", "graphs"};
  for (size_t i = 0; i < std::size(kWords); ++i) {
    if (word == kWords[i]) return static_cast<int32_t>(i) + 1;
  }
  return 0;
}

// Comma-separated items up to `close`, which is read too.
template <class Item>
void Parser::List(char close, Item item) {
  if (scan_.Match(close)) return;
  do {
    item();
  } while (scan_.Match(','));
  scan_.Expect(close);
}

std::vector<std::pair<std::string, std::string>> Parser::ParseEntries() {
  std::vector<std::pair<std::string, std::string>> entries;
  scan_.Expect('[');
  List(']', [&] {
    std::string key = scan_.String();
    scan_.Expect(':');
    entries.emplace_back(std::move(key), scan_.String());
  });
  return entries;
}

std::vector<std::pair<std::string, int64_t>> Parser::ParseOpsets() {
  std::vector<std::pair<std::string, int64_t>> opsets;
  scan_.Expect('[');
  List(']', [&] {
    std::string domain = scan_.String();
    scan_.Expect(':');
    opsets.emplace_back(std::move(domain), scan_.ReadNumber().integer);
  });
  return opsets;
}

void Parser::ParseHeader(Model& model) {
  List('>', [&] {
    const std::string key = scan_.Name();
    scan_.Expect(':');
    if (key == "ir_version") {
      model.ir_version = scan_.ReadNumber().integer;
    } else if (key == "opset_import") {
      model.opsets = ParseOpsets();
    } else if (key == "producer_name") {
      model.producer_name = scan_.String();
    } else if (key == "producer_version") {
      model.producer_version = scan_.String();
    } else if (key == "domain") {
      model.domain = scan_.String();
    } else if (key == "model_version") {
      model.model_version = scan_.ReadNumber().integer;
    } else if (key == "doc_string") {
      model.doc_string = scan_.String();
    } else if (key == "metadata_props") {
      model.metadata = ParseEntries();
    } else {
      scan_.Fail("a model has no field " + key);
    }
  });
}

std::vector<Dim> Parser::ParseDims() {
  std::vector<Dim> dims;
  List(']', [&] {
    Dim dim;
    if (scan_.AtNumber()) {
      dim.value = scan_.ReadNumber().integer;
    } else if (!scan_.Match('?')) {
      dim.param = scan_.Name();
    }
    dims.push_back(std::move(dim));
  });
  return dims;
}

// TypeProto of seq(T) or optional(T), as wire bytes: pared only carries them.
std::string Parser::ParseTypeBytes() {
  if (++depth_ > kDepthMax) scan_.Fail("types nest too deep");
  const std::string kind = scan_.Name();
  WireWriter type;
  if (kind == "seq" || kind == "optional") {
    scan_.Expect('(');
    WireWriter element;
    element.Bytes(1, ParseTypeBytes());
    type.Message(kind == "seq" ? 4 : 9, element.Finish());
    scan_.Expect(')');
  } else if (const DType dtype = DTypeOfName(kind); dtype != DType::kUndefined) {
    WireWriter tensor;
    tensor.Int64(1, static_cast<int64_t>(dtype));
    if (!scan_.Match('[')) {
      tensor.Bytes(2, "");
    } else if (!scan_.Match(']')) {
      WireWriter shape;
      for (const Dim& dim : ParseDims()) {
        WireWriter writer;
        if (dim.value >= 0) writer.Int64(1, dim.value);
        writer.OptionalBytes(2, dim.param);
        shape.Message(1, writer.Finish());
      }
      tensor.Message(2, shape.Finish());
    }
    type.Message(1, tensor.Finish());
  } else {
    scan_.Fail("there is no type " + kind);
  }
  --depth_;
  return type.Finish().Join();
}

// ONNX: float is a scalar, float[] a tensor of unknown rank. False: no type follows.
bool Parser::ParseType(ValueInfo& value) {
  const size_t begin = scan_.position();
  if (!scan_.AtName()) return false;
  const std::string word = scan_.Name();
  if (word == "seq" || word == "optional") {
    scan_.Rewind(begin);
    value.type_bytes = ParseTypeBytes();
    return true;
  }
  value.dtype = DTypeOfName(word);
  if (value.dtype == DType::kUndefined) {
    scan_.Rewind(begin);
    return false;
  }
  if (!scan_.Match('[')) {
    value.shape.emplace();
  } else if (!scan_.Match(']')) {
    value.shape = ParseDims();
  }
  return true;
}

Tensor Parser::ParseTensorAfterType(const ValueInfo& type) {
  if (!type.shape.has_value()) scan_.Fail("a tensor needs a shape");
  Shape shape;
  for (const Dim& dim : *type.shape) {
    if (dim.value < 0) scan_.Fail("a tensor needs a shape of numbers");
    shape.push_back(dim.value);
  }
  return ParseLiteral(scan_, type.dtype, std::move(shape));
}

void Parser::ParseGraphInput(Graph& graph) {
  ValueInfo value;
  ParseType(value);
  value.name = scan_.Name();
  if (scan_.Match('=')) graph.initializers.set(value.name, {ParseTensorAfterType(value), {}});
  graph.inputs.push_back(std::move(value));
}

void Parser::ParseGraphValue(Graph& graph) {
  ValueInfo value;
  if (!ParseType(value)) scan_.Fail("expected a type");
  value.name = scan_.Name();
  if (scan_.Match('=')) {
    graph.initializers.set(value.name, {ParseTensorAfterType(value), {}});
    return;
  }
  std::string name = value.name;
  graph.values.set(name, std::move(value));
}

Graph Parser::ParseGraph() {
  if (++depth_ > kDepthMax) scan_.Fail("subgraphs nest deeper than " + std::to_string(kDepthMax));
  Graph graph;
  graph.name = scan_.Name();
  scan_.Expect('(');
  List(')', [&] { ParseGraphInput(graph); });
  scan_.Expect(std::string_view("=>"));
  scan_.Expect('(');
  List(')', [&] {
    ValueInfo& value = graph.outputs.emplace_back();
    ParseType(value);
    value.name = scan_.Name();
  });
  if (scan_.Match('<')) List('>', [&] { ParseGraphValue(graph); });
  graph.nodes = ParseNodes();
  --depth_;
  return graph;
}

std::vector<Node> Parser::ParseNodes() {
  std::vector<Node> nodes;
  scan_.Expect('{');
  while (!scan_.Match('}')) {
    nodes.push_back(ParseNode());
    scan_.Match(';');
  }
  return nodes;
}

Node Parser::ParseNode() {
  Node node;
  if (scan_.Match('[')) {
    node.name = scan_.Name();
    scan_.Expect(']');
  }
  do {
    node.outputs.push_back(scan_.OptionalName());
  } while (scan_.Match(','));
  scan_.Expect('=');
  node.op_type = scan_.Name();
  while (scan_.Match('.')) {
    node.domain += (node.domain.empty() ? "" : ".") + node.op_type;
    node.op_type = scan_.Name();
  }
  if (scan_.Match(':')) node.overload = scan_.Name();
  ParseAttributes(node.attributes);
  scan_.Expect('(');
  List(')', [&] { node.inputs.push_back(scan_.OptionalName()); });
  if (node.attributes.empty()) ParseAttributes(node.attributes);
  return node;
}

void Parser::ParseAttributes(Attributes& attributes) {
  if (scan_.Match('<')) List('>', [&] { ParseAttribute(attributes); });
}

void Parser::ParseAttribute(Attributes& attributes) {
  const std::string name = scan_.Name();
  if (attributes.contains(name)) scan_.Fail("attribute " + name + " is given twice");
  int32_t type = 0;
  if (scan_.Match(':')) {
    const std::string word = scan_.Name();
    type = TypeOfKeyword(word);
    if (type == 0) scan_.Fail("there is no attribute type " + word);
  }
  scan_.Expect('=');
  attributes.set(name, ParseAttributeValue(type));
}

// `type`: AttributeProto.type as written; 0: the value tells.
Attribute Parser::ParseAttributeValue(int32_t type) {
  Attribute attribute;
  if (scan_.Match('@')) {
    if (type == 0) scan_.Fail("a reference to an attribute needs a type, as in axis : int = @axis");
    attribute.type = type;
    attribute.ref_name = scan_.Name();
    return attribute;
  }
  if (scan_.Match('[')) return ParseList(type);
  if (scan_.Peek() == '"') {
    attribute.type = 3;
    attribute.value = scan_.String();
  } else if (scan_.AtNumber()) {
    const TextScanner::Number number = scan_.ReadNumber();
    attribute.type = type != 0 ? type : number.is_float ? 1 : 2;
    if (attribute.type == 1) {
      attribute.value = static_cast<float>(number.real);
    } else {
      attribute.value = number.integer;
    }
  } else if (ValueInfo tensor_type; ParseType(tensor_type)) {
    scan_.OptionalName();
    scan_.Match('=');
    attribute.type = 4;
    attribute.value = ParseTensorAfterType(tensor_type);
  } else {
    attribute.type = 5;
    attribute.value = std::make_shared<const Graph>(ParseGraph());
  }
  if (type != 0 && type != attribute.type) scan_.Fail("the value has another type than stated");
  return attribute;
}

// Appends `item`'s value to the list, which takes its kind from the first item.
template <class T>
void AppendItem(Attribute& list, const Attribute& item) {
  if (const T* value = std::get_if<T>(&item.value)) {
    if (!std::holds_alternative<std::vector<T>>(list.value)) list.value = std::vector<T>();
    std::get<std::vector<T>>(list.value).push_back(*value);
    list.type = item.type + 5;
  }
}

Attribute Parser::ParseList(int32_t type) {
  std::vector<Attribute> items;
  bool has_float = type == 6;
  List(']', [&] {
    items.push_back(ParseAttributeValue(0));
    has_float = has_float || items.back().type == 1;
  });
  Attribute list;
  list.type = type;
  if (items.empty()) {
    if (type == 0) scan_.Fail("an empty list needs a type, as in axes : ints = []");
    if (type == 6) list.value = std::vector<float>();
    if (type == 7) list.value = std::vector<int64_t>();
    if (type == 8) list.value = std::vector<std::string>();
    return list;
  }
  for (Attribute& item : items) {
    if (has_float && item.type == 2) {
      item.value = static_cast<float>(std::get<int64_t>(item.value));
      item.type = 1;
    }
    if (item.type != items[0].type) scan_.Fail("the list mixes types");
    AppendItem<float>(list, item);
    AppendItem<int64_t>(list, item);
    AppendItem<std::string>(list, item);
    AppendItem<Tensor>(list, item);
    AppendItem<GraphPtr>(list, item);
  }
  return list;
}

void Parser::ParseFunctionAttribute(Function& function) {
  const size_t begin = scan_.position();
  std::string name = scan_.Name();
  if (scan_.Peek() == ':' || scan_.Peek() == '=') {
    scan_.Rewind(begin);
    ParseAttribute(function.default_attributes);
  } else {
    function.attributes.push_back(std::move(name));
  }
}

Function Parser::ParseFunction() {
  Function function;
  scan_.Expect('<');
  List('>', [&] {
    const std::string key = scan_.Name();
    scan_.Expect(':');
    if (key == "opset_import") {
      for (auto& [domain, version] : ParseOpsets()) function.opsets[domain] = version;
    } else if (key == "domain") {
      function.domain = scan_.String();
    } else if (key == "overload") {
      function.overload = scan_.String();
    } else {
      scan_.Fail("a function has no field " + key);
    }
  });
  function.name = scan_.Name();
  if (scan_.Match('<')) List('>', [&] { ParseFunctionAttribute(function); });
  scan_.Expect('(');
  List(')', [&] { function.inputs.push_back(scan_.Name()); });
  scan_.Expect(std::string_view("=>"));
  scan_.Expect('(');
  List(')', [&] { function.outputs.push_back(scan_.Name()); });
  function.nodes = ParseNodes();
  return function;
}

Model Parser::ParseModel() {
  Model model;
  model.opsets = {{"", 17}};
  if (scan_.Match('<')) ParseHeader(model);
  model.graph = ParseGraph();
  while (!scan_.AtEnd()) model.functions.push_back(ParseFunction());
  return model;
}

}  // namespace

Model ParseText(std::string_view text) { return Parser(text).ParseModel(); }

}  // namespace pared
