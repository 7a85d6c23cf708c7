#include "config/fields.h"

#include <gmock/gmock.h>

#include "tests/config/refused.h"

namespace pared {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

enum class Scope { kLayer, kModel };

struct Item {
  std::string node;
  double weight = 1;
};

void Fields(FieldVisitor& f, Item& i) {
  f.Required();
  f.Text("node", i.node, TextRule::kNodeRef, "Which node.");
  f.Number("weight", i.weight, {0}, "How much.");
}

struct Inner {
  bool on = false;
  std::string name;
};

void Fields(FieldVisitor& f, Inner& i) {
  f.Flag("on", i.on, "Whether.");
  f.Required();
  f.Text("name", i.name, TextRule::kName, "Its name.");
}

struct Options {
  double sparsity = 0.5;
  int64_t samples = 8;
  Scope scope = Scope::kLayer;
  std::string dataset;
  std::vector<std::string> skip = {"first"};
  std::vector<std::string> scopes = {"layer"};
  Inner inner;
  std::vector<Item> items;
  std::vector<Json> raw;
  Json any;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Number("sparsity", o.sparsity, {0.0, 0.99}, "Fraction set to zero.");
  f.Integer("samples", o.samples, {1, 100}, "So many.");
  f.Choice("scope", o.scope, {"layer", "model"}, "Rank within.");
  f.Text("dataset", o.dataset, TextRule::kName, "Data.");
  f.TextList("skip", o.skip, TextRule::kAny, "Left alone.");
  f.ChoiceList("scopes", o.scopes, {"layer", "model"}, "Each.");
  f.Object("inner", o.inner, "Inner.");
  f.List("items", o.items, 2, "Items.");
  f.RawList("raw", o.raw, 2, "Raw.");
  f.Raw("any", o.any, "Anything.");
}

Options Read(const std::string& text) {
  Options options;
  ReadFields(ParseJson(text), "/o", options, {"pass"});
  return options;
}

TEST(ReadFields, KeepsDefaultsOfWhatIsAbsent) {
  const Options options = Read("{}");
  EXPECT_EQ(options.sparsity, 0.5);
  EXPECT_EQ(options.samples, 8);
  EXPECT_EQ(options.scope, Scope::kLayer);
  EXPECT_THAT(options.skip, ElementsAre("first"));
  EXPECT_THAT(options.items, IsEmpty());
}

TEST(ReadFields, ReadsEveryKindOfField) {
  const Options options = Read(R"({
    "pass": "ignored", "sparsity": 1e-1, "samples": 100, "scope": "model", "dataset": "digits-2.b",
    "skip": [], "scopes": ["model", "layer"], "inner": {"on": true, "name": "x"},
    "items": [{"node": "conv"}, {"node": "re:^conv[0-9]+$", "weight": 3}],
    "raw": [{"z": 1}], "any": [null]})");
  EXPECT_EQ(options.sparsity, 0.1);
  EXPECT_EQ(options.samples, 100);
  EXPECT_EQ(options.scope, Scope::kModel);
  EXPECT_EQ(options.dataset, "digits-2.b");
  EXPECT_THAT(options.skip, IsEmpty());
  EXPECT_THAT(options.scopes, ElementsAre("model", "layer"));
  EXPECT_TRUE(options.inner.on);
  EXPECT_EQ(options.inner.name, "x");
  ASSERT_EQ(options.items.size(), 2);
  EXPECT_EQ(options.items[0].weight, 1);
  EXPECT_EQ(options.items[1].node, "re:^conv[0-9]+$");
  ASSERT_EQ(options.raw.size(), 1);
  EXPECT_EQ(options.raw[0].dump(), R"({"z":1})");
  EXPECT_EQ(options.any.dump(), "[null]");
}

TEST(ReadFields, AcceptsBothEndsOfARange) {
  EXPECT_EQ(Read(R"({"sparsity": 0})").sparsity, 0);
  EXPECT_EQ(Read(R"({"sparsity": 0.99})").sparsity, 0.99);
  EXPECT_EQ(Read(R"({"samples": 1})").samples, 1);
}

TEST(ReadFields, RefusesWhatIsOutOfRangeAndSaysWhatWouldBeRight) {
  EXPECT_THAT([] { Read(R"({"sparsity": 1.8})"); },
              RefusedAt("/o/sparsity", "must be between 0.0 and 0.99, is 1.8"));
  EXPECT_THAT([] { Read(R"({"samples": 0})"); },
              RefusedAt("/o/samples", "must be between 1 and 100, is 0"));
  EXPECT_THAT([] { Read(R"({"samples": 101})"); },
              RefusedAt("/o/samples", "must be between 1 and 100, is 101"));
  EXPECT_THAT([] { Read(R"({"samples": 18446744073709551615})"); },
              RefusedAt("/o/samples", "must be at most 100, is 18446744073709551615"));
  EXPECT_THAT([] { Read(R"({"items": [{"node": "a", "weight": -1}]})"); },
              RefusedAt("/o/items/0/weight", "must be at least 0.0, is -1"));
}

