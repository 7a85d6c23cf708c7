#include "model/flatbuffer.h"

#include "base/error.h"

namespace pared {
namespace {

constexpr size_t kCopiesMax = 8;  // times the file's size
constexpr size_t kCopiedAlways = size_t{1} << 20;

}  // namespace

void FlatFile::ThrowDamaged() const {
  throw Error(ErrorCode::kInvalidArgument, "the file is truncated or damaged", where_);
}

void FlatFile::CountCopied(size_t size) const {
  copied_ += size;
  if (copied_ > kCopiedAlways && copied_ / kCopiesMax > bytes_.size()) {
    throw Error(ErrorCode::kInvalidArgument, "the file names the same data again and again",
                where_);
  }
}

FlatTable FlatTable::Root(const FlatFile& file) {
  const FlatTable start(file, 0);
  return {file, start.TargetOf(0)};
}

size_t FlatTable::FieldAt(int field) const {
  // A table begins with the distance back to its vtable: the sizes of both, then a place a field.
  const int64_t vtable = static_cast<int64_t>(at_) - file_->Read<int32_t>(at_);
  if (vtable < 0) file_->ThrowDamaged();
  const auto start = static_cast<size_t>(vtable);
  const size_t entry = 4 + 2 * static_cast<size_t>(field);
  if (entry + 2 > file_->Read<uint16_t>(start)) return 0;
  const uint16_t place = file_->Read<uint16_t>(start + entry);
  return place == 0 ? 0 : at_ + place;
}

size_t FlatTable::TargetOf(size_t at) const { return at + file_->Read<uint32_t>(at); }

std::string FlatTable::Text(int field) const {
  const std::span<const std::byte> bytes = Elements(field, 1);
  file_->CountCopied(bytes.size());
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::optional<FlatTable> FlatTable::Child(int field) const {
  const size_t at = FieldAt(field);
  if (at == 0) return std::nullopt;
  return FlatTable(*file_, TargetOf(at));
}

std::vector<FlatTable> FlatTable::Children(int field) const {
  const std::span<const std::byte> offsets = Elements(field, sizeof(uint32_t));
  file_->CountCopied(offsets.size());
  std::vector<FlatTable> children;
  if (offsets.empty()) return children;
  const auto begin = static_cast<size_t>(offsets.data() - file_->bytes().data());
  for (size_t at = begin; at < begin + offsets.size(); at += sizeof(uint32_t)) {
    children.push_back(FlatTable(*file_, TargetOf(at)));
  }
  return children;
}

std::span<const std::byte> FlatTable::Elements(int field, size_t size) const {
  const size_t at = FieldAt(field);
  if (at == 0) return {};
  const size_t vector = TargetOf(at);
  const size_t count = file_->Read<uint32_t>(vector);
  const size_t begin = vector + sizeof(uint32_t);
  file_->Check(begin, count * size);
  return file_->bytes().subspan(begin, count * size);
}

}  // namespace pared
