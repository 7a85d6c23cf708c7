// Second-order rounding is for samples that calibration has not seen.

#include <gmock/gmock.h>

#include <vector>

#include "tests/passes/promises.h"
#include "tests/passes/run_step.h"
#include "tests/testing/random_tensor.h"

namespace pared {
namespace {

struct Rows {
  int64_t count = 0, width = 0;
  int64_t rank = 0;  // as many independent directions, and a little of all others; 0: all alike
};

// The two sets are of one distribution.
std::pair<Dataset, Dataset> SeenAndUnseen(const Rows& rows, Random& random) {
  constexpr int64_t kUnseen = 400;
  const int64_t all = rows.count + kUnseen;
  std::vector<float> values(static_cast<size_t>(all * rows.width));
  const Tensor noise = random.Normal({all, rows.width}, rows.rank == 0 ? 1 : 0.03);
  const Tensor factors = random.Normal({all, rows.rank}, 1);
  const Tensor directions = random.Normal({rows.rank, rows.width}, 1);
  for (int64_t i = 0; i < std::ssize(values); ++i) {
    float& value = values[static_cast<size_t>(i)] = noise.data<float>()[static_cast<size_t>(i)];
    for (int64_t r = 0; r < rows.rank; ++r) {
      const int64_t factor = i / rows.width * rows.rank + r,
                    direction = r * rows.width + i % rows.width;
      value += factors.data<float>()[static_cast<size_t>(factor)] *
               directions.data<float>()[static_cast<size_t>(direction)];
    }
  }
  const auto split = values.begin() + rows.count * rows.width;
  const auto data_of = [&](auto begin, auto end) {
    std::vector<float> part(begin, end);
    const Shape shape = {std::ssize(part) / rows.width, rows.width};
    return Dataset::Of("made", {{"x", Tensor::Make<float>(shape, std::move(part))}});
  };
  return {data_of(values.begin(), split), data_of(split, values.end())};
}

Model TwoLayers(int64_t width, Random& random) {
  Model model = ParseText("g (float[1," + std::to_string(width) + "] x) => (float[1,12] y) { " +
                          "h = Gemm(x, w1, b1) r = Relu(h) y = MatMul(r, w2) }");
  model = WithInitializer(std::move(model), "w1", random.Normal({width, 32}, 0.1));
  model = WithInitializer(std::move(model), "b1", random.Normal({32}, 0.1));
  return WithInitializer(std::move(model), "w2", random.Normal({32, 12}, 0.2));
}

// What the second order gives over the nearest codes, in dB on unseen samples.
double GainOf(const std::string& pass, Json options, const Rows& rows) {
  Random random(17);
  const Model model = TwoLayers(rows.width, random);
  const auto [seen, unseen] = SeenAndUnseen(rows, random);
  const Model fitted = RunStep(pass, options, model, &seen).model;
  options["rounding"] = "nearest";
  const Model nearest = RunStep(pass, options, model, &seen).model;
  return SqnrDbOn(unseen, model, fitted) - SqnrDbOn(unseen, model, nearest);
}

// More inputs than samples, and one input says nothing of another.
TEST(HeldOutRounding, SamplesThatTellNothingOfOthersAreNotFitted) {
  for (const int64_t count : {8, 24, 64, 200}) {
    const Rows rows = {.count = count, .width = 256};
    EXPECT_GT(GainOf("quantize_int8", {}, rows), -0.25) << count;
    EXPECT_GT(GainOf("quantize_weights", {{"bits", "4"}}, rows), -0.25) << count;
  }
}

TEST(HeldOutRounding, SamplesThatTellOfOthersAreFitted) {
  for (const int64_t count : {48, 200}) {
    const Rows rows = {.count = count, .width = 256, .rank = 6};
    EXPECT_GT(GainOf("quantize_weights", {{"bits", "4"}}, rows), 6) << count;
  }
}

TEST(HeldOutRounding, TheReportTellsWhatTheDampingGives) {
  Random random(17);
  const Model model = TwoLayers(64, random);
  const auto [seen, unseen] = SeenAndUnseen({.count = 40, .width = 64, .rank = 4}, random);
  const auto first_of = [&](Json options, const Dataset& data) {
    options["bits"] = "4";
    return RunStep("quantize_weights", options, model, &data).report.at("rounded").at(0);
  };
  const Json chosen = first_of({}, seen), asked = first_of({{"damping", 0.3}}, seen);
  EXPECT_TRUE(chosen.at("damping").is_number());
  EXPECT_GT(chosen.at("output_sqnr_db"), chosen.at("output_sqnr_db_nearest"));
  EXPECT_EQ(asked.at("damping"), 0.3);
  const auto [alike, more] = SeenAndUnseen({.count = 24, .width = 64}, random);
  const Json nearest = first_of({}, alike);
  EXPECT_EQ(nearest.at("damping"), Json());
  EXPECT_EQ(nearest.at("output_sqnr_db"), nearest.at("output_sqnr_db_nearest"));
  const Json options = {{"bits", "4"}, {"rounding", "nearest"}};
  EXPECT_FALSE(RunStep("quantize_weights", options, model, &seen).report.contains("rounded"));
}

}  // namespace
}  // namespace pared
