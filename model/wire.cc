#include "model/wire.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace pared {
namespace {

// Tensors below this are copied into the text around them: a piece of its own costs more.
constexpr size_t kTensorPieceBytesMin = 1024;

std::string_view ViewOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void WireText::Append(std::string_view bytes) {
  if (bytes.empty()) return;
  if (pieces_.empty() || !std::holds_alternative<std::string>(pieces_.back())) {
    pieces_.emplace_back(std::string());
  }
  std::get<std::string>(pieces_.back()).append(bytes);
  size_ += static_cast<int64_t>(bytes.size());
}

void WireText::Append(const Tensor& tensor) {
  if (tensor.bytes().size() < kTensorPieceBytesMin) return Append(ViewOf(tensor.bytes()));
  pieces_.emplace_back(tensor);
  size_ += static_cast<int64_t>(tensor.bytes().size());
}

void WireText::Append(WireText text) {
  for (Piece& piece : text.pieces_) {
    if (const std::string* bytes = std::get_if<std::string>(&piece)) {
      Append(*bytes);
    } else {
      Append(std::get<Tensor>(piece));
    }
  }
}

std::string WireText::Join() const {
  std::string joined;
  joined.reserve(static_cast<size_t>(size_));
  for (const Piece& piece : pieces_) {
    if (const std::string* bytes = std::get_if<std::string>(&piece)) {
      joined.append(*bytes);
    } else {
      joined.append(ViewOf(std::get<Tensor>(piece).bytes()));
    }
  }
  return joined;
}

WireWriter::WireWriter(const Unknown& unknown) {
  WireReader reader(unknown, "carried fields");
  while (reader.Next()) {
    const uint32_t field = reader.field();
    reader.Carry(unknown_.emplace_back(field, std::string()).second);
  }
  std::stable_sort(unknown_.begin(), unknown_.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
}

void WireWriter::FlushUnknown(uint32_t field_max) {
  while (unknown_next_ < unknown_.size() && unknown_[unknown_next_].first <= field_max) {
    text_.Append(unknown_[unknown_next_++].second);
  }
}

void WireWriter::Varint(uint64_t value) {
  char bytes[10];
  size_t size = 0;
  for (; value >= 0x80; value >>= 7) bytes[size++] = static_cast<char>((value & 0x7F) | 0x80);
  bytes[size++] = static_cast<char>(value);
  text_.Append(std::string_view(bytes, size));
}

void WireWriter::Tag(uint32_t field, uint32_t wire_type) {
  FlushUnknown(field);
  Varint(field << 3 | wire_type);
}

void WireWriter::Int64(uint32_t field, int64_t value) {
  Tag(field, 0);
  Varint(static_cast<uint64_t>(value));
}

void WireWriter::Float(uint32_t field, float value) {
  Tag(field, 5);
  const auto bytes = std::bit_cast<std::array<char, 4>>(value);
  text_.Append(std::string_view(bytes.data(), bytes.size()));
}

void WireWriter::Bytes(uint32_t field, std::string_view bytes) {
  Tag(field, 2);
  Varint(bytes.size());
  text_.Append(bytes);
}

void WireWriter::Message(uint32_t field, WireText message) {
  Tag(field, 2);
  Varint(static_cast<uint64_t>(message.size()));
  text_.Append(std::move(message));
}

void WireWriter::TensorBytes(uint32_t field, const Tensor& tensor) {
  Tag(field, 2);
  Varint(tensor.bytes().size());
  text_.Append(tensor);
}

WireText WireWriter::Finish() {
  FlushUnknown(UINT32_MAX);
  return std::move(text_);
}

std::pair<std::string, std::string> ReadEntry(std::string_view message) {
  std::pair<std::string, std::string> entry;
  WireReader reader(message, "StringStringEntryProto");
  while (reader.Next()) {
    if (reader.field() == 1) {
      entry.first = reader.Bytes();
    } else if (reader.field() == 2) {
      entry.second = reader.Bytes();
    } else {
      reader.Skip();
    }
  }
  return entry;
}

}  // namespace pared