TEST(ReadFields, RefusesAnotherType) {
  EXPECT_THAT([] { Read(R"({"sparsity": "x"})"); },
              RefusedAt("/o/sparsity", "must be a number, is \"x\""));
  EXPECT_THAT([] { Read(R"({"samples": 2.5})"); },
              RefusedAt("/o/samples", "must be an integer, is 2.5"));
  EXPECT_THAT([] { Read(R"({"dataset": 3})"); }, RefusedAt("/o/dataset", "must be a string, is 3"));
  EXPECT_THAT([] { Read(R"({"inner": []})"); }, RefusedAt("/o/inner", "must be an object, is []"));
  EXPECT_THAT([] { Read(R"({"inner": {"name": "x", "on": 1}})"); },
              RefusedAt("/o/inner/on", "must be true or false, is 1"));
  EXPECT_THAT([] { Read(R"({"items": {}})"); }, RefusedAt("/o/items", "must be a list, is {}"));
  EXPECT_THAT([] { Read(R"({"items": [7]})"); },
              RefusedAt("/o/items/0", "must be an object, is 7"));
  EXPECT_THAT([] { Read(R"({"raw": [{}, 7]})"); },
              RefusedAt("/o/raw/1", "must be an object, is 7"));
  EXPECT_THAT([] { Read(R"({"skip": ["a", null]})"); },
              RefusedAt("/o/skip/1", "must be a string, is null"));
  EXPECT_THAT([] { Read(R"({"scopes": ["model", "layers"]})"); },
              RefusedAt("/o/scopes/1",
                        "must be one of layer, model, is \"layers\"; did you mean \"layer\"?"));
  EXPECT_THAT([] { Read("[]"); }, RefusedAt("/o", "must be an object, is []"));
}

struct Width {
  enum class Bits { k8, k4 };
  Bits bits = Bits::k8;
};

void Fields(FieldVisitor& f, Width& w) { f.Choice("bits", w.bits, {"8", "4"}, "So many."); }

TEST(ReadFields, TakesAChoiceOfDigitsAsANumberToo) {
  for (const Json& four : {Json("4"), Json(4)}) {
    Width width;
    ReadFields({{"bits", four}}, "", width);
    EXPECT_EQ(width.bits, Width::Bits::k4) << four;
    EXPECT_EQ(WriteFields(width), Json({{"bits", "4"}}));
  }
  for (const Json& other : {Json(4.5), Json(16), Json(true), Json()}) {
    Width width;
    EXPECT_THAT(
        [&] {
          ReadFields({{"bits", other}}, "", width);
        },
        RefusedAt("/bits", "must be one of 8, 4, is " + other.dump()));
  }
}

TEST(ReadFields, ListsTheChoices) {
  EXPECT_THAT([] { Read(R"({"scope": "row"})"); },
              RefusedAt("/o/scope", "must be one of layer, model, is \"row\""));
}

TEST(ReadFields, AMissingFieldMayBeThereMisspelled) {
  EXPECT_THAT([] { Read(R"({"inner": {"nmae": "x"}})"); },
              RefusedAt("/o/inner/name", "is required; is \"nmae\" meant to be it?"));
}

TEST(ReadFields, SuggestsTheNearestFieldForAnUnknownOne) {
  EXPECT_THAT([] { Read(R"({"sparcity": 0.5})"); },
              RefusedAt("/o/sparcity", "is no field here; did you mean \"sparsity\"?"));
  EXPECT_THAT([] { Read(R"({"inner": {"name": "x", "far_away": true}})"); },
              RefusedAt("/o/inner/far_away", "is no field here; there are: on, name"));
  EXPECT_THAT([] { Read(R"({"a/b~c": 1})"); }, RefusedAt("/o/a~1b~0c"));
}

TEST(ReadFields, AsksForRequiredFieldsOfObjectsThatAreThere) {
  EXPECT_THAT([] { Read(R"({"inner": {}})"); }, RefusedAt("/o/inner/name", "is required"));
  EXPECT_THAT([] { Read(R"({"items": [{"weight": 1}]})"); },
              RefusedAt("/o/items/0/node", "is required"));
}

TEST(ReadFields, LimitsLists) {
  EXPECT_EQ(Read(R"({"raw": [{}, {}]})").raw.size(), 2);
  EXPECT_THAT([] { Read(R"({"raw": [{}, {}, {}]})"); },
              RefusedAt("/o/raw", "must have at most 2 items, has 3"));
  EXPECT_THAT([] { Read(R"({"items": [{"node":"a"}, {"node":"a"}, {"node":"a"}]})"); },
              RefusedAt("/o/items", "must have at most 2 items, has 3"));
}

