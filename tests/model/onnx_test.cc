#include "model/onnx.h"

#include <gtest/gtest.h>

#include "model/wire.h"
#include "tests/model/parse.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

// A model around a graph given as wire bytes.
std::string WireModel(const std::string& graph, int64_t ir_version = 8, int64_t opset = 17) {
  WireWriter opset_id;
  opset_id.Int64(2, opset);
  WireWriter model;
  model.Int64(1, ir_version);
  model.Bytes(7, graph);
  model.Message(8, opset_id.Finish());
  return model.Finish().Join();
}

struct TypedCase {
  const char* dtype;
  size_t wire_size;
  const char* wire;
  size_t raw_size;
  const char* raw;
};

constexpr TypedCase kTypedCases[] = {
#include "tests/model/typed_tensors.inc"
};

TEST(ParseTensorProto, TypedFieldsEqualRawData) {
  for (const TypedCase& c : kTypedCases) {
    const std::string wire(c.wire, c.wire_size);
    const std::string raw(c.raw, c.raw_size);
    std::string name;
    const Tensor t = ParseTensorProto(BytesOf(wire), name);
    EXPECT_EQ(name, "t");
    EXPECT_STREQ(DTypeName(t.dtype()), c.dtype);
    const auto* got = reinterpret_cast<const char*>(t.bytes().data());
    EXPECT_EQ(std::string(got, t.bytes().size()), raw) << c.dtype;
  }
}

std::string TensorWire(const std::function<void(WireWriter&)>& fill) {
  WireWriter tensor;
  fill(tensor);
  return tensor.Finish().Join();
}

void ExpectTensorRefused(ErrorCode code, const std::string& message,
                         const std::function<void(WireWriter&)>& fill) {
  const std::string wire = TensorWire(fill);
  std::string name;
  EXPECT_THAT([&] { ParseTensorProto(BytesOf(wire), name); },
              ThrowsError(code, "w", HasSubstr(message)));
}

TEST(ParseTensorProto, RefusesShapesThatTheDataDoesNotFill) {
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "too large", [](WireWriter& t) {
    t.Int64(1, int64_t{1} << 40);
    t.Int64(1, int64_t{1} << 40);
    t.Int64(2, 1);
    t.Bytes(8, "w");
  });
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "needs 4398046511104", [](WireWriter& t) {
    t.Int64(1, int64_t{1} << 40);
    t.Int64(2, 1);
    t.Bytes(8, "w");
  });
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "4398046511104 bytes", [](WireWriter& t) {
    t.Int64(1, int64_t{1} << 40);
    t.Int64(2, 6);
    t.Bytes(5, std::string("\1\2\3", 3));
    t.Bytes(8, "w");
  });
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "below 0", [](WireWriter& t) {
    t.Int64(1, -1);
    t.Int64(2, 1);
    t.Bytes(8, "w");
  });
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "needs 8", [](WireWriter& t) {
    t.Int64(1, 2);
    t.Int64(2, 1);
    t.Bytes(8, "w");
    t.Bytes(9, std::string(7, 'x'));
  });
  // One element more than the shape has.
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "2 bytes", [](WireWriter& t) {
    t.Int64(1, 2);
    t.Int64(2, 3);
    t.Bytes(5, std::string("\1\2\3", 3));
    t.Bytes(8, "w");
  });
}

TEST(ParseTensorProto, RefusesDataThatDoesNotFitTheType) {
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "does not fit int8", [](WireWriter& t) {
    t.Int64(1, 1);
    t.Int64(2, 3);
    t.Int64(5, 128);
    t.Bytes(8, "w");
  });
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "not for float", [](WireWriter& t) {
    t.Int64(1, 1);
    t.Int64(2, 1);
    t.Int64(5, 1);
    t.Bytes(8, "w");
  });
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "two fields", [](WireWriter& t) {
    t.Int64(1, 1);
    t.Int64(2, 1);
    t.Float(4, 1);
    t.Bytes(8, "w");
    t.Bytes(9, "abcd");
  });
  ExpectTensorRefused(ErrorCode::kUnsupported, "type 99", [](WireWriter& t) {
    t.Int64(2, 99);
    t.Bytes(8, "w");
  });
}

TEST(ParseTensorProto, ReadsScalarsAndEmptyTensors) {
  std::string name;
  const std::string scalar = TensorWire([](WireWriter& t) {
    t.Int64(2, 1);
    t.Float(4, 2.5F);
  });
  EXPECT_THAT(ParseTensorProto(BytesOf(scalar), name).data<float>(), ElementsAre(2.5F));
  const std::string empty = TensorWire([](WireWriter& t) {
    t.Int64(1, 1);
    t.Int64(1, 0);
    t.Int64(2, 1);
  });
  EXPECT_EQ(ParseTensorProto(BytesOf(empty), name).shape(), (Shape{1, 0}));
}

