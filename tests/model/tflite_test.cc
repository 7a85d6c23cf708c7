// What graphs TensorFlow Lite files become; that they compute the same is compared with LiteRT in
// tests/parity/tflite_models.py, which also made the files here.

#include "model/tflite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/onnx.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kFolder = "tests/fuzz/corpus/tflite/";

Model Read(const std::string& bytes) {
  auto owner = std::make_shared<const std::string>(bytes);
  return ParseTflite(std::as_bytes(std::span(*owner)), owner, "file");
}

std::vector<std::string> Types(const Model& model) {
  std::vector<std::string> types;
  for (const Node& node : model.graph.nodes) types.push_back(node.op_type);
  return types;
}

TEST(Tflite, KeepsNamesTypesAndLayoutOfInputsAndOutputs) {
  const Model model = LoadTflite(kFolder + "conv_2d_0_2_1_1");
  ASSERT_EQ(model.graph.inputs.size(), 1);
  EXPECT_EQ(model.graph.inputs[0].name, "t0");
  EXPECT_EQ(model.graph.inputs[0].dtype, DType::kFloat32);
  const std::vector<Dim>& shape = *model.graph.inputs[0].shape;
  EXPECT_EQ(shape[1].value, 7);  // [N,H,W,C]
  EXPECT_EQ(shape[3].value, 6);
  EXPECT_EQ(model.graph.outputs[0].name, "t3");
  EXPECT_THAT(Types(model), ElementsAre("Transpose", "Conv", "Relu", "Transpose"));
  EXPECT_EQ(model.doc_string, "made for a test");
}

TEST(Tflite, WeightsLieAsOnnxHasThem) {
  const Model model = LoadTflite(kFolder + "conv_2d_0_2_1_1");
  const Node& conv = model.graph.nodes[1];
  EXPECT_EQ(model.graph.initializers.at(conv.inputs[1]).tensor.shape(), (Shape{5, 6, 3, 2}));
  EXPECT_EQ(conv.Ints("strides"), (std::vector<int64_t>{2, 2}));
  // SAME: 4 outputs of 7 by steps of 2 with 3 taps, 5 of 9 with 2 taps; the end gets the odd one.
  EXPECT_EQ(conv.Ints("pads"), (std::vector<int64_t>{1, 0, 1, 1}));
}

TEST(Tflite, WritesTransposesOnlyWhereALayoutEnds) {
  // A pool before each, which holds its result by channels.
  EXPECT_THAT(Types(LoadTflite(kFolder + "prelu")),
              ElementsAre("Transpose", "MaxPool", "PRelu", "Transpose"));
  EXPECT_THAT(Types(LoadTflite(kFolder + "mean_1_2_false")),
              ElementsAre("Transpose", "MaxPool", "ReduceMean"));
  EXPECT_THAT(Types(LoadTflite(kFolder + "transpose_lead_0_3_1_2")),
              ElementsAre("Transpose", "MaxPool"));
  EXPECT_THAT(Types(LoadTflite(kFolder + "concatenation_3")),
              ElementsAre("Transpose", "MaxPool", "Transpose", "Concat", "Transpose"));
}

TEST(Tflite, NormalizedChannelsBecomeTheLastAxis) {
  const Model model = LoadTflite(kFolder + "variance_of_channels");
  EXPECT_THAT(Types(model), ElementsAre("Transpose", "MaxPool", "Transpose", "ReduceMean", "Sub",
                                        "Mul", "ReduceMean"));
  EXPECT_EQ(model.graph.nodes[3].Ints("axes"), (std::vector<int64_t>{3}));
}

