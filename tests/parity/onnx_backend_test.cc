// Runs the public ONNX backend test cases through the Executor, with and without fusion.
//
//   onnx_backend_test FOLDER [--known FILE] [--only TEXT] [--verbose]
//
// FOLDER holds KIND/NAME/model.onnx with test_data_set_N/{input,output}_N.pb, as the package
// libonnx-testdata installs them and export_backend_cases.py writes them. FILE lists the cases that
// are not expected to pass, "NAME reason" a line. Fails on any failure that is not on the list, and
// on any case on the list that passes.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <protozero/pbf_reader.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/half_floats.h"
#include "evaluator/sequence.h"
#include "evaluator/small_formats.h"
#include "model/onnx.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

struct Tolerance {
  double relative = 1e-3, absolute = 1e-7;
};

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Tensor ParseTensor(std::string_view bytes) {
  std::string name;
  return ParseTensorProto(std::as_bytes(std::span<const char>(bytes)), name);
}

// Of TypeProto: which of its kinds, and what an optional holds.
enum TypeKind : uint32_t { kTensorType = 1, kSequenceType = 4, kOptionalType = 9 };

// A SequenceProto has its tensors in field 3; an OptionalProto a tensor in 3 or a sequence in 5.
Tensor ParseValue(std::string_view bytes, std::string_view type) {
  protozero::pbf_reader kind{type.data(), type.size()};
  if (type.empty() || !kind.next() || kind.tag() == kTensorType) return ParseTensor(bytes);
  const uint32_t tag = kind.tag();
  std::vector<Tensor> items;
  protozero::pbf_reader reader{bytes.data(), bytes.size()};
  while (reader.next()) {
    if (reader.tag() != 3 && reader.tag() != 5) {
      reader.skip();
      continue;
    }
    const bool is_sequence = reader.tag() == 5;
    const auto view = reader.get_view();
    const std::string_view inner(view.data(), view.size());
    // The type of an optional's sequence is not needed: its items are tensors in all cases.
    items.push_back(is_sequence ? ParseValue(inner, "\x22") : ParseTensor(inner));
  }
  if (tag == kSequenceType) return MakeSequence(std::move(items));
  return items.empty() ? Tensor() : items.front();
}

// `infos`: the model's inputs or outputs, which say what the files hold.
std::vector<Tensor> ReadValues(const fs::path& folder, const std::string& kind,
                               const std::vector<ValueInfo>& infos) {
  std::vector<Tensor> values;
  for (size_t i = 0; fs::exists(folder / (kind + "_" + std::to_string(i) + ".pb")); ++i) {
    const std::string type = i < infos.size() ? infos[i].type_bytes : "";
    values.push_back(ParseValue(ReadFile(folder / (kind + "_" + std::to_string(i) + ".pb")), type));
  }
  return values;
}

// Nothing where the elements are not floats: those are compared bit by bit.
std::optional<std::vector<double>> Floats(const Tensor& tensor) {
  std::vector<double> values;
  switch (tensor.dtype()) {
    case DType::kFloat32:
      for (const float value : tensor.data<float>()) values.push_back(double{value});
      return values;
    case DType::kFloat64: {
      const std::span<const double> data = tensor.data<double>();
      return std::vector<double>(data.begin(), data.end());
    }
    case DType::kFloat16:
      for (const Float16 value : tensor.data<Float16>()) values.push_back(double{ToFloat(value)});
      return values;
    case DType::kBFloat16:
      for (const BFloat16 value : tensor.data<BFloat16>()) values.push_back(double{ToFloat(value)});
      return values;
    default:
      return std::nullopt;
  }
}

// Empty where they agree.
std::string Difference(const Tensor& got, const Tensor& wanted, Tolerance tolerance) {
  if (got.dtype() != wanted.dtype()) {
    return std::string("type ") + DTypeName(got.dtype()) + ", not " + DTypeName(wanted.dtype());
  }
  if (got.shape() != wanted.shape()) {
    return "shape " + ShapeText(got.shape()) + ", not " + ShapeText(wanted.shape());
  }
  if (got.dtype() == kSequence) {
    for (size_t i = 0; i < ItemsOf(got).size(); ++i) {
      const std::string fault = Difference(ItemsOf(got)[i], ItemsOf(wanted)[i], tolerance);
      if (!fault.empty()) return "item " + std::to_string(i) + ": " + fault;
    }
    return "";
  }
  const std::optional<std::vector<double>> a = Floats(got), b = Floats(wanted);
  if (!a) {
    if (got.dtype() == DType::kString) return got.strings() == wanted.strings() ? "" : "strings";
    return std::ranges::equal(got.bytes(), wanted.bytes()) ? "" : "integers differ";
  }
  for (size_t i = 0; i < a->size(); ++i) {
    const double x = (*a)[i], y = (*b)[i];
    const bool is_same = x == y || (std::isnan(x) && std::isnan(y));
    if (!is_same && !(std::abs(x - y) <= tolerance.absolute + tolerance.relative * std::abs(y))) {
      return "element " + std::to_string(i) + " is " + std::to_string(x) + ", not " +
             std::to_string(y);
    }
  }
  return "";
}

