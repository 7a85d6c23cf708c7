#include "model/tflite_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "model/tflite_schema.h"
#include "model/tflite_sparse.h"

namespace pared {
namespace {

// Fields of the tables, in the schema's order.
constexpr int kVersion = 0, kOperatorCodes = 1, kSubgraphs = 2, kDescription = 3, kBuffers = 4;
constexpr int kDeprecatedCode = 0, kCustomCode = 1, kBuiltinCode = 3;
constexpr int kTensors = 0, kInputs = 1, kOutputs = 2, kOperators = 3;
constexpr int kShape = 0, kType = 1, kBuffer = 2, kName = 3, kQuantization = 4, kIsVariable = 5,
              kSparsity = 6, kSignature = 7;
constexpr int kScale = 2, kZeroPoint = 3, kDetailsType = 4, kQuantizedAxis = 6;
constexpr int kOpcodeIndex = 0, kOpInputs = 1, kOpOutputs = 2, kOptions = 4, kCustomOptions = 5;
constexpr int kData = 0, kOffset = 1, kSize = 2;

constexpr size_t kRankMax = 16;
constexpr size_t kOpBytes = 400;  // about what an operator and its value take here
constexpr int32_t kCustom = 32;

std::vector<int64_t> Widened(const std::vector<int32_t>& numbers) {
  return {numbers.begin(), numbers.end()};
}

// Four bits each, the first in the low ones.
Tensor WidenInt4(std::span<const std::byte> bytes, const Shape& shape) {
  std::vector<int8_t> codes(static_cast<size_t>(ElementCount(shape)));
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto pair = static_cast<uint8_t>(bytes[i / 2]);
    const auto nibble = static_cast<uint8_t>(i % 2 == 0 ? pair << 4 : pair & 0xf0);
    codes[i] = static_cast<int8_t>(static_cast<int8_t>(nibble) >> 4);
  }
  return Tensor::Make(shape, std::move(codes));
}

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
         const std::string& where)
      : owner_(std::move(owner)),
        file_(std::make_shared<const FlatFile>(bytes, where)),
        root_(FlatTable::Root(*file_)),
        buffers_(root_.Children(kBuffers)) {}

  TfliteFile Run() {
    const auto version = root_.Number<uint32_t>(kVersion);
    if (version != kTfliteSchemaVersion) {
      Refuse(ErrorCode::kUnsupported,
             "version " + std::to_string(version) + " of the TensorFlow Lite schema; it must be 3");
    }
    const std::vector<FlatTable> graphs = root_.Children(kSubgraphs);
    if (graphs.empty()) Refuse(ErrorCode::kInvalidArgument, "the model has no graph");
    TfliteFile read;
    read.file = file_;
    read.description = root_.Text(kDescription);
    const std::vector<std::string> types = ReadTypes();
    read.main = ReadGraph(graphs.front(), types, read.tensors);
    ReadParts(graphs, types, read);
    return read;
  }

 private:
  [[noreturn]] void Refuse(ErrorCode code, const std::string& message) const {
    throw Error(code, message, file_->where());
  }

  TfliteGraph ReadGraph(const FlatTable& table, const std::vector<std::string>& types,
                        std::vector<TfliteTensor>& tensors) const {
    TfliteGraph graph;
    graph.tensors_begin = std::ssize(tensors);
    for (const FlatTable& tensor : table.Children(kTensors)) {
      tensors.push_back(ReadTensor(tensor, tensors.size()));
    }
    graph.tensors_end = std::ssize(tensors);
    graph.inputs = ReadPlaces(table, kInputs, 0, graph);
    graph.outputs = ReadPlaces(table, kOutputs, 0, graph);
    for (const FlatTable& op : table.Children(kOperators)) {
      const auto index = op.Number<uint32_t>(kOpcodeIndex);
      if (index >= types.size()) file_->ThrowDamaged();
      file_->CountCopied(kOpBytes + types[index].size());
      graph.ops.push_back({types[index], ReadPlaces(op, kOpInputs, -1, graph),
                           ReadPlaces(op, kOpOutputs, 0, graph), op.Child(kOptions),
                           op.Bytes(kCustomOptions)});
    }
    FindEmpty(graph, tensors);
    return graph;
  }

  // Only what the main graph comes to run: other signatures may hold what is not supported.
  void ReadParts(const std::vector<FlatTable>& graphs, const std::vector<std::string>& types,
                 TfliteFile& read) const {
    std::vector<int64_t> wanted;
    const auto add_parts = [&](const TfliteGraph& graph) {
      for (const TfliteOp& op : graph.ops) {
        const std::vector<int64_t> parts = PartsOf(op);
        wanted.insert(wanted.end(), parts.begin(), parts.end());
      }
    };
    add_parts(read.main);
    while (!wanted.empty()) {
      const int64_t part = wanted.back();
      wanted.pop_back();
      if (part < 0 || part >= std::ssize(graphs)) file_->ThrowDamaged();
      if (read.parts.contains(part)) continue;
      TfliteGraph graph = ReadGraph(graphs[static_cast<size_t>(part)], types, read.tensors);
      add_parts(graph);
      read.parts.emplace(part, std::move(graph));
    }
  }

  std::vector<int64_t> ReadPlaces(const FlatTable& table, int field, int64_t least,
                                  const TfliteGraph& graph) const {
    std::vector<int64_t> places = Widened(table.Numbers<int32_t>(field));
    for (int64_t& place : places) {
      if (place < least || place >= graph.tensors_end - graph.tensors_begin) file_->ThrowDamaged();
      if (place >= 0) place += graph.tensors_begin;
    }
    return places;
  }

  std::vector<std::string> ReadTypes() const {
    const std::span<const char* const> names = TfliteOperatorNames();
    std::vector<std::string> types;
    for (const FlatTable& code : root_.Children(kOperatorCodes)) {
      // The older field has 8 bits and stays where it suffices.
      const int32_t number = std::max<int32_t>(code.Number<int8_t>(kDeprecatedCode),
                                               code.Number<int32_t>(kBuiltinCode));
      const bool is_known = number >= 0 && number < std::ssize(names);
      if (number == kCustom) {
        types.push_back("custom operator " + code.Text(kCustomCode));
      } else {
        types.push_back(is_known ? names[static_cast<size_t>(number)]
                                 : "operator " + std::to_string(number));
      }
    }
    return types;
  }

  TfliteTensor ReadTensor(const FlatTable& table, size_t place) const {
    TfliteTensor tensor;
    tensor.name = table.Text(kName);
    const std::string where = tensor.name.empty() ? "tensor " + std::to_string(place) : tensor.name;
    tensor.dtype = TfliteDType(table.Number<int8_t>(kType));
    tensor.shape = Widened(table.Numbers<int32_t>(kShape));
    if (tensor.shape.size() > kRankMax) {
      throw Error(ErrorCode::kUnsupported,
                  "it has " + std::to_string(tensor.shape.size()) + " axes; 16 are supported",
                  where);
    }
    tensor.is_variable = table.Flag(kIsVariable);
    ReadQuantization(table, where, tensor);
    const std::span<const std::byte> data = ReadData(table.Number<uint32_t>(kBuffer));
    if (!data.empty()) {
      tensor.constant = ReadConstant(table, data, tensor, where);
      tensor.dtype = tensor.constant.dtype();
      return tensor;
    }
    // The shape says 1 where the signature says that the caller decides.
    const std::vector<int64_t> signature = Widened(table.Numbers<int32_t>(kSignature));
    for (size_t i = 0; i < signature.size() && signature.size() == tensor.shape.size(); ++i) {
      if (signature[i] < 0) tensor.shape[i] = -1;
    }
    return tensor;
  }

  // A constant of no elements has no data: the shape of a scalar, say.
  static void FindEmpty(const TfliteGraph& graph, std::vector<TfliteTensor>& tensors) {
    std::vector<bool> is_made(static_cast<size_t>(graph.tensors_end - graph.tensors_begin));
    const auto mark = [&](const std::vector<int64_t>& places) {
      for (const int64_t t : places) is_made[static_cast<size_t>(t - graph.tensors_begin)] = true;
    };
    mark(graph.inputs);
    for (const TfliteOp& op : graph.ops) mark(op.outputs);
    for (size_t i = 0; i < is_made.size(); ++i) {
      TfliteTensor& tensor = tensors[i + static_cast<size_t>(graph.tensors_begin)];
      if (is_made[i] || tensor.constant.defined() || ElementBits(tensor.dtype) == 0 ||
          std::ranges::count(tensor.shape, 0) == 0 || std::ranges::count(tensor.shape, -1) > 0) {
        continue;
      }
      tensor.constant = Tensor::View(tensor.dtype, tensor.shape, {}, nullptr);
    }
  }

  std::span<const std::byte> ReadData(uint32_t buffer) const {
    if (buffer >= buffers_.size()) {
      if (buffer == 0) return {};
      file_->ThrowDamaged();
    }
    const FlatTable& table = buffers_[buffer];
    // Models beyond 2 GB keep their data behind the tables.
    const auto offset = table.Number<uint64_t>(kOffset), size = table.Number<uint64_t>(kSize);
    if (offset <= 1) return table.Bytes(kData);
    file_->Check(offset, size);
    return file_->bytes().subspan(offset, size);
  }

  static void ReadQuantization(const FlatTable& table, const std::string& where,
                               TfliteTensor& tensor) {
    const std::optional<FlatTable> quantization = table.Child(kQuantization);
    const bool may_be_codes = tensor.dtype == DType::kInt8 || tensor.dtype == DType::kUInt8 ||
                              tensor.dtype == DType::kInt16 || tensor.dtype == DType::kInt32 ||
                              tensor.dtype == DType::kInt64 || tensor.dtype == DType::kInt4;
    if (!quantization || !may_be_codes || quantization->Number<uint8_t>(kDetailsType) != 0) return;
    tensor.scales = quantization->Numbers<float>(kScale);
    tensor.zero_points = quantization->Numbers<int64_t>(kZeroPoint);
    // Of a bias older converters name the weight's axis.
    tensor.axis = tensor.rank() == 1 ? 0 : quantization->Number<int32_t>(kQuantizedAxis);
    if (tensor.zero_points.empty()) tensor.zero_points.assign(tensor.scales.size(), 0);
    if (tensor.zero_points.size() == 1) {
      tensor.zero_points.resize(tensor.scales.size(), tensor.zero_points[0]);
    }
    const bool has_axis = tensor.axis >= 0 && tensor.axis < tensor.rank();
    const bool fits =
        tensor.scales.size() <= 1 ||
        (has_axis && tensor.shape[static_cast<size_t>(tensor.axis)] == std::ssize(tensor.scales));
    if (fits && tensor.zero_points.size() == tensor.scales.size()) return;
    throw Error(ErrorCode::kInvalidArgument,
                std::to_string(tensor.scales.size()) + " scales and " +
                    std::to_string(tensor.zero_points.size()) + " zero points along axis " +
                    std::to_string(tensor.axis) + " do not fit the shape " +
                    ShapeText(tensor.shape),
                where);
  }

  Tensor ReadConstant(const FlatTable& table, std::span<const std::byte> data,
                      const TfliteTensor& tensor, const std::string& where) const {
    if (ElementBits(tensor.dtype) == 0) {
      throw Error(
          ErrorCode::kUnsupported,
          std::string("constants of this type are not supported: ") + DTypeName(tensor.dtype),
          where);
    }
    if (const std::optional<FlatTable> sparsity = table.Child(kSparsity)) {
      return ExpandSparse(*sparsity, data, tensor.dtype, tensor.shape, where);
    }
    const int64_t bytes = PackedBytes(tensor.dtype, tensor.shape);
    if (std::ssize(data) != bytes) {
      throw Error(ErrorCode::kInvalidArgument,
                  "it has " + std::to_string(data.size()) + " bytes; its shape " +
                      ShapeText(tensor.shape) + " needs " + std::to_string(bytes),
                  where);
    }
    if (tensor.dtype == DType::kInt4) return WidenInt4(data, tensor.shape);
    return Tensor::View(tensor.dtype, tensor.shape, data, owner_);
  }

  const std::shared_ptr<const void> owner_;
  const std::shared_ptr<const FlatFile> file_;
  const FlatTable root_;
  const std::vector<FlatTable> buffers_;
};

}  // namespace

std::vector<int64_t> PartsOf(const TfliteOp& op) {
  if (op.type != "WHILE" && op.type != "IF") return {};
  return {op.Option<int32_t>(0), op.Option<int32_t>(1)};  // the fields of either's options
}

bool IsTflite(std::span<const std::byte> bytes) {
  return bytes.size() >= 8 && std::memcmp(bytes.data() + 4, "TFL3", 4) == 0;
}

TfliteFile ReadTflite(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                      const std::string& where) {
  return Reader(bytes, std::move(owner), where).Run();
}

}  // namespace pared
