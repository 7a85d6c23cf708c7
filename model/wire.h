// The protobuf wire format, as far as ONNX needs it: protozero's reader behind checks of the wire
// type, and a writer whose messages hold tensors by reference.

#pragma once

#include <cstddef>
#include <cstdint>
#include <protozero/pbf_reader.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "model/graph.h"

namespace pared {

// Reads the fields of one message. Throws Error, and protozero's exceptions, which ParseOnnx turns
// into Error.
class WireReader {
 public:
  // `what` names the message in errors and must outlive the reader.
  WireReader(std::string_view bytes, const char* what)
      : reader_(bytes.data(), bytes.size()), what_(what) {}

  bool Next() {
    start_ = reader_.data().data();
    return reader_.next();
  }
  uint32_t field() const { return reader_.tag(); }

  int64_t Int64() {
    Expect(protozero::pbf_wire_type::varint);
    return reader_.get_int64();
  }
  float Float() {
    Expect(protozero::pbf_wire_type::fixed32);
    return reader_.get_float();
  }
  std::string_view Bytes() {
    Expect(protozero::pbf_wire_type::length_delimited);
    const protozero::data_view view = reader_.get_view();
    return {view.data(), view.size()};
  }
  // One element, or many where the field is packed.
  template <class Add>
  void EachInt64(Add add) {
    if (!is_packed()) return add(Int64());
    for (const int64_t value : reader_.get_packed_int64()) add(value);
  }
  template <class Add>
  void EachFloat(Add add) {
    if (!is_packed()) return add(Float());
    for (const float value : reader_.get_packed_float()) add(value);
  }
  template <class Add>
  void EachDouble(Add add) {
    if (!is_packed()) {
      Expect(protozero::pbf_wire_type::fixed64);
      return add(reader_.get_double());
    }
    for (const double value : reader_.get_packed_double()) add(value);
  }
  bool is_packed() const {
    return reader_.has_wire_type(protozero::pbf_wire_type::length_delimited);
  }

  // Appends the field, tag included, to `unknown`.
  void Carry(Unknown& unknown) {
    reader_.skip();
    CarryRead(unknown);
  }
  // A string field. One that is there but empty is carried: protobuf tells it from an absent one.
  void String(std::string& value, Unknown& unknown) {
    value = Bytes();
    if (value.empty()) CarryRead(unknown);
  }
  // An integer field; a zero is carried likewise.
  void Integer(int64_t& value, Unknown& unknown) {
    value = Int64();
    if (value == 0) CarryRead(unknown);
  }
  // Appends the field just read.
  void CarryRead(Unknown& unknown) {
    unknown.append(start_, static_cast<size_t>(reader_.data().data() - start_));
  }
  void Skip() { reader_.skip(); }
  // Skips the field and returns its content: without tag and length.
  std::string_view SkipContent() {
    if (is_packed()) return Bytes();
    const char* begin = reader_.data().data();
    reader_.skip();
    return {begin, static_cast<size_t>(reader_.data().data() - begin)};
  }

 private:
  void Expect(protozero::pbf_wire_type type) const {
    if (reader_.has_wire_type(type)) return;
    throw Error(ErrorCode::kInvalidArgument, "not an ONNX model, or damaged: field " +
                                                 std::to_string(field()) + " of " + what_ +
                                                 " has the wrong wire type");
  }

  protozero::pbf_reader reader_;
  const char* what_;
  const char* start_ = nullptr;
};

// The bytes of a message as pieces in order: text, and tensors that are written from where they
// lie.
class WireText {
 public:
  using Piece = std::variant<std::string, Tensor>;

  int64_t size() const { return size_; }
  const std::vector<Piece>& pieces() const { return pieces_; }
  std::string Join() const;

  void Append(std::string_view bytes);
  void Append(const Tensor& tensor);
  void Append(WireText text);

 private:
  std::vector<Piece> pieces_;
  int64_t size_ = 0;
};

// Writes one message. Modelled fields must come in the order of their numbers; carried fields are
// merged in by number, as the protobuf library would write them.
class WireWriter {
 public:
  explicit WireWriter(const Unknown& unknown = {});

  void Int64(uint32_t field, int64_t value);
  void Float(uint32_t field, float value);
  void Bytes(uint32_t field, std::string_view bytes);
  void Message(uint32_t field, WireText message);
  void TensorBytes(uint32_t field, const Tensor& tensor);
  // Not written where it is the default.
  void OptionalInt64(uint32_t field, int64_t value) {
    if (value != 0) Int64(field, value);
  }
  void OptionalBytes(uint32_t field, std::string_view bytes) {
    if (!bytes.empty()) Bytes(field, bytes);
  }

  WireText Finish();

 private:
  void Tag(uint32_t field, uint32_t wire_type);
  void Varint(uint64_t value);
  void FlushUnknown(uint32_t field_max);

  WireText text_;
  std::vector<std::pair<uint32_t, std::string>> unknown_;  // by field number
  size_t unknown_next_ = 0;
};

// The key and the value of a StringStringEntryProto.
std::pair<std::string, std::string> ReadEntry(std::string_view message);

}  // namespace pared