TEST(ParseTensorProto, AllowsNoExternalData) {
  ExpectTensorRefused(ErrorCode::kInvalidArgument, "not allowed", [](WireWriter& t) {
    t.Int64(1, 1);
    t.Int64(2, 1);
    t.Bytes(8, "w");
    t.Int64(14, 1);
  });
}

// Every field that Model has, and fields it only carries.
Model RichModel() {
  Model m = ParseText(R"(
    <ir_version: 8, opset_import: ["" : 17, "local" : 1], producer_name: "p", model_version: 3,
     doc_string: "about", metadata_props: ["stride" : "32", "names" : "{0: 'a'}"]>
    g (bool c, float[N,2] x, float[2] d = {5, 6}) => (float[] y)
    <float[2,2] w = {1, 2, 3, 4}, int4[3] q = {-8, 7, 1}, string[2] s = {"a", ""}, float[N,2] h>
    {
      [first] h = MatMul(x, w)
      y = If (c) <then_branch = t () => (float[] a) { a = local.F <k = 2.5> (h) },
                  else_branch = e () => (float[] b) { b = Add(h, d) }>
    }
    <domain: "local", opset_import: ["" : 17]>
    F <k> (v) => (o) { f = Constant <value_float : float = @k> () o = Mul(v, f) })");
  WireWriter carried;
  carried.Bytes(6, "doc");
  carried.Bytes(77, "from the future");
  m.graph.nodes[0].unknown = carried.Finish().Join();
  SparseTensor sparse;
  sparse.values = Tensor::Make<float>({1}, {7});
  sparse.indices = Tensor::Make<int64_t>({1, 2}, {1, 0});
  sparse.dims = {2, 2};
  m.graph.sparse_initializers.set("by_axis", sparse);
  sparse.indices = Tensor::Make<int64_t>({1}, {2});
  m.graph.sparse_initializers.set("linear", sparse);
  return m;
}

TEST(SerializeOnnx, ReadsBackWhole) {
  const Model m = RichModel();
  const std::string bytes = SerializeOnnx(m);
  const Model back = Parse(bytes);
  EXPECT_EQ(SerializeOnnx(back), bytes);
  EXPECT_EQ(ToText(back), ToText(m));
  EXPECT_EQ(back.model_version, 3);
  EXPECT_EQ(back.doc_string, "about");
  EXPECT_THAT(back.metadata, ElementsAre(Pair("stride", "32"), Pair("names", "{0: 'a'}")));
  EXPECT_EQ(back.graph.nodes[0].unknown, m.graph.nodes[0].unknown);
  EXPECT_THAT(back.graph.initializers.at("w").tensor,
              SameTensor(m.graph.initializers.at("w").tensor));
  EXPECT_THAT(back.graph.sparse_initializers.at("by_axis").indices.shape(), ElementsAre(1, 2));
  EXPECT_THAT(back.graph.sparse_initializers.at("linear").indices.data<int64_t>(), ElementsAre(2));
  EXPECT_THAT(back.graph.sparse_initializers.at("linear").dims, ElementsAre(2, 2));
}

TEST(ParseOnnx, RefusesWhatIsNoModelWithItsReason) {
  const auto refused = [](const std::string& bytes, const std::string& message) {
    EXPECT_THAT([&] { Parse(bytes); },
                ThrowsError(ErrorCode::kInvalidArgument, "model", HasSubstr(message)));
  };
  refused("", "empty");
  refused("PK\x03\x04 rest", "zip");
  refused("{\"a\": 1}", "JSON");
  refused(std::string("\x1C\0\0\0TFL3....", 12), "TensorFlow Lite");
  refused(std::string("\x08\x08", 2), "no graph");
  refused("\xFF\xFF\xFF", "damaged");
  refused(std::string("\x0A\x02xx", 4), "wrong wire type");
}

TEST(ParseOnnx, KnowsIrVersions3To12AndOpsets7To24) {
  const std::string graph = "\x12\x01g";
  for (const auto& [ir, opset] : {std::pair{3, 7}, {12, 24}}) Parse(WireModel(graph, ir, opset));
  for (const auto& [ir, opset] : {std::pair{2, 8}, {13, 8}, {8, 6}, {8, 25}, {0, 8}}) {
    EXPECT_THAT([&] { Parse(WireModel(graph, ir, opset)); },
                ThrowsError(ErrorCode::kUnsupported, "model"));
  }
}

TEST(ParseOnnx, SortsNodesAndRefusesCycles) {
  Model m = ParseText("g (float x) => (float y) { y = Neg(a) a = Abs(x) }");
  EXPECT_EQ(Parse(SerializeOnnx(m)).graph.nodes[0].op_type, "Abs");
  m = ParseText("g (float x) => (float y) { y = Add(a, x) [n] a = Abs(y) }");
  EXPECT_THAT([&] { Parse(SerializeOnnx(m)); },
              ThrowsError(ErrorCode::kInvalidArgument, "Add producing y", HasSubstr("cycle")));
}

