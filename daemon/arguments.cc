#include "daemon/arguments.h"

#include <algorithm>

#include "base/error.h"
#include "config/fields.h"

namespace pared {
namespace {

[[noreturn]] void Refuse(const std::string& argument, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, argument);
}

const Json& FieldOf(const Json& fields, const std::string& name, const std::string& argument) {
  const auto field =
      std::ranges::find_if(fields, [&](const Json& f) { return f.at("name") == name; });
  if (field != fields.end()) return *field;
  std::vector<std::string> names;
  for (const Json& other : fields) names.push_back(other.at("name").get<std::string>());
  const std::string nearest = NearestName(name, names);
  Refuse(argument, nearest.empty() ? "is no flag; --help lists them"
                                   : "is no flag; did you mean --" + nearest + "?");
}

// A flag's text as the JSON that its field wants.
Json ValueOf(const Json& field, const std::string& text) {
  const std::string& type = field.at("type").get_ref<const std::string&>();
  if (type == "string" || type == "strings" || type == "choice") return text;
  if (!Json::accept(text)) {
    const bool is_plain = type == "integer" || type == "number" || type == "boolean";
    Refuse("--" + field.at("name").get<std::string>(),
           (is_plain ? "must be of type " + type : std::string("must be JSON")) + ", is \"" + text +
               "\"");
  }
  return ParseJson(text);
}

class FlagReader {
 public:
  FlagReader(const std::vector<std::string>& arguments, const Json& fields)
      : arguments_(arguments), fields_(fields) {}

  Json Read() {
    while (next_ < arguments_.size()) {
      const std::string& argument = arguments_[next_++];
      if (argument.starts_with("--")) {
        ReadFlag(argument);
      } else if (json_.contains("model")) {
        Refuse(argument, "one model is enough");
      } else {
        json_["model"] = argument;
      }
    }
    for (const Json& field : fields_) CheckGiven(field);
    return std::move(json_);
  }

 private:
  void ReadFlag(const std::string& argument) {
    const size_t equals = argument.find('=');
    std::string name = argument.substr(0, equals).substr(2);
    std::ranges::replace(name, '-', '_');
    const Json& field = FieldOf(fields_, name, argument);
    const Json value = equals == std::string::npos ? NextValue(field, argument)
                                                   : ValueOf(field, argument.substr(equals + 1));
    if (field.at("type") == "strings") {
      json_[name].push_back(value);
    } else {
      json_[name] = value;
    }
  }

  Json NextValue(const Json& field, const std::string& argument) {
    if (field.at("type") == "boolean") return true;
    if (next_ == arguments_.size()) Refuse(argument, "needs a value");
    return ValueOf(field, arguments_[next_++]);
  }

  void CheckGiven(const Json& field) const {
    const std::string& name = field.at("name").get_ref<const std::string&>();
    if (field.at("required") != true || json_.contains(name)) return;
    Refuse(name == "model" ? "MODEL" : "--" + name, "is required; --help tells what it is");
  }

  const std::vector<std::string>& arguments_;
  const Json& fields_;
  size_t next_ = 0;
  Json json_ = Json::object();
};

}  // namespace

Json ReadFlags(const std::vector<std::string>& arguments, const Json& fields) {
  return FlagReader(arguments, fields).Read();
}

}  // namespace pared
