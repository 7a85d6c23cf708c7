// What passes learn of a model from a job's calibration data, kept for the passes after them: the
// candidates of a search, and chains that begin alike, ask the same of the same model.
//
// A value is a function of its key alone, so what a pass makes does not depend on whether it was
// shared.

#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <typeindex>

#include "passes/pass.h"

namespace pared {

// SHA-256 over the model as ONNX: the graph in order, every attribute, every weight byte.
std::string ModelDigest(const Model& model);

// Of one job, hence of one calibration dataset. Thread-safe.
class SharedStatistics {
 public:
  // What is used least goes where the values would take more.
  static constexpr int64_t kBytesMax = int64_t{128} << 20;
  explicit SharedStatistics(int64_t bytes_max = kBytesMax) : bytes_max_(bytes_max) {}

  // Null: it is not there.
  template <class T>
  std::shared_ptr<const T> Find(const std::string& key) {
    return std::static_pointer_cast<const T>(Find(key, typeid(T)));
  }
  // In place of what was there. What is larger than the bound is not kept.
  template <class T>
  void Put(const std::string& key, std::shared_ptr<const T> value, int64_t bytes) {
    Put({key, typeid(T), std::move(value), bytes});
  }

 private:
  struct Entry {
    std::string key;
    std::type_index type;
    std::shared_ptr<const void> value;
    int64_t bytes = 0;
  };
  std::shared_ptr<const void> Find(const std::string& key, std::type_index type);
  void Put(Entry entry);

  const int64_t bytes_max_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // the one used last is the first
  int64_t bytes_ = 0;
};

// What a value follows from, besides the calibration data.
struct StatisticsKey {
  const char* what = "";  // as reports name it
  const Model& model;
  Json request = {};
};
std::string KeyText(const StatisticsKey& key, const PassContext& context);

// Adds `what` to report["shared"]: it was there already.
void TellShared(const char* what, Json& report);

// `make()`, or what it gave before; `bytes(value)` is what keeping it takes.
template <class Make, class Bytes, class T = std::invoke_result_t<Make>>
std::shared_ptr<const T> Shared(const StatisticsKey& key, PassContext& context, Make make,
                                Bytes bytes) {
  if (context.shared == nullptr) return std::make_shared<const T>(make());
  const std::string text = KeyText(key, context);
  if (std::shared_ptr<const T> found = context.shared->Find<T>(text)) {
    TellShared(key.what, context.report);
    return found;
  }
  auto made = std::make_shared<const T>(make());
  context.shared->Put<T>(text, made, bytes(*made));
  return made;
}

}  // namespace pared
