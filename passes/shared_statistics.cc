#include "passes/shared_statistics.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/check.h"
#include "config/sha256.h"
#include "model/onnx.h"
#include "passes/calibrate.h"

namespace pared {

std::string ModelDigest(const Model& model) {
  Sha256 sha256;
  StreamOnnx(model, [&](std::span<const std::byte> bytes) { sha256.Update(bytes); });
  return sha256.Finish();
}

std::shared_ptr<const void> SharedStatistics::Find(const std::string& key, std::type_index type) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(entries_, key, &Entry::key);
  if (found == entries_.end()) return nullptr;
  PARED_CHECK(found->type == type);  // a key names what its value is
  entries_.splice(entries_.begin(), entries_, found);
  return found->value;
}

void SharedStatistics::Put(Entry entry) {
  const std::lock_guard lock(mutex_);
  const auto old = std::ranges::find(entries_, entry.key, &Entry::key);
  if (old != entries_.end()) {
    bytes_ -= old->bytes;
    entries_.erase(old);
  }
  if (entry.bytes > bytes_max_) return;
  bytes_ += entry.bytes;
  entries_.push_front(std::move(entry));
  while (bytes_ > bytes_max_) {
    bytes_ -= entries_.back().bytes;
    entries_.pop_back();
  }
}

std::string KeyText(const StatisticsKey& key, const PassContext& context) {
  return std::string(key.what) + " " + ModelDigest(key.model) + " " +
         Sha256Of(DumpJson({{"request", key.request},
                            {"samples", CalibrationCount(context)},
                            {"seed", context.seed}}));
}

void TellShared(const char* what, Json& report) {
  Json& shared = report["shared"];
  if (std::ranges::find(shared, what) == shared.end()) shared.push_back(what);
}

}  // namespace pared
