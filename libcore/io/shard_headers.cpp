#include "libcore/io/shard_headers.h"

#include <algorithm>
#include <utility>

#include "libcore/base/system.h"

namespace ds {

ShardHeaders::ShardHeaders(const std::filesystem::path& folder,
                           const std::vector<std::string>& names)
    : folder_(folder), names_(names), opened_(names.size()) {
  constexpr std::size_t kShardsPerThread = 8;
  const std::size_t threads =
      std::min(static_cast<std::size_t>(usable_cpus()), names.size() / kShardsPerThread);
  for (std::size_t i = 1; i < threads; ++i) others_.emplace_back([this] { work(); });
}

ShardHeaders::~ShardHeaders() {
  next_ = names_.size();
  join();
}

void ShardHeaders::finish() {
  if (!others_.empty()) work();
  join();
}

SafetensorsFile ShardHeaders::take(const std::string& name) {
  const auto at = std::lower_bound(names_.begin(), names_.end(), name);
  if (at != names_.end() && *at == name) {
    Opened& opened = opened_[static_cast<std::size_t>(at - names_.begin())];
    if (opened.failure) std::rethrow_exception(opened.failure);
    if (opened.file) return std::move(*opened.file);
  }
  return SafetensorsFile::open(folder_ / name);
}

void ShardHeaders::work() {
  for (std::size_t i = next_++; i < names_.size(); i = next_++) {
    try {
      opened_[i].file = SafetensorsFile::open(folder_ / names_[i]);
    } catch (...) {
      opened_[i].failure = std::current_exception();
    }
  }
}

void ShardHeaders::join() {
  for (std::thread& other : others_) other.join();
  others_.clear();
}

}  // namespace ds
