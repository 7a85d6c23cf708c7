// Options listed once: the listing reads, checks, fills defaults, writes canonical JSON and
// documents itself.
//
//   struct Options { double sparsity = 0.5; Scope scope = Scope::kLayer; };
//   void Fields(FieldVisitor& f, Options& o) {
//     f.Number("sparsity", o.sparsity, {0.0, 0.99}, "Fraction of each weight set to zero.");
//     f.Choice("scope", o.scope, {"layer", "model"}, "Rank magnitudes within a layer or the
//     model.");
//   }
//
// The default stands in the struct. A field is required where its listing calls Required() before
// it.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace pared {

using Json = nlohmann::json;  // objects sort by key: dump() is canonical

struct NumberRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};
struct IntegerRange {
  int64_t low = std::numeric_limits<int64_t>::min();
  int64_t high = std::numeric_limits<int64_t>::max();
};
enum class TextRule {
  kAny,      // at most 4,096 bytes
  kName,     // [a-z0-9][a-z0-9._-]*, at most 128: safe as a file name
  kNodeRef,  // a node name, "re:REGEX" over node names, or "op:OP_TYPE"
};

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;

  // The next field listed must be given.
  virtual void Required() = 0;

  virtual void Number(const char* name, double& value, NumberRange range, const char* help) = 0;
  virtual void Integer(const char* name, int64_t& value, IntegerRange range, const char* help) = 0;
  virtual void Flag(const char* name, bool& value, const char* help) = 0;
  virtual void Text(const char* name, std::string& value, TextRule rule, const char* help) = 0;
  virtual void TextList(const char* name, std::vector<std::string>& value, TextRule rule,
                        const char* help) = 0;
  // Each item is one of `choices`.
  virtual void ChoiceList(const char* name, std::vector<std::string>& value,
                          std::initializer_list<const char*> choices, const char* help) = 0;
  // Any JSON, checked elsewhere.
  virtual void Raw(const char* name, Json& value, const char* help) = 0;
  // Objects, checked elsewhere, at most `count_max`.
  virtual void RawList(const char* name, std::vector<Json>& value, size_t count_max,
                       const char* help) = 0;

  // E's values are 0, 1, ... in the order of `names`.
  template <class E>
  void Choice(const char* name, E& value, std::initializer_list<const char*> names,
              const char* help) {
    int index = static_cast<int>(value);
    ChoiceIndex(name, index, names, help);
    value = static_cast<E>(index);
  }

  // A struct with a Fields() of its own.
  template <class T>
  void Object(const char* name, T& value, const char* help) {
    BeginObject(name, help);
    Fields(*this, value);
    EndObject();
  }

  // A list of such structs, at most `count_max`.
  template <class T>
  void List(const char* name, std::vector<T>& value, size_t count_max, const char* help) {
    value.resize(BeginList(name, value.size(), count_max, help));
    for (size_t i = 0; i < value.size(); ++i) {
      BeginItem(i);
      Fields(*this, value[i]);
      EndItem();
    }
    if (WantsSample()) {  // a describer has no items and still shows what one looks like
      T sample;
      BeginItem(0);
      Fields(*this, sample);
      EndItem();
    }
    EndList();
  }

 private:
  virtual void ChoiceIndex(const char* name, int& index, std::initializer_list<const char*> names,
                           const char* help) = 0;
  virtual void BeginObject(const char* name, const char* help) = 0;
  virtual void EndObject() = 0;
  virtual size_t BeginList(const char* name, size_t count, size_t count_max, const char* help) = 0;
  virtual void BeginItem(size_t index) = 0;
  virtual void EndItem() = 0;
  virtual void EndList() = 0;
  virtual bool WantsSample() const { return false; }
};

constexpr size_t kJsonBytesMax = size_t{64} << 20;
constexpr size_t kJsonDepthMax = 64;

// Parses JSON text: no duplicate keys, no NaN, no number beyond a double, at most kJsonDepthMax
// deep and kJsonBytesMax long. Throws kInvalidArgument with the byte offset or the JSON Pointer in
// `where`.
Json ParseJson(std::string_view text);

// One line; bytes that are not UTF-8 (a node name of a foreign model, say) become U+FFFD.
std::string DumpJson(const Json& json);

// `pointer` and one more reference token, escaped as RFC 6901 asks.
std::string JoinPointer(const std::string& pointer, std::string_view token);

// Whether `name` matches [a-z0-9][a-z0-9._-]* and is at most 128 bytes long.
bool IsName(std::string_view name);

// Throws kInvalidArgument at `where` unless IsName(name).
void CheckName(std::string_view name, const std::string& where);

// The one of `names` that `name` was probably meant to be; empty: none is near.
std::string NearestName(std::string_view name, const std::vector<std::string>& names);
// The end of a message that refuses `name`: "; did you mean "NEAREST"?", or nothing.
std::string DidYouMean(std::string_view name, const std::vector<std::string>& names);

// Fills `options` from `json`, which must be an object. Throws kInvalidArgument at
// `pointer`/field for a missing, unknown, mistyped or out-of-range field. `ignored` fields may
// stand in the object and are read by somebody else.
template <class Options>
void ReadFields(const Json& json, const std::string& pointer, Options& options,
                std::initializer_list<std::string_view> ignored = {});

// All fields, defaults included: equal options give equal JSON.
template <class Options>
Json WriteFields(const Options& options);

// [{"name", "type", "default", "required", "minimum", "maximum", "choices", "fields", "help"}, ...]
template <class Options>
Json DescribeFields(const Options& defaults = {});

}  // namespace pared

#include "config/fields_inl.h"
