#include "evaluator/dataset.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string_view>

#include "base/error.h"
#include "config/fields.h"
#include "config/sha256.h"
#include "model/mapped_file.h"

namespace pared {
namespace {

constexpr size_t kManifestBytesMax = 1 << 20;
constexpr int64_t kUnknownImageSide = 224;

struct Manifest {
  Json inputs = Json::object();
  Json images;
  std::string labels, targets;
  TaskSpec task;
};

void Fields(FieldVisitor& f, Manifest& m) {
  f.Raw("inputs", m.inputs, "Input name to .npy file; the name * stands for the only input.");
  f.Raw("images", m.images, "Pictures for an input (docs/data.md).");
  f.Text("labels", m.labels, TextRule::kAny, "The .npy file of integer labels; empty: none.");
  f.Text("targets", m.targets, TextRule::kAny, "The .npy file of what the model should give out.");
  Fields(f, m.task);
}

Manifest ReadManifest(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    throw Error(ErrorCode::kNotFound, "a dataset is a folder with a dataset.json", path.string());
  }
  std::string text(kManifestBytesMax, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  Manifest manifest;
  ReadFields(ParseJson(text), "", manifest);
  if (!manifest.inputs.is_object() || (manifest.inputs.empty() && manifest.images.is_null())) {
    throw Error(ErrorCode::kInvalidArgument, "must name at least one .npy file", "/inputs");
  }
  return manifest;
}

// Files lie in the dataset's own folder: a manifest cannot reach out of it.
std::filesystem::path FileIn(const std::filesystem::path& folder, const std::string& file,
                             const std::string& pointer) {
  const std::filesystem::path name(file);
  if (file.empty() || name.filename() != name || file == "." || file == "..") {
    throw Error(ErrorCode::kInvalidArgument,
                "must be a file name without a folder, is \"" + file + "\"", pointer);
  }
  return folder / name;
}

// Calls visit(elements) with the elements of a numeric tensor. False: no type that widens.
template <class Visit>
bool VisitNumbers(const Tensor& tensor, const Visit& visit) {
  switch (tensor.dtype()) {
    case DType::kFloat32:
      visit(tensor.data<float>());
      return true;
    case DType::kFloat64:
      visit(tensor.data<double>());
      return true;
    case DType::kUInt8:
      visit(tensor.data<uint8_t>());
      return true;
    case DType::kInt8:
      visit(tensor.data<int8_t>());
      return true;
    case DType::kUInt16:
      visit(tensor.data<uint16_t>());
      return true;
    case DType::kInt16:
      visit(tensor.data<int16_t>());
      return true;
    case DType::kInt32:
      visit(tensor.data<int32_t>());
      return true;
    case DType::kInt64:
      visit(tensor.data<int64_t>());
      return true;
    default:
      return false;
  }
}

template <class To>
Tensor Converted(const Tensor& from) {
  std::vector<To> values;
  values.reserve(static_cast<size_t>(from.count()));
  const bool numeric = VisitNumbers(from, [&](auto elements) {
    for (const auto element : elements) values.push_back(static_cast<To>(element));
  });
  PARED_CHECK(numeric);
  return Tensor::Make<To>(from.shape(), std::move(values));
}

bool IsFloat(DType dtype) { return dtype == DType::kFloat32 || dtype == DType::kFloat64; }

bool IsNumber(DType dtype) {
  return IsFloat(dtype) || (dtype >= DType::kUInt8 && dtype <= DType::kInt64);
}

// `tensor` as `dtype`. Integers never come from floats, nor from wider integers.
Tensor Widened(Tensor tensor, DType dtype, const std::string& input) {
  const DType from = tensor.dtype();
  if (from == dtype || dtype == DType::kUndefined) return tensor;
  if (IsNumber(from) && dtype == DType::kFloat32) return Converted<float>(tensor);
  if (IsNumber(from) && dtype == DType::kFloat64) return Converted<double>(tensor);
  const bool is_integer = IsNumber(from) && !IsFloat(from);
  if (is_integer && dtype == DType::kInt64) return Converted<int64_t>(tensor);
  if (is_integer && from != DType::kInt64 && dtype == DType::kInt32) {
    return Converted<int32_t>(tensor);
  }
  throw Error(
      ErrorCode::kInvalidArgument,
      std::string("the dataset has ") + DTypeName(from) + ", the model wants " + DTypeName(dtype),
      "input " + input);
}

Tensor OpenLabels(const std::filesystem::path& path, int64_t samples, bool are_texts) {
  const Tensor labels = LoadNpy(path);
  if (!IsNumber(labels.dtype()) || IsFloat(labels.dtype())) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("labels must be integers, are ") + DTypeName(labels.dtype()),
                path.string());
  }
  const bool fits = labels.rank() >= 1 && labels.shape()[0] == samples &&
                    (are_texts ? labels.rank() == 2 : labels.count() == samples);
  if (!fits) {
    throw Error(ErrorCode::kInvalidArgument,
                "labels must have the shape [" + std::to_string(samples) +
                    (are_texts ? ", characters]" : "]") + ", have " + ShapeText(labels.shape()),
                path.string());
  }
  return Converted<int64_t>(are_texts ? labels : labels.Reshaped({samples}));
}

