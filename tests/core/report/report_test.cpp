#include "libcore/report/report.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace ds;

namespace {

class Memory : public EventSink {
 public:
  explicit Memory(std::vector<nlohmann::json>& events) : events_(events) {}
  void write(const nlohmann::json& event) override { events_.push_back(event); }

 private:
  std::vector<nlohmann::json>& events_;
};

}  // namespace

TEST_CASE("events are numbered, stamped, and replayed to a late sink") {
  std::vector<nlohmann::json> early;
  std::vector<nlohmann::json> late;
  Report report;
  report.add_sink(std::make_unique<Memory>(early));
  report.event("deepseek/run/1", {{"tool", "x"}});
  report.event("deepseek/stage/1", {{"stage", 1}});
  report.add_sink(std::make_unique<Memory>(late));
  report.event("deepseek/end/1", {{"status", "done"}});
  REQUIRE(early.size() == 3);
  CHECK(early == late);
  for (std::size_t i = 0; i < early.size(); ++i) {
    CHECK(early[i]["seq"] == i);
    CHECK(early[i]["t"].get<double>() >= 0.0);
  }
}

TEST_CASE("NaN and infinity never appear as bare words") {
  nlohmann::json event{
      {"loss", NAN}, {"inner", {{"x", INFINITY}, {"y", 1.0}}}, {"list", {1.0, -INFINITY}}};
  name_non_finite(event);
  CHECK(event["loss"].is_null());
  CHECK(event["inner"]["x"].is_null());
  CHECK(event["nonfinite"] == nlohmann::json{"inner.x", "list[1]", "loss"});
  const std::string text = event.dump();
  CHECK(text.find("nan") == std::string::npos);
}
