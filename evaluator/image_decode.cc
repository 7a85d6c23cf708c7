// libjpeg-turbo and libpng behind DecodeImage. Both report errors by longjmp: what it passes over
// here has no destructors, and everything they allocate belongs to structs that a scope outside of
// it frees.

// clang-format off
#include <cstdio>  // before jpeglib.h, which needs FILE and size_t
#include <jpeglib.h>
#include <jerror.h>
// clang-format on
#include <png.h>
#include <setjmp.h>

#include <cstring>
#include <string_view>

#include "base/error.h"
#include "evaluator/image.h"

namespace pared {
namespace {

[[noreturn]] void ThrowDamaged(const std::string& name, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "is damaged: " + what, name);
}

void CheckSize(PictureSize size, const std::string& name, int64_t pixels_max) {
  if (size.height > 0 && size.width > 0 && size.height <= pixels_max / size.width) return;
  throw Error(ErrorCode::kInvalidArgument,
              "has " + std::to_string(size.width) + " x " + std::to_string(size.height) +
                  " pixels; at most " + std::to_string(pixels_max) + " are decoded",
              name);
}

struct JpegErrors {
  jpeg_error_mgr base;  // first: libjpeg hands back a pointer to it
  jmp_buf jump;
  char text[JMSG_LENGTH_MAX] = {};
};

void FailJpeg(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->base.format_message(info, errors->text);
  longjmp(errors->jump, 1);
}

// Data that ends early is damage: half a picture is no sample. Other warnings (stray bytes between
// markers, which some cameras write) change no pixel.
void WarnJpeg(j_common_ptr info, int level) {
  const int code = info->err->msg_code;
  if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) FailJpeg(info);
}

class JpegReader {
 public:
  explicit JpegReader(std::span<const std::byte> bytes) {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = FailJpeg;
    errors_.base.emit_message = WarnJpeg;
    bytes_ = bytes;
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  // False: error() says why.
  bool ReadHeader() {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_create_decompress(&info_);
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    jpeg_read_header(&info_, TRUE);
    return true;
  }
  bool ReadInto(Image& image) {
    if (setjmp(errors_.jump) != 0) return false;
    info_.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info_);
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW row = image.row(info_.output_scanline);
      jpeg_read_scanlines(&info_, &row, 1);
    }
    jpeg_finish_decompress(&info_);
    return true;
  }

  const jpeg_decompress_struct& info() const { return info_; }
  std::string error() const { return errors_.text; }

 private:
  jpeg_decompress_struct info_ = {};
  JpegErrors errors_ = {};
  std::span<const std::byte> bytes_;
};

PictureSize ReadHeader(JpegReader& reader, const std::string& name, int64_t pixels_max) {
  if (!reader.ReadHeader()) ThrowDamaged(name, reader.error());
  const J_COLOR_SPACE space = reader.info().jpeg_color_space;
  if (space != JCS_GRAYSCALE && space != JCS_YCbCr && space != JCS_RGB) {
    throw Error(ErrorCode::kUnsupported, "has colours of print (CMYK); convert it to RGB", name);
  }
  const PictureSize size = {reader.info().image_height, reader.info().image_width};
  CheckSize(size, name, pixels_max);
  return size;
}

Image DecodeJpeg(std::span<const std::byte> bytes, const std::string& name, int64_t pixels_max) {
  JpegReader reader(bytes);
  const PictureSize size = ReadHeader(reader, name, pixels_max);
  Image image(size.height, size.width);
  if (!reader.ReadInto(image)) ThrowDamaged(name, reader.error());
  return image;
}

class PngReader {
 public:
  explicit PngReader(std::span<const std::byte> bytes) : rest_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, Fail, Ignore);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) throw Error(ErrorCode::kUnavailable, "out of memory");
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool ReadHeader() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, this, Read);
    png_read_info(png_, info_);
    return true;
  }
  // Bytes R, G, B whatever the file holds; alpha goes, gamma is left alone.
  bool ReadInto(Image& image, std::vector<png_bytep>& rows) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    png_set_gray_to_rgb(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != static_cast<size_t>(image.width) * 3) return false;
    png_read_image(png_, rows.data());
    png_read_end(png_, nullptr);
    return true;
  }

  int64_t height() const { return png_get_image_height(png_, info_); }
  int64_t width() const { return png_get_image_width(png_, info_); }
  std::string error() const { return error_; }

 private:
  static void Fail(png_structp png, png_const_charp message) {
    auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
    std::strncpy(reader->error_, message, sizeof(reader->error_) - 1);
    png_longjmp(png, 1);
  }
  static void Ignore(png_structp, png_const_charp) {}
  static void Read(png_structp png, png_bytep target, size_t size) {
    auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
    if (size > reader->rest_.size()) png_error(png, "it ends too early");
    std::memcpy(target, reader->rest_.data(), size);
    reader->rest_ = reader->rest_.subspan(size);
  }

  std::span<const std::byte> rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  char error_[128] = "the rows have another length than the header says";
};

PictureSize ReadHeader(PngReader& reader, const std::string& name, int64_t pixels_max) {
  if (!reader.ReadHeader()) ThrowDamaged(name, reader.error());
  const PictureSize size = {reader.height(), reader.width()};
  CheckSize(size, name, pixels_max);
  return size;
}

Image DecodePng(std::span<const std::byte> bytes, const std::string& name, int64_t pixels_max) {
  PngReader reader(bytes);
  const PictureSize size = ReadHeader(reader, name, pixels_max);
  Image image(size.height, size.width);
  std::vector<png_bytep> rows(static_cast<size_t>(image.height));
  for (int64_t y = 0; y < image.height; ++y) rows[static_cast<size_t>(y)] = image.row(y);
  if (!reader.ReadInto(image, rows)) ThrowDamaged(name, reader.error());
  return image;
}

enum class Format { kJpeg, kPng };

Format FormatOf(std::span<const std::byte> bytes, const std::string& name) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("\xff\xd8\xff")) return Format::kJpeg;
  if (text.starts_with("\x89PNG\r\n\x1a\n")) return Format::kPng;
  throw Error(ErrorCode::kUnsupported, "is neither JPEG nor PNG", name);
}

}  // namespace

Image DecodeImage(std::span<const std::byte> bytes, const std::string& name, int64_t pixels_max) {
  const auto decode = FormatOf(bytes, name) == Format::kJpeg ? DecodeJpeg : DecodePng;
  return decode(bytes, name, pixels_max);
}

PictureSize ReadPictureSize(std::span<const std::byte> bytes, const std::string& name,
                            int64_t pixels_max) {
  if (FormatOf(bytes, name) == Format::kJpeg) {
    JpegReader reader(bytes);
    return ReadHeader(reader, name, pixels_max);
  }
  PngReader reader(bytes);
  return ReadHeader(reader, name, pixels_max);
}

}  // namespace pared