Tensor OpenTargets(const std::filesystem::path& path, int64_t samples) {
  Tensor targets = LoadNpy(path);
  if (targets.rank() >= 1 && targets.shape()[0] == samples && IsNumber(targets.dtype()))
    return targets;
  throw Error(ErrorCode::kInvalidArgument,
              "targets must be numbers of the shape [" + std::to_string(samples) + ", ...], have " +
                  DTypeName(targets.dtype()) + ShapeText(targets.shape()),
              path.string());
}

// The elements of one sample, as a view.
Tensor Slice(const Tensor& array, int64_t sample) {
  Shape shape(array.shape().begin() + 1, array.shape().end());
  const size_t bytes = array.bytes().size() / static_cast<size_t>(array.shape()[0]);
  const auto owner = std::make_shared<const Tensor>(array);
  return Tensor::View(array.dtype(), std::move(shape),
                      array.bytes().subspan(static_cast<size_t>(sample) * bytes, bytes), owner);
}

// Adds the batch axis of 1 where the input's rank needs it, and checks the sizes.
Shape BatchShape(const Shape& sample, const ValueInfo& input) {
  Shape shape = sample;
  if (!input.shape || input.shape->size() == sample.size() + 1) shape.insert(shape.begin(), 1);
  if (!input.shape) return shape;
  const std::vector<Dim>& wanted = *input.shape;
  if (wanted.size() != shape.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                "a sample has the shape " + ShapeText(sample) + ", the model wants rank " +
                    std::to_string(wanted.size()),
                "input " + input.name);
  }
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (wanted[axis].value >= 0 && wanted[axis].value != shape[axis]) {
      throw Error(ErrorCode::kInvalidArgument,
                  "axis " + std::to_string(axis) + ": the dataset has " +
                      std::to_string(shape[axis]) + ", the model wants " +
                      std::to_string(wanted[axis].value),
                  "input " + input.name);
    }
  }
  return shape;
}

bool IsImageSide(const ValueInfo& input, size_t axis) {
  if (input.dtype != DType::kFloat32 || input.shape->size() != 4) return false;
  // Channels first unless the last axis alone looks like colours.
  const int64_t last = (*input.shape)[3].value;
  const bool channels_last = last == 1 || last == 3 || last == 4;
  return channels_last ? axis == 1 || axis == 2 : axis >= 2;
}

// The shape of `samples` random samples of an input, its leading axis replaced by `samples` where
// it is a batch axis of 1, else put before it.
Shape RandomShape(const ValueInfo& input, int64_t samples) {
  Shape shape = {samples};
  if (!input.shape) return {samples, 1};
  for (size_t axis = 0; axis < input.shape->size(); ++axis) {
    const int64_t size = (*input.shape)[axis].value;
    shape.push_back(size >= 0 ? size : IsImageSide(input, axis) ? kUnknownImageSide : 1);
  }
  return shape;
}

