// The three visitors behind ReadFields, WriteFields and DescribeFields. Included by fields.h alone.

#pragma once

namespace pared {

// Fills the options from JSON. A field that is absent keeps its default; a Required() field inside
// an object that is itself absent is not asked for.
class FieldReader final : public FieldVisitor {
 public:
  FieldReader(const Json& json, const std::string& pointer,
              std::initializer_list<std::string_view> ignored);

  // Throws at the first field that no listing named.
  void Finish();

  void Required() override { required_ = true; }
  void Number(const char* name, double& value, NumberRange range, const char* help) override;
  void Integer(const char* name, int64_t& value, IntegerRange range, const char* help) override;
  void Flag(const char* name, bool& value, const char* help) override;
  void Text(const char* name, std::string& value, TextRule rule, const char* help) override;
  void TextList(const char* name, std::vector<std::string>& value, TextRule rule,
                const char* help) override;
  void ChoiceList(const char* name, std::vector<std::string>& value,
                  std::initializer_list<const char*> choices, const char* help) override;
  void Raw(const char* name, Json& value, const char* help) override;
  void RawList(const char* name, std::vector<Json>& value, size_t count_max,
               const char* help) override;

 private:
  struct Level {
    const Json* json;  // an object or a list; null: absent, all below keep their defaults
    std::string pointer;
    std::vector<std::string> names;  // listed so far
  };

  void ChoiceIndex(const char* name, int& index, std::initializer_list<const char*> names,
                   const char* help) override;
  void BeginObject(const char* name, const char* help) override;
  void EndObject() override;
  size_t BeginList(const char* name, size_t count, size_t count_max, const char* help) override;
  void BeginItem(size_t index) override;
  void EndItem() override;
  void EndList() override;

  const Json* Find(const char* name);  // null: absent
  void RefuseUnknown(const Level& level) const;
  std::string Pointer(const char* name) const;

  std::vector<Level> levels_;
  std::vector<std::string> ignored_;
  bool required_ = false;
};

class FieldWriter final : public FieldVisitor {
 public:
  Json Take();

  void Required() override {}
  void Number(const char* name, double& value, NumberRange range, const char* help) override;
  void Integer(const char* name, int64_t& value, IntegerRange range, const char* help) override;
  void Flag(const char* name, bool& value, const char* help) override;
  void Text(const char* name, std::string& value, TextRule rule, const char* help) override;
  void TextList(const char* name, std::vector<std::string>& value, TextRule rule,
                const char* help) override;
  void ChoiceList(const char* name, std::vector<std::string>& value,
                  std::initializer_list<const char*> choices, const char* help) override;
  void Raw(const char* name, Json& value, const char* help) override;
  void RawList(const char* name, std::vector<Json>& value, size_t count_max,
               const char* help) override;

 private:
  void ChoiceIndex(const char* name, int& index, std::initializer_list<const char*> names,
                   const char* help) override;
  void BeginObject(const char* name, const char* help) override;
  void EndObject() override;
  size_t BeginList(const char* name, size_t count, size_t count_max, const char* help) override;
  void BeginItem(size_t index) override;
  void EndItem() override;
  void EndList() override;

  std::vector<Json> open_ = {Json::object()};  // the containers being filled, outermost first
  std::vector<std::string> names_;             // of those but the outermost that are no list items
};

class FieldDescriber final : public FieldVisitor {
 public:
  Json Take();

  void Required() override { required_ = true; }
  void Number(const char* name, double& value, NumberRange range, const char* help) override;
  void Integer(const char* name, int64_t& value, IntegerRange range, const char* help) override;
  void Flag(const char* name, bool& value, const char* help) override;
  void Text(const char* name, std::string& value, TextRule rule, const char* help) override;
  void TextList(const char* name, std::vector<std::string>& value, TextRule rule,
                const char* help) override;
  void ChoiceList(const char* name, std::vector<std::string>& value,
                  std::initializer_list<const char*> choices, const char* help) override;
  void Raw(const char* name, Json& value, const char* help) override;
  void RawList(const char* name, std::vector<Json>& value, size_t count_max,
               const char* help) override;

 private:
  void ChoiceIndex(const char* name, int& index, std::initializer_list<const char*> names,
                   const char* help) override;
  void BeginObject(const char* name, const char* help) override;
  void EndObject() override;
  size_t BeginList(const char* name, size_t count, size_t count_max, const char* help) override;
  void BeginItem(size_t index) override;
  void EndItem() override;
  void EndList() override;
  bool WantsSample() const override { return true; }

  void Add(Json entry, const char* name, const char* help);

  std::vector<Json> open_ = {Json::array()};  // lists of entries; an entry takes the list it holds
  bool required_ = false;
};

template <class Options>
void ReadFields(const Json& json, const std::string& pointer, Options& options,
                std::initializer_list<std::string_view> ignored) {
  FieldReader reader(json, pointer, ignored);
  Fields(static_cast<FieldVisitor&>(reader), options);
  reader.Finish();
}

template <class Options>
Json WriteFields(const Options& options) {
  Options copy = options;  // a listing takes its options by mutable reference
  FieldWriter writer;
  Fields(static_cast<FieldVisitor&>(writer), copy);
  return writer.Take();
}

template <class Options>
Json DescribeFields(const Options& defaults) {
  Options copy = defaults;
  FieldDescriber describer;
  Fields(static_cast<FieldVisitor&>(describer), copy);
  return describer.Take();
}

}  // namespace pared