TEST(Tflite, QuantizedOperatorsBecomePairsOfQuantizeAndDequantize) {
  const Model model = LoadTflite(kFolder + "conv_2d_int8");
  EXPECT_EQ(model.graph.inputs[0].dtype, DType::kInt8);
  EXPECT_EQ(model.graph.outputs[0].dtype, DType::kInt8);
  std::vector<std::string> types = Types(model);
  EXPECT_EQ(std::ranges::count(types, "DequantizeLinear"), 3);  // input, weight, bias
  EXPECT_EQ(std::ranges::count(types, "QuantizeLinear"), 1);
  for (const Node& node : model.graph.nodes) {
    if (node.op_type != "DequantizeLinear") continue;
    const Initializer* codes = model.graph.initializers.find(node.inputs[0]);
    if (codes == nullptr || codes->tensor.rank() != 4) continue;
    EXPECT_EQ(codes->tensor.shape(), (Shape{5, 6, 3, 3}));
    EXPECT_EQ(node.Int("axis", 1), 0);
    EXPECT_EQ(model.graph.initializers.at(node.inputs[1]).tensor.count(), 5);
  }
}

TEST(Tflite, ScalesOfABiasLieAlongItsOnlyAxisWhateverTheFileSays) {
  const Model model = LoadTflite(kFolder + "bias_axis");  // says 3, the axis of the weight's
  for (const Node& node : model.graph.nodes) {
    if (node.op_type != "DequantizeLinear") continue;
    const Initializer* codes = model.graph.initializers.find(node.inputs[0]);
    if (codes == nullptr || codes->tensor.rank() != 1) continue;
    EXPECT_EQ(codes->tensor.dtype(), DType::kInt32);
    EXPECT_EQ(node.Int("axis", 1), 0);
  }
}

TEST(Tflite, VolumesArePaddedAlongThreeAxes) {
  const Model model = LoadTflite(kFolder + "conv_3d");
  EXPECT_THAT(Types(model), ElementsAre("Transpose", "Conv", "Transpose"));
  const Node& conv = model.graph.nodes[1];
  EXPECT_EQ(model.graph.initializers.at(conv.inputs[1]).tensor.shape(), (Shape{5, 3, 2, 3, 3}));
  EXPECT_EQ(conv.Ints("strides"), (std::vector<int64_t>{1, 2, 2}));
  EXPECT_EQ(conv.Ints("pads"), (std::vector<int64_t>{0, 1, 1, 1, 1, 1}));
}

TEST(Tflite, TransposedConvolutionsOfMediaPipeAreRead) {
  const Model model = LoadTflite(kFolder + "convolution2dtransposebias");
  EXPECT_THAT(Types(model), ElementsAre("Transpose", "ConvTranspose", "Transpose"));
  EXPECT_EQ(model.graph.nodes[1].inputs.size(), 3);
  const std::vector<Dim>& shape = *model.graph.outputs[0].shape;
  EXPECT_EQ(shape[1].value, 13);  // 7 by steps of 2: the last is not filled
  EXPECT_EQ(shape[2].value, 17);
  EXPECT_EQ(shape[3].value, 5);
}

// The node's body or branch.
const Graph& PartOf(const Node& node, const std::string& attribute) {
  return *std::get<GraphPtr>(node.attributes.at(attribute).value);
}

const Node& Only(const Model& model, const std::string& type) {
  const auto is_type = [&](const Node& node) { return node.op_type == type; };
  EXPECT_EQ(std::ranges::count_if(model.graph.nodes, is_type), 1) << type;
  return *std::ranges::find_if(model.graph.nodes, is_type);
}

TEST(Tflite, LoopsOfKerasThatAreRecurrentLayersBecomeThem) {
  const Model lstm = LoadTflite(kFolder + "while_lstm_true");
  EXPECT_EQ(Only(lstm, "LSTM").Int("hidden_size", 0), 5);
  EXPECT_EQ(Only(lstm, "LSTM").inputs.size(), 7);  // both states begin with what the file says
  const auto shape_of = [&](size_t input) {
    return lstm.graph.initializers.at(Only(lstm, "LSTM").inputs[input]).tensor.shape();
  };
  EXPECT_EQ(shape_of(1), (Shape{1, 20, 3}));  // rows of input, output, forget and cell gate
  EXPECT_EQ(shape_of(2), (Shape{1, 20, 5}));
  EXPECT_EQ(shape_of(3), (Shape{1, 40}));
  const Model gru = LoadTflite(kFolder + "while_gru_false");
  EXPECT_EQ(Only(gru, "GRU").Int("linear_before_reset", 0), 1);
  EXPECT_EQ(Only(LoadTflite(kFolder + "while_rnn_true"), "RNN").Int("hidden_size", 0), 5);
}

