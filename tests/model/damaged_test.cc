// Truncated and damaged models: each is refused with an Error or read; nothing crashes, hangs or
// takes memory that the file does not pay for. The fuzz target does the same for longer.

#include <gtest/gtest.h>

#include "model/infer_shapes.h"
#include "model/onnx.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

std::string SmallModel() {
  return SerializeOnnx(ParseText(R"(
    <ir_version: 8, opset_import: ["" : 17, "local" : 1], metadata_props: ["k" : "v"]>
    g (bool c, float[N,4,6,6] x) => (float[] y)
    <float[2,4,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, int64[2] t = {0, -1}, int4[3] q = {1, 2, 3},
     string[1] s = {"text"}, float[N,2,6,6] h>
    {
      h = Conv <kernel_shape = [1, 1], strides = [1, 1], pads = [0, 0, 0, 0]> (x, w)
      p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)
      r = Reshape(p, t)
      y = If (c) <then_branch = b () => (float[] a) { a = local.F <k = 2.5> (r) },
                  else_branch = e () => (float[] a) { a = Softmax <axis = -1> (r) }>
    }
    <domain: "local", opset_import: ["" : 17]>
    F <k> (v) => (o) { f = Constant <value_float : float = @k> () o = Mul(v, f) })"));
}

// Reads the bytes as far as they can be read, and looks at everything that was read.
// True: it is a model.
bool Survives(const std::string& bytes) {
  auto owner = std::make_shared<const std::string>(bytes);
  try {
    const Model m = ParseOnnx(std::as_bytes(std::span(owner->data(), owner->size())), owner);
    EXPECT_FALSE(SerializeOnnx(m).empty());
    EXPECT_FALSE(ToText(m).empty());
    InferShapes(m);
    return true;
  } catch (const Error& e) {
    EXPECT_FALSE(e.message().empty());
    EXPECT_FALSE(e.where().empty()) << e.message();
    return false;
  }
}

TEST(DamagedModel, TruncatedAnywhereIsRefused) {
  const std::string whole = SmallModel();
  ASSERT_TRUE(Survives(whole));
  int accepted = 0;
  for (size_t size = 0; size < whole.size(); ++size) accepted += Survives(whole.substr(0, size));
  // Where the cut falls between fields that may be absent, the rest is a model: metadata,
  // functions.
  EXPECT_LE(accepted, 3);
}

TEST(DamagedModel, EachBitFlippedIsReadOrRefused) {
  const std::string whole = SmallModel();
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    Survives(damaged);
  }
}

TEST(DamagedModel, TenThousandRandomDamagesAreReadOrRefused) {
  const std::string whole = SmallModel();
  Random random;
  for (int i = 0; i < 10000; ++i) {
    std::string damaged = whole;
    for (int64_t count = random.Integer(1, 8); count > 0; --count) {
      const auto at =
          static_cast<size_t>(random.Integer(0, static_cast<int64_t>(damaged.size()) - 1));
      switch (random.Integer(0, 2)) {
        case 0:
          damaged[at] = static_cast<char>(random.Integer(0, 255));
          break;
        case 1:
          damaged.erase(at, static_cast<size_t>(random.Integer(1, 9)));
          break;
        default:
          damaged.insert(at, damaged.substr(at, static_cast<size_t>(random.Integer(1, 40))));
      }
      if (damaged.empty()) break;
    }
    Survives(damaged);
  }
}

}  // namespace
}  // namespace pared
