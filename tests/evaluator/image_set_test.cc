#include "evaluator/image_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>

#include "evaluator/dataset.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;

// A PNG of one colour.
std::string Png(uint32_t height, uint32_t width, uint8_t red, uint8_t green, uint8_t blue) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.height = height;
  image.width = width;
  image.format = PNG_FORMAT_RGB;
  std::string pixels;
  for (uint32_t i = 0; i < height * width; ++i) {
    pixels += {static_cast<char>(red), static_cast<char>(green), static_cast<char>(blue)};
  }
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, nullptr);
  std::string bytes(size, '\0');
  png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels.data(), 0, nullptr);
  bytes.resize(size);
  return bytes;
}

class ImageSetTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& bytes) {
    fs::create_directories((folder_ / path).parent_path());
    WriteFile(folder_ / path, bytes);
  }
  ImageSet Open(const std::string& json) { return ImageSet::Open(ParseJson(json), folder_.path()); }

  TempDir folder_;
};

TEST_F(ImageSetTest, NumbersClassesByTheNamesOfTheirFolders) {
  Write("dog/b.png", Png(2, 2, 1, 1, 1));
  Write("cat/z.PNG", Png(2, 2, 1, 1, 1));
  Write("cat/a.png", Png(2, 2, 1, 1, 1));
  Write("cat/notes.txt", "no picture");
  const ImageSet set = Open("{}");
  ASSERT_EQ(set.count(), 3);
  EXPECT_TRUE(set.has_labels());
  EXPECT_EQ(set.path(0), folder_ / "cat/a.png");
  EXPECT_THAT((std::vector{set.label(0), set.label(1), set.label(2)}), ElementsAre(0, 0, 1));
}

TEST_F(ImageSetTest, RefusesPicturesBesideClasses) {
  Write("dog/b.png", "");
  Write("c.png", "");
  EXPECT_THAT([&] { Open("{}"); },
              ThrowsError(ErrorCode::kInvalidArgument, (folder_ / "").string()));
}

TEST_F(ImageSetTest, ReadsAListWithBlanksInPaths) {
  Write("val.txt", "a b.png 7\r\nc.png\t0\n\n");
  const ImageSet set = Open(R"({"list": "val.txt", "folder": "pictures"})");
  ASSERT_EQ(set.count(), 2);
  EXPECT_EQ(set.path(0), folder_ / "pictures/a b.png");
  EXPECT_EQ(set.label(0), 7);
  EXPECT_EQ(set.label(1), 0);
}

TEST_F(ImageSetTest, NamesTheLineOfAListThatIsWrong) {
  Write("l", "a.png 1\nb.png\n");
  EXPECT_THAT([&] { Open(R"({"list": "l"})"); },
              ThrowsError(ErrorCode::kInvalidArgument, (folder_ / "l").string() + ":2"));
  Write("l", "a.png\n../b.png\n");
  EXPECT_THAT([&] { Open(R"({"list": "l"})"); },
              ThrowsError(ErrorCode::kInvalidArgument, (folder_ / "l").string() + ":2"));
}

TEST_F(ImageSetTest, ReadsCocoBoxesWithCategoriesInTheOrderOfTheirIds) {
  Write("instances.json", R"({
    "images": [{"id": 5, "file_name": "x.png"}, {"id": 9, "file_name": "y.png"}],
    "categories": [{"id": 90, "name": "brush"}, {"id": 2, "name": "bicycle"}],
    "annotations": [
      {"image_id": 9, "category_id": 90, "bbox": [1, 2, 3.5, 4], "area": 7, "iscrowd": 1},
      {"image_id": 9, "category_id": 2, "bbox": [0, 0, 2, 2]}]})");
  const ImageSet set = Open(R"({"coco": "instances.json", "folder": "val"})");
  EXPECT_TRUE(set.has_boxes());
  EXPECT_FALSE(set.has_labels());
  EXPECT_TRUE(set.boxes(0).empty());
  ASSERT_EQ(set.boxes(1).size(), 2u);
  const LabelledBox& crowd = set.boxes(1)[0];
  EXPECT_EQ(crowd.category, 1);
  EXPECT_EQ(crowd.width, 3.5);
  EXPECT_EQ(crowd.area, 7);
  EXPECT_TRUE(crowd.is_crowd);
  EXPECT_EQ(set.boxes(1)[1].area, 4);
}

TEST_F(ImageSetTest, NamesThePlaceInCocoThatIsWrong) {
  Write(
      "a",
      R"({"images": [{"id": 5, "file_name": "x.png"}], "categories": [], "annotations": [{"image_id": 5, "category_id": 1, "bbox": [0,0,1,1]}]})");
  EXPECT_THAT([&] { Open(R"({"coco": "a"})"); },
              ThrowsError(ErrorCode::kInvalidArgument,
                          (folder_ / "a#/annotations/0/category_id").string()));
  Write("a", R"({"images": [{"id": 5}], "categories": [], "annotations": []})");
  EXPECT_THAT([&] { Open(R"({"coco": "a"})"); },
              ThrowsError(ErrorCode::kInvalidArgument, (folder_ / "a#/images/0").string()));
  Write("a", R"({"images": 3})");
  EXPECT_THAT([&] { Open(R"({"coco": "a"})"); },
              ThrowsError(ErrorCode::kInvalidArgument, (folder_ / "a#/images").string()));
}

