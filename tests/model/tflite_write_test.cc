// What TensorFlow Lite files models become; that LiteRT computes the same with them is the matter
// of tests/parity/tflite_written.py.

#include "model/tflite_write.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/text.h"
#include "model/tflite.h"
#include "model/tflite_file.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TfliteFile Written(const std::string& text) {
  auto owner = std::make_shared<const std::string>(SerializeTflite(ParseText(text)));
  return ReadTflite(std::as_bytes(std::span(*owner)), owner, "file");
}

std::vector<std::string> Types(const TfliteFile& file) {
  std::vector<std::string> types;
  for (const TfliteOp& op : file.main.ops) types.push_back(op.type);
  return types;
}

const TfliteTensor& Input(const TfliteFile& file, size_t op, size_t input) {
  return file.tensors[static_cast<size_t>(file.main.ops[op].inputs[input])];
}

constexpr const char* kConvolutions = R"(<ir_version: 8, opset_import: ["" : 17]>
  net (float[N, 2, 6, 6] image) => (float[N, 2, 6, 6] y)
    <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] b = {5, 6}> {
    c = Conv(image, w, b)
    r = Relu(c)
    y = Conv(r, w, b)
  })";

TEST(TfliteWrite, KeepsNamesLayoutAndOpenDimensionsOfInputsAndOutputs) {
  const TfliteFile file = Written(kConvolutions);
  const TfliteTensor& input = file.tensors[static_cast<size_t>(file.main.inputs[0])];
  const TfliteTensor& output = file.tensors[static_cast<size_t>(file.main.outputs[0])];
  EXPECT_EQ(input.name, "image");
  EXPECT_EQ(input.shape, (Shape{-1, 2, 6, 6}));
  EXPECT_EQ(output.name, "y");
  EXPECT_EQ(output.shape, (Shape{-1, 2, 6, 6}));
}

TEST(TfliteWrite, TransposesOnlyWhereALayoutEndsAndJoinsActivations) {
  EXPECT_THAT(Types(Written(kConvolutions)),
              ElementsAre("TRANSPOSE", "CONV_2D", "CONV_2D", "TRANSPOSE"));
}

TEST(TfliteWrite, WeightsLieAsTensorFlowLiteHasThem) {
  const TfliteFile file = Written(R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 2, 4, 4] x) => (float[1, 4, 4, 4] y)
      <float[4, 1, 1, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
      y = Conv<group = 2, pads = [0, 0, 0, 1]>(x, w)
    })");
  ASSERT_EQ(file.main.ops[1].type, "DEPTHWISE_CONV_2D");
  const Tensor& weight = Input(file, 1, 1).constant;
  EXPECT_EQ(weight.shape(), (Shape{1, 1, 2, 4}));
  EXPECT_THAT(weight.data<float>(), ElementsAre(1, 3, 5, 7, 2, 4, 6, 8));
  EXPECT_EQ(Input(file, 1, 2).constant.count(), 4);  // a bias of zeros
}

TEST(TfliteWrite, PadsThatAreNotThoseOfSameAreWritten) {
  EXPECT_THAT(Types(Written(R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 1, 6, 6] x) => (float[1, 1, 4, 4] y) <float[1, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
      y = Conv<strides = [2, 2], pads = [2, 2, 1, 1]>(x, w)
    })")),
              Contains("PAD"));
}

// Q and DQ of scale `s` around what `middle` makes of xd.
std::string Quantized(const std::string& middle, const std::string& more) {
  return R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
      <float s = {0.5}, uint8 z = {130}, float t = {0.25}, uint8 u = {120}, )" +
         more + R"(> {
      xq = QuantizeLinear(x, s, z)
      xd = DequantizeLinear(xq, s, z)
      )" +
         middle +
         R"(
      mq = QuantizeLinear(m, t, u)
      y = DequantizeLinear(mq, t, u)
    })";
}

