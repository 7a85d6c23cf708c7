// What quantize_int8 is asked for, and the float model that it quantizes with what becomes INT8 of
// it.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "passes/calibrate.h"
#include "passes/code_range.h"
#include "passes/float_bounds.h"
#include "passes/int8_choice.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"

namespace pared {

struct Int8Options {
  enum class Granularity { kPerChannel, kPerTensor };
  enum class Method { kAuto, kMinMax, kPercentile, kEntropy, kMse, kOutput };
  enum class Smooth { kAuto, kOff };
  enum class Equalize { kAuto, kOff };
  enum class Format { kQdq, kQOperator };
  enum class Target { kOnnxruntime, kOpenvino, kPared, kTflite };
  enum class Rounding { kAuto, kNearest };
  enum class KeepAs { kFloat32, kFloat16 };

  Granularity granularity = Granularity::kPerChannel;
  Method method = Method::kAuto;
  double percentile = 99.999;
  Smooth smooth = Smooth::kAuto;
  Equalize equalize = Equalize::kAuto;
  Rounding rounding = Rounding::kAuto;
  bool bias_correction = true;
  CodeRange code_range;
  FloatBounds bounds;
  KeepAs keep_as = KeepAs::kFloat32;
  bool sensitivity = false;
  bool tables = true;
  Format format = Format::kQdq;
  Target target = Target::kOnnxruntime;
  std::vector<std::string> op_types = {"Conv", "ConvTranspose", "Gemm", "MatMul"};
  std::vector<std::string> exclude;
  bool freeze_inputs = false;

  void Check(const std::string& pointer) const;  // as DefinePass wants it
};

void Fields(FieldVisitor& f, Int8Options& o);

// The nodes that one of the references selects, by name: names survive the preparation, addresses
// do not. Unnamed nodes of the main graph that are selected get a name.
class Int8Exclusions {
 public:
  Int8Exclusions(Model& model, const std::vector<std::string>& references);
  bool Contains(const Node& node) const { return names_.contains(NameOf(node)); }
  const std::unordered_set<std::string>& names() const { return names_; }

 private:
  std::unordered_set<std::string> names_;
};

// A float model and what of it becomes INT8. Pointers lead into `model`, so it stays where it is.
struct Int8Candidate {
  Model model;
  std::unique_ptr<GraphIndex> index;
  WeightScan scan;
  Int8ChoiceContext context;
  Int8Choice choice;
};

struct Int8Request {
  const Int8Options* options = nullptr;
  const Int8Exclusions* exclusions = nullptr;
};

// `kept_float`: outputs of nodes that stay float besides the excluded ones.
std::unique_ptr<Int8Candidate> MakeInt8Candidate(
    Model model, const Int8Request& request,
    const std::unordered_set<std::string>& kept_float = {});

// Multiplications of one sample, by the compute nodes.
int64_t MacsOf(const Int8Candidate& candidate);

// The inputs of the weighted nodes, and the axis of each that a weight sums over. Where readers
// differ, that of convolutions: these have a bias to correct.
std::map<std::string, int64_t> InputChannels(const Int8Choice& choice);

// Calibration of all that the candidate quantizes, or that it would with fewer INT8 nodes; `kept`
// as Calibrate has it.
Calibration CalibrateInt8(const Int8Candidate& candidate, const Int8Options& options,
                          PassContext& context, KeptValues* kept = nullptr);

}  // namespace pared
