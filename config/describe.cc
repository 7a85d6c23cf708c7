// FieldDescriber: what a listing of fields says about itself.

#include <cmath>
#include <utility>

#include "base/check.h"
#include "config/fields.h"

namespace pared {

Json FieldDescriber::Take() {
  PARED_CHECK(open_.size() == 1);
  return std::move(open_.back());
}

void FieldDescriber::Add(Json entry, const char* name, const char* help) {
  entry["name"] = name;
  entry["help"] = help;
  entry["required"] = std::exchange(required_, false);
  if (entry["required"] == true) entry.erase("default");
  open_.back().push_back(std::move(entry));
}

void FieldDescriber::Number(const char* name, double& value, NumberRange range, const char* help) {
  Json entry = {{"type", "number"}, {"default", value}};
  if (std::isfinite(range.low)) entry["minimum"] = range.low;
  if (std::isfinite(range.high)) entry["maximum"] = range.high;
  Add(std::move(entry), name, help);
}

void FieldDescriber::Integer(const char* name, int64_t& value, IntegerRange range,
                             const char* help) {
  Json entry = {{"type", "integer"}, {"default", value}};
  if (range.low != IntegerRange{}.low) entry["minimum"] = range.low;
  if (range.high != IntegerRange{}.high) entry["maximum"] = range.high;
  Add(std::move(entry), name, help);
}

void FieldDescriber::Flag(const char* name, bool& value, const char* help) {
  Add({{"type", "boolean"}, {"default", value}}, name, help);
}

void FieldDescriber::Text(const char* name, std::string& value, TextRule, const char* help) {
  Add({{"type", "string"}, {"default", value}}, name, help);
}

void FieldDescriber::TextList(const char* name, std::vector<std::string>& value, TextRule,
                              const char* help) {
  Add({{"type", "strings"}, {"default", value}}, name, help);
}

void FieldDescriber::ChoiceList(const char* name, std::vector<std::string>& value,
                                std::initializer_list<const char*> choices, const char* help) {
  Add({{"type", "strings"},
       {"default", value},
       {"choices", std::vector<std::string>(choices.begin(), choices.end())}},
      name, help);
}

void FieldDescriber::Raw(const char* name, Json& value, const char* help) {
  Add({{"type", "any"}, {"default", value}}, name, help);
}

void FieldDescriber::RawList(const char* name, std::vector<Json>& value, size_t count_max,
                             const char* help) {
  Add({{"type", "objects"}, {"default", value}, {"maximum", count_max}}, name, help);
}

void FieldDescriber::ChoiceIndex(const char* name, int& index,
                                 std::initializer_list<const char*> names, const char* help) {
  PARED_CHECK(index >= 0);
  PARED_CHECK(static_cast<size_t>(index) < names.size());
  Json choices = Json::array();
  for (const char* choice : names) choices.push_back(choice);
  Add({{"type", "choice"}, {"default", choices[static_cast<size_t>(index)]}, {"choices", choices}},
      name, help);
}

void FieldDescriber::BeginObject(const char* name, const char* help) {
  Add({{"type", "object"}}, name, help);
  open_.push_back(Json::array());
}

void FieldDescriber::EndObject() {
  Json fields = std::move(open_.back());
  open_.pop_back();
  open_.back().back()["fields"] = std::move(fields);
}

// The items of a default are not shown, only what one looks like.
size_t FieldDescriber::BeginList(const char* name, size_t, size_t count_max, const char* help) {
  Add({{"type", "objects"}, {"default", Json::array()}, {"maximum", count_max}}, name, help);
  return 0;
}

void FieldDescriber::BeginItem(size_t) { open_.push_back(Json::array()); }

void FieldDescriber::EndItem() { EndObject(); }

void FieldDescriber::EndList() {}

}  // namespace pared
