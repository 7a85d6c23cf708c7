// `pared pack` and `pared unpack`: a model file, and the files of its external data, to and from
// one packed file.

#include <filesystem>
#include <limits>
#include <ostream>

#include "daemon/arguments.h"
#include "daemon/commands.h"
#include "evaluator/evaluate.h"
#include "model/onnx.h"
#include "storage/packed.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

struct PackOptions {
  std::string model, out;
};

void Fields(FieldVisitor& f, PackOptions& o) {
  f.Required();
  f.Text("model", o.model, TextRule::kAny,
         "The ONNX file; the files that its tensors lie in go with it.");
  f.Required();
  f.Text("out", o.out, TextRule::kAny, "Where the packed file is written.");
}

struct UnpackOptions {
  std::string model, out = ".";
  int64_t bytes_max = int64_t{64} << 30;
};

void Fields(FieldVisitor& f, UnpackOptions& o) {
  f.Required();
  f.Text("model", o.model, TextRule::kAny, "The packed file.");
  f.Text("out", o.out, TextRule::kAny, "The folder that its files are written to.");
  f.Integer("bytes_max", o.bytes_max, {1, std::numeric_limits<int64_t>::max()},
            "A file that expands to more is refused.");
}

}  // namespace

void RunPack(const std::vector<std::string>& arguments, std::ostream& out) {
  const auto options = ReadArguments<PackOptions>(arguments);
  PackFiles(ModelFiles(options.model), options.out);
  out << DumpJson({{"out", options.out},
                   {"bytes", FileBytes(options.model)},
                   {"packed_bytes", fs::file_size(options.out)}})
      << "\n";
}

void RunUnpack(const std::vector<std::string>& arguments, std::ostream& out) {
  const auto options = ReadArguments<UnpackOptions>(arguments);
  Json files = Json::array();
  for (const fs::path& file : UnpackFiles(options.model, options.out, options.bytes_max)) {
    files.push_back(file.string());
  }
  out << DumpJson({{"files", std::move(files)}}) << "\n";
}

Json PackFlags() { return DescribeFields<PackOptions>(); }
Json UnpackFlags() { return DescribeFields<UnpackOptions>(); }

}  // namespace pared
