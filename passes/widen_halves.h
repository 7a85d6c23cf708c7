// Models that store or compute in float16 or bfloat16, as float32: for passes that count in it.
//
// Every constant, value, input and output of these types becomes float32, in subgraphs too; nodes,
// their order and all names stay. Casts between the types are left as casts to what they read.

#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Whether a constant, an input or an output is float16 or bfloat16, or a Cast makes such.
bool HasHalves(const Model& model);

// The float32 tensor rounded to float16 or bfloat16.
Tensor InHalf(const Tensor& tensor, DType dtype);

// Edits constants in float32, without a trace in how the model stores and computes: `edit` gets the
// widened model and may replace constants, let nodes read new initializers and drop old ones; what
// it replaced or added is rounded to the type that stands there. `edit` gets the model itself where
// it has no halves.
Model EditWidened(const Model& model, const std::filesystem::path& spill,
                  const std::function<Model(Model)>& edit);

// For passes that write other nodes: the model is float32 in between, without the casts that do
// nothing then; and what it stores in other types and casts to float32 is a constant of that.
class HalfStorage {
 public:
  // Large tensors go to `spill`, as Spilled has it.
  HalfStorage(Model& model, const std::filesystem::path& spill);

  // Gives inputs and outputs their types back, by Casts; and stores constants as they were, with a
  // Cast to float32, where they are still read. Those that have been changed or added stay float32,
  // or are rounded to half floats where the model has such. Not where fewer than kWorthACast
  // elements would cost more nodes than they save bytes. Says under "widened" of the report what is
  // no longer as it was.
  enum class Changed { kStayWide, kAreRounded };
  void Restore(Model& model, Json& report, Changed changed = Changed::kStayWide) const;

 private:
  void Widen(Model& model, const std::filesystem::path& spill);

  struct Stored {
    Tensor original, widened;
  };
  // What the initializer is to be stored as; undefined: as it is.
  Tensor Narrowed(const std::string& name, const Tensor& now, Changed changed) const;

  std::vector<ValueInfo> inputs_, outputs_;
  std::map<std::string, Stored> stored_;  // initializers of the main graph, by name
  std::set<std::string> float_;           // those that were float32 from the beginning
  Json casts_ = Json::array();            // that are folded
  int64_t constant_count_ = 0;
  bool is_widened_ = false, computed_in_half_ = false;
};

// Fewer elements are not worth a Cast.
constexpr int64_t kWorthACast = 256;

}  // namespace pared
