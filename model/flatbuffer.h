// Reads the FlatBuffers wire format, in which TensorFlow Lite stores models. Nothing is trusted:
// every access is checked against the file.
// Source: "FlatBuffer Internals" of the FlatBuffers documentation.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pared {

// A file that tables are read from. It outlives them.
class FlatFile {
 public:
  // `where` is the file's name, for errors.
  FlatFile(std::span<const std::byte> bytes, std::string where)
      : bytes_(bytes), where_(std::move(where)) {}

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& where() const { return where_; }

  // Throws kInvalidArgument where the file ends before.
  template <class T>
  T Read(size_t at) const {
    Check(at, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  void Check(size_t at, size_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) ThrowDamaged();
  }
  [[noreturn]] void ThrowDamaged() const;

  // Counts what is copied out of the file: tables may share vectors, so that a short file could
  // unfold to any size. Throws kInvalidArgument where it is far beyond what a writer makes.
  void CountCopied(size_t size) const;

 private:
  const std::span<const std::byte> bytes_;
  const std::string where_;
  mutable size_t copied_ = 0;
};

// A table; fields are numbered in the order of the schema, deprecated ones included. Each reader
// throws kInvalidArgument where the file is damaged there.
class FlatTable {
 public:
  static FlatTable Root(const FlatFile& file);

  template <class T>
  T Number(int field, T fallback = {}) const {
    const size_t at = FieldAt(field);
    return at == 0 ? fallback : file_->Read<T>(at);
  }
  bool Flag(int field, bool fallback = false) const {
    return Number<uint8_t>(field, fallback ? 1 : 0) != 0;
  }
  std::string Text(int field) const;                   // empty where it is absent
  std::optional<FlatTable> Child(int field) const;     // nullopt where it is absent
  std::vector<FlatTable> Children(int field) const;    // empty where they are absent
  std::span<const std::byte> Bytes(int field) const {  // a vector of bytes, in the file
    return Elements(field, 1);
  }
  template <class T>
  std::vector<T> Numbers(int field) const {
    const std::span<const std::byte> bytes = Elements(field, sizeof(T));
    file_->CountCopied(bytes.size());
    std::vector<T> numbers(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(numbers.data(), bytes.data(), bytes.size());
    return numbers;
  }

 private:
  FlatTable(const FlatFile& file, size_t at) : file_(&file), at_(at) {}

  size_t FieldAt(int field) const;   // 0 where it is absent
  size_t TargetOf(size_t at) const;  // where the offset at `at` points
  std::span<const std::byte> Elements(int field, size_t size) const;

  const FlatFile* file_;
  size_t at_;
};

}  // namespace pared
