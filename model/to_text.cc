// ToText: a model as ONNX's textual syntax, for people and for tests.

#include <charconv>

#include "model/text.h"
#include "model/text_literal.h"
#include "model/wire.h"

namespace pared {
namespace {

std::string NameText(const std::string& name) {
  bool is_word = !name.empty() && (std::isdigit(static_cast<unsigned char>(name[0])) == 0);
  for (const char c : name) {
    is_word = is_word && (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_');
  }
  return is_word || name.empty() ? name : QuotedText(name);
}

template <class Items, class Text>
std::string Joined(const Items& items, Text text) {
  std::string joined;
  for (const auto& item : items) {
    if (&item != &*items.begin()) joined += ", ";
    joined += text(item);
  }
  return joined;
}

std::string DimText(const Dim& dim) {
  if (dim.value >= 0) return std::to_string(dim.value);
  return dim.param.empty() ? "?" : NameText(dim.param);
}

std::string TypeText(const ValueInfo& value) {
  if (!value.type_bytes.empty()) return "<carried type> ";
  if (value.dtype == DType::kUndefined) return "";
  std::string text = DTypeName(value.dtype);
  if (!value.shape.has_value()) return text + "[] ";
  if (!value.shape->empty()) text += "[" + Joined(*value.shape, DimText) + "]";
  return text + " ";
}

std::string TypeText(const Tensor& tensor) {
  std::string text = DTypeName(tensor.dtype());
  if (tensor.rank() == 0) return text;
  return text + "[" + Joined(tensor.shape(), [](int64_t dim) { return std::to_string(dim); }) + "]";
}

// A float that reads back as a float, not as an integer.
std::string FloatText(float value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, end);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

class TextWriter {
 public:
  std::string text;

  void WriteModel(const Model& model);

 private:
  void Line(const std::string& line) { text += std::string(2 * indent_, ' ') + line + "\n"; }
  void WriteGraph(const Graph& graph);
  void WriteNodes(const std::vector<Node>& nodes);
  void WriteNode(const Node& node);
  void WriteFunction(const Function& function);
  std::string AttributeText(const std::string& name, const Attribute& attribute);
  std::string GraphText(const Graph& graph);

  size_t indent_ = 0;
};

std::string OpsetText(const std::pair<const std::string, int64_t>& opset) {
  return QuotedText(opset.first) + " : " + std::to_string(opset.second);
}

// A subgraph is written within its attribute, indented as the node it belongs to.
std::string TextWriter::GraphText(const Graph& graph) {
  TextWriter writer;
  writer.indent_ = indent_;
  writer.WriteGraph(graph);
  const size_t begin = writer.text.find_first_not_of(' ');
  return writer.text.substr(begin, writer.text.find_last_not_of('\n') + 1 - begin);
}

std::string TextWriter::AttributeText(const std::string& name, const Attribute& attribute) {
  const std::string head = NameText(name) + " = ";
  const auto graph_text = [&](const GraphPtr& graph) { return GraphText(*graph); };
  const auto tensor_text = [](const Tensor& tensor) {
    return TypeText(tensor) + " " + LiteralText(tensor);
  };
  const auto integer_text = [](int64_t value) { return std::to_string(value); };
  const auto& value = attribute.value;
  if (!attribute.ref_name.empty()) {
    constexpr const char* kTypes[] = {"",       "float", "int",     "string",  "tensor", "graph",
                                      "floats", "ints",  "strings", "tensors", "graphs"};
    const bool known = attribute.type > 0 && attribute.type < 11;
    return NameText(name) + " : " + (known ? kTypes[attribute.type] : "unknown") + " = @" +
           attribute.ref_name;
  }
  if (const auto* x = std::get_if<int64_t>(&value)) return head + integer_text(*x);
  if (const auto* x = std::get_if<float>(&value)) return head + FloatText(*x);
  if (const auto* x = std::get_if<std::string>(&value)) return head + QuotedText(*x);
  if (const auto* x = std::get_if<Tensor>(&value)) return head + tensor_text(*x);
  if (const auto* x = std::get_if<GraphPtr>(&value)) return head + graph_text(*x);
  std::string list;
  std::string type;
  if (const auto* x = std::get_if<std::vector<int64_t>>(&value)) {
    list = Joined(*x, integer_text);
    type = "ints";
  } else if (const auto* floats = std::get_if<std::vector<float>>(&value)) {
    list = Joined(*floats, FloatText);
    type = "floats";
  } else if (const auto* strings = std::get_if<std::vector<std::string>>(&value)) {
    list = Joined(*strings, QuotedText);
    type = "strings";
  } else if (const auto* tensors = std::get_if<std::vector<Tensor>>(&value)) {
    list = Joined(*tensors, tensor_text);
    type = "tensors";
  } else if (const auto* graphs = std::get_if<std::vector<GraphPtr>>(&value)) {
    list = Joined(*graphs, graph_text);
    type = "graphs";
  }
  const std::string typed = list.empty() ? NameText(name) + " : " + type + " = " : head;
  return typed + "[" + list + "]";
}

void TextWriter::WriteNode(const Node& node) {
  std::string line = node.name.empty() ? "" : "[" + NameText(node.name) + "] ";
  line += Joined(node.outputs, NameText) + " = ";
  line += node.domain.empty() ? "" : node.domain + ".";
  line += node.op_type;
  line += node.overload.empty() ? "" : ":" + node.overload;
  if (!node.attributes.empty()) {
    line += " <" +
            Joined(node.attributes,
                   [&](const auto& entry) { return AttributeText(entry.first, entry.second); }) +
            ">";
  }
  Line(line + " (" + Joined(node.inputs, NameText) + ")");
}

void TextWriter::WriteNodes(const std::vector<Node>& nodes) {
  ++indent_;
  for (const Node& node : nodes) WriteNode(node);
  --indent_;
  Line("}");
}

void TextWriter::WriteGraph(const Graph& graph) {
  const auto value_text = [](const ValueInfo& value) {
    return TypeText(value) + NameText(value.name);
  };
  const std::string head = (graph.name.empty() ? "graph" : NameText(graph.name)) + " (" +
                           Joined(graph.inputs, value_text) + ") => (" +
                           Joined(graph.outputs, value_text) + ")";
  std::vector<std::string> values;
  for (const auto& [name, initializer] : graph.initializers) {
    values.push_back(TypeText(initializer.tensor) + " " + NameText(name) + " = " +
                     LiteralText(initializer.tensor));
  }
  for (const auto& [name, value] : graph.values) {
    if (!TypeText(value).empty()) values.push_back(value_text(value));
  }
  if (values.empty()) {
    Line(head + " {");
  } else {
    Line(head);
    for (size_t i = 0; i < values.size(); ++i) {
      Line((i == 0 ? "<" : " ") + values[i] + (i + 1 < values.size() ? "," : ">"));
    }
    Line("{");
  }
  WriteNodes(graph.nodes);
}

void TextWriter::WriteFunction(const Function& function) {
  Line("<domain: " + QuotedText(function.domain) + ", opset_import: [" +
       Joined(function.opsets, OpsetText) + "]>");
  std::string attributes = Joined(function.attributes, NameText);
  for (const auto& [name, attribute] : function.default_attributes) {
    attributes += (attributes.empty() ? "" : ", ") + AttributeText(name, attribute);
  }
  Line(NameText(function.name) + (attributes.empty() ? "" : " <" + attributes + ">") + " (" +
       Joined(function.inputs, NameText) + ") => (" + Joined(function.outputs, NameText) + ") {");
  WriteNodes(function.nodes);
}

void TextWriter::WriteModel(const Model& model) {
  std::string header = "<ir_version: " + std::to_string(model.ir_version) + ", opset_import: [" +
                       Joined(model.opsets, OpsetText) + "]";
  if (!model.producer_name.empty()) header += ", producer_name: " + QuotedText(model.producer_name);
  if (!model.metadata.empty()) {
    header += ", metadata_props: [" +
              Joined(model.metadata,
                     [](const auto& entry) {
                       return QuotedText(entry.first) + " : " + QuotedText(entry.second);
                     }) +
              "]";
  }
  Line(header + ">");
  WriteGraph(model.graph);
  for (const Function& function : model.functions) WriteFunction(function);
}

}  // namespace

std::string ToText(const Model& model) {
  TextWriter writer;
  writer.WriteModel(model);
  return std::move(writer.text);
}

}  // namespace pared
