#include "libcore/optim/schedule.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "libcore/base/json.h"
#include "tests/support/paths.h"

namespace {

using ds::Schedule;
using ds::ScheduleKind;

TEST_CASE("schedules give transformers' rates") {
  const auto shared = ds::test::shared_dir();
  if (shared.empty()) {
    MESSAGE("skipped: no shared folder");
    return;
  }
  const auto golden = ds::parse_json_file(shared / "goldens" / "optim" / "schedules.json");
  const double lr = golden.at("base_lr").get<double>();
  struct Case {
    const char* key;
    ScheduleKind kind;
    std::int64_t cycles;
  };
  for (const Case& c :
       {Case{"linear", ScheduleKind::kLinear, 1}, Case{"cosine", ScheduleKind::kCosine, 1},
        Case{"cosine_with_restarts_3", ScheduleKind::kCosineWithRestarts, 3},
        Case{"constant_with_warmup", ScheduleKind::kConstantWithWarmup, 1},
        Case{"inverse_sqrt", ScheduleKind::kInverseSqrt, 1}}) {
    CAPTURE(c.key);
    const Schedule schedule{.kind = c.kind,
                            .warmup_steps = golden.at("warmup_steps").get<std::int64_t>(),
                            .total_steps = golden.at("total_steps").get<std::int64_t>(),
                            .cycles = c.cycles};
    const auto& rates = golden.at(c.key);
    REQUIRE(rates.size() == 101);
    for (std::size_t step = 0; step < rates.size(); ++step) {
      CAPTURE(step);
      const double wanted = rates[step].get<double>();
      const double rate = lr * schedule.factor(static_cast<std::int64_t>(step));
      // The C library's cos may differ from Python's in the last bit.
      CHECK(std::abs(rate - wanted) <= 1e-15 * lr);
    }
  }
}

TEST_CASE("schedules at their borders") {
  SUBCASE("warm-up starts at zero and constant has none") {
    CHECK(Schedule{ScheduleKind::kLinear, 4, 8}.factor(0) == 0.0);
    CHECK(Schedule{ScheduleKind::kLinear, 4, 8}.factor(1) == 0.25);
    CHECK(Schedule{ScheduleKind::kConstant, 4, 8}.factor(0) == 1.0);
    CHECK(Schedule{ScheduleKind::kConstantWithWarmup, 4, 8}.factor(2) == 0.5);
  }
  SUBCASE("without warm-up the first update has the full rate") {
    for (const auto kind :
         {ScheduleKind::kLinear, ScheduleKind::kCosine, ScheduleKind::kCosineWithRestarts,
          ScheduleKind::kConstantWithWarmup, ScheduleKind::kInverseSqrt}) {
      CHECK(Schedule{kind, 0, 8}.factor(0) == 1.0);
    }
  }
  SUBCASE("past the end nothing is trained") {
    for (const auto kind :
         {ScheduleKind::kLinear, ScheduleKind::kCosine, ScheduleKind::kCosineWithRestarts}) {
      CHECK(Schedule{kind, 2, 8}.factor(8) <= 1e-30);
      CHECK(Schedule{kind, 2, 8}.factor(11) <= 1e-30);
      CHECK(Schedule{kind, 2, 8}.factor(11) >= 0.0);
    }
  }
  SUBCASE("inverse square root without warm-up has a timescale of 10000") {
    CHECK(Schedule{ScheduleKind::kInverseSqrt, 0, 8}.factor(30000) == doctest::Approx(0.5));
  }
  SUBCASE("warm-up as long as the run divides by one, not zero") {
    CHECK(Schedule{ScheduleKind::kLinear, 8, 8}.factor(8) == 0.0);
    CHECK(Schedule{ScheduleKind::kCosine, 8, 8}.factor(8) == 1.0);
  }
}

TEST_CASE("schedule names") {
  for (const char* name : {"linear", "cosine", "cosine_with_restarts", "constant",
                           "constant_with_warmup", "inverse_sqrt"}) {
    const auto kind = ds::parse_schedule(name);
    REQUIRE(kind.has_value());
    CHECK(ds::schedule_name(*kind) == name);
  }
  CHECK_FALSE(ds::parse_schedule("polynomial").has_value());
  CHECK_FALSE(ds::parse_schedule("").has_value());
}

}  // namespace
