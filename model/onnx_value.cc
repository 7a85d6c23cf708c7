#include "model/onnx_value.h"

namespace pared {
namespace {

void ReadDim(std::string_view message, Dim& dim) {
  WireReader reader(message, "Dimension");
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        dim.value = reader.Int64();
        if (dim.value < 0) {  // exporters write -1 for a size they do not know
          dim.value = -1;
          reader.CarryRead(dim.unknown);
        }
        break;
      case 2:
        reader.String(dim.param, dim.unknown);
        break;
      default:
        reader.Carry(dim.unknown);
    }
  }
}

std::vector<Dim> ReadShape(std::string_view message) {
  std::vector<Dim> dims;
  WireReader reader(message, "TensorShapeProto");
  while (reader.Next()) {
    if (reader.field() != 1) {
      reader.Skip();
      continue;
    }
    ReadDim(reader.Bytes(), dims.emplace_back());
  }
  return dims;
}

// False: the type is not a tensor of a known element type, and its bytes are to be carried.
bool ReadTensorType(std::string_view message, ValueInfo& value) {
  WireReader reader(message, "TypeProto.Tensor");
  bool has_content = false;
  while (reader.Next()) {
    has_content = true;
    if (reader.field() == 1) {
      const int64_t type = reader.Int64();
      if (type < 1 || type > static_cast<int64_t>(DType::kInt2)) return false;
      value.dtype = static_cast<DType>(type);
    } else if (reader.field() == 2) {
      value.shape = ReadShape(reader.Bytes());
    } else {
      return false;
    }
  }
  return has_content;
}

void ReadType(std::string_view message, ValueInfo& value) {
  WireReader reader(message, "TypeProto");
  bool is_tensor = false;
  while (reader.Next()) {
    if (reader.field() == 1) {
      is_tensor = ReadTensorType(reader.Bytes(), value);
    } else {
      reader.Carry(value.type_unknown);
    }
  }
  if (is_tensor) return;
  value = ValueInfo{.name = value.name,
                    .dtype = DType::kUndefined,
                    .shape = std::nullopt,
                    .type_bytes = std::string(message),
                    .unknown = value.unknown,
                    .type_unknown = {}};
}

WireText WriteShape(const std::vector<Dim>& dims) {
  WireWriter shape;
  for (const Dim& dim : dims) {
    WireWriter writer(dim.unknown);
    if (dim.value >= 0) {
      writer.Int64(1, dim.value);
    } else {
      writer.OptionalBytes(2, dim.param);
    }
    shape.Message(1, writer.Finish());
  }
  return shape.Finish();
}

WireText WriteType(const ValueInfo& value) {
  WireWriter tensor;
  tensor.OptionalInt64(1, static_cast<int64_t>(value.dtype));
  if (value.shape.has_value()) tensor.Message(2, WriteShape(*value.shape));
  WireWriter type(value.type_unknown);
  type.Message(1, tensor.Finish());
  return type.Finish();
}

}  // namespace

ValueInfo ReadValueInfo(std::string_view message) {
  ValueInfo value;
  WireReader reader(message, "ValueInfoProto");
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        reader.String(value.name, value.unknown);
        break;
      case 2: {
        const std::string_view type = reader.Bytes();
        if (type.empty()) {
          reader.CarryRead(value.unknown);
        } else {
          ReadType(type, value);
        }
        break;
      }
      default:
        reader.Carry(value.unknown);
    }
  }
  return value;
}

WireText WriteValueInfo(const ValueInfo& value) {
  WireWriter writer(value.unknown);
  writer.OptionalBytes(1, value.name);
  if (!value.type_bytes.empty()) {
    writer.Bytes(2, value.type_bytes);
  } else if (value.dtype != DType::kUndefined || value.shape.has_value()) {
    writer.Message(2, WriteType(value));
  }
  return writer.Finish();
}

}  // namespace pared
