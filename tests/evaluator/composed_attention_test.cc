// What the bodies of the contributed attentions decline; what they compute is compared with ONNX
// Runtime by tests/parity/contributed_ops.py.

#include "evaluator/composed_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "evaluator/executor.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

auto Preparing(const std::string& node) {
  return [=] {
    Executor(ModelFromText(R"(<ir_version: 10, opset_import: ["" : 17, "com.microsoft" : 1]>
      g (float[1,2,8] x, float[8,24] w, float[24] b, float[2,1,2,3,4] past, int32[1] n) =>
        (float[1,2,8] y) { )" +
                           node + " }"));
  };
}

TEST(ComposedAttention, DeclinesWhatItDoesNotCover) {
  const std::pair<const char*, const char*> cases[] = {
      {"y = com.microsoft.Attention <num_heads = 2>(x, w, b, , past)", "input 4"},
      {"y = com.microsoft.Attention <num_heads = 2, do_rotary = 1>(x, w, b)", "do_rotary"},
      {"y, k = com.microsoft.Attention <num_heads = 2>(x, w, b)", "after the first 1"},
      {"y = com.microsoft.MultiHeadAttention <num_heads = 2>(x)", "packed keys"},
      {"y = com.microsoft.MultiHeadAttention <num_heads = 2>(x, x, x, , n, , past, past)",
       "padding mask together with a past"},
      {"y = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 2, smooth_softmax = "
       "1>(x, x, x, , , n, n)",
       "smooth_softmax"},
      {"y = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 2>(x, x, x, , , n, n, "
       ", , n)",
       "input 9"},
  };
  for (const auto& [node, message] : cases) {
    EXPECT_THAT(Preparing(node),
                ThrowsError(ErrorCode::kUnsupported, HasSubstr("producing y"), HasSubstr(message)))
        << node;
  }
}

TEST(ComposedAttention, SizesThatAreNotThreeAreAnError) {
  EXPECT_THAT(
      Preparing("y = com.microsoft.Attention <num_heads = 2, qkv_hidden_sizes = [8, 8]>(x, w, b)"),
      ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("producing y"),
                  HasSubstr("3 sizes, are 2")));
}

TEST(ComposedAttention, AMaskOfAnotherShapeIsAnErrorThatTellsBoth) {
  const Executor executor(ModelFromText(
      R"(<ir_version: 10, opset_import: ["" : 17, "com.microsoft" : 1]>
      g (float[1,2,8] x, float[8,24] w, int32[M] mask) => (float[1,2,8] y) {
        y = com.microsoft.Attention <num_heads = 2>(x, w, , mask) })"));
  const Tensor x = Tensor::Make<float>({1, 2, 8}, std::vector<float>(16, 0.5F));
  const Tensor w = Tensor::Make<float>({8, 24}, std::vector<float>(192, 0.1F));
  EXPECT_EQ(executor.Run({x, w, Tensor::Make<int32_t>({1}, {2})})[0].shape(), (Shape{1, 2, 8}));
  EXPECT_THAT(
      [&] {
        executor.Run({x, w, Tensor::Make<int32_t>({5}, {1, 1, 1, 1, 1})});
      },
      ThrowsError(ErrorCode::kUnsupported, HasSubstr("AttentionMask"),
                  HasSubstr("a mask of shape [5] for keys of [1, 2, 8]")));
}

// Four axes are heads already, however many `num_heads` says there are.
TEST(ComposedRotary, TheRankSaysWhetherHeadsAreSplit) {
  const auto turn = [](const std::string& x, const std::string& attributes) {
    const Model model = ModelFromText("<ir_version: 11, opset_import: [\"\" : 23]> g (" + x +
                                      R"( x, float[1,3,2] c, float[1,3,2] s) => (float y) {
        y = RotaryEmbedding <)" + attributes +
                                      ">(x, c, s) }");
    std::vector<float> values(24), angles(6);
    std::iota(values.begin(), values.end(), 0.0F);
    std::iota(angles.begin(), angles.end(), 1.0F);
    const Shape shape = x == "float[1,2,3,4]" ? Shape{1, 2, 3, 4} : Shape{1, 3, 8};
    const Tensor angle = Tensor::Make<float>({1, 3, 2}, angles);
    const Tensor y = Executor(model).Run({Tensor::Make<float>(shape, values), angle, angle}).at(0);
    EXPECT_EQ(y.shape(), shape);
    return std::vector<float>(y.data<float>().begin(), y.data<float>().end());
  };
  const std::vector<float> by_head = turn("float[1,2,3,4]", "interleaved = 0");
  EXPECT_EQ(turn("float[1,2,3,4]", "num_heads = 2"), by_head);
  // Head 1 of place 0: x = (12, 13, 14, 15), angles 1 and 2.
  EXPECT_THAT((std::vector<float>{by_head.begin() + 12, by_head.begin() + 16}),
              ::testing::ElementsAre(12 - 14, 2 * 13 - 2 * 15, 12 + 14, 2 * 13 + 2 * 15));
  // The same place and head where a row holds all heads: x = (4, 5, 6, 7).
  const std::vector<float> by_row = turn("float[1,3,8]", "num_heads = 2");
  EXPECT_THAT((std::vector<float>{by_row.begin() + 4, by_row.begin() + 8}),
              ::testing::ElementsAre(4 - 6, 2 * 5 - 2 * 7, 4 + 6, 2 * 5 + 2 * 7));
}

}  // namespace
}  // namespace pared
