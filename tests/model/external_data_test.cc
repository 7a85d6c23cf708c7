// Constant tensors in files beside the model: what is read, and what must never be.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "model/onnx.h"
#include "model/wire.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Entries = std::vector<std::pair<std::string, std::string>>;

// A model whose initializer w of `elements` floats is stored as `entries` say.
std::string ModelWith(const Entries& entries, int64_t elements = 2) {
  WireWriter tensor;
  tensor.Int64(1, elements);
  tensor.Int64(2, 1);
  tensor.Bytes(8, "w");
  for (const auto& [key, value] : entries) {
    WireWriter entry;
    entry.Bytes(1, key);
    entry.Bytes(2, value);
    tensor.Message(13, entry.Finish());
  }
  tensor.Int64(14, 1);
  WireWriter graph;
  graph.Message(5, tensor.Finish());
  WireWriter opset;
  opset.Int64(2, 17);
  WireWriter model;
  model.Int64(1, 8);
  model.Message(7, graph.Finish());
  model.Message(8, opset.Finish());
  return model.Finish().Join();
}

std::string Floats(std::initializer_list<float> values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), std::data(values), bytes.size());
  return bytes;
}

class ExternalData : public ::testing::Test {
 protected:
  ExternalData() {
    std::filesystem::create_directories(dir_ / "model/sub");
    WriteFile(dir_ / "secret", Floats({9, 9}));
    WriteFile(dir_ / "model/w.bin", Floats({1, 2, 3, 4}));
    WriteFile(dir_ / "model/sub/w.bin", Floats({5, 6}));
  }

  Tensor Load(const Entries& entries, int64_t elements = 2) {
    WriteFile(dir_ / "model/m.onnx", ModelWith(entries, elements));
    return LoadOnnx(dir_ / "model/m.onnx").graph.initializers.at("w").tensor;
  }
  void ExpectRefused(ErrorCode code, const Entries& entries, const std::string& message) {
    EXPECT_THAT([&] { Load(entries); }, ThrowsError(code, "w", HasSubstr(message)));
  }

  TempDir dir_;
};

TEST_F(ExternalData, IsReadWithOffsetLengthAndDefaults) {
  EXPECT_THAT(Load({{"location", "w.bin"}}).data<float>(), ElementsAre(1, 2));
  EXPECT_THAT(Load({{"location", "w.bin"}, {"offset", "8"}}).data<float>(), ElementsAre(3, 4));
  EXPECT_THAT(Load({{"location", "w.bin"}, {"offset", "4"}, {"length", "8"}}).data<float>(),
              ElementsAre(2, 3));
  EXPECT_THAT(Load({{"location", "sub/w.bin"}}).data<float>(), ElementsAre(5, 6));
  EXPECT_THAT(Load({{"location", "./w.bin"}, {"checksum", "x"}, {"vendor", "y"}}).data<float>(),
              ElementsAre(1, 2));
}

TEST_F(ExternalData, AtAnOddOffsetIsAligned) {
  WriteFile(dir_ / "model/odd.bin", "x" + Floats({7, 8}));
  EXPECT_THAT(Load({{"location", "odd.bin"}, {"offset", "1"}}).data<float>(), ElementsAre(7, 8));
}

TEST_F(ExternalData, BeyondFourGigabytesIsRead) {
  const std::filesystem::path path = dir_ / "model/sparse.bin";
  WriteFile(path, "");
  std::filesystem::resize_file(path, (uintmax_t{1} << 32) + 8);  // a hole: takes no disk
  EXPECT_THAT(Load({{"location", "sparse.bin"}, {"offset", "4294967296"}}).data<float>(), Each(0));
}

// The head of a protobuf field that holds `length` bytes.
std::string FieldHead(uint64_t number, uint64_t length) {
  std::string head;
  for (uint64_t value : {number << 3 | 2, length}) {
    for (; value > 127; value >>= 7) head.push_back(static_cast<char>((value & 127) | 128));
    head.push_back(static_cast<char>(value));
  }
  return head;
}

