#include "tools/convert/data_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "libcore/base/format.h"
#include "libcore/base/utf8.h"
#include "tools/convert/data_json.h"

namespace ds::convert {

namespace {

// Dropped rows that are said one by one; all of them are in the rejects file and in the report.
constexpr std::int64_t kMostSaid = 10;

std::string place(const RowNote& note) {
  return note.column > 0 ? fmt::format("line {}, column {}", note.line, note.column)
                         : fmt::format("line {}", note.line);
}

// One line of the rejects file.
std::string reject_line(const RowNote& note) {
  std::string line = fmt::format("{{\"line\": {}", note.line);
  if (note.column > 0) line += fmt::format(", \"column\": {}", note.column);
  line += fmt::format(", \"action\": \"{}\"", note.dropped ? "dropped" : "repaired");
  const RowRemark& first = note.remarks.front();
  const auto member = [&line](std::string_view key, std::string_view text) {
    line += fmt::format(", \"{}\": ", key);
    append_string(line, utf8_replace(text));
  };
  member("kind", first.kind);
  if (!first.field.empty()) member("field", first.field);
  std::string reasons;
  for (const RowRemark& remark : note.remarks) {
    reasons += (reasons.empty() ? "" : "; ") + remark.reason;
  }
  member("reason", reasons);
  if (note.dropped) member("row", note.text);
  return line + "}\n";
}

}  // namespace

DataReport::DataReport(std::string input, const std::string& rejects, cli::Run& run)
    : input_(std::move(input)), run_(run) {
  if (!rejects.empty()) rejects_.emplace(rejects);
}

void DataReport::add(const RowNote& note) {
  std::vector<std::string_view> kinds;
  for (const RowRemark& remark : note.remarks) {
    nlohmann::json event = {{"line", note.line},
                            {"action", note.dropped ? "dropped" : "repaired"},
                            {"kind", remark.kind},
                            {"reason", utf8_replace(remark.reason)}};
    if (note.column > 0) event["column"] = note.column;
    if (!remark.field.empty()) event["field"] = utf8_replace(remark.field);
    run_.event("deepseek/data-row/1", std::move(event));
    if (std::find(kinds.begin(), kinds.end(), remark.kind) != kinds.end()) continue;
    kinds.push_back(remark.kind);
    auto& counts = note.dropped ? dropped_ : repaired_;
    if (++counts[remark.kind] == 1) first_[remark.kind] = place(note) + ": " + remark.reason;
    say(note, remark);
  }
  repaired_rows_ += note.dropped ? 0 : 1;
  if (rejects_) rejects_->write(reject_line(note));
}

// Dropped rows up to a number; of repairs the first of each kind.
void DataReport::say(const RowNote& note, const RowRemark& remark) {
  if (!note.dropped) {
    if (repaired_[remark.kind] == 1) {
      run_.info(fmt::format("{}: {}: {} ({}; said once)", input_, place(note), remark.reason,
                            remark.kind));
    }
    return;
  }
  if (++said_ > kMostSaid) return;
  run_.warn(fmt::format("{}: {}: {} ({}; dropped){}", input_, place(note), remark.reason,
                        remark.kind,
                        said_ == kMostSaid ? "; further dropped rows are counted" : ""));
}

void DataReport::commit() {
  if (rejects_) rejects_->commit();
}

std::string DataReport::counts_text(std::int64_t rows,
                                    const std::map<std::string, std::int64_t>& kinds) {
  std::string text = format_count(rows);
  std::string list;
  for (const auto& [kind, count] : kinds) {
    list += fmt::format("{}{} {}", list.empty() ? "" : ", ", format_count(count), kind);
  }
  return list.empty() ? text : fmt::format("{} ({})", text, list);
}

std::string DataReport::reasons_text() const {
  std::vector<std::pair<std::string, std::int64_t>> kinds(dropped_.begin(), dropped_.end());
  std::stable_sort(kinds.begin(), kinds.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (std::size_t i = 0; i < kinds.size() && i < 3; ++i) {
    text += fmt::format("{} {} {} ({})", i == 0 ? ":" : ";", kinds[i].second, kinds[i].first,
                        first_.at(kinds[i].first));
  }
  if (kinds.size() > 3) text += fmt::format("; and {} more kinds", kinds.size() - 3);
  return text;
}

}  // namespace ds::convert