Tensor RandomTensor(const ValueInfo& input, const Shape& shape, std::mt19937_64& random) {
  const size_t count = static_cast<size_t>(ElementCount(shape));
  const auto bits = [&]<class T>(T) {
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(random() & 1);
    return Tensor::Make<T>(shape, std::move(values));
  };
  switch (input.dtype) {
    case DType::kFloat32: {
      std::vector<float> values(count);
      std::normal_distribution<float> normal;
      for (float& value : values) value = normal(random);
      return Tensor::Make<float>(shape, std::move(values));
    }
    case DType::kInt64:
      return bits(int64_t{});
    case DType::kInt32:
      return bits(int32_t{});
    case DType::kUInt8:
      return bits(uint8_t{});
    case DType::kInt8:
      return bits(int8_t{});
    case DType::kBool: {
      std::vector<bool> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = (random() & 1) != 0;
      return Tensor::Make<bool>(shape, std::move(values));
    }
    default:
      throw Error(
          ErrorCode::kUnsupported,
          std::string("no random values of type ") + DTypeName(input.dtype) + "; give a dataset",
          "input " + input.name);
  }
}

class Digester {
 public:
  // The length goes before the bytes, so that no two lists of fields read as one stream.
  void AddField(std::span<const std::byte> bytes) {
    const uint64_t length = bytes.size();
    sha256_.Update(std::as_bytes(std::span(&length, 1)));
    sha256_.Update(bytes);
  }
  void AddField(std::string_view text) { AddField(std::as_bytes(std::span(text))); }
  void AddTensor(const std::string& name, const Tensor& tensor) {
    AddField(name);
    AddField(DTypeName(tensor.dtype()) + ShapeText(tensor.shape()));
    AddField(tensor.bytes());
  }
  std::string Hex() { return sha256_.Finish(); }

 private:
  Sha256 sha256_;
};

void AddImages(const ImageSet& images, Digester& digest) {
  digest.AddField(images.Settings());
  for (int64_t sample = 0; sample < images.count(); ++sample) {
    const auto file = MappedFile::Open(images.path(sample));
    digest.AddField(file->bytes());
    std::string label = std::to_string(images.label(sample));
    for (const LabelledBox& box : images.boxes(sample)) {
      for (const double side : {box.left, box.top, box.width, box.height, box.area}) {
        label += ' ' + std::to_string(side);
      }
      label += ' ' + std::to_string(box.category) + (box.is_crowd ? "c" : "");
    }
    digest.AddField(label);
  }
}

}  // namespace

Dataset Dataset::Open(const std::filesystem::path& folder) {
  const Manifest manifest = ReadManifest(folder / "dataset.json");
  Dataset dataset;
  dataset.name_ = folder.filename().string();
  dataset.sample_count_ = -1;
  for (const auto& [input, file] : manifest.inputs.items()) {
    const std::string pointer = "/inputs/" + input;
    if (!file.is_string()) {
      throw Error(ErrorCode::kInvalidArgument, "must be a file name", pointer);
    }
    const std::filesystem::path path = FileIn(folder, file.get<std::string>(), pointer);
    Tensor array = LoadNpy(path);
    if (array.rank() < 1 || array.shape()[0] < 1) {
      throw Error(ErrorCode::kInvalidArgument, "holds no samples", path.string());
    }
    if (dataset.sample_count_ >= 0 && dataset.sample_count_ != array.shape()[0]) {
      throw Error(ErrorCode::kInvalidArgument,
                  "holds " + std::to_string(array.shape()[0]) + " samples, another input's file " +
                      std::to_string(dataset.sample_count_),
                  path.string());
    }
    dataset.sample_count_ = array.shape()[0];
    dataset.inputs_.emplace(input, std::move(array));
  }
  if (!manifest.images.is_null()) {
    dataset.images_ = std::make_shared<const ImageSet>(ImageSet::Open(manifest.images, folder));
    const int64_t count = dataset.images_->count();
    if (dataset.sample_count_ >= 0 && dataset.sample_count_ != count) {
      throw Error(ErrorCode::kInvalidArgument,
                  "there are " + std::to_string(count) + " pictures, and arrays of " +
                      std::to_string(dataset.sample_count_) + " samples",
                  "/images");
    }
    dataset.sample_count_ = count;
  }
  dataset.task_ = manifest.task;
  if (!manifest.labels.empty()) {
    dataset.labels_ = OpenLabels(FileIn(folder, manifest.labels, "/labels"), dataset.sample_count_,
                                 manifest.task.task == Task::kCtc);
  }
  if (!manifest.targets.empty()) {
    dataset.targets_ =
        OpenTargets(FileIn(folder, manifest.targets, "/targets"), dataset.sample_count_);
  }
  dataset.SettleTask();
  return dataset;
}