// Writers of protobuf stop at 2 GB, other programs do not. The weight is a hole, which takes no
// disk.
TEST_F(ExternalData, AFileOfMoreThanTwoGigabytesIsReadAndOfMoreThanFourRefused) {
  constexpr int64_t kCount = 580'000'000;
  constexpr uint64_t kBytes = kCount * sizeof(float);
  WireWriter fields;
  fields.Int64(1, kCount);
  fields.Int64(2, 1);
  fields.Bytes(8, "w");
  const std::string tensor = fields.Finish().Join() + FieldHead(9, kBytes);
  const std::string graph = FieldHead(5, tensor.size() + kBytes) + tensor;
  WireWriter opset;
  opset.Int64(2, 17);
  WireWriter model_fields;
  model_fields.Int64(1, 8);
  model_fields.Message(8, opset.Finish());
  const std::string head =
      model_fields.Finish().Join() + FieldHead(7, graph.size() + kBytes) + graph;
  const std::filesystem::path path = dir_ / "whole.onnx";
  WriteFile(path, head);
  std::filesystem::resize_file(path, head.size() + kBytes);
  const Model model = LoadOnnx(path);
  EXPECT_EQ(model.graph.initializers.at("w").tensor.shape(), Shape{kCount});
  std::filesystem::resize_file(path, (uintmax_t{1} << 32) + 8);
  EXPECT_THAT([&] { LoadOnnx(path); }, ThrowsError(ErrorCode::kInvalidArgument, path.string()));
}

TEST_F(ExternalData, IsAmongTheFilesOfTheModelUnderAnyName) {
  const std::filesystem::path model = dir_ / "model/m.onnx";
  WriteFile(dir_ / "model/m.onnx.data", "left by another model");
  Load({{"location", "w.bin"}});
  EXPECT_THAT(ModelFiles(model), ElementsAre(model, dir_ / "model/w.bin"));
  Load({{"location", "sub/w.bin"}});
  EXPECT_THAT(ModelFiles(model), ElementsAre(model, dir_ / "model/sub/w.bin"));
}

TEST_F(ExternalData, ThatIsMissingIsNoFileOfTheModel) {
  for (const char* location : {"none.bin", "../secret"}) {
    WriteFile(dir_ / "model/m.onnx", ModelWith({{"location", location}}));
    EXPECT_THAT([&] { ModelFiles(dir_ / "model/m.onnx"); },
                ThrowsError(ErrorCode::kInvalidArgument, "w", HasSubstr(location)));
  }
}

TEST_F(ExternalData, NeverLeavesTheFolder) {
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "../secret"}}, "outside");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "sub/../../secret"}}, "outside");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", (dir_ / "secret").string()}}, "outside");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "/etc/passwd"}}, "outside");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", ""}}, "location");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", std::string("w.bin\0x", 7)}},
                "location");
  ExpectRefused(ErrorCode::kInvalidArgument, {}, "location");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "none.bin"}},
                "'none.bin' is not beside the model");
}

TEST_F(ExternalData, FollowsNoLinks) {
  std::filesystem::create_symlink(dir_ / "secret", dir_ / "model/link.bin");
  std::filesystem::create_symlink("w.bin", dir_ / "model/inner_link.bin");
  std::filesystem::create_directory_symlink("..", dir_ / "model/parent");
  std::filesystem::create_hard_link(dir_ / "secret", dir_ / "model/hard.bin");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "link.bin"}}, "symbolic link");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "inner_link.bin"}}, "symbolic link");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "parent/secret"}}, "symbolic link");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "hard.bin"}}, "hard link");
}

TEST_F(ExternalData, IsARegularFile) {
  ASSERT_EQ(::mkfifo((dir_ / "model/fifo").c_str(), 0600), 0);
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "fifo"}}, "regular");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "sub"}}, "regular");
}

TEST_F(ExternalData, LiesWithinTheFile) {
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "w.bin"}, {"offset", "9"}},
                "beyond the end");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "w.bin"}, {"offset", "-8"}}, "offset");
  ExpectRefused(ErrorCode::kInvalidArgument,
                {{"location", "w.bin"}, {"offset", "9223372036854775807"}}, "beyond");
  ExpectRefused(ErrorCode::kInvalidArgument,
                {{"location", "w.bin"}, {"offset", "9223372036854775808"}}, "offset");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "w.bin"}, {"length", "12"}},
                "length 12");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "w.bin"}, {"length", "-8"}}, "length");
  ExpectRefused(ErrorCode::kInvalidArgument, {{"location", "w.bin"}, {"offset", "8x"}}, "offset");
  EXPECT_THAT(
      [&] {
        Load({{"location", "w.bin"}}, int64_t{1} << 40);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "w", HasSubstr("beyond the end")));
}