void ExpectGraphRefused(const std::string& graph, const std::string& message) {
  const std::string bytes = SerializeOnnx(ParseText(graph));
  EXPECT_THAT([&] { ParseOnnx(BytesOf(bytes), nullptr); },
              ThrowsError(ErrorCode::kInvalidArgument, HasSubstr(" n"), HasSubstr(message)))
      << graph;
}

TEST(ParseOnnx, RefusesAnAxisThatIsNone) {
  for (const char* node :
       {"Softmax <axis = 9> (x)", "Concat <axis = 9> (x, x)", "Gather <axis = 9> (x, i)",
        "LayerNormalization <axis = 9> (x, f)", "ScatterElements <axis = 9> (x, i, x)",
        "GatherElements <axis = 9> (x, i)", "Split <axis = 9> (x)", "ArgMax <axis = 9> (x)"}) {
    ExpectGraphRefused(
        std::string("g (float[2,3] x, int64[2,3] i, float[3] f) => (float[] y) { [n] y = ") + node +
            " }",
        "axis 9 is out of range for rank 2; it should be from -2 to 1");
  }
}

TEST(ParseOnnx, RefusesShapesThatDoNotFitTheirNode) {
  ExpectGraphRefused("g (float[2,3] x, float[7,7] w) => (float[] y) { [n] y = Gemm(x, w) }",
                     "dimensions 3 and 7");
  ExpectGraphRefused("g (float[2,3] x, float[7,7] w) => (float[] y) { [n] y = MatMul(x, w) }",
                     "dimensions 3 and 7");
  ExpectGraphRefused("g (float[2,3] x) => (float[] y) { [n] y = Transpose <perm = [2,0,1]> (x) }",
                     "perm has 3 entries; the input's rank is 2");
  ExpectGraphRefused(
      "g (float[1,4,3] x, float[9] p) => (float[] y) { [n] y = BatchNormalization(x, p, p, p, p) }",
      "each of the 4 channels");
  ExpectGraphRefused("g (float[1,4,8,8] x, float[8,5,3,3] w) => (float[] y) { [n] y = Conv(x, w) }",
                     "has 4 channels; the weight needs 5");
  ExpectGraphRefused(
      "g (float[1,4,8,8] x, float[8,5,3,3] w) => (float[] y) { [n] y = ConvTranspose(x, w) }",
      "has 4 channels; the weight needs 8");
  ExpectGraphRefused(
      "g (float[1,4,8,8] x, float[8,4,3,3] w) => (float[] y) { [n] y = Conv <pads = [1,1]> (x, w) "
      "}",
      "pads has 2 entries; a kernel of rank 2 needs 4");
}

TEST(ParseOnnx, RefusesTwoInitializersOfOneName) {
  WireWriter graph;
  for (int i = 0; i < 2; ++i) {
    graph.Bytes(5, TensorWire([](WireWriter& t) {
                  t.Int64(2, 1);
                  t.Bytes(8, "w");
                  t.Bytes(9, "abcd");
                }));
  }
  const std::string bytes = WireModel(graph.Finish().Join());
  EXPECT_THAT([&] { Parse(bytes); },
              ThrowsError(ErrorCode::kInvalidArgument, "w", HasSubstr("twice")));
}

// Graphs within graphs, as an attribute of a node each.
std::string Nested(int depth) {
  std::string graph = "\x12\x01g";
  for (int i = 0; i < depth; ++i) {
    WireWriter attribute;
    attribute.Bytes(1, "body");
    attribute.Bytes(6, graph);
    attribute.Int64(20, 5);
    WireWriter node;
    node.Bytes(4, "Nest");
    node.Message(5, attribute.Finish());
    WireWriter outer;
    outer.Message(1, node.Finish());
    outer.Bytes(2, "g");
    graph = outer.Finish().Join();
  }
  return WireModel(graph);
}

TEST(ParseOnnx, LimitsNesting) {
  Parse(Nested(31));
  EXPECT_THAT([] { Parse(Nested(32)); },
              ThrowsError(ErrorCode::kInvalidArgument, "graph", HasSubstr("32")));
  EXPECT_THAT([] { Parse(Nested(3000)); }, ThrowsError(ErrorCode::kInvalidArgument, "graph"));
}

