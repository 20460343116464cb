#include "tools/profile/product.h"

namespace ds::profile {

void print_product(const Product& product, cli::Run& run) {
  const std::string format = run.format();
  const nlohmann::json& rows = product.document.at(product.rows);
  std::string text = product.text;
  if (format == "csv") text = csv_table(rows, product.columns);
  if (format == "md") {
    text = "## " + markdown_text(product.title) + "\n\n";
    for (const std::string& fact : product.facts) text += "- " + markdown_text(fact) + "\n";
    text += "\n" + markdown_table(rows, product.columns);
  }
  if (format == "html") {
    std::vector<PageSection> sections{{.table = rows, .columns = product.columns}};
    sections.insert(sections.end(), product.more.begin(), product.more.end());
    text = html_page(product.title, product.facts, sections);
  }
  run.product(text, product.document);
}

}  // namespace ds::profile
