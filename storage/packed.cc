#include "storage/packed.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "base/aside_file.h"
#include "base/error.h"
#include "storage/block_coding.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "PAREDPK1";
constexpr uint64_t kNameBytesMax = 255;
// A block's header, and two parts with theirs; a part is no longer than zstd makes the worst block.
constexpr size_t kBlockBytesMax = 2 * (kPackedBlockBytes + (kPackedBlockBytes >> 6)) + 64;

// Files that appear under their names when all are whole: written under others, then renamed. What
// was begun is removed where Keep() is not reached.
class Begun {
 public:
  ~Begun() {
    std::error_code ignored;
    for (const File& file : files_) fs::remove(file.is_kept ? file.path : file.aside, ignored);
    for (const fs::path& folder : folders_) fs::remove(folder, ignored);
  }

  std::ofstream Create(const fs::path& path) {
    CreateFolders(path.parent_path());
    const AsideFile aside = CreateAside(path);
    if (aside.descriptor < 0) Fail("created", errno, path);
    ::close(aside.descriptor);
    files_.push_back({path, aside.path});
    std::ofstream out(aside.path, std::ios::binary);
    if (!out) Fail("created", errno, path);
    return out;
  }

  // The first file last: a model whose data is missing cannot be read.
  std::vector<fs::path> Keep() {
    std::vector<fs::path> paths(files_.size());
    for (size_t i = files_.size(); i-- > 0;) {
      std::error_code error;
      fs::rename(files_[i].aside, files_[i].path, error);
      if (error) Fail("written", error.value(), files_[i].path);
      files_[i].is_kept = true;
      paths[i] = files_[i].path;
    }
    files_.clear();
    folders_.clear();
    return paths;
  }

 private:
  struct File {
    fs::path path, aside;
    bool is_kept = false;
  };

  void CreateFolders(const fs::path& folder) {
    std::error_code ignored;  // what it means, the file will tell
    std::vector<fs::path> missing;
    for (fs::path p = folder; !p.empty() && !fs::exists(p, ignored); p = p.parent_path()) {
      missing.push_back(p);
    }
    folders_.insert(folders_.begin(), missing.begin(), missing.end());
    fs::create_directories(folder, ignored);
  }

  [[noreturn]] static void Fail(const std::string& done, int error, const fs::path& path) {
    const bool is_full = error == ENOSPC || error == EDQUOT;
    throw Error(is_full ? ErrorCode::kUnavailable : ErrorCode::kInternal,
                "cannot be " + done + ": " + std::strerror(error), path.string());
  }

  std::vector<File> files_;
  std::vector<fs::path> folders_;  // that were not there, the deepest first
};

void Write(std::ofstream& out, std::string_view bytes, const fs::path& path) {
  if (out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()))) return;
  throw Error(ErrorCode::kUnavailable, "cannot be written: is the disk full?", path.string());
}

void Close(std::ofstream& out, const fs::path& path) {
  out.close();
  if (!out) throw Error(ErrorCode::kUnavailable, "cannot be written", path.string());
}

// Reads a packed file through a window.
class PackedReader {
 public:
  explicit PackedReader(const fs::path& path) : in_(path, std::ios::binary), bytes_("", path) {
    if (!in_) throw Error(ErrorCode::kNotFound, "cannot be opened", path.string());
  }

  // Has a whole block before it, or all that is left of the file.
  ByteReader& bytes() {
    if (bytes_.rest().size() >= kBlockBytesMax || !in_) return bytes_;
    std::string window(bytes_.rest());
    const size_t begin = window.size();
    window.resize(4 * kBlockBytesMax);
    in_.read(window.data() + begin, static_cast<std::streamsize>(window.size() - begin));
    window.resize(begin + static_cast<size_t>(in_.gcount()));
    window_ = std::move(window);
    bytes_.set_rest(window_);
    return bytes_;
  }

 private:
  std::ifstream in_;
  std::string window_;
  ByteReader bytes_;
};

// Names of files, and of files in folders, that lie beneath where they are unpacked.
bool IsNameBeneath(const std::string& name) {
  if (name.empty() || name.find('\0') != std::string::npos) return false;
  const fs::path path(name);
  return !path.is_absolute() && std::all_of(path.begin(), path.end(), [](const fs::path& part) {
    return !part.empty() && part != "." && part != "..";
  });
}

