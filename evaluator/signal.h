// Spectra of signals: DFT, STFT, window functions and mel filters.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareDft(const Node& node, const OpContext& context);
Op PrepareStft(const Node& node, const OpContext& context);
Op PrepareWindow(const Node& node, const OpContext& context);  // Hann-, Hamming-, BlackmanWindow
Op PrepareMelWeightMatrix(const Node& node, const OpContext& context);

}  // namespace pared