TEST(TfliteWrite, ComputesWithCodesBetweenDequantizeAndQuantize) {
  const TfliteFile file = Written(Quantized(
      R"(wd = DequantizeLinear<axis = 0>(w, ws)
         c = Conv(xd, wd, b)
         m = Relu(c))",
      "int8[2, 2, 1, 1] w = {1, -2, 3, -4}, float[2] ws = {0.5, 0.125}, float[2] b = {1, -1}"));
  EXPECT_THAT(Types(file),
              ElementsAre("QUANTIZE", "TRANSPOSE", "CONV_2D", "TRANSPOSE", "DEQUANTIZE"));
  const TfliteTensor& made = file.tensors[static_cast<size_t>(file.main.ops[2].outputs[0])];
  EXPECT_EQ(made.dtype, DType::kInt8);
  EXPECT_THAT(made.scales, ElementsAre(0.25f));
  EXPECT_THAT(made.zero_points, ElementsAre(-8));  // uint8 codes are moved by 128
  const TfliteTensor& weight = Input(file, 2, 1);
  EXPECT_EQ(weight.axis, 0);
  EXPECT_THAT(weight.scales, ElementsAre(0.5f, 0.125f));
  const TfliteTensor& bias = Input(file, 2, 2);  // in units of the products
  EXPECT_EQ(bias.dtype, DType::kInt32);
  EXPECT_THAT(bias.scales, ElementsAre(0.25f, 0.0625f));
  EXPECT_THAT(bias.constant.data<int32_t>(), ElementsAre(4, -16));
}

TEST(TfliteWrite, ABiasThatDoesNotFitItsCodesLeavesTheLayerInFloat) {
  const TfliteFile file = Written(Quantized(
      R"(wd = DequantizeLinear<axis = 0>(w, ws)
         m = Conv(xd, wd, b))",
      "int8[2, 2, 1, 1] w = {1, -2, 3, -4}, float[2] ws = {1e-10, 1e-10}, float[2] b = {1, -1}"));
  for (const TfliteOp& op : file.main.ops) {
    if (op.type != "CONV_2D") continue;
    EXPECT_EQ(file.tensors[static_cast<size_t>(op.outputs[0])].dtype, DType::kFloat32);
  }
}

TEST(TfliteWrite, CodesAreConvertedWhereTensorFlowLiteWantsOneScale) {
  const TfliteFile file =
      Written(Quantized("m = MaxPool<kernel_shape = [1, 1]>(xd)", "float f = {1}"));
  const std::vector<std::string> types = Types(file);
  const auto pool = std::ranges::find(types, "MAX_POOL_2D") - types.begin();
  const auto& made =
      file.tensors[static_cast<size_t>(file.main.ops[static_cast<size_t>(pool)].outputs[0])];
  EXPECT_THAT(made.scales, ElementsAre(0.5f));
  EXPECT_THAT(std::vector(types.begin() + pool, types.end()), Contains("QUANTIZE"));
}

TEST(TfliteWrite, AnOutputThatIsAnInputOrAnotherOutputIsATensorOfItsOwn) {
  const TfliteFile file = Written(R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[2] x) => (float[2] a, float[2] b, float[2] c) {
      a = Relu(x)
      b = Identity(a)
      c = Identity(x)
    })");
  std::set<int64_t> places(file.main.outputs.begin(), file.main.outputs.end());
  places.insert(file.main.inputs.begin(), file.main.inputs.end());
  EXPECT_EQ(places.size(), 4);
  EXPECT_EQ(file.tensors[static_cast<size_t>(file.main.outputs[2])].name, "c");
}

TEST(TfliteWrite, WhatOnlySaysAKnownShapeIsNotWritten) {
  EXPECT_THAT(Types(Written(R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[2, 3, 4] x) => (float[a, b] y) <int64[1] one = {-1}, int64[1] zero = {0}> {
      s = Shape(x)
      f = Slice(s, zero, one)
      g = Slice(f, zero, one)
      h = Concat<axis = 0>(g, one)
      y = Reshape(x, h)
    })")),
              ElementsAre("RESHAPE"));
}

