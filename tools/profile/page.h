// One self-contained web page: no script, nothing loaded from elsewhere, light and dark.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tools/profile/table.h"

namespace ds::profile {

// Horizontal bars on one scale, each a stack of the same series.
struct Bars {
  struct Bar {
    std::string label;
    std::vector<double> values;  // one a series, not negative
    std::string note;            // behind the bar
  };
  std::vector<std::string> series;  // at most 8
  std::vector<Bar> bars;
};

// Bars, then a table; either may be empty.
struct PageSection {
  std::string heading;
  Bars bars;
  nlohmann::json table = nlohmann::json::array();
  std::vector<Column> columns;
};

std::string html_page(const std::string& title, const std::vector<std::string>& facts,
                      const std::vector<PageSection>& sections);

}  // namespace ds::profile