TEST(Tflite, CellsThatConvertersClipAtTenAreNotClipped) {
  EXPECT_EQ(Only(LoadTflite(kFolder + "lstm_clip_10"), "LSTM").Int("hidden_size", 0), 5);
  std::string bytes = ReadFile(kFolder + "lstm_clip_10");
  const float ten = 10, less = 3;
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&ten), sizeof ten));
  bytes.replace(at, sizeof less, reinterpret_cast<const char*>(&less), sizeof less);
  EXPECT_THAT([&] { Read(bytes); },
              ThrowsError(ErrorCode::kUnsupported, HasSubstr("UNIDIRECTIONAL_SEQUENCE_LSTM"),
                          HasSubstr("with no clipping")));
}

TEST(Tflite, ALayerThatResetsTheProductOfTheStepIsNoGru) {
  Only(LoadTflite(kFolder + "while_step_reset"), "Loop");
}

TEST(Tflite, OneLayerInBothBranchesIsALayerInEach) {
  const Model model = LoadTflite(kFolder + "if_layers");
  for (const char* name : {"then_branch", "else_branch"}) {
    const Graph& branch = PartOf(Only(model, "If"), name);
    const auto is_gru = [](const Node& node) { return node.op_type == "GRU"; };
    EXPECT_EQ(std::ranges::count_if(branch.nodes, is_gru), 1) << name;
  }
}

TEST(Tflite, AConditionOfManyTermsIsRead) {
  const Node loop = Only(LoadTflite(kFolder + "while_chained_condition"), "Loop");
  EXPECT_EQ(PartOf(loop, "body").nodes.size(), 43);  // 40 And
}

TEST(Tflite, OtherLoopsBecomeLoopWithTheConditionAtItsEnd) {
  const Node masked = Only(LoadTflite(kFolder + "while_masked"), "Loop");
  EXPECT_EQ(masked.inputs.size(), 7);  // the sequence is no state
  const Model model = LoadTflite(kFolder + "while");
  const Node& loop = Only(model, "Loop");
  EXPECT_EQ(loop.inputs[0], "");
  const Graph& body = PartOf(loop, "body");
  EXPECT_EQ(body.inputs.size(), 4);   // iteration, condition, counter, value
  EXPECT_EQ(body.outputs.size(), 3);  // condition, counter, value
  EXPECT_EQ(body.inputs[3].shape->at(1).value, 3);
  std::vector<std::string> types;
  for (const Node& node : body.nodes) types.push_back(node.op_type);
  EXPECT_THAT(types, ElementsAre("Add", "Add", "Tanh", "Less"));
}

TEST(Tflite, CodesThatALoopHandsOnStayCodes) {
  for (const char* name : {"while_codes", "while_constant_codes"}) {
    const Model model = LoadTflite(kFolder + name);
    EXPECT_EQ(model.graph.outputs[0].dtype, DType::kInt8) << name;
    EXPECT_EQ(Only(model, "Loop").inputs.size(), 4) << name;  // no state: counter and value are
  }
}

TEST(Tflite, BranchesThatHandAnInputOnMakeAnotherValueOfIt) {
  const Model model = LoadTflite(kFolder + "if");
  const Graph& branch = PartOf(Only(model, "If"), "then_branch");
  EXPECT_TRUE(branch.inputs.empty());
  ASSERT_EQ(branch.nodes.size(), 2);
  EXPECT_EQ(branch.nodes[0].inputs[0], model.graph.inputs[0].name);
  EXPECT_EQ(branch.nodes[1].op_type, "Identity");
}