struct Case {
  std::string name;
  fs::path folder;
};

// Empty where the case passes.
std::string RunCase(const Case& test, bool fuses) {
  Tolerance tolerance;
  if (std::ifstream file(test.folder / "tolerance"); file) {
    file >> tolerance.relative >> tolerance.absolute;
  }
  ExecutorOptions options;
  options.fuse = fuses;
  try {
    const Executor executor(LoadOnnx(test.folder / "model.onnx"), options);
    for (int set = 0; fs::exists(test.folder / ("test_data_set_" + std::to_string(set))); ++set) {
      const fs::path data = test.folder / ("test_data_set_" + std::to_string(set));
      std::vector<Tensor> inputs = ReadValues(data, "input", executor.inputs());
      const std::vector<Tensor> wanted = ReadValues(data, "output", executor.outputs());
      inputs.resize(std::min(inputs.size(), executor.inputs().size()));
      const std::vector<Tensor> got = executor.Run(inputs);
      if (got.size() < wanted.size()) return "too few outputs";
      for (size_t i = 0; i < wanted.size(); ++i) {
        const std::string difference = Difference(got[i], wanted[i], tolerance);
        if (!difference.empty()) return "output " + std::to_string(i) + ": " + difference;
      }
    }
  } catch (const Error& error) {
    const char* kind = error.code() == ErrorCode::kUnsupported ? "unsupported: " : "error: ";
    return kind + std::string(error.what());
  }
  return "";
}

std::vector<Case> FindCases(const fs::path& folder, const std::string& only) {
  std::vector<Case> cases;
  for (const std::string kind : {"node", "simple", "pytorch-operator", "pytorch-converted"}) {
    if (!fs::exists(folder / kind)) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder / kind)) {
      const std::string name = kind + "/" + entry.path().filename().string();
      if (name.find(only) == std::string::npos) continue;
      if (fs::exists(entry.path() / "model.onnx")) cases.push_back({name, entry.path()});
    }
  }
  std::ranges::sort(cases, {}, &Case::name);
  return cases;
}

std::map<std::string, std::string> ReadKnown(const fs::path& path) {
  std::map<std::string, std::string> known;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.find(' ');
    known[line.substr(0, space)] = space == std::string::npos ? "" : line.substr(space + 1);
  }
  return known;
}

// What pared does not compute with, by what the model itself says. Empty: nothing.
std::string ReasonToSkip(const Case& test) {
  if (fs::exists(test.folder / "skip")) return ReadFile(test.folder / "skip");
  const std::string model = ReadFile(test.folder / "model.onnx");
  if (model.find("ai.onnx.preview.training") != std::string::npos) return "training";
  if (model.find("ai.onnx.ml") != std::string::npos) return "ml domain";
  return "";
}

int Main(const std::vector<std::string>& words) {
  std::string folder, only;
  bool is_verbose = false;
  std::map<std::string, std::string> known;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--known" && i + 1 < words.size()) {
      known = ReadKnown(words[++i]);
    } else if (words[i] == "--only" && i + 1 < words.size()) {
      only = words[++i];
    } else if (words[i] == "--verbose") {
      is_verbose = true;  // names each case before it runs, to find one that aborts
    } else {
      folder = words[i];
    }
  }
  if (!fs::exists(folder)) {
    std::printf("skipped: no folder %s\n", folder.c_str());
    return 77;
  }
  int passed = 0, failed = 0;
  std::map<std::string, int> skipped;
  for (const Case& test : FindCases(folder, only)) {
    const std::string reason = ReasonToSkip(test);
    if (!reason.empty()) {
      ++skipped[reason];
      continue;
    }
    if (is_verbose) std::fprintf(stderr, "%s\n", test.name.c_str());
    std::string fault = RunCase(test, false);
    if (fault.empty()) fault = RunCase(test, true);
    const auto it = known.find(test.name);
    if (it != known.end() && !fault.empty()) {
      ++skipped[it->second];
      continue;
    }
    if (it != known.end()) fault = "passes, but is on the list of those that do not";
    if (fault.empty()) {
      ++passed;
    } else {
      ++failed;
      std::printf("FAILED %s: %s\n", test.name.c_str(), fault.c_str());
    }
  }
  for (const auto& [reason, count] : skipped)
    std::printf("%d skipped: %s\n", count, reason.c_str());
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace
}  // namespace pared

int main(int argc, char** argv) {
  return pared::Main(std::vector<std::string>(argv + 1, argv + argc));
}
