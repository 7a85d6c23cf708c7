#include "passes/int8_search.h"

#include <algorithm>

#include "passes/int8_equalize.h"
#include "passes/int8_fit.h"
#include "passes/int8_local.h"
#include "passes/int8_smooth.h"

namespace pared {
namespace {

// Candidates are compared on so many samples, and on more where the model is small.
constexpr int64_t kJudgeSamples = 16, kJudgeSamplesMax = 32;
constexpr int64_t kJudgeMacs = int64_t{1} << 33;
constexpr RangeMethod kRangeMethods[] = {RangeMethod::kPercentile, RangeMethod::kMinMax,
                                         RangeMethod::kMse, RangeMethod::kEntropy};
// A candidate that differs from what is tried first must gain so much to be taken.
constexpr double kGainMinDb = 0.25;

class Search {
 public:
  Search(std::unique_ptr<Int8Candidate> candidate, const Int8Request& request, PassContext& context)
      : request_(request), context_(context) {
    const Int8Options& options = *request.options;
    found_.candidate = std::move(candidate);
    found_.settings = {options.granularity == Int8Options::Granularity::kPerChannel,
                       {RangeMethod::kPercentile, options.percentile, {}},
                       options.bias_correction,
                       options.code_range.code_max(),
                       {}};
    if (options.method != Int8Options::Method::kAuto &&
        options.method != Int8Options::Method::kOutput) {
      found_.settings.range.method = static_cast<RangeMethod>(static_cast<int>(options.method) - 1);
    }
  }

  Int8Found Run() {
    const Model& model = found_.candidate->model;
    KeptValues judged = JudgedOf(model, context_, JudgeSamples());
    found_.calibration = CalibrateInt8(*found_.candidate, *request_.options, context_, &judged);
    found_.judge = std::make_unique<FidelityJudge>(model, context_, std::move(judged));
    found_.settings.range.known = KnownRanges();
    Try();
    EqualizeConvolutions();
    SmoothProducts();
    ChooseMethod();
    FitWeights();
    return std::move(found_);
  }

 private:
  int64_t JudgeSamples() const {
    return std::clamp(kJudgeMacs / (1 + MacsOf(*found_.candidate)), kJudgeSamples,
                      kJudgeSamplesMax);
  }

  // Measures the present candidate; keeps it where it gains. True: it does.
  bool Try(double gain_min_db = 0) {
    Int8Rewrite tried = RewriteInt8(found_.candidate->context, found_.candidate->choice,
                                    found_.calibration, found_.settings);
    const bool is_first = found_.best.model.graph.nodes.empty();
    const double least_db = is_first ? -1e9 : found_.best_near.sqnr_db + gain_min_db;
    const Nearness nearness = found_.judge->Compare(tried.model, least_db);
    if (nearness.sqnr_db < least_db) return false;
    found_.best = std::move(tried);
    found_.best_near = nearness;
    return true;
  }

  // Kept where it raises the SQNR of the outputs.
  void SmoothProducts() {
    Json& report = context_.report["smoothed"] = Json::array();
    if (request_.options->smooth == Int8Options::Smooth::kOff) return;
    const SmoothingFactors factors = ChooseSmoothing(
        found_.candidate->context, found_.candidate->choice, found_.calibration, context_);
    if (factors.empty()) return;
    Smoothing smoothing = SmoothInt8(found_.candidate->context, found_.candidate->choice, factors);
    if (TryModel(std::move(smoothing.model))) report = smoothing.values;
  }

  // Likewise. With a scale for each channel weights gain nothing by it.
  void EqualizeConvolutions() {
    const Int8Options& options = *request_.options;
    const bool is_per_tensor = options.granularity == Int8Options::Granularity::kPerTensor;
    if (options.equalize == Int8Options::Equalize::kOff || !is_per_tensor) return;
    Equalization equalized = EqualizeInt8(found_.candidate->context, found_.candidate->choice);
    Json& report = context_.report["equalized"] = Json::array();
    for (const SkippedNode& skipped : equalized.skipped) {
      context_.report["not_equalized"].push_back(
          {{"node", NodeLabel(*skipped.node)}, {"reason", skipped.reason}});
    }
    if (!equalized.pairs.empty() && TryModel(std::move(equalized.model))) report = equalized.pairs;
  }

  // The same function as a model that may be nearer when it is INT8. True: it is, and is taken.
  bool TryModel(Model model) {
    std::unique_ptr<Int8Candidate> plain = MakeInt8Candidate(std::move(model), request_);
    std::swap(plain, found_.candidate);
    Calibration plain_calibration = CalibrateInt8(*found_.candidate, *request_.options, context_);
    std::swap(plain_calibration, found_.calibration);
    ValueRanges plain_ranges = std::move(found_.settings.range.known);
    found_.settings.range.known = KnownRanges();
    if (Try(kGainMinDb)) return true;
    found_.candidate = std::move(plain);
    found_.calibration = std::move(plain_calibration);
    found_.settings.range.known = std::move(plain_ranges);
    return false;
  }

  ValueRanges KnownRanges() {
    const bool is_chosen = request_.options->method == Int8Options::Method::kAuto ||
                           request_.options->method == Int8Options::Method::kOutput;
    if (!is_chosen) return {};
    return ChooseRanges(found_.candidate->context, found_.candidate->choice, found_.calibration,
                        context_);
  }

  void ChooseMethod() {
    if (request_.options->method != Int8Options::Method::kAuto) return;
    constexpr const char* kNames[] = {"minmax", "percentile", "entropy", "mse"};
    context_.report["method"] = "output";
    Int8Settings best = found_.settings;
    found_.settings.range.known.clear();
    for (const RangeMethod method : kRangeMethods) {
      found_.settings.range.method = method;
      if (!Try(kGainMinDb)) continue;
      best = found_.settings;
      context_.report["method"] = kNames[static_cast<int>(method)];
    }
    found_.settings = std::move(best);
  }

  void FitWeights() {
    if (request_.options->rounding == Int8Options::Rounding::kNearest) return;
    found_.settings.fitted =
        FitInt8Weights(found_.candidate->context, found_.candidate->choice, found_.best, context_);
    const double before = found_.best_near.sqnr_db;
    const bool gains = Try();
    context_.report["rounding"] = {{"second_order", gains}};
    if (found_.judge->has_signal()) context_.report["rounding"]["nearest_sqnr_db"] = before;
    if (!gains) found_.settings.fitted.clear();
  }

  const Int8Request& request_;
  PassContext& context_;
  Int8Found found_;
};

}  // namespace

Int8Found SearchInt8(std::unique_ptr<Int8Candidate> candidate, const Int8Request& request,
                     PassContext& context) {
  return Search(std::move(candidate), request, context).Run();
}

}  // namespace pared
