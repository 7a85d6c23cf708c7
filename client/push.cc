// A model on its way to the daemon.

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>

#include "client/commands.h"
#include "config/sha256.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPartBytes = int64_t{16} << 20;
constexpr int kTriesMax = 5;  // without a byte more
constexpr auto kPause = std::chrono::milliseconds(300);

int64_t SizeOf(const fs::path& file) {
  if (fs::is_regular_file(file)) return static_cast<int64_t>(fs::file_size(file));
  throw Error(ErrorCode::kNotFound, "there is no such file", file.string());
}

std::string DigestOf(const fs::path& file) {
  Sha256 sha256;
  AddFile(file, sha256);
  return sha256.Finish();
}

int64_t OffsetOf(const HttpReply& reply) {
  const std::string text = reply.header("upload-offset");
  return text.empty() ? 0 : std::stoll(text);
}

std::string PartOf(const fs::path& file, int64_t offset, int64_t bytes) {
  std::string part(static_cast<size_t>(bytes), '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.seekg(offset);
  stream.read(part.data(), bytes);
  if (stream.gcount() == bytes) return part;
  throw Error(ErrorCode::kInternal, "is shorter than it was a moment ago", file.string());
}

// Sends what is missing of a file; gives its SHA-256.
std::string Upload(const Context& context, const fs::path& file) {
  const int64_t size = SizeOf(file);
  const std::string sha256 = DigestOf(file);
  const std::string target = "/v1/uploads/" + sha256;
  int64_t offset = 0;
  if (const auto head = context.daemon.Head(target)) offset = OffsetOf(*head);
  for (int tries = 0; offset < size;) {
    const int64_t bytes = std::min(kPartBytes, size - offset);
    HttpRequest request = {.method = "PUT", .target = target};
    request.headers["content-range"] = "bytes " + std::to_string(offset) + "-" +
                                       std::to_string(offset + bytes - 1) + "/" +
                                       std::to_string(size);
    request.body = PartOf(file, offset, bytes);
    const int64_t before = offset;
    const std::optional<HttpReply> reply = context.daemon.TryExchange(std::move(request));
    if (reply) {
      offset = OffsetOf(*reply);
    } else {
      std::this_thread::sleep_for(kPause);
      const std::optional<HttpReply> head = context.daemon.Head(target);
      offset = head ? OffsetOf(*head) : 0;
    }
    tries = offset > before ? 0 : tries + 1;
    if (tries < kTriesMax) continue;
    throw Error(ErrorCode::kUnavailable,
                "the connection broke after " + std::to_string(offset) + " of " +
                    std::to_string(size) + " bytes; the same command goes on from there",
                file.string());
  }
  return sha256;
}

}  // namespace

std::string NameOfFile(const std::string& file) {
  std::string name = fs::path(file).stem().string();
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool is_fit = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_';
    if (!is_fit) c = '-';
  }
  return name;
}

Json RegisterFile(const Context& context, const PushOptions& options) {
  const std::string name = options.as.empty() ? NameOfFile(options.file) : options.as;
  CheckName(name, "--as");
  const std::string target = "/v1/models/" + name;
  const int64_t size = SizeOf(options.file);
  std::vector<std::string> data = options.data;
  if (data.empty() && fs::exists(options.file + ".data")) data.push_back(options.file + ".data");
  if (data.empty() && size <= kPartBytes) {
    return ParseJson(
        context.daemon.Exchange({.method = "PUT", .target = target, .file = options.file}).body);
  }
  Json body = {{"upload", Upload(context, options.file)}, {"data", Json::array()}};
  for (const std::string& file : data) {
    body["data"].push_back(
        {{"name", fs::path(file).filename().string()}, {"upload", Upload(context, file)}});
  }
  return context.daemon.Send("PUT", target, body);
}

int Push(const Context& context, const PushOptions& options) {
  const Json record = RegisterFile(context, options);
  if (context.is_json) {
    context.terminal.out << DumpJson(record) << "\n";
  } else {
    context.terminal.out << "registered " << record.at("name").get<std::string>() << ", "
                         << HumanText("size_bytes", record.at("bytes")) << ", sha256 "
                         << record.at("sha256").get<std::string>() << "\n";
  }
  return kExitDone;
}

}  // namespace pared
