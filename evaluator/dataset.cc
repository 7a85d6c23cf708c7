#include "evaluator/dataset.h"

#include <fstream>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "config/json_file.h"
#include "config/sha256.h"
#include "evaluator/dataset_arrays.h"
#include "evaluator/sample_tensor.h"
#include "model/mapped_file.h"

namespace pared {
namespace {

constexpr size_t kManifestBytesMax = 1 << 20;

struct Manifest {
  Json inputs = Json::object();
  Json images, audio, tokens;
  Json state = Json::object();
  std::string labels, targets, lengths;
  TaskSpec task;
};

void Fields(FieldVisitor& f, Manifest& m) {
  f.Raw("inputs", m.inputs, "Input name to array or number; * stands for the only input.");
  f.Raw("images", m.images, "Pictures for an input (docs/data.md).");
  f.Raw("audio", m.audio, "Sound for an input.");
  f.Raw("tokens", m.tokens, "Tokens of texts for a language model's inputs.");
  f.Raw("state", m.state, "Input name to the output that gives it for the next sample.");
  f.Text("labels", m.labels, TextRule::kAny, "The array of integer labels; empty: none.");
  f.Text("targets", m.targets, TextRule::kAny, "The array of what the model should give out.");
  f.Text("lengths", m.lengths, TextRule::kAny, "How much of the last axis each sample has.");
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
  const bool has_others =
      !manifest.images.is_null() || !manifest.audio.is_null() || !manifest.tokens.is_null();
  if (!manifest.inputs.is_string() &&
      (!manifest.inputs.is_object() || (manifest.inputs.empty() && !has_others))) {
    throw Error(ErrorCode::kInvalidArgument, "must name at least one array", "/inputs");
  }
  return manifest;
}

// The arrays of "inputs"; numbers go to `constants`.
ArraySet OpenInputs(const Json& inputs, const std::filesystem::path& folder,
                    std::map<std::string, double>& constants) {
  if (inputs.is_string()) return OpenNpz(folder, inputs.get<std::string>());
  ArraySet set;
  for (const auto& [input, file] : inputs.items()) {
    const std::string pointer = "/inputs/" + input;
    if (file.is_number()) {
      constants.emplace(input, file.get<double>());
    } else if (file.is_string()) {
      set.inputs.emplace(input, OpenArray(folder, file.get<std::string>(), input, pointer));
    } else {
      throw Error(ErrorCode::kInvalidArgument, "must be a file name or a number", pointer);
    }
  }
  return set;
}

std::map<std::string, std::string> ReadState(const Json& json) {
  std::map<std::string, std::string> state;
  if (!json.is_object()) {
    throw Error(ErrorCode::kInvalidArgument, "must be an object of inputs and outputs", "/state");
  }
  for (const auto& [input, output] : json.items()) {
    if (!output.is_string()) {
      throw Error(ErrorCode::kInvalidArgument, "must be the name of an output", "/state/" + input);
    }
    state.emplace(input, output.get<std::string>());
  }
  return state;
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

void AddAudio(const AudioSet& audio, Digester& digester) {
  digester.AddField(audio.Settings());
  const std::vector<std::filesystem::path> paths = audio.paths();
  const std::vector<int64_t> labels = audio.labels();
  for (size_t i = 0; i < paths.size(); ++i) {
    digester.AddField(MappedFile::Open(paths[i])->bytes());
    digester.AddField(std::to_string(labels[i]));
  }
}

}  // namespace

Dataset Dataset::Open(const std::filesystem::path& folder) {
  return WithinFile(folder / "dataset.json", [&] { return Read(folder); });
}

Dataset Dataset::Read(const std::filesystem::path& folder) {
  const Manifest manifest = ReadManifest(folder / "dataset.json");
  Dataset dataset;
  dataset.name_ = folder.filename().string();
  dataset.state_ = ReadState(manifest.state);
  ArraySet arrays = OpenInputs(manifest.inputs, folder, dataset.constants_);
  dataset.AddArrays(arrays.inputs);
  if (!manifest.tokens.is_null()) {
    const ArraySet tokens = OpenTokens(folder, manifest.tokens);
    dataset.AddArrays(tokens.inputs);
    dataset.Pad(tokens.lengths, tokens.inputs);
    if (arrays.labels.empty()) arrays.labels = tokens.labels;
  }
  if (!manifest.images.is_null()) {
    dataset.images_ = std::make_shared<const ImageSet>(ImageSet::Open(manifest.images, folder));
    dataset.SettleCount(dataset.images_->count(), "/images", "pictures");
  }
  if (!manifest.audio.is_null()) {
    dataset.audio_ = std::make_shared<const AudioSet>(AudioSet::Open(manifest.audio, folder));
    dataset.SettleCount(dataset.audio_->count(), "/audio", "frames of sound");
  }
  if (dataset.sample_count_ < 1) {
    throw Error(ErrorCode::kInvalidArgument, "must name at least one array", "/inputs");
  }
  dataset.task_ = manifest.task;
  const int64_t count = dataset.sample_count_;
  if (!manifest.lengths.empty()) {
    dataset.Pad(OpenLengths(folder, manifest.lengths, count), arrays.inputs);
  }
  const std::string labels = manifest.labels.empty() ? arrays.labels : manifest.labels;
  if (!labels.empty()) {
    dataset.labels_ = OpenLabels(folder, labels, count, manifest.task.task == Task::kCtc);
  }
  const std::string targets = manifest.targets.empty() ? arrays.targets : manifest.targets;
  if (!targets.empty()) dataset.targets_ = OpenTargets(folder, targets, count);
  dataset.SettleTask();
  return dataset;
}

Dataset Dataset::Of(std::string name, const std::map<std::string, Tensor>& arrays) {
  PARED_CHECK(!arrays.empty());
  Dataset dataset;
  dataset.name_ = std::move(name);
  dataset.AddArrays(arrays);
  return dataset;
}

void Dataset::SettleCount(int64_t count, const std::string& where, const std::string& what) {
  if (count < 1) throw Error(ErrorCode::kInvalidArgument, "holds no samples", where);
  if (sample_count_ > 0 && sample_count_ != count) {
    throw Error(ErrorCode::kInvalidArgument,
                "axis 0: there are " + std::to_string(count) + ' ' + what + ", and " +
                    std::to_string(sample_count_) + " samples of another input",
                where);
  }
  sample_count_ = count;
}

void Dataset::AddArrays(const std::map<std::string, Tensor>& arrays) {
  for (const auto& [input, array] : arrays) {
    SettleCount(array.rank() < 1 ? 0 : array.shape()[0], "/inputs/" + input, "samples");
    if (inputs_.emplace(input, array).second) continue;
    throw Error(ErrorCode::kInvalidArgument, "is an array and comes from \"tokens\", too",
                "/inputs/" + input);
  }
}

void Dataset::Pad(const std::optional<Tensor>& lengths,
                  const std::map<std::string, Tensor>& arrays) {
  if (!lengths) return;
  for (const auto& [input, array] : arrays) {
    const std::span<const int64_t> all = lengths->data<int64_t>();
    for (size_t sample = 0; sample < all.size(); ++sample) {
      if (array.rank() >= 2 && all[sample] <= array.shape().back()) continue;
      throw Error(ErrorCode::kInvalidArgument,
                  "the last axis of " + ShapeText(array.shape()) + " has no " +
                      std::to_string(all[sample]) + ", the length of sample " +
                      std::to_string(sample),
                  "/inputs/" + input);
    }
    lengths_.insert_or_assign(input, *lengths);
  }
}

void Dataset::SettleTask() {
  const bool has_classes =
      labels_ || (images_ && images_->has_labels()) || (audio_ && audio_->has_labels());
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
    case Task::kRetrieval:
      if (!has_classes) {
        throw Error(ErrorCode::kInvalidArgument, "needs labels, or files in folders of classes",
                    "/task");
      }
      if (task_.task != Task::kRetrieval || task_.gallery < sample_count_) return;
      throw Error(ErrorCode::kInvalidArgument,
                  "must be less than the " + std::to_string(sample_count_) + " samples",
                  "/gallery");
  }
}

int64_t Dataset::label(int64_t sample) const {
  PARED_CHECK(has_labels());
  PARED_CHECK(sample >= 0 && sample < sample_count_);
  if (labels_) return labels_->data<int64_t>()[static_cast<size_t>(sample)];
  return images_ ? images_->label(sample) : audio_->label(sample);
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

std::vector<int64_t> Dataset::sequence_starts() const {
  return audio_ ? audio_->first_samples() : std::vector<int64_t>{0};
}

void Dataset::SetStates(const std::string& input, Tensor states) {
  PARED_CHECK(state_.contains(input));
  PARED_CHECK(states.rank() >= 1 && states.shape()[0] == sample_count_);
  states_.insert_or_assign(input, std::move(states));
}

std::vector<Tensor> Dataset::Sample(int64_t sample, const std::vector<ValueInfo>& inputs) const {
  PARED_CHECK(sample >= 0 && sample < sample_count_);
  const int64_t given = std::ssize(constants_) + std::ssize(state_);
  std::vector<Tensor> tensors;
  for (const ValueInfo& input : inputs) {
    if (const auto constant = constants_.find(input.name); constant != constants_.end()) {
      tensors.push_back(ConstantFor(input, constant->second));
    } else if (state_.contains(input.name)) {
      const auto states = states_.find(input.name);
      tensors.push_back(states == states_.end() ? ConstantFor(input, 0)
                                                : Slice(states->second, sample));
    } else {
      const bool is_only = std::ssize(inputs) - given == 1;
      tensors.push_back(Prepare(sample, input, is_only));
    }
  }
  return tensors;
}

Tensor Dataset::Prepare(int64_t sample, const ValueInfo& input, bool is_only) const {
  const std::optional<Tensor> found = Find(sample, input.name, is_only);
  if (!found) {
    throw Error(ErrorCode::kInvalidArgument,
                "dataset " + name_ + " has no array for this input of the model",
                "input " + input.name);
  }
  const Tensor one = found->Reshaped(BatchShape(found->shape(), input));
  return Repeated(Widened(one, input.dtype, input.name), input);
}

std::optional<Tensor> Dataset::Find(int64_t sample, const std::string& input, bool is_only) const {
  auto array = inputs_.find(input);
  if (array == inputs_.end() && is_only) array = inputs_.find("*");
  if (array != inputs_.end()) {
    const auto lengths = lengths_.find(array->first);
    Tensor whole = Slice(array->second, sample);
    CountRead(array->second, whole);
    if (lengths == lengths_.end()) return whole;
    return CutLastAxis(whole, lengths->second.data<int64_t>()[static_cast<size_t>(sample)]);
  }
  const auto is_for = [&](const auto& set) {
    return set && (set->input() == input || (is_only && set->input() == "*"));
  };
  if (is_for(images_)) return images_->Prepare(sample);
  return is_for(audio_) ? std::optional(audio_->Prepare(sample)) : std::nullopt;
}

// A mapped array must not come to lie in memory whole, sample by sample. What reads a sample at
// this moment reads the file again.
void Dataset::CountRead(const Tensor& array, const Tensor& sample) const {
  if (CountMappedRead(*bytes_read_, sample.bytes().size())) array.DropPages();
}

std::string Dataset::Digest() const {
  Digester digest;
  for (const auto& [name, array] : inputs_) {
    digest.AddTensor(name, array);
    array.DropPages();
  }
  if (labels_) digest.AddTensor("/labels", *labels_);
  if (targets_) digest.AddTensor("/targets", *targets_);
  if (images_) AddImages(*images_, digest);
  if (audio_) AddAudio(*audio_, digest);
  for (const auto& [name, lengths] : lengths_) digest.AddTensor("/lengths/" + name, lengths);
  for (const auto& [name, value] : constants_) {
    digest.AddField("/constants/" + name);
    digest.AddField(DumpJson(Json(value)));
  }
  for (const auto& [input, output] : state_) {
    digest.AddField("/state/" + input);
    digest.AddField(output);
  }
  return digest.Hex();
}

}  // namespace pared