TEST(TfliteWrite, EqualConstantsAreStoredOnce) {
  Model model = ParseText(R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 1] x) => (float[1, 1000] y) <float[1] a = {1}, float[1] b = {1}> {
      s = Add(x, a)
      y = Mul(s, b)
    })");
  const auto size = [&](float second) {
    model.graph.initializers.set("a",
                                 {Tensor::Make<float>({1000}, std::vector<float>(1000, 3)), {}});
    model.graph.initializers.set(
        "b", {Tensor::Make<float>({1000}, std::vector<float>(1000, second)), {}});
    return SerializeTflite(model).size();
  };
  EXPECT_GT(size(4), size(3) + 3900);
}

TEST(TfliteWrite, RefusesAllUnknownOperatorsAtOnce) {
  EXPECT_THAT(
      [] {
        Written(R"(<ir_version: 8, opset_import: ["" : 17]>
      net (float[2, 2] x) => (float[2, 2] y) {
        d = Det(x)
        e = Trilu(x)
        y = Add(d, e)
      })");
      },
      ThrowsError(ErrorCode::kUnsupported, "", HasSubstr("Det, Trilu")));
}

TEST(TfliteWrite, RefusalsNameTheNode) {
  EXPECT_THAT(
      [] {
        Written(R"(<ir_version: 8, opset_import: ["" : 17]>
      net (float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y) <float[4] s = {1, 1, 2, 2}> {
        y = Resize<mode = "cubic">(x, , s)
      })");
      },
      ThrowsError(ErrorCode::kUnsupported, HasSubstr("Resize"), HasSubstr("mode cubic")));
}

TEST(TfliteWrite, WindowsOfOpenLengthsArePaddedAsTheFileRuns) {
  const TfliteFile file = Written(R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 2, H, W] x) => (float[1, 2, A, B] y) <float[2, 2, 1, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
      c = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)
      p = MaxPool<auto_pad = "SAME_UPPER", kernel_shape = [2, 2], strides = [2, 2]>(c)
      y = Add(p, p)
    })");
  EXPECT_THAT(Types(file), ElementsAre("TRANSPOSE", "CONV_2D", "MAX_POOL_2D", "ADD", "TRANSPOSE"));
  for (const size_t op : {1, 2}) EXPECT_EQ(file.main.ops[op].Option<int8_t>(0), 0);  // SAME
}

TEST(TfliteWrite, AveragesOfPadsNeedKnownLengths) {
  EXPECT_THAT(
      [] {
        Written(R"(<ir_version: 8, opset_import: ["" : 17]>
          net (float[1, 2, H, W] x) => (float[1, 2, A, B] y) {
            y = AveragePool<auto_pad = "SAME_UPPER", kernel_shape = [3, 3], count_include_pad = 1>(x)
          })");
      },
      ThrowsError(ErrorCode::kUnsupported, HasSubstr("AveragePool"),
                  HasSubstr("count_include_pad where lengths are open")));
}

TEST(TfliteWrite, TransposedConvolutionsOfOpenLengthsComputeTheirShape) {
  const auto written = [](const std::string& attributes) {
    return Written(R"(<ir_version: 8, opset_import: ["" : 17]>
      net (float[1, 2, H, W] x) => (float[1, 1, A, B] y) <float[2, 1, 3, 3] w = {)" +
                   std::string("1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9") + R"(}> {
        y = ConvTranspose<strides = [2, 2])" +
                   attributes + ">(x, w) }");
  };
  const TfliteFile valid = written("");
  EXPECT_THAT(Types(valid), ElementsAre("TRANSPOSE", "SHAPE", "SLICE", "MUL", "ADD", "SLICE",
                                        "CONCATENATION", "TRANSPOSE_CONV", "TRANSPOSE"));
  EXPECT_EQ(Input(valid, 4, 1).constant.data<int32_t>()[0], 1);  // 3 taps by steps of 2
  EXPECT_EQ(valid.main.ops[7].Option<int8_t>(0), 1);             // VALID
  const TfliteFile same = written(", pads = [0, 0, 1, 1]");
  EXPECT_EQ(Input(same, 4, 1).constant.data<int32_t>()[0], 0);
  EXPECT_EQ(same.main.ops[7].Option<int8_t>(0), 0);
  EXPECT_THAT([&] { written(", pads = [1, 1, 0, 0]"); },
              ThrowsError(ErrorCode::kUnsupported, HasSubstr("ConvTranspose"),
                          HasSubstr("where lengths are open")));
}

