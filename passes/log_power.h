// Where a model takes the logarithm of a power: the spectrogram at the head of models of sound.

#pragma once

#include <string>
#include <unordered_set>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// The nodes of all graphs of the model from the squares (or magnitudes) whose logarithm is taken
// back to the inputs, as far as nothing else reads what they make. A logarithm turns into decibels
// what is a small part of the largest value, so that such nodes do not bear the steps of INT8.
// Squares are Mul(x, x), Pow, Abs and norms; between them and the Log stand sums, scaling, roots,
// bounds, filter banks (products without negative weights, or with weights that nodes make of
// constants) and what moves elements.
std::unordered_set<const Node*> NodesBeforeLogPower(const Model& model);

// Those of them that sum powers by weights without a sign: with any of them below zero, or a bias,
// there is no logarithm of the sum.
std::unordered_set<const Node*> SumsBeforeLog(const Model& model);

// Warns in report["warnings"] where such nodes, of any graph of the model, are among those that
// were stored in few bits: report["changed"].
void WarnOfLogPower(const Model& model, Json& report);

}  // namespace pared