TEST_F(ImageSetTest, RefusesFieldsThatFitNothing) {
  Write("a.png", Png(2, 2, 1, 1, 1));
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"preset": "keras"})", "/images/preset"},
      {R"({"mean": [1, 2]})", "/images/mean"},
      {R"({"std": 0})", "/images/std"},
      {R"({"channels": "gray"})", "/images/mean"},
      {R"({"folder": "../x"})", "/images/folder"},
      {R"({"size": 3})", "/images/size"},
      {R"({"list": "a", "coco": "b"})", "/images/coco"}};
  for (const auto& [json, place] : kCases) {
    EXPECT_THAT([&] { Open(json); }, ThrowsError(ErrorCode::kInvalidArgument, place)) << json;
  }
}

TEST_F(ImageSetTest, NormalizesEachChannelInTheModelsOrder) {
  Write("a.png", Png(4, 6, 255, 128, 0));
  const ImageSet bgr = Open(
      R"({"height": 1, "width": 1, "fit": "stretch", "channels": "bgr", "scale": 1, "mean": [0, 28, 5], "std": [1, 10, 50]})");
  const Tensor tensor = bgr.Prepare(0);
  EXPECT_EQ(tensor.shape(), (Shape{3, 1, 1}));
  EXPECT_THAT(tensor.data<float>(), ElementsAre(0, 10, 5));
  const ImageSet gray = Open(
      R"({"height": 1, "width": 1, "fit": "stretch", "channels": "gray", "scale": 1, "mean": 0, "std": 1, "layout": "nhwc"})");
  EXPECT_EQ(gray.Prepare(0).shape(), (Shape{1, 1, 1}));
  EXPECT_THAT(gray.Prepare(0).data<float>(), ElementsAre(151));  // 0.299 * 255 + 0.587 * 128
}

// 100 x 50 into 64 x 64: 64 x 32 pixels, 16 rows of fill above and below.
TEST_F(ImageSetTest, LetterboxesAndTellsWherePixelsCameFrom) {
  Write("a.png", Png(50, 100, 10, 20, 30));
  const ImageSet set = Open(R"({"preset": "ultralytics", "height": 64, "width": 64, "scale": 1})");
  const Tensor tensor = set.Prepare(0);
  const auto at = [&](size_t row) { return tensor.data<float>()[row * 64 + 5]; };
  EXPECT_THAT((std::vector{at(15), at(16), at(47), at(48)}), ElementsAre(114, 10, 10, 114));
  const ImagePlacement placement = set.Placement(0);
  EXPECT_EQ(placement.scale_x, 100.0 / 64);
  EXPECT_EQ(placement.scale_y * 16 + placement.top, 0);
  EXPECT_EQ(placement.left, 0);
}

TEST_F(ImageSetTest, NamesTheFileThatIsDamaged) {
  const std::string whole = Png(20, 20, 1, 2, 3);
  for (size_t size = 0; size < whole.size(); size += 3) {
    Write("a.png", whole.substr(0, size));
    EXPECT_ANY_THROW(Open("{}").Prepare(0)) << size;
  }
  Write("a.png", whole.substr(0, 40));
  EXPECT_THAT(
      [&] { Open("{}").Prepare(0); },
      ThrowsError(ErrorCode::kInvalidArgument, (folder_ / "a.png").string(), HasSubstr("damaged")));
  Write("a.png", "GIF89a");
  EXPECT_THAT([&] { Open("{}").Prepare(0); },
              ThrowsError(ErrorCode::kUnsupported, (folder_ / "a.png").string()));
}

TEST_F(ImageSetTest, DoesNotDecodeAPictureThatFillsMemory) {
  std::string bytes = Png(1, 1, 0, 0, 0);
  // IHDR: width and height at 16, their CRC at 29; libpng checks it only after the size is refused.
  for (const size_t place : {16u, 20u}) bytes.replace(place, 4, std::string("\x00\x01\x86\xa0", 4));
  EXPECT_THAT([&] { DecodeImage(std::as_bytes(std::span(bytes)), "a.png", 1000); },
              ThrowsError(ErrorCode::kInvalidArgument, "a.png"));
}

TEST_F(ImageSetTest, FeedsADatasetWhoseDigestCoversTheFiles) {
  Write("one/a.png", Png(8, 8, 255, 255, 255));
  Write("two/b.png", Png(8, 8, 0, 0, 0));
  Write("dataset.json",
        R"({"images": {"preset": "tflite", "height": 4, "width": 4, "input": "pixels"}})");
  const Dataset dataset = Dataset::Open(folder_.path());
  EXPECT_EQ(dataset.sample_count(), 2);
  EXPECT_EQ(dataset.label(1), 1);
  ValueInfo input;
  input.name = "pixels";
  input.dtype = DType::kFloat32;
  input.shape.emplace(4);
  for (const size_t axis : {1u, 2u}) input.shape->at(axis).value = 4;
  EXPECT_THAT(dataset.Sample(0, {input})[0].data<float>(), testing::Each(FloatNear(1, 1e-6f)));
  input.shape->at(1).value = 8;
  EXPECT_THAT([&] { dataset.Sample(0, {input}); },
              ThrowsError(ErrorCode::kInvalidArgument, "input pixels", HasSubstr("axis 1")));
  const std::string digest = dataset.Digest();
  EXPECT_EQ(Dataset::Open(folder_.path()).Digest(), digest);
  Write("two/b.png", Png(8, 8, 0, 0, 1));
  EXPECT_NE(Dataset::Open(folder_.path()).Digest(), digest);
}

}  // namespace
}  // namespace pared