TEST(Tflite, RefusesAGraphThatRunsItself) {
  EXPECT_THAT([] { LoadTflite(kFolder + "while_itself"); },
              ThrowsError(ErrorCode::kUnsupported, "WHILE t1", HasSubstr("that it is part of")));
}

TEST(Tflite, RefusesAGraphWhoseConstantsWouldBeAddedAgainAndAgain) {
  EXPECT_THAT([] { LoadTflite(kFolder + "if_again"); },
              ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("if_again"),
                          HasSubstr("the same data again and again")));
}

TEST(Tflite, ComplexNumbersAreReshapedInPairs) {
  const Model model = LoadTflite(kFolder + "rfft2d_frames");
  EXPECT_THAT(Types(model), ElementsAre("Unsqueeze", "DFT", "Concat", "Reshape", "ReduceL2"));
  EXPECT_EQ(model.graph.outputs[0].shape->size(), 2);
}

TEST(Tflite, CodesOf16BitsAreComputedWithAsFloats) {
  const Model model = LoadTflite(kFolder + "conv_2d_int16");
  EXPECT_EQ(model.graph.inputs[0].dtype, DType::kInt16);
  EXPECT_EQ(model.graph.outputs[0].dtype, DType::kInt16);
  const Node& conv = Only(model, "Conv");
  EXPECT_EQ(model.graph.initializers.at(conv.inputs[2]).tensor.dtype(), DType::kFloat32);
  EXPECT_EQ(Only(model, "DequantizeLinear").outputs[0], conv.inputs[1]);
}

TEST(Tflite, TransposedConvolutionsOfOpenSizeAreCutToTheComputedOne) {
  const Model model = LoadTflite(kFolder + "transpose_conv_open");
  EXPECT_TRUE(Only(model, "ConvTranspose").Ints("pads").empty());
  EXPECT_EQ(model.graph.nodes.back().op_type, "Transpose");
  EXPECT_EQ(model.graph.nodes[model.graph.nodes.size() - 2].op_type, "Slice");
}

TEST(Tflite, SuppressedBoxesLeaveZeros) {
  const Model model = LoadTflite(kFolder + "non_max_suppression_v5");
  EXPECT_EQ(Only(model, "NonMaxSuppression").inputs.size(), 5);
  EXPECT_EQ(std::ranges::count(Types(model), "Pad"), 2);  // places and scores
  EXPECT_EQ(model.graph.outputs.size(), 3);
}

TEST(Tflite, FilesAreToldApartByTheirFirstBytes) {
  const TempDir dir;
  WriteFile(dir / "named.onnx", ReadFile(kFolder + "prelu"));
  EXPECT_TRUE(IsTfliteFile(dir / "named.onnx"));
  EXPECT_EQ(LoadModel(dir / "named.onnx").graph.nodes.size(), 4);
  SaveOnnx(LoadTflite(kFolder + "prelu"), dir / "written.tflite");
  EXPECT_FALSE(IsTfliteFile(dir / "written.tflite"));
  EXPECT_EQ(LoadModel(dir / "written.tflite").graph.nodes.size(), 4);
  EXPECT_THAT(ModelFiles(dir / "named.onnx"), ElementsAre(dir / "named.onnx"));
}

TEST(Tflite, RefusesWhatIsCutOffAnywhere) {
  const std::string whole = ReadFile(kFolder + "conv_2d_int8");
  for (size_t size = 8; size < whole.size(); ++size) {
    try {
      Read(whole.substr(0, size));
      ADD_FAILURE() << "read " << size << " bytes of " << whole.size();
    } catch (const Error& error) {
      EXPECT_NE(error.where(), "");
    }
  }
}

TEST(Tflite, SaysWhichFileAndWhatIsWrong) {
  EXPECT_THAT([] { Read(std::string(64, '\xff')); },
              ThrowsError(ErrorCode::kInvalidArgument, "file", HasSubstr("truncated or damaged")));
}

}  // namespace
}  // namespace pared
