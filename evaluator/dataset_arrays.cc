#include "evaluator/dataset_arrays.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "evaluator/npy.h"
#include "evaluator/sample_tensor.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what, where);
}

// A file's name, and the name of an array in it.
struct Place {
  std::string file, array;
  bool is_npz = false;
};

Place PlaceOf(const std::string& reference, const std::string& name) {
  const size_t colon = reference.find(".npz:");
  if (colon != std::string::npos) {
    return {reference.substr(0, colon + 4), reference.substr(colon + 5), true};
  }
  return {reference, name, reference.ends_with(".npz")};
}

// Files lie in the dataset's own folder: a manifest cannot reach out of it.
fs::path FileIn(const fs::path& folder, const std::string& file, const std::string& pointer) {
  const fs::path name(file);
  if (file.empty() || name.filename() != name || file == "." || file == "..") {
    throw Error(ErrorCode::kInvalidArgument,
                "must be a file name without a folder, is \"" + file + "\"", pointer);
  }
  return folder / name;
}

// How errors name the array.
std::string WhereOf(const fs::path& folder, const std::string& reference, const std::string& name) {
  const Place place = PlaceOf(reference, name);
  return (folder / place.file).string() + (place.is_npz ? ":" + place.array : "");
}

struct TokenFile {
  std::string file;
  bool trim = true;
};

void Fields(FieldVisitor& f, TokenFile& t) {
  f.Required();
  f.Text("file", t.file, TextRule::kAny, "The .npz file with input_ids.");
  f.Flag("trim", t.trim, "Leave out what the attention mask does not keep at the end.");
}

constexpr const char* kIds = "input_ids";
constexpr const char* kMask = "attention_mask";
constexpr const char* kTypes = "token_type_ids";

void CheckTokens(const Tensor& array, const Tensor& ids, const std::string& where) {
  if (!IsNumber(array.dtype()) || IsFloat(array.dtype()) || array.rank() != 2) {
    Refuse(where, std::string("must be integers of the shape [samples, length], are ") +
                      DTypeName(array.dtype()) + ShapeText(array.shape()));
  }
  for (size_t axis = 0; axis < 2; ++axis) {
    if (array.shape()[axis] == ids.shape()[axis]) continue;
    Refuse(where, "axis " + std::to_string(axis) + ": has " + std::to_string(array.shape()[axis]) +
                      ", input_ids has " + std::to_string(ids.shape()[axis]));
  }
}

// Of each row, up to its last 1.
std::vector<int64_t> LengthsOf(const Tensor& mask, const std::string& where) {
  const int64_t samples = mask.shape()[0], length = mask.shape()[1];
  const std::span<const int64_t> bits = mask.data<int64_t>();
  std::vector<int64_t> lengths;
  for (int64_t sample = 0; sample < samples; ++sample) {
    const auto row =
        bits.subspan(static_cast<size_t>(sample * length), static_cast<size_t>(length));
    const std::string place = where + ", sample " + std::to_string(sample);
    if (std::ranges::any_of(row, [](int64_t bit) { return bit != 0 && bit != 1; })) {
      Refuse(place, "a mask holds 0 and 1");
    }
    const auto last = std::ranges::find(row.rbegin(), row.rend(), 1);
    if (last == row.rend()) Refuse(place, "the mask keeps no token");
    lengths.push_back(row.rend() - last);
  }
  return lengths;
}

}  // namespace

Tensor OpenArray(const fs::path& folder, const std::string& reference, const std::string& name,
                 const std::string& pointer) {
  const Place place = PlaceOf(reference, name);
  const fs::path path = FileIn(folder, place.file, pointer);
  return place.is_npz ? LoadNpz(path, place.array) : LoadNpy(path);
}

Tensor OpenLabels(const fs::path& folder, const std::string& reference, int64_t samples,
                  bool are_texts) {
  const Tensor labels = OpenArray(folder, reference, "labels", "/labels");
  const std::string where = WhereOf(folder, reference, "labels");
  if (!IsNumber(labels.dtype()) || IsFloat(labels.dtype())) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("labels must be integers, are ") + DTypeName(labels.dtype()), where);
  }
  const bool fits = labels.rank() >= 1 && labels.shape()[0] == samples &&
                    (are_texts ? labels.rank() == 2 : labels.count() == samples);
  if (!fits) {
    throw Error(ErrorCode::kInvalidArgument,
                "labels must have the shape [" + std::to_string(samples) +
                    (are_texts ? ", characters]" : "]") + ", have " + ShapeText(labels.shape()),
                where);
  }
  return ToInt64(are_texts ? labels : labels.Reshaped({samples}));
}

