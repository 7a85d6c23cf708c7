#include "evaluator/image_set.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/error.h"
#include "config/json_file.h"
#include "model/mapped_file.h"

namespace pared {

namespace fs = std::filesystem;

void Fields(FieldVisitor& f, ImageSet::Manifest& m) {
  f.Text("input", m.input, TextRule::kAny, "The model's input; * stands for its only one.");
  f.Text("folder", m.folder, TextRule::kAny, "Where the pictures lie, below the dataset's folder.");
  f.Text("list", m.list, TextRule::kAny, "A text file of lines PATH or PATH CLASS.");
  f.Text("coco", m.coco, TextRule::kAny, "A COCO annotation file; gives boxes.");
  f.Text("preset", m.preset, TextRule::kName,
         "torchvision, timm, tflite or ultralytics: the defaults of what follows.");
  ImageInput& i = m.image;
  f.Integer("height", i.height, {1, 1 << 14}, "Pixels of the model's input.");
  f.Integer("width", i.width, {1, 1 << 14}, "Pixels of the model's input.");
  f.Choice("fit", i.fit, {"shorter_side", "crop_first", "stretch", "letterbox"},
           "How a picture becomes that many pixels.");
  f.Choice("filter", i.filter, {"bilinear", "bicubic", "bilinear_point"},
           "Pillow's filters, which average where they reduce, or the four nearest pixels.");
  f.Number("crop_share", i.crop_share, {0.01, 1},
           "The share of the shorter side that stays, for shorter_side and crop_first.");
  f.Number("scale", i.scale, {1e-6, 1e6}, "value = (pixel / scale - mean) / std.");
  f.Raw("mean", m.mean, "One number, or one for each channel.");
  f.Raw("std", m.std, "One number, or one for each channel.");
  f.Choice("layout", i.layout, {"nchw", "nhwc"}, "The order of the model's axes.");
  f.Choice("channels", i.channels, {"rgb", "bgr", "gray"}, "The order of the model's channels.");
}

namespace {

// 100 megapixels: more than any camera of our users', less than memory.
constexpr int64_t kPixelsMax = 100'000'000;
constexpr std::string_view kExtensions[] = {".jpg", ".jpeg", ".png"};

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what, where);
}

// Numbers in place of `values`, where they are given.
void ReadNumbers(const Json& json, const std::string& pointer, size_t channels, bool is_divisor,
                 std::vector<double>& values) {
  if (!json.is_null()) {
    values.clear();
    for (const Json& number : json.is_array() ? json : Json::array({json})) {
      if (!number.is_number()) Refuse(pointer, "must be a number or a list of numbers");
      values.push_back(number.get<double>());
    }
  }
  // A preset's three colours have no meaning for one grey.
  if (json.is_null() && channels == 1 && values.size() == 3) {
    Refuse(pointer, "must be given for channels gray: the preset has it for three colours");
  }
  if (values.size() != 1 && values.size() != channels) {
    Refuse(pointer, "must be one number or " + std::to_string(channels) + ", are " +
                        std::to_string(values.size()));
  }
  if (is_divisor && std::ranges::count(values, 0.0) > 0) Refuse(pointer, "must not be 0");
}

template <class T>
T FieldOf(const Json& object, const char* name, const std::string& pointer) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (!object.is_object() || found == object.end())
    Refuse(pointer, std::string("has no \"") + name + "\"");
  const bool fits = std::is_same_v<T, std::string> ? found->is_string() : found->is_number();
  if (!fits) Refuse(JoinPointer(pointer, name), "has the wrong type");
  return found->get<T>();
}

