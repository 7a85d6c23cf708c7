// JSON text in and out.

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "config/fields.h"

namespace pared {
namespace {

[[noreturn]] void Refuse(const std::string& where, std::string message) {
  throw Error(ErrorCode::kInvalidArgument, std::move(message), where);
}

// Builds the value while it looks for what Json::parse lets pass: keys given twice and great depth.
class JsonBuilder final : public nlohmann::json_sax<Json> {
 public:
  Json Take() { return std::move(root_); }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(int64_t value) override { return Add(value); }
  bool number_unsigned(uint64_t value) override { return Add(value); }
  bool number_float(double value, const std::string&) override { return Add(value); }
  bool string(std::string& value) override { return Add(std::move(value)); }
  bool binary(Json::binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(Json::object()); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(std::string& name) override {
    const Level& top = open_.back();
    open_.back().key = name;
    if (top.json->contains(name)) Refuse(Pointer(), "is given twice");
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    std::string text = error.what();  // "[json.exception...] parse error at line 1, ..."
    if (const size_t end = text.find("] "); end != std::string::npos) text.erase(0, end + 2);
    Refuse("byte " + std::to_string(position), "is not JSON: " + text);
  }

 private:
  struct Level {
    Json* json;
    std::string key;
  };

  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Level& top = open_.back();
    if (top.json->is_object()) return &((*top.json)[top.key] = std::move(value));
    top.json->push_back(std::move(value));
    return &top.json->back();
  }

  bool Add(Json value) {
    Place(std::move(value));
    return true;
  }

  // A parent does not change while its child is open, so the pointers on the stack stay true.
  bool Open(Json container) {
    if (open_.size() == kJsonDepthMax) {
      Refuse(Pointer(), "is nested deeper than " + std::to_string(kJsonDepthMax) + " levels");
    }
    open_.push_back({Place(std::move(container)), ""});
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  // The place of what comes next. In a list that holds an open container, that is its last item.
  std::string Pointer() const {
    std::string pointer;
    for (const Level& level : open_) {
      const bool is_last = &level == &open_.back();
      const size_t index = level.json->size() - (level.json->is_array() && !is_last ? 1 : 0);
      pointer = JoinPointer(pointer, level.json->is_array() ? std::to_string(index) : level.key);
    }
    return pointer;
  }

  Json root_;
  std::vector<Level> open_;
};

}  // namespace

Json ParseJson(std::string_view text) {
  if (text.size() > kJsonBytesMax) {
    Refuse("", "JSON text is longer than " + std::to_string(kJsonBytesMax) + " bytes");
  }
  JsonBuilder builder;
  const bool done = Json::sax_parse(text.begin(), text.end(), &builder);
  PARED_CHECK(done);  // a fault has thrown
  return builder.Take();
}

std::string DumpJson(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string JoinPointer(const std::string& pointer, std::string_view token) {
  std::string joined = pointer + "/";
  for (char c : token) {
    if (c == '~') {
      joined += "~0";
    } else if (c == '/') {
      joined += "~1";
    } else {
      joined += c;
    }
  }
  return joined;
}

}  // namespace pared
