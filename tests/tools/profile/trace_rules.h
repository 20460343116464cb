// What a Chrome trace must be for the viewers to show it (reference/cost-model.md section 17).
#pragma once

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace ds::test {

// One text a problem: required keys by type of event, numbers that are numbers, complete events of
// a track in the order of their beginning and each wholly inside the one around it.
inline std::vector<std::string> trace_problems(const nlohmann::json& trace) {
  using nlohmann::json;
  static const std::map<std::string, std::vector<std::string>> kRequired{
      {"X", {"pid", "tid", "ts", "dur", "cat", "name", "args"}},
      {"C", {"pid", "ts", "name", "args"}},
      {"M", {"pid", "tid", "name", "args"}}};
  struct Track {
    std::int64_t last = 0;
    std::vector<std::int64_t> ends;  // of the slices that are open, outermost first
  };
  std::vector<std::string> problems;
  std::map<std::int64_t, Track> tracks;
  const auto nanoseconds = [](const json& value) {
    return std::llround(value.get<double>() * 1e3);
  };
  for (const json& event : trace.at("traceEvents")) {
    const auto bad = [&](const std::string& what) {
      problems.push_back(what + ": " + event.dump());
    };
    const auto known = kRequired.find(event.value("ph", ""));
    if (known == kRequired.end()) {
      bad("unknown type");
      continue;
    }
    bool whole = true;
    for (const std::string& key : known->second) {
      if (!event.contains(key)) {
        bad("no " + key);
        whole = false;
      }
    }
    if (!whole) continue;
    for (const char* key : {"pid", "tid", "ts", "dur"}) {
      if (event.contains(key) && !(event[key].is_number() && event[key] >= 0)) {
        bad(std::string(key) + " is no number from 0");
      }
    }
    if (!event["name"].is_string() || !event["args"].is_object()) bad("name or args");
    if (event["ph"] == "M" && !event["args"].value("name", json()).is_string()) bad("no args.name");
    if (event["ph"] == "C") {
      for (const auto& [key, value] : event["args"].items()) {
        if (!value.is_number()) bad("series " + key + " is no number");
      }
    }
    if (event["ph"] != "X") continue;
    Track& track = tracks[event["tid"]];
    const std::int64_t begin = nanoseconds(event["ts"]);
    const std::int64_t end = begin + nanoseconds(event["dur"]);
    if (begin < track.last) bad("begins before the one before it");
    track.last = begin;
    while (!track.ends.empty() && track.ends.back() <= begin) track.ends.pop_back();
    if (!track.ends.empty() && end > track.ends.back()) bad("sticks out of the one around it");
    track.ends.push_back(end);
  }
  return problems;
}

}  // namespace ds::test