// How `file` is found from `folder`, in whose files it must lie.
std::string NameFrom(const fs::path& folder, const fs::path& file) {
  auto [rest_of_folder, part] =
      std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  fs::path name;
  for (; part != file.end(); ++part) {
    if (*part != ".") name /= *part;
  }
  if (rest_of_folder != folder.end() || !IsNameBeneath(name)) {
    throw Error(ErrorCode::kInvalidArgument,
                "cannot be packed: its name does not lead from the model's folder straight to it",
                file.string());
  }
  if (name.string().size() > kNameBytesMax) {
    throw Error(ErrorCode::kInvalidArgument, "has a name of more than 255 bytes", file.string());
  }
  return name;
}

struct NamedFile {
  fs::path path;
  std::string name;
};

void PackFile(const NamedFile& named, std::ofstream& out, const fs::path& packed) {
  const auto& [file, name] = named;
  std::ifstream in(file, std::ios::binary);
  std::error_code error;
  uint64_t left = fs::file_size(file, error);
  if (!in || error) throw Error(ErrorCode::kNotFound, "cannot be read", file.string());
  std::string head;
  AppendNumber(head, name.size(), 1);
  head += name;
  AppendNumber(head, left, 8);
  Write(out, head, packed);
  std::string block(kPackedBlockBytes, '\0');
  while (left > 0) {
    block.resize(std::min<uint64_t>(kPackedBlockBytes, left));
    if (!in.read(block.data(), static_cast<std::streamsize>(block.size()))) {
      throw Error(ErrorCode::kInternal, "cannot be read", file.string());
    }
    Write(out, EncodeBlock(block), packed);
    left -= block.size();
  }
}

struct Unpacking {
  const fs::path& folder;
  int64_t bytes_left;
  std::set<std::string> names;
  Begun begun;
};

// Nothing may be at `path`, and only folders on the way: a link would lead elsewhere.
void CheckPlace(const fs::path& folder, const fs::path& path) {
  std::error_code error;
  if (fs::exists(fs::symlink_status(path, error))) {
    throw Error(ErrorCode::kConflict, "exists already", path.string());
  }
  const fs::path end = (folder / "x").parent_path();  // without a slash at its end
  for (fs::path p = path.parent_path(); p != end && p.has_relative_path(); p = p.parent_path()) {
    const fs::file_status status = fs::symlink_status(p, error);
    if (!fs::exists(status) || fs::is_directory(status)) continue;
    throw Error(ErrorCode::kConflict, "exists already, and is no folder", p.string());
  }
}

void UnpackFile(PackedReader& reader, uint64_t name_size, Unpacking& to) {
  const std::string name(reader.bytes().Take(name_size));
  if (!IsNameBeneath(name)) reader.bytes().Fail("a file's name is no name");
  uint64_t left = reader.bytes().Number(8);
  if (left > static_cast<uint64_t>(to.bytes_left)) {
    reader.bytes().Fail("it says that \"" + name + "\" has " + std::to_string(left) +
                        " bytes; at most " + std::to_string(to.bytes_left) + " are allowed");
  }
  to.bytes_left -= static_cast<int64_t>(left);
  const fs::path path = to.folder / name;
  if (!to.names.insert(name).second) reader.bytes().Fail("a file's name stands there twice");
  CheckPlace(to.folder, path);
  std::ofstream out = to.begun.Create(path);
  while (left > 0) {
    const std::string content = DecodeBlock(reader.bytes(), left);
    Write(out, content, path);
    left -= content.size();
  }
  Close(out, path);
}

}  // namespace

void PackFiles(const std::vector<fs::path>& files, const fs::path& packed) {
  std::vector<NamedFile> named;
  for (const fs::path& file : files) {
    named.push_back({file, NameFrom(files[0].parent_path(), file)});
  }
  Begun begun;
  std::ofstream out = begun.Create(packed);
  Write(out, kMagic, packed);
  for (const NamedFile& file : named) PackFile(file, out, packed);
  Write(out, std::string_view("\0", 1), packed);
  Close(out, packed);
  begun.Keep();
}

std::vector<fs::path> UnpackFiles(const fs::path& packed, const fs::path& folder,
                                  int64_t bytes_max) {
  PackedReader reader(packed);
  if (!reader.bytes().rest().starts_with(kMagic)) {
    throw Error(ErrorCode::kInvalidArgument, "is no packed file of pared's", packed.string());
  }
  reader.bytes().Take(kMagic.size());
  Unpacking to = {folder, bytes_max, {}, {}};
  while (const uint64_t name_size = reader.bytes().Number(1)) UnpackFile(reader, name_size, to);
  if (!reader.bytes().rest().empty()) reader.bytes().Fail("it goes on after its end");
  return to.begun.Keep();
}

}  // namespace pared
