// What a subcommand prints, in every form of --format.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/cli/run.h"
#include "tools/profile/page.h"
#include "tools/profile/table.h"

namespace ds::profile {

struct Product {
  std::string title;
  std::vector<std::string> facts;  // a sentence each
  std::string text;                // --format text
  nlohmann::json document;         // --format json
  std::string rows;                // key of the table in the document
  std::vector<Column> columns;     // of that table: all that csv, md and html show of it
  std::vector<PageSection> more;   // html: behind the table
};

// csv: the table alone; md: title, facts, table; html: a page.
void print_product(const Product& product, cli::Run& run);

}  // namespace ds::profile
