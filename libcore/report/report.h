// Reports: JSON lines, one event a line (man page deepseek-report(5)).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace ds {

// Replaces NaN and infinities by null and lists their keys in "nonfinite": JSON has no such
// numbers.
void name_non_finite(nlohmann::json& event);

// Takes finished events (with schema, seq and t).
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void write(const nlohmann::json& event) = 0;
};

// A file that is flushed after every line, so that a killed run leaves whole lines. Throws
// Error(kIo) naming the file.
class JsonlSink : public EventSink {
 public:
  JsonlSink(const std::filesystem::path& path, bool append);
  ~JsonlSink() override;
  void write(const nlohmann::json& event) override;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

// Numbers events, stamps the seconds since its construction, and hands them to its sinks. A sink
// added later receives the earlier events first.
class Report {
 public:
  Report();
  void add_sink(std::unique_ptr<EventSink> sink);
  void event(const std::string& schema, nlohmann::json fields);
  double seconds() const;

 private:
  std::vector<std::unique_ptr<EventSink>> sinks_;
  std::vector<nlohmann::json> events_;  // kept while a sink may still be added
  std::int64_t sequence_ = 0;
  double start_ = 0.0;
};

}  // namespace ds
