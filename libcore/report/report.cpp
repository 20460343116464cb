#include "libcore/report/report.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include "libcore/base/error.h"

namespace ds {

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void collect(nlohmann::json& value, const std::string& path, nlohmann::json& names) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    value = nullptr;
    names.push_back(path);
  } else if (value.is_object()) {
    for (auto& [key, child] : value.items()) {
      collect(child, path.empty() ? key : path + "." + key, names);
    }
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      collect(value[i], fmt::format("{}[{}]", path, i), names);
    }
  }
}

// The early events (inputs, data, stages) are few; step events of a long run are not kept.
constexpr std::size_t kKeptEvents = 256;

}  // namespace

void name_non_finite(nlohmann::json& event) {
  nlohmann::json names = nlohmann::json::array();
  collect(event, "", names);
  if (!names.empty()) event["nonfinite"] = std::move(names);
}

JsonlSink::JsonlSink(const std::filesystem::path& path, bool append) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0644);
  if (fd_ < 0) {
    throw Error(ExitCode::kIo, fmt::format("{}: cannot open the report for writing: {}",
                                           path.string(), std::strerror(errno)));
  }
}

JsonlSink::~JsonlSink() {
  if (fd_ >= 0) ::close(fd_);
}

void JsonlSink::write(const nlohmann::json& event) {
  const std::string line =
      event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  std::size_t written = 0;
  while (written < line.size()) {
    const ssize_t n = ::write(fd_, line.data() + written, line.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      throw Error(ExitCode::kIo,
                  fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
    }
    written += static_cast<std::size_t>(n);
  }
}

Report::Report() : start_(now()) {}

double Report::seconds() const { return now() - start_; }

void Report::add_sink(std::unique_ptr<EventSink> sink) {
  for (const nlohmann::json& event : events_) sink->write(event);
  sinks_.push_back(std::move(sink));
}

void Report::event(const std::string& schema, nlohmann::json fields) {
  fields["schema"] = schema;
  fields["seq"] = sequence_++;
  fields["t"] = seconds();
  name_non_finite(fields);
  for (const auto& sink : sinks_) sink->write(fields);
  if (events_.size() < kKeptEvents) events_.push_back(std::move(fields));
}

}  // namespace ds
