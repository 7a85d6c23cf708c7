// The entry points for writing: one message, or a file with external data beside it.

#include <functional>

#include "model/new_file.h"
#include "model/onnx.h"
#include "model/onnx_write.h"

namespace pared {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kSmallAlignment = 64;

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Tensors of half a gigabyte are written in parts, so that no more than a part is in memory.
constexpr size_t kPartBytes = size_t{8} << 20;

using Sink = std::function<void(std::span<const std::byte>)>;

void WriteTensor(const Sink& sink, const Tensor& tensor) {
  const std::span<const std::byte> bytes = tensor.bytes();
  for (size_t begin = 0; begin < bytes.size(); begin += kPartBytes) {
    sink(bytes.subspan(begin, std::min(kPartBytes, bytes.size() - begin)));
    tensor.DropPages();
  }
}

void WriteMessage(const Sink& sink, const WireText& message) {
  for (const WireText::Piece& piece : message.pieces()) {
    if (const std::string* text = std::get_if<std::string>(&piece)) {
      sink(BytesOf(*text));
    } else {
      WriteTensor(sink, std::get<Tensor>(piece));
    }
  }
}

Sink Into(NewFile& file) {
  return [&file](std::span<const std::byte> bytes) { file.Write(bytes); };
}

std::optional<ExternalPlace> WithinMessage(const Tensor&) { return std::nullopt; }

// Gives each tensor of the minimum size the next place of the external file. A tensor that several
// attributes share is written once for each: they are rare, and readers expect no overlap.
class ExternalLayout {
 public:
  ExternalLayout(std::string location, int64_t bytes_min)
      : location_(std::move(location)), bytes_min_(bytes_min) {}

  std::optional<ExternalPlace> Place(const Tensor& tensor) {
    const auto size = static_cast<int64_t>(tensor.bytes().size());
    if (size < bytes_min_) return std::nullopt;
    // Pages for what fills one; padding every small tensor to a page could multiply the file.
    const int64_t alignment = size >= kPageBytes ? kPageBytes : kSmallAlignment;
    end_ = (end_ + alignment - 1) / alignment * alignment;
    places_.emplace_back(end_, tensor);
    ExternalPlace place{location_, end_};
    end_ += size;
    return place;
  }
  void Write(NewFile& file) const {
    for (const auto& [offset, tensor] : places_) {
      file.PadTo(offset);
      WriteTensor(Into(file), tensor);
    }
  }

 private:
  std::string location_;
  int64_t bytes_min_;
  int64_t end_ = 0;
  std::vector<std::pair<int64_t, Tensor>> places_;
};

std::filesystem::path DataPathOf(std::filesystem::path path) { return path += ".data"; }

void SaveWithExternalData(const Model& model, const std::filesystem::path& path,
                          const SaveOptions& options) {
  const std::filesystem::path data_path = DataPathOf(path);
  ExternalLayout layout(data_path.filename().string(), options.external_bytes_min);
  const WireText message =
      WriteModel(model, [&](const Tensor& tensor) { return layout.Place(tensor); });
  if (message.size() > options.message_bytes_max) {
    throw Error(ErrorCode::kInvalidArgument,
                "the model passes the limit of one message even without its tensors",
                path.string());
  }
  NewFile data(data_path);
  layout.Write(data);
  NewFile file(path);
  WriteMessage(Into(file), message);
  // The data first: a model whose data is missing cannot be read, data without a model harms
  // nobody.
  data.Rename();
  file.Rename();
}

}  // namespace

void SaveOnnx(const Model& model, const std::filesystem::path& path, const SaveOptions& options) {
  const WireText message = WriteModel(model, WithinMessage);
  if (message.size() > options.message_bytes_max) {
    SaveWithExternalData(model, path, options);
    return;
  }
  NewFile file(path);
  WriteMessage(Into(file), message);
  file.Rename();
}

void StreamOnnx(const Model& model, const std::function<void(std::span<const std::byte>)>& sink) {
  WriteMessage(sink, WriteModel(model, WithinMessage));
}

std::string SerializeOnnx(const Model& model) {
  const WireText message = WriteModel(model, WithinMessage);
  if (message.size() > INT32_MAX) {
    throw Error(ErrorCode::kInvalidArgument, "the model passes 2 GB, the limit of one message",
                model.graph.name);
  }
  return message.Join();
}

}  // namespace pared