TEST(ReadFields, KeepsNamesFitForFileNames) {
  for (const char* name : {"..", ".a", "a/b", "A", "a b", "-x", "\\u0000", "é"}) {
    EXPECT_THAT([&] { Read(R"({"dataset": ")" + std::string(name) + "\"}"); },
                RefusedAt("/o/dataset"))
        << name;
  }
  EXPECT_EQ(Read("{\"dataset\": \"" + std::string(128, 'a') + "\"}").dataset.size(), 128);
  EXPECT_THAT([] { Read("{\"dataset\": \"" + std::string(129, 'a') + "\"}"); },
              RefusedAt("/o/dataset"));
}

TEST(ReadFields, TakesAnEmptyNameOnlyWhereItIsOptional) {
  EXPECT_EQ(Read(R"({"dataset": ""})").dataset, "");
  EXPECT_THAT([] { Read(R"({"inner": {"name": ""}})"); }, RefusedAt("/o/inner/name"));
}

TEST(ReadFields, ChecksReferencesToNodes) {
  const auto node = [](const std::string& text) {
    return Read("{\"items\": [{\"node\": \"" + text + "\"}]}").items[0].node;
  };
  EXPECT_EQ(node("op:Conv"), "op:Conv");
  EXPECT_EQ(node("/model/conv.1"), "/model/conv.1");
  EXPECT_THAT([&] { node("re:("); }, RefusedAt("/o/items/0/node"));
  EXPECT_THAT([&] { node("op:"); }, RefusedAt("/o/items/0/node"));
  EXPECT_THAT([&] { node(""); }, RefusedAt("/o/items/0/node"));
  EXPECT_THAT([&] { node("re:" + std::string(300, 'a')); }, RefusedAt("/o/items/0/node"));
}

TEST(ReadFields, LimitsTexts) {
  EXPECT_EQ(Read("{\"skip\": [\"" + std::string(4096, 'x') + "\"]}").skip[0].size(), 4096);
  EXPECT_THAT([] { Read("{\"skip\": [\"" + std::string(4097, 'x') + "\"]}"); },
              RefusedAt("/o/skip/0", "must be at most 4096 bytes long, has 4097"));
}

TEST(ReadFields, ShortensAValueInAMessage) {
  const std::string text = "{\"samples\": \"" + std::string(1000, 'x') + "\"}";
  EXPECT_THAT([&] { Read(text); },
              RefusedAt("/o/samples", "must be an integer, is \"" + std::string(63, 'x') + "..."));
}

TEST(WriteFields, WritesAllFieldsWithTheirDefaults) {
  EXPECT_EQ(WriteFields(Options{}), ParseJson(R"({
    "sparsity": 0.5, "samples": 8, "scope": "layer", "dataset": "", "skip": ["first"], "scopes": ["layer"],
    "inner": {"on": false, "name": ""}, "items": [], "raw": [], "any": null})"));
}

TEST(WriteFields, WritesNestedFields) {
  const Json written =
      WriteFields(Read(R"({"inner": {"name": "q", "on": true}, "raw": [{"pass": "x"}],
               "items": [{"node": "a"}, {"node": "b", "weight": 0.25}], "any": {"k": 1}})"));
  EXPECT_EQ(written["inner"].dump(), R"({"name":"q","on":true})");
  EXPECT_EQ(written["items"].dump(), R"([{"node":"a","weight":1.0},{"node":"b","weight":0.25}])");
  EXPECT_EQ(written["raw"].dump(), R"([{"pass":"x"}])");
  EXPECT_EQ(written["any"].dump(), R"({"k":1})");
}

TEST(DescribeFields, DescribesEachField) {
  const Json fields = DescribeFields<Options>();
  ASSERT_EQ(fields.size(), 10);
  EXPECT_EQ(fields[0], ParseJson(R"({"name": "sparsity", "type": "number", "default": 0.5,
      "minimum": 0.0, "maximum": 0.99, "required": false, "help": "Fraction set to zero."})"));
  EXPECT_EQ(fields[2], ParseJson(R"({"name": "scope", "type": "choice", "default": "layer",
      "choices": ["layer", "model"], "required": false, "help": "Rank within."})"));
  EXPECT_EQ(fields[5], ParseJson(R"({"name": "scopes", "type": "strings", "default": ["layer"],
      "choices": ["layer", "model"], "required": false, "help": "Each."})"));
  EXPECT_EQ(fields[6], ParseJson(R"({"name": "inner", "type": "object", "required": false,
      "help": "Inner.", "fields": [
        {"name": "on", "type": "boolean", "default": false, "required": false, "help": "Whether."},
        {"name": "name", "type": "string", "required": true, "help": "Its name."}]})"));
  EXPECT_EQ(fields[7]["fields"][0]["name"], "node");
  EXPECT_EQ(fields[7]["maximum"], 2);
}

TEST(NearestName, FindsASlipAndNothingFarAway) {
  const std::vector<std::string> names = {"granularity", "mode"};
  EXPECT_EQ(NearestName("granularty", names), "granularity");
  EXPECT_EQ(NearestName("mod", names), "mode");
  EXPECT_EQ(NearestName("xyz", names), "");
}

}  // namespace
}  // namespace pared
