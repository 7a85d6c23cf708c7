// The arrays that a dataset's manifest names: inputs, labels, targets, lengths, tokens.
//
// "x.npy" is a file, "x.npz:NAME" an array of an archive, "x.npz" the one that is called as what it
// is for: the input's name, "labels", "targets", "lengths".

#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "config/fields.h"
#include "model/tensor.h"

namespace pared {

// An array by its reference; `pointer` is where the manifest has it. Files lie in the dataset's own
// folder. Throws kInvalidArgument or kNotFound at `pointer`, the file, or "FILE:NAME".
Tensor OpenArray(const std::filesystem::path& folder, const std::string& reference,
                 const std::string& name, const std::string& pointer);

// Integers, one a sample, or one a character ([samples, characters]). As int64.
Tensor OpenLabels(const std::filesystem::path& folder, const std::string& reference,
                  int64_t samples, bool are_texts);

// Numbers of the shape [samples, ...].
Tensor OpenTargets(const std::filesystem::path& folder, const std::string& reference,
                   int64_t samples);

// How much of the last axis of its arrays each sample has: integers, [samples], at least 1.
Tensor OpenLengths(const std::filesystem::path& folder, const std::string& reference,
                   int64_t samples);

struct ArraySet {
  std::map<std::string, Tensor> inputs;
  std::string labels, targets;    // references, where the file has arrays called so
  std::optional<Tensor> lengths;  // [samples], int64
};

// Every array of an .npz file, but for "labels" and "targets", is the input that is called so.
ArraySet OpenNpz(const std::filesystem::path& folder, const std::string& file);

// {"file": "tokens.npz", "trim": true}: "input_ids" and, where the file has them, "attention_mask"
// (else 1) and "token_type_ids" (else 0), integers of one shape [samples, length]. With `trim` each
// sample ends with the last token that its mask keeps.
ArraySet OpenTokens(const std::filesystem::path& folder, const Json& json);

}  // namespace pared
