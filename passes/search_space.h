// What a search may try: the chains of its job, and for each the options that vary.
//
// A chain's axes are lists of values. A point takes one of each: the chain's passes with these
// values, without those passes that it leaves out.

#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "config/job_spec.h"

namespace pared {

struct SearchAxis {
  std::string name;          // "magnitude_prune.sparsity"; the pass alone where it may be left out
  size_t pass = 0;           // its position in the chain
  std::string option;        // empty: the values are true, and false, which leaves the pass out
  std::vector<Json> values;  // ascending where is_ordered
  bool is_ordered = false;   // numbers: what lies between two of them is worth a try
  size_t start = 0;          // the chain's own value; the middle of others where it is not one
};

struct SearchChain {
  std::string name;
  std::vector<Json> passes;  // with all options
  std::vector<SearchAxis> axes;
};

struct SearchSpace {
  std::vector<SearchChain> chains;
};

struct SearchPoint {
  size_t chain = 0;
  std::vector<size_t> at;  // of each axis of the chain

  bool operator==(const SearchPoint&) const = default;
};

// Of a spec with a search. Throws kInvalidArgument at the JSON Pointer of the fault: a pass that no
// chain has, an option that it does not have, a value that it does not take.
SearchSpace MakeSearchSpace(const JobSpec& spec);

// The passes at a point; empty where all are left out. Points that differ only in what has no
// effect, such as the sparsity of an N:M pattern, have equal passes.
std::vector<Json> PassesAt(const SearchSpace& space, const SearchPoint& point);

// {"magnitude_prune.sparsity": 0.8, "cast_fp16": false}: what was chosen, of what has an effect.
Json ChoiceAt(const SearchSpace& space, const SearchPoint& point);

}  // namespace pared
