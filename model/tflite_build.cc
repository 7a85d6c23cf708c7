#include "model/tflite_build.h"

#include <flatbuffers/flatbuffers.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "model/tflite_schema.h"

namespace pared {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;
using flatbuffers::uoffset_t;

using Table = Offset<void>;
using Tables = std::vector<Table>;

constexpr int64_t kBytesMax = int64_t{2'000'000'000};  // FlatBuffers' offsets have 31 bits
constexpr int32_t kOldestCodesMax = 127;               // what the older field of 8 bits holds
constexpr size_t kDataAlignment = 16;

flatbuffers::voffset_t At(int field) {
  return flatbuffers::FieldIndexToOffset(static_cast<flatbuffers::voffset_t>(field));
}

// What is written of a table: vectors and texts must be there before it begins.
class TableWriter {
 public:
  explicit TableWriter(FlatBufferBuilder& builder)
      : builder_(builder), start_(builder.StartTable()) {}

  template <class T>
  TableWriter& Number(int field, T value, T fallback = {}) {
    builder_.AddElement<T>(At(field), value, fallback);
    return *this;
  }
  template <class T>
  TableWriter& Child(int field, Offset<T> child) {
    if (child.o != 0) builder_.AddOffset(At(field), child);
    return *this;
  }
  Table End() { return builder_.EndTable(start_); }

 private:
  FlatBufferBuilder& builder_;
  const uoffset_t start_;
};

Offset<flatbuffers::Vector<int32_t>> Numbers(FlatBufferBuilder& builder,
                                             const std::vector<int64_t>& numbers) {
  return builder.CreateVector(std::vector<int32_t>(numbers.begin(), numbers.end()));
}

Offset<flatbuffers::Vector<uint8_t>> Data(FlatBufferBuilder& builder,
                                          std::span<const std::byte> bytes) {
  builder.ForceVectorAlignment(bytes.size(), 1, kDataAlignment);
  return builder.CreateVector(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

Table Options(FlatBufferBuilder& builder, const TfliteOptions& options) {
  TableWriter table(builder);
  for (const TfliteOption& option : options.fields) {
    std::visit(
        [&]<class T>(T value) {
          if constexpr (std::is_same_v<T, bool>) {
            table.Number<uint8_t>(option.field, value ? 1 : 0);
          } else {
            table.Number<T>(option.field, value);
          }
        },
        option.value);
  }
  return table.End();
}

// The least version of the operator that does what is asked here: interpreters refuse one that they
// do not know. Source: op_version.cc of TensorFlow Lite.
int32_t VersionOf(const std::string& type, const std::vector<DType>& inputs) {
  // Of codes, where that is not the first one.
  static const std::map<std::string, int32_t, std::less<>> kOfCodes = {{"CONV_2D", 3},
                                                                       {"DEPTHWISE_CONV_2D", 3},
                                                                       {"FULLY_CONNECTED", 4},
                                                                       {"AVERAGE_POOL_2D", 2},
                                                                       {"MAX_POOL_2D", 2},
                                                                       {"SOFTMAX", 2},
                                                                       {"CONCATENATION", 2},
                                                                       {"ADD", 2},
                                                                       {"SUB", 2},
                                                                       {"MUL", 2},
                                                                       {"PAD", 2},
                                                                       {"PADV2", 2},
                                                                       {"TRANSPOSE", 2},
                                                                       {"MEAN", 2},
                                                                       {"REDUCE_MAX", 2},
                                                                       {"REDUCE_MIN", 2},
                                                                       {"RELU", 2},
                                                                       {"RELU6", 2},
                                                                       {"TANH", 2},
                                                                       {"LOGISTIC", 2},
                                                                       {"SLICE", 2},
                                                                       {"STRIDED_SLICE", 2},
                                                                       {"GATHER", 2},
                                                                       {"DEPTH_TO_SPACE", 2},
                                                                       {"LEAKY_RELU", 2},
                                                                       {"TILE", 2},
                                                                       {"BATCH_MATMUL", 2},
                                                                       {"GELU", 2},
                                                                       {"DEQUANTIZE", 2},
                                                                       {"QUANTIZE", 2},
                                                                       {"SPACE_TO_DEPTH", 2},
                                                                       {"SPLIT_V", 2},
                                                                       {"MIRROR_PAD", 2},
                                                                       {"TRANSPOSE_CONV", 2},
                                                                       {"BROADCAST_TO", 3}};
  static const std::map<std::string, int32_t, std::less<>> kAlways = {
      {"BROADCAST_TO", 2}, {"RESIZE_BILINEAR", 3}, {"RESIZE_NEAREST_NEIGHBOR", 3}};
  int32_t version = 1;
  if (const auto found = kAlways.find(type); found != kAlways.end()) version = found->second;
  const bool has_codes = std::ranges::find(inputs, DType::kInt8) != inputs.end();
  if (const auto found = kOfCodes.find(type); has_codes && found != kOfCodes.end()) {
    version = std::max(version, found->second);
  }
  if (type == "TRANSPOSE_CONV" && inputs.size() > 3) return 3;  // with a bias
  const bool has_halves = std::ranges::find(inputs, DType::kFloat16) != inputs.end();
  return type == "DEQUANTIZE" && has_halves ? 3 : version;
}

class Writer {
 public:
  Writer(const std::vector<TfliteTensor>& tensors, const std::vector<int64_t>& places)
      : tensors_(tensors), places_(places) {}

  // Names are unique, as tools want them; those of inputs and outputs stay as they are.
  Tables WriteTensors(const std::vector<TfliteBuilder::Entry>& inputs,
                      const std::vector<TfliteBuilder::Entry>& outputs) {
    std::unordered_set<int64_t> fixed;
    for (const auto* entries : {&inputs, &outputs}) {
      for (const TfliteBuilder::Entry& entry : *entries) {
        fixed.insert(entry.tensor);
        names_.insert(tensors_[static_cast<size_t>(entry.tensor)].name);
      }
    }
    Tables written;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (places_[t] < 0) continue;
      const std::string& name = tensors_[t].name;
      const bool is_fixed = fixed.contains(static_cast<int64_t>(t));
      written.push_back(WriteTensor(tensors_[t], is_fixed ? name : Unique(name)));
    }
    return written;
  }

  Table WriteOp(const std::string& type, const std::vector<int64_t>& inputs,
                const std::vector<int64_t>& outputs, const TfliteOptions& options) {
    std::vector<DType> types;
    for (const int64_t input : inputs) {
      types.push_back(input < 0 ? DType::kUndefined : tensors_[static_cast<size_t>(input)].dtype);
    }
    const uint32_t code = CodeOf(*TfliteOperatorNumber(type), VersionOf(type, types));
    const auto reads = Numbers(builder_, Placed(inputs)),
               makes = Numbers(builder_, Placed(outputs));
    Table table;
    const bool has_options = options.kind != TfliteOptionsKind::kNone;
    if (has_options) table = Options(builder_, options);
    return TableWriter(builder_)
        .Number<uint32_t>(0, code)
        .Child(1, reads)
        .Child(2, makes)
        .Number<uint8_t>(3, static_cast<uint8_t>(options.kind))
        .Child(4, table)
        .End();
  }

  // A named tensor of a signature.
  Tables WriteEntries(const std::vector<TfliteBuilder::Entry>& entries) {
    Tables written;
    for (const TfliteBuilder::Entry& entry : entries) {
      const auto name = builder_.CreateString(entry.name);
      written.push_back(TableWriter(builder_)
                            .Child(0, name)
                            .Number<uint32_t>(1, static_cast<uint32_t>(Placed({entry.tensor})[0]))
                            .End());
    }
    return written;
  }

  Table WriteGraph(const std::vector<TfliteBuilder::Entry>& inputs,
                   const std::vector<TfliteBuilder::Entry>& outputs, const Tables& tensors,
                   const Tables& ops) {
    const auto places = [&](const std::vector<TfliteBuilder::Entry>& entries) {
      std::vector<int64_t> all;
      for (const TfliteBuilder::Entry& entry : entries) all.push_back(entry.tensor);
      return Numbers(builder_, Placed(all));
    };
    const auto all = builder_.CreateVector(tensors);
    const auto reads = places(inputs), makes = places(outputs);
    const auto operators = builder_.CreateVector(ops);
    const auto name = builder_.CreateString("main");
    return TableWriter(builder_)
        .Child(0, all)
        .Child(1, reads)
        .Child(2, makes)
        .Child(3, operators)
        .Child(4, name)
        .End();
  }

  Table WriteSignature(const std::vector<TfliteBuilder::Entry>& inputs,
                       const std::vector<TfliteBuilder::Entry>& outputs) {
    const auto reads = builder_.CreateVector(WriteEntries(inputs));
    const auto makes = builder_.CreateVector(WriteEntries(outputs));
    const auto key = builder_.CreateString("serving_default");
    return TableWriter(builder_).Child(0, reads).Child(1, makes).Child(2, key).End();
  }

  Table WriteMetadata(const std::string& name, const std::string& value) {
    const uint32_t buffer = AddBuffer(std::as_bytes(std::span(value.data(), value.size())));
    const auto text = builder_.CreateString(name);
    return TableWriter(builder_).Child(0, text).Number<uint32_t>(1, buffer).End();
  }

  std::string Finish(const Table& graph, const Table& signature, const Tables& metadata,
                     const std::string& description) {
    Tables codes;
    for (const auto& [number, version] : codes_) {
      codes.push_back(TableWriter(builder_)
                          .Number<int8_t>(0, static_cast<int8_t>(std::min(number, kOldestCodesMax)))
                          .Number<int32_t>(2, version, 1)
                          .Number<int32_t>(3, number)
                          .End());
    }
    const auto all_codes = builder_.CreateVector(codes);
    const auto graphs = builder_.CreateVector(Tables{graph});
    const auto text = builder_.CreateString(description);
    const auto buffers = builder_.CreateVector(buffers_);
    const auto notes = builder_.CreateVector(metadata);
    const auto signatures = builder_.CreateVector(Tables{signature});
    builder_.Finish(TableWriter(builder_)
                        .Number<uint32_t>(0, kTfliteSchemaVersion)
                        .Child(1, all_codes)
                        .Child(2, graphs)
                        .Child(3, text)
                        .Child(4, buffers)
                        .Child(6, notes)
                        .Child(7, signatures)
                        .End(),
                    "TFL3");
    return {reinterpret_cast<const char*>(builder_.GetBufferPointer()), builder_.GetSize()};
  }

 private:
  std::vector<int64_t> Placed(std::vector<int64_t> tensors) const {
    for (int64_t& t : tensors) t = t < 0 ? -1 : places_[static_cast<size_t>(t)];
    return tensors;
  }

  std::string Unique(const std::string& base) {
    std::string name = base;
    for (int64_t& next = next_[base]; !names_.insert(name).second;) {
      name = base + "_" + std::to_string(++next);
    }
    return name;
  }

  uint32_t CodeOf(int32_t number, int32_t version) {
    const auto found = std::ranges::find(codes_, std::pair(number, version));
    if (found != codes_.end()) return static_cast<uint32_t>(found - codes_.begin());
    codes_.emplace_back(number, version);
    return static_cast<uint32_t>(codes_.size() - 1);
  }

  // Equal bytes are stored once.
  uint32_t AddBuffer(std::span<const std::byte> bytes) {
    if (buffers_.empty()) buffers_.push_back(TableWriter(builder_).End());  // 0: none
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto [found, is_new] = stored_.emplace(text, static_cast<uint32_t>(buffers_.size()));
    if (!is_new) return found->second;
    const auto data = Data(builder_, bytes);
    buffers_.push_back(TableWriter(builder_).Child(0, data).End());
    return found->second;
  }

  Table WriteQuantization(const TfliteTensor& tensor) {
    const auto scales = builder_.CreateVector(tensor.scales);
    const auto zero_points = builder_.CreateVector(tensor.zero_points);
    return TableWriter(builder_)
        .Child(2, scales)
        .Child(3, zero_points)
        .Number<int32_t>(6, static_cast<int32_t>(tensor.axis))
        .End();
  }

  Table WriteTensor(const TfliteTensor& tensor, const std::string& unique_name) {
    const uint32_t buffer = tensor.constant.defined() ? AddBuffer(tensor.constant.bytes()) : 0;
    const auto name = builder_.CreateString(unique_name);
    Shape shape = tensor.shape;
    for (int64_t& dim : shape) dim = dim < 0 ? 1 : dim;
    const auto dims = Numbers(builder_, shape);
    Offset<flatbuffers::Vector<int32_t>> signature;
    if (shape != tensor.shape) signature = Numbers(builder_, tensor.shape);
    Table quantization;
    if (tensor.is_quantized()) quantization = WriteQuantization(tensor);
    return TableWriter(builder_)
        .Child(0, dims)
        .Number<int8_t>(1, *TfliteTypeNumber(tensor.dtype))
        .Number<uint32_t>(2, buffer)
        .Child(3, name)
        .Child(4, quantization)
        .Child(7, signature)
        .Number<uint8_t>(8, 1)  // it has a rank, if that is 0
        .End();
  }

  const std::vector<TfliteTensor>& tensors_;
  const std::vector<int64_t>& places_;
  FlatBufferBuilder builder_;
  std::unordered_set<std::string> names_;
  std::unordered_map<std::string, int64_t> next_;  // the last number tried of each name
  Tables buffers_;
  std::unordered_map<std::string_view, uint32_t> stored_;  // by bytes, which outlive this
  std::vector<std::pair<int32_t, int32_t>> codes_;         // numbers and versions of operators
};

}  // namespace

int64_t TfliteBuilder::AddTensor(TfliteTensor tensor) {
  tensors_.push_back(std::move(tensor));
  return std::ssize(tensors_) - 1;
}

void TfliteBuilder::AddOp(std::string type, std::vector<int64_t> inputs,
                          std::vector<int64_t> outputs, TfliteOptions options) {
  ops_.push_back({std::move(type), std::move(inputs), std::move(outputs), std::move(options)});
}

TfliteBuilder::Kept TfliteBuilder::Needed(const std::vector<Entry>& inputs,
                                          const std::vector<Entry>& outputs) const {
  std::vector<bool> is_needed(tensors_.size());
  for (const std::vector<Entry>* entries : {&inputs, &outputs}) {
    for (const Entry& entry : *entries) is_needed[static_cast<size_t>(entry.tensor)] = true;
  }
  Kept kept;
  for (auto op = ops_.rbegin(); op != ops_.rend(); ++op) {
    const bool is_read = std::ranges::any_of(
        op->outputs, [&](int64_t output) { return is_needed[static_cast<size_t>(output)]; });
    if (!is_read) continue;
    kept.ops.push_back(&*op);
    for (const std::vector<int64_t>* all : {&op->inputs, &op->outputs}) {
      for (const int64_t t : *all) {
        if (t >= 0) is_needed[static_cast<size_t>(t)] = true;
      }
    }
  }
  std::ranges::reverse(kept.ops);
  int64_t next = 0;
  for (const bool needed : is_needed) kept.places.push_back(needed ? next++ : -1);
  return kept;
}

std::string TfliteBuilder::Finish(
    const std::vector<Entry>& inputs, const std::vector<Entry>& outputs,
    const std::string& description,
    const std::vector<std::pair<std::string, std::string>>& metadata) const {
  const Kept kept = Needed(inputs, outputs);
  int64_t bytes = 0;
  for (size_t t = 0; t < tensors_.size(); ++t) {
    if (kept.places[t] >= 0) bytes += std::ssize(tensors_[t].constant.bytes());
  }
  if (bytes > kBytesMax) {
    throw Error(ErrorCode::kUnsupported,
                "a TensorFlow Lite file has less than 2 GB; the weights have " +
                    std::to_string(bytes) + " bytes");
  }
  Writer writer(tensors_, kept.places);
  const Tables tensors = writer.WriteTensors(inputs, outputs);
  Tables ops, notes;
  for (const Op* op : kept.ops) {
    ops.push_back(writer.WriteOp(op->type, op->inputs, op->outputs, op->options));
  }
  for (const auto& [name, value] : metadata) notes.push_back(writer.WriteMetadata(name, value));
  const Table graph = writer.WriteGraph(inputs, outputs, tensors, ops);
  return writer.Finish(graph, writer.WriteSignature(inputs, outputs), notes, description);
}

}  // namespace pared