TEST(ParseOnnx, CarriesAttributesItDoesNotKnow) {
  WireWriter attribute;
  attribute.Bytes(1, "odd");
  attribute.Bytes(22, "\x1A\x01\x02");  // a sparse tensor
  attribute.Int64(20, 11);
  WireWriter node;
  node.Bytes(2, "y");
  node.Bytes(4, "Constant");
  node.Message(5, attribute.Finish());
  WireWriter graph;
  graph.Message(1, node.Finish());
  const std::string bytes = WireModel(graph.Finish().Join());
  EXPECT_TRUE(SerializeOnnx(Parse(bytes)).find("\x1A\x01\x02") != std::string::npos);
}

TEST(ParseOnnx, ReadsAConstantThatIsSparseAsASparseInitializer) {
  Model sparse = ParseText("g () => () {}");
  sparse.graph.sparse_initializers.set(
      "w", {Tensor::Make<float>({1}, {7}), Tensor::Make<int64_t>({1}, {2}), {2, 2}});
  const std::string wire = SerializeOnnx(sparse);
  const size_t begin = wire.find("\x7A");  // field 15 of the graph
  ASSERT_NE(begin, std::string::npos);
  WireWriter attribute;
  attribute.Bytes(1, "sparse_value");
  attribute.Bytes(22, wire.substr(begin + 2, static_cast<size_t>(wire[begin + 1])));
  attribute.Int64(20, 11);
  WireWriter node;
  node.Bytes(2, "k");
  node.Bytes(4, "Constant");
  node.Message(5, attribute.Finish());
  WireWriter graph;
  graph.Message(1, node.Finish());
  const Model m = Parse(WireModel(graph.Finish().Join()));
  EXPECT_TRUE(m.graph.nodes.empty());
  EXPECT_THAT(m.graph.sparse_initializers.at("k").values.data<float>(), ElementsAre(7));
  EXPECT_THAT(m.graph.sparse_initializers.at("k").indices.data<int64_t>(), ElementsAre(2));
  EXPECT_THAT(m.graph.sparse_initializers.at("k").dims, ElementsAre(2, 2));
}

TEST(ParseOnnx, KeepsEmptyListsOfTheirType) {
  const Model m = Parse(SerializeOnnx(ParseText(
      "g (float x) => (float y) { y = Squeeze <axes : ints = [], f : floats = []> (x) }")));
  EXPECT_TRUE(m.graph.nodes[0].Ints("axes", {1}).empty());
  EXPECT_EQ(m.graph.nodes[0].attributes.at("f").type, 6);
}

TEST(ParseOnnx, KeepsDefaultsThatAreGraphInputs) {
  const Model m = Parse(SerializeOnnx(
      ParseText("<ir_version: 3, opset_import: [\"\" : 8]> g (float x, float w = {2}) => (float y) "
                "{ y = Mul(x, w) }")));
  EXPECT_EQ(m.graph.inputs.size(), 2U);
  EXPECT_THAT(m.graph.initializers.at("w").tensor.data<float>(), ElementsAre(2));
}

TEST(SaveOnnx, LeavesNothingAsideAndReplacesTheFile) {
  const TempDir dir;
  WriteFile(dir / "m.onnx", "old");
  const Model m = RichModel();
  SaveOnnx(m, dir / "m.onnx");
  EXPECT_EQ(ReadFile(dir / "m.onnx"), SerializeOnnx(m));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
  EXPECT_THAT([&] { SaveOnnx(m, dir / "none/m.onnx"); },
              ThrowsError(ErrorCode::kUnavailable, HasSubstr("none/m.onnx")));
}

TEST(SaveOnnx, OverwritesTheFileItsTensorsLieIn) {
  const TempDir dir;
  Model m = ParseText("g (float[N,4] x) => (float[N,1000] y) { y = MatMul(x, w) }");
  const Tensor w = Tensor::Make<float>({4, 1000}, std::vector<float>(4000, 1.25F));
  SaveOnnx(WithInitializer(m, "w", w), dir / "m.onnx");
  SaveOnnx(LoadOnnx(dir / "m.onnx"), dir / "m.onnx");
  EXPECT_THAT(LoadOnnx(dir / "m.onnx").graph.initializers.at("w").tensor, SameTensor(w));
}

TEST(LoadOnnx, NamesTheFile) {
  const TempDir dir;
  EXPECT_THAT([&] { LoadOnnx(dir / "no.onnx"); },
              ThrowsError(ErrorCode::kNotFound, (dir / "no.onnx").string()));
  EXPECT_THAT([&] { LoadOnnx(dir.path()); },
              ThrowsError(ErrorCode::kInvalidArgument, dir.path().string(), HasSubstr("regular")));
  WriteFile(dir / "zip.onnx", "PK\x03\x04");
  EXPECT_THAT(
      [&] { LoadOnnx(dir / "zip.onnx"); },
      ThrowsError(ErrorCode::kInvalidArgument, (dir / "zip.onnx").string(), HasSubstr("zip")));
}

}  // namespace
}  // namespace pared