TEST(TfliteWrite, TransformsOfRowsAreComplexWithin) {
  const std::string head = R"(<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 8, 1] x) => (float[N, 5, 2] y) <int64 n = {)";
  const auto written = [&](const std::string& length, const std::string& attributes) {
    return Written(head + length + "}> { y = DFT<onesided = 1" + attributes + ">(x, n) }");
  };
  EXPECT_THAT(Types(written("8", "")),
              ElementsAre("RESHAPE", "RFFT2D", "REAL", "IMAG", "CONCATENATION", "TRANSPOSE"));
  EXPECT_THAT([&] { written("16", ""); },
              ThrowsError(ErrorCode::kUnsupported, HasSubstr("DFT"), HasSubstr("its input")));
}

constexpr const char* kLayer = R"(<ir_version: 8, opset_import: ["" : 17]>
  net (float[3, B, 2] x) => (float[3, 1, B, 1] y)
    <float[1, 3, 2] w = {1, 2, 3, 4, 5, 6}, float[1, 3, 1] r = {1, 2, 3},
     float[1, 6] b = {1, 2, 3, 10, 20, 30}> {
    y = GRU<hidden_size = 1)";

TEST(TfliteWrite, RecurrentLayersAreOneStepAfterTheOther) {
  const auto count = [](const TfliteFile& file, const std::string& type) {
    return std::ranges::count(Types(file), type);
  };
  const TfliteFile behind =
      Written(std::string(kLayer) + ", linear_before_reset = 1>(x, w, r, b)}");
  EXPECT_EQ(count(behind, "FULLY_CONNECTED"), 4);  // of all steps at once, and of each state
  EXPECT_EQ(count(behind, "TANH"), 3);
  EXPECT_EQ(count(behind, "ZEROS_LIKE"), 1);  // the batch is open
  // What is reset belongs to the state's product; else all is added at once.
  EXPECT_THAT(Input(behind, 0, 2).constant.data<float>(), ElementsAre(1, 2, 3));
  const TfliteFile before = Written(std::string(kLayer) + ">(x, w, r, b)}");
  EXPECT_THAT(Input(before, 0, 2).constant.data<float>(), ElementsAre(11, 22, 33));
  EXPECT_EQ(count(before, "FULLY_CONNECTED"), 7);
}

TEST(TfliteWrite, RefusesRecurrentLayersWhoseWeightsDoNotFit) {
  std::string narrow = kLayer;
  narrow.replace(narrow.find("float[1, 3, 2] w = {1, 2, 3, 4, 5, 6}"), 37,
                 "float[1, 2, 2] w = {1, 2, 3, 4}");
  EXPECT_THAT([&] { Written(narrow + ">(x, w, r, b)}"); },
              ThrowsError(ErrorCode::kUnsupported, HasSubstr("GRU"), HasSubstr("than its gates")));
}

TEST(TfliteWrite, RefusesRecurrentLayersOfOpenLengthAndWithOtherFunctions) {
  std::string open = kLayer;
  open.replace(open.find("float[3, B"), 10, "float[T, B");
  open.replace(open.find("float[3, 1"), 10, "float[T, 1");
  EXPECT_THAT([&] { Written(open + ">(x, w, r, b)}"); },
              ThrowsError(ErrorCode::kUnsupported, HasSubstr("GRU"), HasSubstr("that are open")));
  EXPECT_THAT(
      [] { Written(std::string(kLayer) + R"(, activations = ["Sigmoid", "Relu"]>(x, w, r, b)})"); },
      ThrowsError(ErrorCode::kUnsupported, HasSubstr("GRU"), HasSubstr("activations")));
}

TEST(TfliteWrite, AFileAppearsWhole) {
  const TempDir folder;
  SaveTflite(ParseText(kConvolutions), folder.path() / "m.tflite");
  EXPECT_TRUE(IsTfliteFile(folder.path() / "m.tflite"));
  EXPECT_EQ(LoadTflite(folder.path() / "m.tflite").graph.outputs[0].name, "y");
}

}  // namespace
}  // namespace pared
