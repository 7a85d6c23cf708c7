// The file that a run made, checked against the digest that the run recorded.
//
// A file comes into NAME.DIGEST.partial and is renamed when all of it is right: what stands under
// its own name is whole. A partial one is gone on with.

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "client/commands.h"
#include "config/sha256.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr int kTriesMax = 5;
constexpr size_t kDigestShown = 12;

struct Download {
  std::string target;
  std::string tag;  // the daemon's ETag, without quotes
  fs::path path;
  uintmax_t bytes = 0;  // of the whole
  fs::path partial() const {
    return path.string() + "." + tag.substr(0, kDigestShown) + ".partial";
  }
};

[[noreturn]] void ThrowFile(const std::string& what, const fs::path& path) {
  throw Error(ErrorCode::kInternal, what + ": " + std::strerror(errno), path.string());
}

uintmax_t SizeOf(const fs::path& path) {
  std::error_code absent;
  const uintmax_t size = fs::file_size(path, absent);
  return absent ? 0 : size;
}

// The name that the daemon gives a file, without any folder.
std::string NameIn(const HttpReply& reply) {
  const std::string header = reply.header("content-disposition");
  const std::string mark = "filename=\"";
  const size_t begin = header.find(mark);
  if (begin == header.npos) return "";
  const size_t end = header.find('"', begin + mark.size());
  const std::string name = header.substr(begin + mark.size(), end - begin - mark.size());
  return fs::path(name).filename().string();
}

// One request: from where the partial file ends, or from the start where the daemon does not know
// ranges.
HttpReply FetchSome(const Context& context, const Download& download) {
  const uintmax_t have = SizeOf(download.partial());
  HttpRequest request = {.target = download.target};
  if (have > 0) {
    request.headers["range"] = "bytes=" + std::to_string(have) + "-";
    request.headers["if-range"] = "\"" + download.tag + "\"";
  }
  std::ofstream file;
  const BodySink sink = [&](const HttpReply& reply, std::string_view piece) {
    if (!file.is_open()) {
      const auto mode = reply.status == 206 ? std::ios::app : std::ios::trunc;
      file.open(download.partial(), std::ios::binary | std::ios::out | mode);
    }
    file.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (!file) ThrowFile("cannot write", download.partial());
    return true;
  };
  HttpReply reply = context.daemon.Exchange(std::move(request), sink);
  if (!file.is_open()) return reply;
  file.close();
  if (!file) ThrowFile("cannot write", download.partial());
  return reply;
}

void Fetch(const Context& context, const Download& download) {
  if (SizeOf(download.partial()) > download.bytes) fs::remove(download.partial());
  for (int tries = 0; SizeOf(download.partial()) < download.bytes; ++tries) {
    const uintmax_t before = SizeOf(download.partial());
    if (tries == kTriesMax) {
      throw Error(ErrorCode::kUnavailable,
                  "the connection broke after " + std::to_string(before) + " of " +
                      std::to_string(download.bytes) +
                      " bytes; the same command goes on from there",
                  download.path.string());
    }
    FetchSome(context, download);
    if (SizeOf(download.partial()) > before) tries = 0;
  }
  if (!fs::exists(download.partial())) std::ofstream(download.partial()).close();  // of no bytes
}

uintmax_t LengthOf(const HttpReply& reply) {
  const std::string length = reply.header("content-length");
  return length.empty() ? 0 : std::stoull(length);
}

std::string RunTarget(const PullOptions& options) {
  return "/v1/runs/" + std::to_string(options.run);
}

std::string ModelTarget(const PullOptions& options) {
  return RunTarget(options) + "/model?form=" + options.form;
}

// Where the model goes: a name that ends with a slash, or a folder, takes the daemon's name.
fs::path PathFor(const std::string& out, const std::string& name) {
  const fs::path path = out;
  if (out.empty()) return name;
  return fs::is_directory(path) || out.ends_with('/') ? path / name : path;
}

// What the run recorded of the file in that form.
std::string DigestOf(const Context& context, const PullOptions& options, const Json& run) {
  if (!run.at("artifact").is_string()) {
    throw Error(ErrorCode::kNotFound, "this run made no model",
                "run " + std::to_string(options.run));
  }
  if (options.form == "onnx") return run.at("artifact").get<std::string>();
  const Json::json_pointer digest("/lineage/tflite_sha256");
  if (!run.contains(digest)) {
    context.daemon.Get(ModelTarget(options));  // refuses, with the reason
  }
  return run.at(digest).get<std::string>();
}

// The model's file; and that of its data, where it has one.
std::vector<Download> DownloadsOf(const Context& context, const PullOptions& options,
                                  const std::string& sha256) {
  const std::string target = ModelTarget(options);
  const std::optional<HttpReply> head = context.daemon.Head(target);
  if (!head) throw Error(ErrorCode::kNotFound, "the daemon no longer has the file", target);
  const fs::path model = PathFor(options.out, NameIn(*head));
  std::vector<Download> downloads = {{target, sha256, model, LengthOf(*head)}};
  if (options.form != "onnx") return downloads;
  // The model refers to its data file by name, so that name cannot be chosen.
  const std::string data_target = RunTarget(options) + "/model/data";
  if (const auto data = context.daemon.Head(data_target)) {
    downloads.push_back(
        {data_target, sha256 + "-data", model.parent_path() / NameIn(*data), LengthOf(*data)});
  }
  return downloads;
}

}  // namespace

int Pull(const Context& context, const PullOptions& options) {
  const Json run = context.daemon.Get(RunTarget(options), "`pare history` lists runs");
  const std::string sha256 = DigestOf(context, options, run);
  const std::vector<Download> downloads = DownloadsOf(context, options, sha256);
  const fs::path& model = downloads.front().path;
  if (model.has_parent_path()) fs::create_directories(model.parent_path());
  Sha256 digest;
  for (const Download& download : downloads) {
    Fetch(context, download);
    AddFile(download.partial(), digest);
  }
  if (const std::string got = digest.Finish(); got != sha256) {
    for (const Download& download : downloads) fs::remove(download.partial());
    throw Error(ErrorCode::kInternal,
                "what came has the SHA-256 " + got + ", the run recorded " + sha256 +
                    "; nothing was kept, try again",
                model.string());
  }
  Json files = Json::array();
  for (const Download& download : downloads) {
    fs::rename(download.partial(), download.path);
    files.push_back({{"file", download.path.string()}, {"bytes", download.bytes}});
  }
  if (context.is_json) {
    context.terminal.out << DumpJson({{"run", options.run}, {"sha256", sha256}, {"files", files}})
                         << "\n";
    return kExitDone;
  }
  for (const Json& file : files) {
    context.terminal.out << file.at("file").get<std::string>() << "  "
                         << HumanText("size_bytes", file.at("bytes")) << "\n";
  }
  context.terminal.out << "sha256 " << sha256 << " as recorded\n";
  return kExitDone;
}

}  // namespace pared
