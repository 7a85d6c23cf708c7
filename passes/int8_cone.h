// Ranges of values that only functions of one value read: x of Relu(x), of x * Sigmoid(x).
//
// What a SiLU makes of -20 and of -8 is nearly the same, so codes for values between them are
// better spent elsewhere.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "passes/calibrate.h"
#include "passes/int8_choice.h"

namespace pared {

// The functions of one value as a model of their own: `value` in, every quantized result out.
class Cone {
 public:
  // nullopt: a node that is no function of it reads the value too, or there is no result.
  static std::optional<Cone> Find(const Int8ChoiceContext& context, const Int8Choice& choice,
                                  const std::string& value);

  // The range, cut at either end of `seen`, with the least squared error of the results.
  ValueRange BestRange(const std::vector<const Tensor*>& samples, ValueRange seen,
                       int64_t threads) const;

 private:
  explicit Cone(Model model) : model_(std::move(model)) {}

  Model model_;
};

}  // namespace pared
