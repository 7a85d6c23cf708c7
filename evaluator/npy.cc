// NumPy .npy files: a magic number, a version, a Python dict literal as text, then the elements.
//
//   "\x93NUMPY" major minor | header bytes (u16 for version 1, u32 after) | header | elements
//   {'descr': '<f4', 'fortran_order': False, 'shape': (5000, 1, 28, 28), }

#include "evaluator/npy.h"

#include <array>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "model/mapped_file.h"

namespace pared {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kHeaderBytesMax = 64 * 1024;

[[noreturn]] void Reject(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

// What follows `'key':` in the dict literal, blanks skipped.
std::optional<std::string_view> FindValue(std::string_view header, std::string_view key) {
  for (const char quote : {'\'', '"'}) {
    const std::string quoted = quote + std::string(key) + quote;
    const size_t at = header.find(quoted);
    if (at == std::string_view::npos) continue;
    std::string_view rest = header.substr(at + quoted.size());
    const size_t begin = rest.find_first_not_of(" :");
    return begin == std::string_view::npos ? std::string_view() : rest.substr(begin);
  }
  return std::nullopt;
}

std::optional<DType> DTypeOfDescr(std::string_view descr) {
  struct Entry {
    std::string_view descr;
    DType dtype;
  };
  static constexpr std::array<Entry, 12> kTable = {{{"f4", DType::kFloat32},
                                                    {"f8", DType::kFloat64},
                                                    {"f2", DType::kFloat16},
                                                    {"i1", DType::kInt8},
                                                    {"i2", DType::kInt16},
                                                    {"i4", DType::kInt32},
                                                    {"i8", DType::kInt64},
                                                    {"u1", DType::kUInt8},
                                                    {"u2", DType::kUInt16},
                                                    {"u4", DType::kUInt32},
                                                    {"u8", DType::kUInt64},
                                                    {"b1", DType::kBool}}};
  if (descr.size() != 3 || (descr[0] != '<' && descr[0] != '|' && descr[0] != '=')) {
    return std::nullopt;
  }
  for (const Entry& entry : kTable) {
    if (entry.descr == descr.substr(1)) return entry.dtype;
  }
  return std::nullopt;
}

DType ParseDescr(std::string_view header, const std::string& where) {
  const std::optional<std::string_view> value = FindValue(header, "descr");
  if (!value || value->empty()) Reject(where, "the .npy header has no 'descr'");
  const size_t end = value->find(value->front(), 1);
  if (end == std::string_view::npos) Reject(where, "the .npy header's 'descr' is no simple type");
  const std::string_view descr = value->substr(1, end - 1);
  const std::optional<DType> dtype = DTypeOfDescr(descr);
  if (!dtype) {
    Reject(where, "element type '" + std::string(descr) +
                      "' is not one of little-endian f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1");
  }
  return *dtype;
}

Shape ParseShape(std::string_view header, const std::string& where) {
  const std::optional<std::string_view> value = FindValue(header, "shape");
  if (!value || value->empty() || value->front() != '(') {
    Reject(where, "the .npy header has no 'shape'");
  }
  const size_t end = value->find(')');
  if (end == std::string_view::npos) Reject(where, "the .npy header's 'shape' does not end");
  Shape shape;
  std::string_view rest = value->substr(1, end - 1);
  while (true) {
    const size_t begin = rest.find_first_not_of(" ,");
    if (begin == std::string_view::npos) return shape;
    rest.remove_prefix(begin);
    int64_t size = -1;
    const auto [next, fault] = std::from_chars(rest.data(), rest.data() + rest.size(), size);
    if (fault != std::errc() || size < 0)
      Reject(where, "the .npy header's 'shape' is not integers");
    shape.push_back(size);
    rest.remove_prefix(static_cast<size_t>(next - rest.data()));
  }
}

// Offset of the elements; `header` is set to the dict literal.
size_t ParsePreamble(std::span<const std::byte> bytes, std::string_view& header,
                     const std::string& where) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.size() < 12 || !text.starts_with(kMagic)) Reject(where, "not a .npy file");
  const auto byte = [&](size_t i) {
    return static_cast<size_t>(std::to_integer<uint8_t>(bytes[i]));
  };
  const size_t major = byte(6);
  if (major < 1 || major > 3) {
    Reject(where, ".npy format version " + std::to_string(major) + " is not 1, 2 or 3");
  }
  const size_t preamble = major == 1 ? 10 : 12;
  size_t header_bytes = byte(8) | byte(9) << 8;
  if (major > 1) header_bytes |= byte(10) << 16 | byte(11) << 24;
  if (header_bytes > kHeaderBytesMax || preamble + header_bytes > text.size()) {
    Reject(where, "the .npy header is truncated or too long");
  }
  header = text.substr(preamble, header_bytes);
  return preamble + header_bytes;
}

}  // namespace

Tensor ParseNpy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                const std::string& where) {
  std::string_view header;
  const size_t offset = ParsePreamble(bytes, header, where);
  const DType dtype = ParseDescr(header, where);
  const Shape shape = ParseShape(header, where);
  const std::optional<std::string_view> order = FindValue(header, "fortran_order");
  if (!order || !order->starts_with("False")) {
    Reject(where, "must be in C order ('fortran_order': False)");
  }
  const int64_t needed = PackedBytes(dtype, shape);
  const size_t present = bytes.size() - offset;
  if (static_cast<uint64_t>(needed) != present) {
    Reject(where, "shape " + ShapeText(shape) + " needs " + std::to_string(needed) +
                      " bytes of elements, the file has " + std::to_string(present));
  }
  return Tensor::View(dtype, shape, bytes.subspan(offset), std::move(owner));
}

Tensor LoadNpy(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
  const Tensor view = ParseNpy(file->bytes(), file, path.string());
  return Tensor::MappedView(view.dtype(), view.shape(), view.bytes(), file);
}

void SaveNpy(const Tensor& tensor, const std::filesystem::path& path) {
  static constexpr std::array<const char*, 12> kDescr = {"",    "<f4", "|u1", "|i1", "<u2", "<i2",
                                                         "<i4", "<i8", "",    "|b1", "<f2", "<f8"};
  const size_t index = static_cast<size_t>(tensor.dtype());
  if (index >= kDescr.size() || *kDescr[index] == '\0') {
    throw Error(ErrorCode::kUnsupported,
                std::string("no .npy type for ") + DTypeName(tensor.dtype()), path.string());
  }
  std::string shape;
  for (const int64_t size : tensor.shape()) shape += std::to_string(size) + ", ";
  std::string header = std::string("{'descr': '") + kDescr[index] +
                       "', 'fortran_order': False, 'shape': (" + shape + "), }";
  // NumPy wants the elements aligned to 64 bytes and the header ended by a newline.
  const size_t unpadded = kMagic.size() + 4 + header.size() + 1;
  header.append((64 - unpadded % 64) % 64, ' ').push_back('\n');
  std::string preamble(kMagic);
  preamble +=
      {'\1', '\0', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};

  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << preamble << header;
  const std::span<const std::byte> bytes = tensor.bytes();
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.flush();
  if (!out) throw Error(ErrorCode::kUnavailable, "cannot write", path.string());
}

}  // namespace pared
