// NumPy .npz files: zip archives whose members are NAME.npy, read by libzip.

#include <zip.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/joined.h"
#include "evaluator/npy.h"

namespace pared {
namespace {

constexpr std::string_view kSuffix = ".npy";
// Archives are not mapped, so that an array takes its size in memory.
constexpr uint64_t kArrayBytesMax = uint64_t{4} << 30;
constexpr int64_t kMembersMax = 10'000;
// Deflate cannot do better: more is a false size, and no memory is taken for it.
constexpr uint64_t kExpansionMax = 1032;

[[noreturn]] void Refuse(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

struct Closer {
  void operator()(zip_t* archive) const { zip_discard(archive); }
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Archive = std::unique_ptr<zip_t, Closer>;
using Member = std::unique_ptr<zip_file_t, Closer>;

Archive OpenArchive(const std::filesystem::path& path) {
  int code = 0;
  Archive archive(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (archive == nullptr) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string text = zip_error_strerror(&error);
    zip_error_fini(&error);
    if (code == ZIP_ER_NOENT) throw Error(ErrorCode::kNotFound, "cannot open", path.string());
    Refuse(path.string(), "is no .npz file that can be read: " + text);
  }
  if (zip_get_num_entries(archive.get(), 0) > kMembersMax) {
    Refuse(path.string(), "holds more than " + std::to_string(kMembersMax) + " arrays");
  }
  return archive;
}

// The array that a member holds; nullopt: it is none.
std::optional<std::string> ArrayName(zip_t* archive, int64_t index) {
  const char* name = zip_get_name(archive, static_cast<zip_uint64_t>(index), 0);
  std::string_view text = name == nullptr ? "" : name;
  if (!text.ends_with(kSuffix)) return std::nullopt;
  text.remove_suffix(kSuffix.size());
  return std::string(text);
}

std::vector<std::string> ArrayNames(zip_t* archive) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < zip_get_num_entries(archive, 0); ++i) {
    if (std::optional<std::string> name = ArrayName(archive, i)) names.push_back(*std::move(name));
  }
  return names;
}

int64_t FindMember(zip_t* archive, const std::filesystem::path& path, const std::string& array) {
  const std::string member = array + std::string(kSuffix);
  const int64_t index = zip_name_locate(archive, member.c_str(), 0);
  if (index >= 0) return index;
  const std::string others = Joined(ArrayNames(archive));
  Refuse(path.string() + ":" + array,
         "there is no such array; the file has " + (others.empty() ? "none" : others));
}

// The member's bytes. The archive's own word for their number is not trusted: what is read is
// counted, and libzip compares the checksum when the end has been seen.
std::vector<std::byte> ReadMember(zip_t* archive, int64_t index, const std::string& where) {
  zip_stat_t stat;
  zip_stat_init(&stat);
  const auto at = static_cast<zip_uint64_t>(index);
  if (zip_stat_index(archive, at, 0, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
    Refuse(where, "the archive does not tell its size");
  }
  if (stat.size > kArrayBytesMax) {
    Refuse(where, "has " + std::to_string(stat.size) + " bytes, at most " +
                      std::to_string(kArrayBytesMax) + " are read from an .npz; keep it as .npy");
  }
  if ((stat.valid & ZIP_STAT_COMP_SIZE) != 0 && stat.size > (stat.comp_size + 1) * kExpansionMax) {
    Refuse(where, "is damaged: " + std::to_string(stat.comp_size) + " bytes cannot hold " +
                      std::to_string(stat.size));
  }
  const Member member(zip_fopen_index(archive, at, 0));
  if (member == nullptr) Refuse(where, std::string("cannot be read: ") + zip_strerror(archive));
  std::vector<std::byte> bytes(stat.size);
  size_t got = 0;
  while (got < bytes.size()) {
    const int64_t more = zip_fread(member.get(), bytes.data() + got, bytes.size() - got);
    if (more <= 0) break;
    got += static_cast<size_t>(more);
  }
  std::byte beyond{};
  const int64_t rest = got == bytes.size() ? zip_fread(member.get(), &beyond, 1) : -1;
  if (rest != 0) Refuse(where, std::string("is damaged: ") + zip_file_strerror(member.get()));
  return bytes;
}

}  // namespace

std::vector<std::string> NpzArrays(const std::filesystem::path& path) {
  return ArrayNames(OpenArchive(path).get());
}

Tensor LoadNpz(const std::filesystem::path& path, const std::string& array) {
  const std::string where = path.string() + ":" + array;
  const Archive archive = OpenArchive(path);
  const int64_t index = FindMember(archive.get(), path, array);
  auto bytes =
      std::make_shared<const std::vector<std::byte>>(ReadMember(archive.get(), index, where));
  return ParseNpy(*bytes, bytes, where);
}

}  // namespace pared
