#include "model/onnx_tensor.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>

#include "model/wire.h"

namespace pared {
namespace {

constexpr int64_t kExternal = 1;  // TensorProto.DataLocation

struct External {
  std::string location;
  int64_t offset = 0;
  std::optional<int64_t> length;  // absent: what the shape needs
};

// Everything of a TensorProto but its elements, and where those are.
struct Header {
  std::string name;
  int64_t data_type = 0;
  Shape dims;
  std::string_view raw;  // the elements as raw_data has them, where they lie so on the wire
  int64_t location = 0;
  std::vector<std::pair<std::string, std::string>> external;
  uint32_t data_field = 0;  // the field that holds the elements; 0: none
  size_t data_bytes = 0;    // of all its occurrences, on the wire
  Unknown unknown;
};

[[noreturn]] void Fail(const std::string& message, const std::string& where) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

std::span<const std::byte> BytesOf(std::string_view bytes) {
  return std::as_bytes(std::span(bytes.data(), bytes.size()));
}

bool IsDataField(uint32_t field) {
  return (field >= 4 && field <= 7) || (field >= 9 && field <= 11);
}

// Empty occurrences say nothing: writers leave an empty raw_data beside typed data.
void NoteData(WireReader& reader, Header& header, const std::string& fallback_where) {
  const uint32_t field = reader.field();
  const std::string_view content = reader.SkipContent();
  if (content.empty()) {
    if (field == 9) reader.CarryRead(header.unknown);
    return;
  }
  if (header.data_field != 0 && header.data_field != field) {
    Fail("the tensor has data in two fields", header.name.empty() ? fallback_where : header.name);
  }
  // A packed run of fixed-size numbers lies on the wire as it does in raw_data.
  const bool is_raw = field == 9 || ((field == 4 || field == 10) && reader.is_packed());
  header.raw = is_raw && header.data_bytes == 0 ? content : std::string_view();
  header.data_field = field;
  header.data_bytes += content.size();
}

Header ReadHeader(std::string_view message, const std::string& fallback_where) {
  Header header;
  WireReader reader(message, "TensorProto");
  while (reader.Next()) {
    if (IsDataField(reader.field())) {
      NoteData(reader, header, fallback_where);
      continue;
    }
    switch (reader.field()) {
      case 1:
        reader.EachInt64([&](int64_t dim) { header.dims.push_back(dim); });
        break;
      case 2:
        header.data_type = reader.Int64();
        break;
      case 3:
        throw Error(ErrorCode::kUnsupported, "a tensor stored in segments", fallback_where);
      case 8:
        reader.String(header.name, header.unknown);
        break;
      case 13:
        header.external.push_back(ReadEntry(reader.Bytes()));
        break;
      case 14:
        header.location = reader.Int64();
        break;
      default:
        reader.Carry(header.unknown);
    }
  }
  return header;
}

int64_t ParseNumber(const std::string& key, const std::string& text, const std::string& where) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 0) {
    Fail("external data with " + key + " '" + text + "'; a number of bytes is needed", where);
  }
  return value;
}

// Keys other than these (checksum, and what writers add) say nothing about where the bytes are.
External ParseExternal(const Header& header, const std::string& where) {
  External external;
  for (const auto& [key, value] : header.external) {
    if (key == "location") external.location = value;
    if (key == "offset") external.offset = ParseNumber(key, value, where);
    if (key == "length") external.length = ParseNumber(key, value, where);
  }
  return external;
}

Tensor ReadExternal(const Header& header, DType dtype, TensorSource& source,
                    const std::string& where) {
  if (source.folder.empty()) Fail("external data is not allowed here", where);
  const External external = ParseExternal(header, where);
  const int64_t size = PackedBytes(dtype, header.dims);
  if (external.length.value_or(size) != size) {
    Fail("external data has length " + std::to_string(*external.length) + "; the shape needs " +
             std::to_string(size),
         where);
  }
  std::shared_ptr<const MappedFile>& file = source.external[external.location];
  if (file == nullptr) {
    file = MappedFile::OpenBeneath(source.folder, external.location, where);
  }
  const auto file_size = static_cast<int64_t>(file->bytes().size());
  if (external.offset > file_size || size > file_size - external.offset) {
    Fail("external data reaches beyond the end of '" + external.location + "' (" +
             std::to_string(file_size) + " bytes)",
         where);
  }
  const auto bytes =
      file->bytes().subspan(static_cast<size_t>(external.offset), static_cast<size_t>(size));
  return Tensor::MappedView(dtype, header.dims, bytes, file);
}

