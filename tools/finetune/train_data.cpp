#include "tools/finetune/train_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "libcore/base/error.h"
#include "libcore/base/hash.h"

namespace ds::finetune {

namespace {

BatchPlan batch_plan(const TrainSettings& settings) {
  return {.batch_size = settings.optim.batch_size,
          .accumulation = settings.optim.accumulation,
          .shuffle = settings.data.shuffle,
          .packing = settings.data.packing,
          .cutoff_len = settings.data.cutoff_len,
          .seed = static_cast<std::uint64_t>(settings.optim.seed)};
}

std::vector<std::string> stage_files(const std::string& spelling) {
  if (spelling.empty() || spelling == "curriculum") return {};
  std::vector<std::string> files;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = spelling.find(',', begin);
    files.push_back(spelling.substr(begin, end == std::string::npos ? end : end - begin));
    if (end == std::string::npos) return files;
    begin = end + 1;
  }
}

}  // namespace

TrainData::TrainData(const TrainSettings& settings, const BaseModel& base,
                     ChatTemplate chat_template) {
  const Tokenizer* tokenizer = base.tokenizer ? &*base.tokenizer : nullptr;
  const std::vector<std::string> per_stage = stage_files(settings.stage.data);
  const auto load = [&](const std::vector<std::string>& files) {
    datasets_.push_back(
        load_dataset(dataset_options(settings.data, files, chat_template, base.config), tokenizer));
    files_.insert(files_.end(), files.begin(), files.end());
  };
  if (per_stage.empty()) {
    load(settings.data.dataset);
  } else {
    for (const std::string& file : per_stage) load({file});
  }
}

void TrainData::plan(const TrainSettings& settings, const std::vector<Stage>& stages) {
  const BatchPlan plan = batch_plan(settings);
  orders_.clear();
  order_of_stage_.clear();
  if (settings.stage.data == "curriculum") {
    const std::vector<Example>& all = datasets_[0].examples;
    if (all.size() < stages.size()) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("--stage_data curriculum: {} usable rows cannot be cut into {} stages",
                      all.size(), stages.size()),
          "use fewer stages or more data");
    }
    std::vector<std::size_t> by_length(all.size());
    std::iota(by_length.begin(), by_length.end(), 0);
    std::stable_sort(by_length.begin(), by_length.end(), [&all](std::size_t a, std::size_t b) {
      return all[a].ids.size() < all[b].ids.size();
    });
    slices_.resize(stages.size());
    for (std::size_t s = 0; s < stages.size(); ++s) {
      const std::size_t begin = s * all.size() / stages.size();
      const std::size_t end = (s + 1) * all.size() / stages.size();
      for (std::size_t i = begin; i < end; ++i) slices_[s].push_back(all[by_length[i]]);
    }
    for (const auto& slice : slices_) orders_.push_back(std::make_unique<DataOrder>(slice, plan));
  } else {
    for (const Dataset& dataset : datasets_) {
      orders_.push_back(std::make_unique<DataOrder>(dataset.examples, plan));
    }
  }
  for (std::size_t s = 0; s < stages.size(); ++s) {
    order_of_stage_.push_back(orders_.size() == 1 ? 0 : s);
  }
}

std::int64_t TrainData::rows() const {
  std::int64_t rows = 0;
  for (const Dataset& dataset : datasets_)
    rows += static_cast<std::int64_t>(dataset.examples.size());
  return rows;
}

std::int64_t TrainData::longest() const {
  std::size_t longest = 1;
  for (const Dataset& dataset : datasets_) {
    for (const Example& example : dataset.examples) longest = std::max(longest, example.ids.size());
  }
  return static_cast<std::int64_t>(longest);
}

std::int64_t TrainData::most_tokens(const TrainSettings& settings) const {
  if (settings.data.packing) {
    return std::max(longest(), settings.data.cutoff_len) * settings.optim.batch_size;
  }
  // The longest rows may all meet in one micro-batch.
  std::vector<std::size_t> lengths;
  for (const Dataset& dataset : datasets_) {
    for (const Example& example : dataset.examples) lengths.push_back(example.ids.size());
  }
  const auto count = std::min(lengths.size(), static_cast<std::size_t>(settings.optim.batch_size));
  std::partial_sort(lengths.begin(), lengths.begin() + static_cast<std::ptrdiff_t>(count),
                    lengths.end(), std::greater<>());
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < count; ++i) tokens += static_cast<std::int64_t>(lengths[i]);
  return tokens;
}

std::string TrainData::digest() const {
  std::string all;
  for (const std::string& file : files_) all += sha256_file(file) + "\n";
  return sha256(all);
}

}  // namespace ds::finetune