Tensor OpenTargets(const fs::path& folder, const std::string& reference, int64_t samples) {
  Tensor targets = OpenArray(folder, reference, "targets", "/targets");
  if (targets.rank() >= 1 && targets.shape()[0] == samples && IsNumber(targets.dtype()))
    return targets;
  throw Error(ErrorCode::kInvalidArgument,
              "targets must be numbers of the shape [" + std::to_string(samples) + ", ...], have " +
                  DTypeName(targets.dtype()) + ShapeText(targets.shape()),
              WhereOf(folder, reference, "targets"));
}

Tensor OpenLengths(const fs::path& folder, const std::string& reference, int64_t samples) {
  const Tensor lengths = OpenArray(folder, reference, "lengths", "/lengths");
  const std::string where = WhereOf(folder, reference, "lengths");
  const bool fits = IsNumber(lengths.dtype()) && !IsFloat(lengths.dtype()) && lengths.rank() == 1 &&
                    lengths.shape()[0] == samples;
  if (!fits) {
    Refuse(where, "lengths must be integers of the shape [" + std::to_string(samples) + "], are " +
                      DTypeName(lengths.dtype()) + ShapeText(lengths.shape()));
  }
  Tensor numbers = ToInt64(lengths);
  if (std::ranges::any_of(numbers.data<int64_t>(), [](int64_t length) { return length < 1; })) {
    Refuse(where, "a length must be at least 1");
  }
  return numbers;
}

ArraySet OpenNpz(const fs::path& folder, const std::string& file) {
  const fs::path path = FileIn(folder, file, "/inputs");
  if (!file.ends_with(".npz")) {
    Refuse("/inputs", "must be an object of names and files, or the name of an .npz file");
  }
  ArraySet set;
  for (const std::string& array : NpzArrays(path)) {
    if (array == "labels") {
      set.labels = file;
    } else if (array == "targets") {
      set.targets = file;
    } else {
      set.inputs.emplace(array, LoadNpz(path, array));
    }
  }
  if (set.inputs.empty()) Refuse(path.string(), "holds no array for an input");
  return set;
}

ArraySet OpenTokens(const fs::path& folder, const Json& json) {
  TokenFile options;
  ReadFields(json, "/tokens", options);
  const fs::path path = FileIn(folder, options.file, "/tokens/file");
  const auto where = [&](const std::string& array) { return path.string() + ":" + array; };
  ArraySet set;
  const Tensor ids = LoadNpz(path, kIds);
  CheckTokens(ids, ids, where(kIds));
  for (const std::string& array : NpzArrays(path)) {
    if (array == "labels") {
      set.labels = options.file;
    } else if (array != kIds && array != kMask && array != kTypes) {
      Refuse(where(array), "is none of input_ids, attention_mask, token_type_ids and labels");
    } else {
      const Tensor tokens = LoadNpz(path, array);
      CheckTokens(tokens, ids, where(array));
      set.inputs.emplace(array, ToInt64(tokens));
    }
  }
  if (std::ranges::any_of(set.inputs.at(kIds).data<int64_t>(), [](int64_t id) { return id < 0; })) {
    Refuse(where(kIds), "a token is at least 0");
  }
  const auto count = static_cast<size_t>(ids.count());
  set.inputs.emplace(kMask, Tensor::Make<int64_t>(ids.shape(), std::vector<int64_t>(count, 1)));
  set.inputs.emplace(kTypes, Tensor::Make<int64_t>(ids.shape(), std::vector<int64_t>(count, 0)));
  std::vector<int64_t> lengths = LengthsOf(set.inputs.at(kMask), where(kMask));
  if (options.trim) set.lengths = Tensor::Make<int64_t>({ids.shape()[0]}, std::move(lengths));
  return set;
}

}  // namespace pared