Tensor ViewInSource(DType dtype, const Shape& dims, std::string_view bytes,
                    const TensorSource& source) {
  if (source.kind == TensorSource::Kind::kMappedFile) {
    return Tensor::MappedView(dtype, dims, BytesOf(bytes), source.owner);
  }
  return Tensor::View(dtype, dims, BytesOf(bytes), source.owner);
}

// The typed data field that ONNX prescribes for `dtype`; 0: none.
uint32_t DataFieldOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kComplex64:
      return 4;
    case DType::kString:
      return 6;
    case DType::kInt64:
      return 7;
    case DType::kFloat64:
    case DType::kComplex128:
      return 10;
    case DType::kUInt32:
    case DType::kUInt64:
      return 11;
    case DType::kUndefined:
      return 0;
    default:
      return 5;
  }
}

struct Range {
  int64_t min, max;
};

// What one varint of int32_data, int64_data or uint64_data may be.
Range RangeOf(DType dtype) {
  switch (dtype) {
    case DType::kInt8:
      return {INT8_MIN, INT8_MAX};
    case DType::kInt16:
      return {INT16_MIN, INT16_MAX};
    case DType::kInt32:
      return {INT32_MIN, INT32_MAX};
    case DType::kUInt32:
      return {0, UINT32_MAX};
    case DType::kBool:
      return {0, 1};
    case DType::kUInt16:
    case DType::kFloat16:
    case DType::kBFloat16:
      return {0, UINT16_MAX};
    case DType::kInt4:  // two elements a varint; some writers extend the sign of the byte
    case DType::kInt2:
      return {INT8_MIN, UINT8_MAX};
    case DType::kInt64:
    case DType::kUInt64:
      return {INT64_MIN, INT64_MAX};
    default:
      return {0, UINT8_MAX};
  }
}

// Writes little-endian numbers of one size one after the other, up to a number of bytes.
class Packer {
 public:
  Packer(std::string_view message, const Header& header, const std::string& where)
      : message_(message), header_(header), where_(where) {}

  std::vector<std::byte> Pack(DType dtype, int64_t size_bytes) {
    const bool is_fixed = header_.data_field == 4 || header_.data_field == 10;
    const size_t element = static_cast<size_t>(std::max(ElementBits(dtype) / 8, 1));
    // Each element takes a byte of the file at least: refuse before allocating for a false shape.
    const size_t wire_min = static_cast<size_t>(size_bytes) / (is_fixed ? 1 : element);
    if (header_.data_bytes < wire_min) FailCount(size_bytes);
    bytes_.reserve(static_cast<size_t>(size_bytes));
    size_max_ = static_cast<size_t>(size_bytes);
    const Range range = RangeOf(dtype);
    WireReader reader(message_, "TensorProto");
    while (reader.Next()) {
      if (reader.field() != header_.data_field) {
        reader.Skip();
      } else if (header_.data_field == 4) {
        reader.EachFloat([&](float value) { Add(&value, sizeof value); });
      } else if (header_.data_field == 10) {
        reader.EachDouble([&](double value) { Add(&value, sizeof value); });
      } else {
        reader.EachInt64([&](int64_t value) {
          if (value < range.min || value > range.max) {
            Fail("element " + std::to_string(value) + " does not fit " + DTypeName(dtype), where_);
          }
          Add(&value, element);
        });
      }
    }
    if (bytes_.size() != size_max_) FailCount(size_bytes);
    return std::move(bytes_);
  }

