// Files made to hurt who reads them: each is refused with its reason,
// in no time and without memory for what it only claims.

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <filesystem>
#include <limits>

#include "model/onnx.h"
#include "model/wire.h"
#include "tests/model/parse.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::HasSubstr;

std::string ModelOf(const std::string& graph) {
  WireWriter opset;
  opset.Int64(2, 17);
  WireWriter model;
  model.Int64(1, 8);
  model.Bytes(7, graph);
  model.Message(8, opset.Finish());
  return model.Finish().Join();
}

// With an initializer "w" of this type and these dimensions.
std::string ModelWith(int64_t data_type, const std::vector<int64_t>& dims, const std::string& raw) {
  WireWriter tensor;
  for (const int64_t dim : dims) tensor.Int64(1, dim);
  tensor.Int64(2, data_type);
  tensor.Bytes(8, "w");
  tensor.Bytes(9, raw);
  WireWriter graph;
  graph.Message(5, tensor.Finish());
  return ModelOf(graph.Finish().Join());
}

int64_t PeakKb() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(Hostile, DimensionsThatOnlyClaimMemoryAreRefusedWithoutAny) {
  const int64_t before = PeakKb();
  const int64_t huge = int64_t{1} << 40, largest = std::numeric_limits<int64_t>::max();
  for (const std::vector<int64_t>& dims :
       std::vector<std::vector<int64_t>>{{huge, huge},
                                         {huge},
                                         {largest},
                                         {largest, 2},
                                         {int64_t{1} << 32, int64_t{1} << 32},
                                         {-1},
                                         {-1, -1},
                                         {3, -2},
                                         {huge, 0, huge, huge},
                                         {1000, 1000, 1000}}) {
    for (const std::string& raw : {std::string(), std::string(16, 'x')}) {
      if (raw.empty() && dims.size() == 4) continue;  // no elements, and no bytes: in order
      EXPECT_THAT([&] { Parse(ModelWith(1, dims, raw)); },
                  ThrowsError(ErrorCode::kInvalidArgument, "w"))
          << dims[0];
    }
  }
  EXPECT_LT(PeakKb() - before, 50 << 10);
}

TEST(Hostile, TypesThatDoNotExistAreRefused) {
  for (const int64_t type : {int64_t{0}, int64_t{24}, int64_t{99}, int64_t{-1}, int64_t{1} << 40}) {
    EXPECT_THAT([&] { Parse(ModelWith(type, {1}, "abcd")); },
                ::testing::Throws<Error>(::testing::Property("where", &Error::where, "w")))
        << type;
  }
}

TEST(Hostile, TenThousandGraphsWithinEachOtherAreRefused) {
  // From the inside out: each level is a head that tells the length of all within, and a tail.
  const std::string tail = "\xA0\x01\x05", inner = "\x12\x01g";
  std::vector<std::string> heads;
  size_t size = inner.size();
  const auto open = [&](char tag, std::string before, size_t within) {
    std::string length;
    for (size_t rest = before.size() + within; rest > 0; rest >>= 7) {
      length += static_cast<char>((rest & 127) | (rest > 127 ? 128 : 0));
    }
    heads.push_back(tag + length + before);
    size = heads.back().size() + within;
  };
  for (int i = 0; i < 10'000; ++i) {
    open('\x32', "", size);  // AttributeProto.g
    open('\x2A',
         "\x0A\x04"
         "body",
         size + tail.size());            // NodeProto.attribute
    open('\x0A', "\x22\x04Loop", size);  // GraphProto.node
  }
  std::string graph;
  for (auto head = heads.rbegin(); head != heads.rend(); ++head) graph += *head;
  graph += inner;
  for (int i = 0; i < 10'000; ++i) graph += tail;
  EXPECT_THAT([&] { Parse(ModelOf(graph)); }, ThrowsError(ErrorCode::kInvalidArgument, "graph"));
}

TEST(Hostile, ACycleOfAThousandNodesIsNamed) {
  Model model = ParseText("g (float x) => (float v0) { v0 = Add(x, v999) }");
  for (int i = 1; i < 1000; ++i) {
    Node node;
    node.op_type = "Neg";
    node.inputs = {"v" + std::to_string(i - 1)};
    node.outputs = {"v" + std::to_string(i)};
    model.graph.nodes.push_back(node);
  }
  EXPECT_THAT(
      [&] { Parse(SerializeOnnx(model)); },
      ThrowsError(ErrorCode::kInvalidArgument, HasSubstr("producing v"), HasSubstr("cycle")));
}

// Formats that can run code, or unpack to a thousand times their size, are not opened at all.
TEST(Hostile, PicklesAndArchivesAreRefusedByTheirFirstBytes) {
  for (const auto& [bytes, says] : std::vector<std::pair<std::string, std::string>>{
           {std::string("\x80\x02}q\x00.", 6), "pickle"},
           {std::string("\x80\x04\x95\x1c\x00\x00\x00", 7), "pickle"},
           {std::string("PK\x03\x04\x14\x00", 6), "zip"},
           {std::string("\x1F\x8B\x08\x00", 4), "gzip"},
           {std::string("\x28\xB5\x2F\xFD\x04", 5), "zstd"},
           {std::string("BZh91AY"), "bzip2"},
           {std::string("\xFD\x37zXZ\x00", 6), "xz"}}) {
    EXPECT_THAT([&] { Parse(bytes); },
                ThrowsError(ErrorCode::kInvalidArgument, "model", HasSubstr(says)))
        << says;
  }
}

TEST(Hostile, SavingReplacesALinkAndDoesNotFollowIt) {
  TempDir folder;
  WriteFile(folder / "victim", "untouched");
  std::filesystem::create_symlink(folder / "victim", folder / "m.onnx");
  std::filesystem::create_symlink(folder / "victim", folder / "m.onnx.data");
  const Model model =
      ParseText("g (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}> { y = Add(x, w) }");
  SaveOnnx(model, folder / "m.onnx", {.message_bytes_max = 160, .external_bytes_min = 1});
  EXPECT_EQ(ReadFile(folder / "victim"), "untouched");
  EXPECT_FALSE(std::filesystem::is_symlink(folder / "m.onnx"));
  EXPECT_EQ(LoadOnnx(folder / "m.onnx").graph.initializers.at("w").tensor.data<float>()[3], 4);
}

}  // namespace
}  // namespace pared