TEST_F(ExternalData, IsNotReadFromMemoryWithoutAFolder) {
  auto bytes = std::make_shared<const std::string>(ModelWith({{"location", "w.bin"}}));
  const auto view = std::as_bytes(std::span(bytes->data(), bytes->size()));
  EXPECT_THAT([&] { ParseOnnx(view, bytes); },
              ThrowsError(ErrorCode::kInvalidArgument, "w", HasSubstr("not allowed")));
  EXPECT_THAT(
      ParseOnnx(view, bytes, dir_ / "model").graph.initializers.at("w").tensor.data<float>(),
      ElementsAre(1, 2));
}

Model ModelOfSizes(const std::vector<int64_t>& sizes) {
  Model m = ParseText("g () => (float y) { y = Constant <value_float = 1.0> () }");
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<uint8_t> values(static_cast<size_t>(sizes[i]), static_cast<uint8_t>(i + 1));
    m.graph.initializers.set("t" + std::to_string(i),
                             {Tensor::Make<uint8_t>({sizes[i]}, std::move(values)), {}});
  }
  return m;
}

TEST_F(ExternalData, IsWrittenAboveTheLimitAndOnlyThere) {
  const Model m = ModelOfSizes({1023, 1024, 10000, 5000});
  const auto size = static_cast<int64_t>(SerializeOnnx(m).size());
  const std::filesystem::path path = dir_ / "model/big.onnx";
  SaveOnnx(m, path, {.message_bytes_max = size, .external_bytes_min = 1024});
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".data"));
  SaveOnnx(m, path, {.message_bytes_max = size - 1, .external_bytes_min = 1024});
  EXPECT_LT(std::filesystem::file_size(path), 2000U);
  // 1024 bytes at 0, then at page boundaries: 10000 at 4096, 5000 at 16384.
  EXPECT_EQ(std::filesystem::file_size(path.string() + ".data"), 16384U + 5000U);
  const Model back = LoadOnnx(path);
  for (const auto& [name, initializer] : m.graph.initializers) {
    EXPECT_THAT(back.graph.initializers.at(name).tensor, SameTensor(initializer.tensor)) << name;
  }
  // Tensors under the minimum stay in the message: 1023 bytes of them.
  EXPECT_GT(std::filesystem::file_size(path), 1023U);
}

TEST_F(ExternalData, HoldsConstantAttributesToo) {
  Model m = ParseText("g () => (uint8[5000] y) { y = Constant <value = uint8[1] {0}> () }");
  Attribute value = m.graph.nodes[0].attributes.at("value");
  const Tensor tensor = Tensor::Make<uint8_t>({5000}, std::vector<uint8_t>(5000, 3));
  value.value = tensor;
  m.graph.nodes[0].attributes.set("value", value);
  SaveOnnx(m, dir_ / "model/c.onnx", {.message_bytes_max = 1000, .external_bytes_min = 1024});
  EXPECT_EQ(std::filesystem::file_size(dir_ / "model/c.onnx.data"), 5000U);
  EXPECT_THAT(*LoadOnnx(dir_ / "model/c.onnx").graph.nodes[0].TensorOf("value"),
              SameTensor(tensor));
}

TEST_F(ExternalData, CannotSaveWhatPassesTheLimitWithoutItsTensors) {
  const Model m = ModelOfSizes({2000});
  EXPECT_THAT(
      [&] {
        SaveOnnx(m, dir_ / "model/x.onnx", {.message_bytes_max = 10, .external_bytes_min = 1024});
      },
      ThrowsError(ErrorCode::kInvalidArgument, (dir_ / "model/x.onnx").string()));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "model/x.onnx"));
}

}  // namespace
}  // namespace pared