 private:
  void Add(const void* value, size_t size) {
    if (bytes_.size() + size > size_max_) FailCount(static_cast<int64_t>(size_max_));
    const auto* bytes = static_cast<const std::byte*>(value);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }
  [[noreturn]] void FailCount(int64_t size_bytes) const {
    Fail("the tensor's data does not have the " + std::to_string(size_bytes) +
             " bytes that its shape " + ShapeText(header_.dims) + " needs",
         where_);
  }

  std::string_view message_;
  const Header& header_;
  const std::string& where_;
  std::vector<std::byte> bytes_;
  size_t size_max_ = 0;
};

Tensor ReadStrings(std::string_view message, const Header& header, const std::string& where) {
  const int64_t count = ElementCount(header.dims);
  std::vector<std::string> strings;
  WireReader reader(message, "TensorProto");
  while (reader.Next()) {
    if (reader.field() == 6) {
      strings.emplace_back(reader.Bytes());
    } else {
      reader.Skip();
    }
  }
  if (static_cast<int64_t>(strings.size()) != count) {
    Fail("the tensor has " + std::to_string(strings.size()) + " strings; its shape " +
             ShapeText(header.dims) + " needs " + std::to_string(count),
         where);
  }
  return Tensor::MakeStrings(header.dims, std::move(strings));
}

Tensor ReadElements(std::string_view message, const Header& header, TensorSource& source,
                    const std::string& where) {
  const auto dtype = static_cast<DType>(header.data_type);
  if (header.location == kExternal) return ReadExternal(header, dtype, source, where);
  if (dtype == DType::kString) return ReadStrings(message, header, where);
  const int64_t size = PackedBytes(dtype, header.dims);
  if (header.data_field != 9 && header.data_field != 0 && header.data_field != DataFieldOf(dtype)) {
    Fail(std::string("the tensor's data is in a field that is not for ") + DTypeName(dtype), where);
  }
  if (header.data_bytes == header.raw.size()) {
    if (static_cast<int64_t>(header.raw.size()) != size) {
      Fail("the tensor has " + std::to_string(header.raw.size()) + " bytes; its shape " +
               ShapeText(header.dims) + " of " + DTypeName(dtype) + " needs " +
               std::to_string(size),
           where);
    }
    return ViewInSource(dtype, header.dims, header.raw, source);
  }
  auto owner = std::make_shared<const std::vector<std::byte>>(
      Packer(message, header, where).Pack(dtype, size));
  if (source.kind == TensorSource::Kind::kMappedFile) DropMappedPages(BytesOf(message));
  const std::span<const std::byte> bytes(*owner);
  return Tensor::View(dtype, header.dims, bytes, std::move(owner));
}

// After it, ElementCount and PackedBytes of the shape do not throw.
void CheckShape(const Shape& dims, DType dtype, const std::string& where) {
  int64_t bits = std::max(ElementBits(dtype), 8);
  bool overflow = false;
  bool has_zero = false;
  for (const int64_t dim : dims) {
    if (dim < 0) Fail("the tensor's shape " + ShapeText(dims) + " has a dimension below 0", where);
    has_zero = has_zero || dim == 0;
    overflow = overflow || __builtin_mul_overflow(bits, dim, &bits);
  }
  if (overflow && !has_zero) Fail("the tensor's shape " + ShapeText(dims) + " is too large", where);
}

}  // namespace

NamedTensor ReadTensor(std::string_view message, TensorSource& source,
                       const std::string& fallback_where) {
  Header header = ReadHeader(message, fallback_where);
  const std::string where = header.name.empty() ? fallback_where : header.name;
  if (header.data_type < 1 || header.data_type > static_cast<int64_t>(DType::kInt2)) {
    throw Error(ErrorCode::kUnsupported,
                "elements of type " + std::to_string(header.data_type) + " are not known", where);
  }
  CheckShape(header.dims, static_cast<DType>(header.data_type), where);
  Tensor tensor = ReadElements(message, header, source, where);
  return {std::move(header.name), std::move(tensor), std::move(header.unknown)};
}

}  // namespace pared