void Dataset::SettleTask() {
  const bool has_classes = labels_ || (images_ && images_->has_labels());
  switch (task_.task) {
    case Task::kAuto:
      if (targets_) task_.task = Task::kImage;
      if (images_ && images_->has_boxes()) task_.task = Task::kDetection;
      if (has_classes) task_.task = Task::kClassification;
      return;
    case Task::kDetection:
      return;  // without boxes, those of the float model are what others are compared with
    case Task::kImage:
      if (targets_) return;
      throw Error(ErrorCode::kInvalidArgument, "image needs \"targets\"", "/task");
    case Task::kCtc:
      if (labels_) return;
      throw Error(ErrorCode::kInvalidArgument, "ctc needs \"labels\"", "/task");
    case Task::kClassification:
    case Task::kBinary:
      if (has_classes) return;
      throw Error(ErrorCode::kInvalidArgument, "needs labels, or pictures in folders of classes",
                  "/task");
  }
}

Dataset Dataset::Random(const std::vector<ValueInfo>& inputs, int64_t samples, int64_t seed) {
  PARED_CHECK(samples > 0);
  Dataset dataset;
  dataset.name_ = "random";
  dataset.sample_count_ = samples;
  std::mt19937_64 random(static_cast<uint64_t>(seed));
  for (const ValueInfo& input : inputs) {
    dataset.inputs_.emplace(input.name, RandomTensor(input, RandomShape(input, samples), random));
  }
  return dataset;
}

int64_t Dataset::label(int64_t sample) const {
  PARED_CHECK(has_labels());
  PARED_CHECK(sample >= 0 && sample < sample_count_);
  if (!labels_) return images_->label(sample);
  return labels_->data<int64_t>()[static_cast<size_t>(sample)];
}

std::vector<int64_t> Dataset::label_text(int64_t sample) const {
  PARED_CHECK(task_.task == Task::kCtc);
  const Tensor row = Slice(*labels_, sample);
  std::vector<int64_t> text;
  for (const int64_t character : row.data<int64_t>()) {
    if (character >= 0) text.push_back(character);
  }
  return text;
}

Tensor Dataset::target(int64_t sample) const {
  PARED_CHECK(targets_.has_value());
  return Slice(*targets_, sample);
}

std::vector<Tensor> Dataset::Sample(int64_t sample, const std::vector<ValueInfo>& inputs) const {
  PARED_CHECK(sample >= 0 && sample < sample_count_);
  std::vector<Tensor> tensors;
  for (const ValueInfo& input : inputs) {
    const std::optional<Tensor> found = Find(sample, input.name, inputs.size() == 1);
    if (!found) {
      throw Error(ErrorCode::kInvalidArgument,
                  "dataset " + name_ + " has no array for this input of the model",
                  "input " + input.name);
    }
    tensors.push_back(
        Widened(found->Reshaped(BatchShape(found->shape(), input)), input.dtype, input.name));
  }
  return tensors;
}

std::optional<Tensor> Dataset::Find(int64_t sample, const std::string& input, bool is_only) const {
  auto array = inputs_.find(input);
  if (array == inputs_.end() && is_only) array = inputs_.find("*");
  if (array != inputs_.end()) return Slice(array->second, sample);
  const bool is_picture =
      images_ && (images_->input() == input || (is_only && images_->input() == "*"));
  return is_picture ? std::optional(images_->Prepare(sample)) : std::nullopt;
}

std::string Dataset::Digest() const {
  Digester digest;
  for (const auto& [name, array] : inputs_) digest.AddTensor(name, array);
  if (labels_) digest.AddTensor("/labels", *labels_);
  if (targets_) digest.AddTensor("/targets", *targets_);
  if (images_) AddImages(*images_, digest);
  return digest.Hex();
}

}  // namespace pared
