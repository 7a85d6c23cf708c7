#include "config/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/joined.h"
#include "config/edit_distance.h"

namespace pared {
namespace {

constexpr size_t kTextBytesMax = 4096;
constexpr size_t kTextListMax = 4096;
constexpr size_t kNameBytesMax = 128;
constexpr size_t kRegexBytesMax = 256;  // std::regex recurses
constexpr size_t kShownBytesMax = 64;

[[noreturn]] void Refuse(const std::string& pointer, std::string message) {
  throw Error(ErrorCode::kInvalidArgument, std::move(message), pointer);
}

std::string Shown(const Json& json) {
  std::string text = DumpJson(json);
  if (text.size() > kShownBytesMax) {
    text.resize(kShownBytesMax);
    while (!text.empty() && (text.back() & 0xC0) == 0x80) text.pop_back();
    text += "...";
  }
  return text;
}

template <class T>
void CheckRange(const std::string& pointer, const Json& json, T value, T low, T high) {
  if (value >= low && value <= high) return;
  constexpr T kLowest = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                             : std::numeric_limits<T>::lowest();
  constexpr T kHighest = std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity()
                                                              : std::numeric_limits<T>::max();
  const std::string is = ", is " + Shown(json);
  if (low == kLowest) Refuse(pointer, "must be at most " + Json(high).dump() + is);
  if (high == kHighest) Refuse(pointer, "must be at least " + Json(low).dump() + is);
  Refuse(pointer, "must be between " + Json(low).dump() + " and " + Json(high).dump() + is);
}

// std::regex tells only by exception whether it can compile a text.
bool IsRegex(const std::string& text) {
  try {
    std::regex compiled(text, std::regex::ECMAScript);
    return true;
  } catch (const std::regex_error&) {
    return false;
  }
}

void CheckNodeRef(const std::string& pointer, const std::string& text) {
  if (text.empty()) Refuse(pointer, "must name a node, \"re:REGEX\" or \"op:OP_TYPE\", is \"\"");
  if (text.starts_with("op:") && text.size() == 3) Refuse(pointer, "\"op:\" names no op type");
  if (!text.starts_with("re:")) return;
  if (text.size() > kRegexBytesMax) {
    Refuse(pointer, "a regular expression is at most " + std::to_string(kRegexBytesMax) +
                        " bytes long, this has " + std::to_string(text.size()));
  }
  if (!IsRegex(text.substr(3))) Refuse(pointer, "is no regular expression: " + Shown(text));
}

std::string ReadText(const std::string& pointer, const Json& json, TextRule rule) {
  if (!json.is_string()) Refuse(pointer, "must be a string, is " + Shown(json));
  const std::string& text = json.get_ref<const std::string&>();
  if (text.size() > kTextBytesMax) {
    Refuse(pointer, "must be at most " + std::to_string(kTextBytesMax) + " bytes long, has " +
                        std::to_string(text.size()));
  }
  if (text.find('\0') != std::string::npos) Refuse(pointer, "must not hold a NUL character");
  if (rule == TextRule::kName) CheckName(text, pointer);
  if (rule == TextRule::kNodeRef) CheckNodeRef(pointer, text);
  return text;
}

// The fields that are none of `listed`.
std::vector<std::string> Others(const Json& object, const std::vector<std::string>& listed) {
  std::vector<std::string> others;
  for (const auto& [name, value] : object.items()) {
    if (std::ranges::find(listed, name) == listed.end()) others.push_back(name);
  }
  return others;
}

// `nearest`: it may be there under this misspelled name.
[[noreturn]] void RefuseMissing(const std::string& pointer, const std::string& nearest) {
  Refuse(pointer,
         nearest.empty() ? "is required" : "is required; is \"" + nearest + "\" meant to be it?");
}

}  // namespace

bool IsName(std::string_view name) {
  const auto is_alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > kNameBytesMax || !is_alnum(name.front())) return false;
  return std::all_of(name.begin(), name.end(),
                     [&](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
}

void CheckName(std::string_view name, const std::string& where) {
  if (IsName(name)) return;
  Refuse(where,
         "must be a name of a-z, 0-9, '.', '_' and '-' that begins with a letter or digit, "
         "at most " +
             std::to_string(kNameBytesMax) + " long, is " + Shown(std::string(name)));
}

std::string NearestName(std::string_view name, const std::vector<std::string>& names) {
  if (name.size() > kNameBytesMax) return "";
  std::string nearest;
  size_t best = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : names) {
    const size_t distance = EditDistance<std::string_view>(name, candidate);
    if (distance < best && distance < candidate.size()) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string DidYouMean(std::string_view name, const std::vector<std::string>& names) {
  const std::string nearest = NearestName(name, names);
  return nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?";
}

// --- FieldReader ---

FieldReader::FieldReader(const Json& json, const std::string& pointer,
                         std::initializer_list<std::string_view> ignored)
    : ignored_(ignored.begin(), ignored.end()) {
  if (!json.is_object()) Refuse(pointer, "must be an object, is " + Shown(json));
  levels_.push_back({&json, pointer, {}});
}

void FieldReader::Finish() {
  PARED_CHECK(levels_.size() == 1);
  Level& level = levels_.back();
  level.names.insert(level.names.end(), ignored_.begin(), ignored_.end());
  RefuseUnknown(level);
}

void FieldReader::RefuseUnknown(const Level& level) const {
  if (level.json == nullptr) return;
  for (const auto& [name, value] : level.json->items()) {
    if (std::find(level.names.begin(), level.names.end(), name) != level.names.end()) continue;
    const std::string hint = DidYouMean(name, level.names);
    Refuse(JoinPointer(level.pointer, name),
           "is no field here" + (hint.empty() ? "; there are: " + Joined(level.names) : hint));
  }
}

std::string FieldReader::Pointer(const char* name) const {
  return JoinPointer(levels_.back().pointer, name);
}

const Json* FieldReader::Find(const char* name) {
  Level& level = levels_.back();
  level.names.emplace_back(name);
  const bool required = std::exchange(required_, false);
  if (level.json == nullptr) return nullptr;
  const auto it = level.json->find(name);
  if (it != level.json->end()) return &*it;
  if (required) RefuseMissing(Pointer(name), NearestName(name, Others(*level.json, level.names)));
  return nullptr;
}

void FieldReader::Number(const char* name, double& value, NumberRange range, const char*) {
  const Json* json = Find(name);
  if (json == nullptr) return;
  if (!json->is_number()) Refuse(Pointer(name), "must be a number, is " + Shown(*json));
  const double number = json->get<double>();
  CheckRange(Pointer(name), *json, number, range.low, range.high);
  value = number;
}

void FieldReader::Integer(const char* name, int64_t& value, IntegerRange range, const char*) {
  const Json* json = Find(name);
  if (json == nullptr) return;
  if (!json->is_number_integer()) {
    Refuse(Pointer(name), "must be an integer, is " + Shown(*json));
  }
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  if (json->is_number_unsigned() && json->get<uint64_t>() > uint64_t{kMax}) {
    Refuse(Pointer(name), "must be at most " + std::to_string(range.high) + ", is " + Shown(*json));
  }
  const int64_t number = json->get<int64_t>();
  CheckRange(Pointer(name), *json, number, range.low, range.high);
  value = number;
}

void FieldReader::Flag(const char* name, bool& value, const char*) {
  const Json* json = Find(name);
  if (json == nullptr) return;
  if (!json->is_boolean()) Refuse(Pointer(name), "must be true or false, is " + Shown(*json));
  value = json->get<bool>();
}

void FieldReader::Text(const char* name, std::string& value, TextRule rule, const char*) {
  const bool required = required_;
  const Json* json = Find(name);
  if (json == nullptr) return;
  // The canonical form writes an optional name that was not given as "".
  if (value.empty() && !required && *json == "") return;
  value = ReadText(Pointer(name), *json, rule);
}

void FieldReader::TextList(const char* name, std::vector<std::string>& value, TextRule rule,
                           const char*) {
  const Json* json = Find(name);
  if (json == nullptr) return;
  const std::string pointer = Pointer(name);
  if (!json->is_array()) Refuse(pointer, "must be a list of strings, is " + Shown(*json));
  if (json->size() > kTextListMax) {
    Refuse(pointer, "must have at most " + std::to_string(kTextListMax) + " items, has " +
                        std::to_string(json->size()));
  }
  value.clear();
  for (const Json& item : *json) {
    value.push_back(ReadText(JoinPointer(pointer, std::to_string(value.size())), item, rule));
  }
}

void FieldReader::ChoiceList(const char* name, std::vector<std::string>& value,
                             std::initializer_list<const char*> choices, const char* help) {
  TextList(name, value, TextRule::kAny, help);
  const std::vector<std::string> known(choices.begin(), choices.end());
  for (size_t i = 0; i < value.size(); ++i) {
    if (std::ranges::find(known, value[i]) != known.end()) continue;
    Refuse(JoinPointer(Pointer(name), std::to_string(i)), "must be one of " + Joined(known) +
                                                              ", is " + Shown(value[i]) +
                                                              DidYouMean(value[i], known));
  }
}

void FieldReader::Raw(const char* name, Json& value, const char*) {
  if (const Json* json = Find(name)) value = *json;
}

void FieldReader::RawList(const char* name, std::vector<Json>& value, size_t count_max,
                          const char* help) {
  std::vector<Json> items(BeginList(name, value.size(), count_max, help));
  const Json* json = levels_.back().json;
  for (size_t i = 0; json != nullptr && i < items.size(); ++i) {
    const Json& item = (*json)[i];
    const std::string pointer = JoinPointer(levels_.back().pointer, std::to_string(i));
    if (!item.is_object()) Refuse(pointer, "must be an object, is " + Shown(item));
    items[i] = item;
  }
  if (json != nullptr) value = std::move(items);
  EndList();
}

void FieldReader::ChoiceIndex(const char* name, int& index,
                              std::initializer_list<const char*> names, const char*) {
  const Json* json = Find(name);
  if (json == nullptr) return;
  // A name of digits may be written as the number.
  const std::string given = json->is_string()           ? json->get<std::string>()
                            : json->is_number_integer() ? Shown(*json)
                                                        : "";
  std::string choices;
  int position = 0;
  for (const char* choice : names) {
    if (given == choice) {
      index = position;
      return;
    }
    choices += (position++ == 0 ? "" : ", ") + std::string(choice);
  }
  Refuse(Pointer(name), "must be one of " + choices + ", is " + Shown(*json));
}

void FieldReader::BeginObject(const char* name, const char*) {
  const Json* json = Find(name);
  if (json != nullptr && !json->is_object()) {
    Refuse(Pointer(name), "must be an object, is " + Shown(*json));
  }
  levels_.push_back({json, Pointer(name), {}});
}

void FieldReader::EndObject() {
  RefuseUnknown(levels_.back());
  levels_.pop_back();
}

size_t FieldReader::BeginList(const char* name, size_t count, size_t count_max, const char*) {
  const Json* json = Find(name);
  const std::string pointer = Pointer(name);
  levels_.push_back({json, pointer, {}});
  if (json == nullptr) return count;
  if (!json->is_array()) Refuse(pointer, "must be a list, is " + Shown(*json));
  if (json->size() > count_max) {
    Refuse(pointer, "must have at most " + std::to_string(count_max) + " items, has " +
                        std::to_string(json->size()));
  }
  return json->size();
}

void FieldReader::BeginItem(size_t index) {
  const Level& list = levels_.back();
  const std::string pointer = JoinPointer(list.pointer, std::to_string(index));
  const Json* item = list.json == nullptr ? nullptr : &(*list.json)[index];
  if (item != nullptr && !item->is_object()) {
    Refuse(pointer, "must be an object, is " + Shown(*item));
  }
  levels_.push_back({item, pointer, {}});
}

void FieldReader::EndItem() { EndObject(); }

void FieldReader::EndList() { levels_.pop_back(); }

// --- FieldWriter ---

Json FieldWriter::Take() {
  PARED_CHECK(open_.size() == 1);
  return std::move(open_.back());
}

void FieldWriter::Number(const char* name, double& value, NumberRange, const char*) {
  open_.back()[name] = value;
}

void FieldWriter::Integer(const char* name, int64_t& value, IntegerRange, const char*) {
  open_.back()[name] = value;
}

void FieldWriter::Flag(const char* name, bool& value, const char*) { open_.back()[name] = value; }

void FieldWriter::Text(const char* name, std::string& value, TextRule, const char*) {
  open_.back()[name] = value;
}

void FieldWriter::TextList(const char* name, std::vector<std::string>& value, TextRule,
                           const char*) {
  open_.back()[name] = value;
}

void FieldWriter::ChoiceList(const char* name, std::vector<std::string>& value,
                             std::initializer_list<const char*>, const char*) {
  open_.back()[name] = value;
}

void FieldWriter::Raw(const char* name, Json& value, const char*) { open_.back()[name] = value; }

void FieldWriter::RawList(const char* name, std::vector<Json>& value, size_t, const char*) {
  open_.back()[name] = value;
}

void FieldWriter::ChoiceIndex(const char* name, int& index,
                              std::initializer_list<const char*> names, const char*) {
  PARED_CHECK(index >= 0);
  PARED_CHECK(static_cast<size_t>(index) < names.size());
  open_.back()[name] = names.begin()[index];
}

void FieldWriter::BeginObject(const char* name, const char*) {
  names_.emplace_back(name);
  open_.push_back(Json::object());
}

void FieldWriter::EndObject() {
  Json closed = std::move(open_.back());
  open_.pop_back();
  open_.back()[names_.back()] = std::move(closed);
  names_.pop_back();
}

size_t FieldWriter::BeginList(const char* name, size_t count, size_t, const char*) {
  names_.emplace_back(name);
  open_.push_back(Json::array());
  return count;
}

void FieldWriter::BeginItem(size_t) { open_.push_back(Json::object()); }

void FieldWriter::EndItem() {
  Json closed = std::move(open_.back());
  open_.pop_back();
  open_.back().push_back(std::move(closed));
}

void FieldWriter::EndList() { EndObject(); }

}  // namespace pared