Json ReadJsonFile(const fs::path& path) {
  const auto file = MappedFile::Open(path);
  return ParseJson({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
}

const Json& ListIn(const Json& json, const char* name) {
  const auto found = json.is_object() ? json.find(name) : json.end();
  if (!json.is_object() || found == json.end() || !found->is_array()) {
    Refuse(std::string("/") + name, "a COCO annotation file has such a list");
  }
  return *found;
}

LabelledBox BoxOf(const Json& annotation, const std::string& pointer, int64_t category) {
  const auto bbox = annotation.find("bbox");
  if (bbox == annotation.end() || !bbox->is_array() || bbox->size() != 4) {
    Refuse(pointer + "/bbox", "must be [left, top, width, height]");
  }
  std::array<double, 4> sides = {};
  for (size_t i = 0; i < 4; ++i) {
    if (!(*bbox)[i].is_number()) Refuse(pointer + "/bbox", "must hold numbers");
    sides[i] = (*bbox)[i].get<double>();
  }
  LabelledBox box = {sides[0], sides[1], sides[2], sides[3], category, sides[2] * sides[3], false};
  if (annotation.contains("area")) box.area = FieldOf<double>(annotation, "area", pointer);
  if (annotation.contains("iscrowd"))
    box.is_crowd = annotation["iscrowd"] == 1 || annotation["iscrowd"] == true;
  return box;
}

}  // namespace

ImageSet ImageSet::Open(const Json& json, const fs::path& folder) {
  ImageSet set;
  Manifest& manifest = set.manifest_;
  if (json.is_object() && json.contains("preset")) {
    manifest.preset = FieldOf<std::string>(json, "preset", "/images");
  }
  manifest.image = ImagePreset(manifest.preset, "/images/preset");
  ReadFields(json, "/images", manifest);
  const size_t channels = manifest.image.channels == ChannelOrder::kGray ? 1 : 3;
  ReadNumbers(manifest.mean, "/images/mean", channels, false, manifest.image.mean);
  ReadNumbers(manifest.std, "/images/std", channels, true, manifest.image.std);
  CheckBelow(manifest.folder, "/images/folder");
  set.folder_ = (folder / manifest.folder).lexically_normal();
  if (!manifest.list.empty() && !manifest.coco.empty())
    Refuse("/images/coco", "cannot stand beside \"list\"");
  if (!manifest.list.empty()) {
    CheckBelow(manifest.list, "/images/list");
    set.Take(ReadFileList(folder / manifest.list));
  } else if (!manifest.coco.empty()) {
    CheckBelow(manifest.coco, "/images/coco");
    const fs::path coco = folder / manifest.coco;
    WithinFile(coco, [&] { set.ReadCoco(coco); });
  } else {
    set.Take(ReadFolders(set.folder_, kExtensions));
  }
  if (set.files_.empty()) Refuse(set.folder_.string(), "holds no .jpg, .jpeg or .png file");
  return set;
}

void ImageSet::Take(FileList list) {
  has_labels_ = list.has_labels;
  for (ListedFile& file : list.files) files_.push_back({std::move(file.path), file.label, {}});
}

void ImageSet::ReadCoco(const fs::path& path) {
  const Json json = ReadJsonFile(path);
  has_boxes_ = true;
  std::map<int64_t, size_t> places;  // of an image's id
  const Json& images = ListIn(json, "images");
  for (size_t i = 0; i < images.size(); ++i) {
    const std::string pointer = "/images/" + std::to_string(i);
    const auto id = FieldOf<int64_t>(images[i], "id", pointer);
    File file = {FieldOf<std::string>(images[i], "file_name", pointer), -1, {}};
    CheckBelow(file.path, pointer + "/file_name");
    if (!places.emplace(id, files_.size()).second)
      Refuse(pointer + "/id", "is the id of two images");
    files_.push_back(std::move(file));
  }
  std::map<int64_t, int64_t> categories;
  const Json& names = ListIn(json, "categories");
  for (size_t i = 0; i < names.size(); ++i) {
    categories[FieldOf<int64_t>(names[i], "id", "/categories/" + std::to_string(i))] = 0;
  }
  int64_t number = 0;
  for (auto& [id, category] : categories) category = number++;
  const Json& annotations = ListIn(json, "annotations");
  for (size_t i = 0; i < annotations.size(); ++i) {
    const std::string pointer = "/annotations/" + std::to_string(i);
    const auto image = places.find(FieldOf<int64_t>(annotations[i], "image_id", pointer));
    const auto category = categories.find(FieldOf<int64_t>(annotations[i], "category_id", pointer));
    if (image == places.end()) Refuse(pointer + "/image_id", "names no image of this file");
    if (category == categories.end())
      Refuse(pointer + "/category_id", "names no category of this file");
    files_[image->second].boxes.push_back(BoxOf(annotations[i], pointer, category->second));
  }
}

const ImageSet::File& ImageSet::file(int64_t sample) const {
  PARED_CHECK(sample >= 0 && sample < count());
  return files_[static_cast<size_t>(sample)];
}

Tensor ImageSet::Prepare(int64_t sample) const {
  const fs::path path = this->path(sample);
  const auto file = MappedFile::Open(path);
  return PrepareImage(DecodeImage(file->bytes(), path.string(), kPixelsMax), manifest_.image);
}

ImagePlacement ImageSet::Placement(int64_t sample) const {
  const fs::path path = this->path(sample);
  const auto file = MappedFile::Open(path);
  const PictureSize size = ReadPictureSize(file->bytes(), path.string(), kPixelsMax);
  return PlacementOf(manifest_.image, size.height, size.width);
}

std::string ImageSet::Settings() const { return DumpJson(WriteFields(manifest_)); }

}  // namespace pared
