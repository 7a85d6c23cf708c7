#include "base/check.h"
#include "base/error.h"
#include "config/batch_spec.h"
#include "passes/plan.h"
#include "tests/fuzz/targets.h"

namespace pared {
namespace {

// Runs `read`; what it refuses is the sender's fault and has its place.
template <class Read>
void ReadOrRefuse(Read read) {
  try {
    read();
  } catch (const Error& error) {
    PARED_CHECK(error.code() == ErrorCode::kInvalidArgument);
    PARED_CHECK(!error.message().empty());
  }
}

void ReadJob(const Json& json) {
  const Json written = WriteJobSpec(BindPasses(ReadJobSpec(json)));
  PARED_CHECK(WriteJobSpec(BindPasses(ReadJobSpec(written))) == written);
  PARED_CHECK(ParseJson(DumpJson(written)) == written);
}

void ReadBatch(const Json& json) {
  const BatchSpec spec = ReadBatchSpec(json);
  PARED_CHECK(WriteBatchSpec(ReadBatchSpec(WriteBatchSpec(spec))) == WriteBatchSpec(spec));
  static_cast<void>(JobOf(spec, FindRule(spec, "a.b", "a/b.onnx"), "a.b"));
}

}  // namespace

void FuzzJobSpec(FuzzInput input) {
  Json json;
  ReadOrRefuse([&] { json = ParseJson(TextOf(input)); });
  ReadOrRefuse([&] { ReadJob(json); });
  ReadOrRefuse([&] { ReadBatch(json); });
}

}  // namespace pared
