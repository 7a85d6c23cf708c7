#include <gmock/gmock.h>

#include "model/onnx.h"
#include "model/rewrite.h"
#include "tests/passes/run_step.h"

namespace pared {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Field `number` as protobuf writes a string shorter than 128 bytes.
Unknown NoteOf(uint32_t number, const std::string& text) {
  const uint32_t tag = number << 3 | 2;
  Unknown note;
  if (tag >= 128) note += static_cast<char>((tag & 127) | 128);
  note += static_cast<char>(tag >= 128 ? tag >> 7 : tag);
  return note + static_cast<char>(text.size()) + text;
}

TEST(StripNotes, DropsThemEverywhereAndNothingElse) {
  Model in = ModelFromText(R"(g (bool c, float[2] x) => (float[2] y) <float[2] w = {1,2}> {
       y = If (c) <then_branch = a () => (float[2] p) { p = Add(x, w) },
                   else_branch = b () => (float[2] q) { q = Neg(x) }> })");
  in.doc_string = "of the model";
  in.metadata = {{"names", "cat, dog"}};
  const size_t bytes = SerializeOnnx(in).size();
  int64_t noted_bytes = 0;
  const auto note = [&](uint32_t number, const std::string& text) {
    const Unknown made = NoteOf(number, text);
    noted_bytes += std::ssize(made);
    return made;
  };
  Model noted = in;
  noted.graph.unknown = note(10, "stack graph");
  noted.graph.nodes[0].unknown = note(6, "stack node") + note(9, "stack metadata");
  noted.graph.inputs[0].unknown = note(3, "stack input");
  noted.graph.initializers.find("w")->unknown = note(12, "stack tensor");
  EditSubgraphs(noted.graph.nodes[0],
                [&](Graph& inner) { inner.nodes[0].unknown = note(6, "stack inner"); });
  ASSERT_THAT(SerializeOnnx(noted), HasSubstr("stack inner"));
  const PassResult out = RunStep("strip_notes", {}, noted);
  const std::string written = SerializeOnnx(out.model);
  EXPECT_THAT(written, Not(HasSubstr("stack")));
  EXPECT_THAT(written, HasSubstr("cat, dog"));
  EXPECT_EQ(written.size(), bytes);
  EXPECT_EQ(out.report["dropped_bytes"], noted_bytes);
  EXPECT_THAT(SerializeOnnx(RunStep("strip_notes", {{"exclude", {"op:Neg"}}}, noted).model),
              HasSubstr("stack inner"));
  Model other = in;  // fields that are no notes
  other.graph.nodes[0].unknown = NoteOf(100, "kept");
  EXPECT_THAT(SerializeOnnx(RunStep("strip_notes", {}, other).model), HasSubstr("kept"));
}

}  // namespace
}  // namespace pared
