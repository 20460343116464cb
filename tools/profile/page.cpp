#include "tools/profile/page.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/markup.h"

namespace ds::profile {

namespace {

using nlohmann::json;

// The eight colours are told apart by people who do not see red or green, on both grounds.
const char* const kHead = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>
:root { --ground: #fff; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --track: #eef1f4 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --ink: #e3e7eb; --soft: #9aa5b1; --line: #353c44; --track: #22272d }
}
body { background: var(--ground); color: var(--ink); font: 14px/1.5 system-ui, sans-serif;
  max-width: 1200px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: 2px 10px; border-bottom: 1px solid var(--line); text-align: left }
th { color: var(--soft); font-weight: 600 }
.n { text-align: right }
.row { display: grid; grid-template-columns: 15em 1fr 9em; gap: .8em; align-items: center }
.label, .note { white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.note, .key { color: var(--soft) }
.bar { display: flex; height: 14px; background: var(--track) }
.key span { display: inline-block; margin-right: 1.2em }
.key i { display: inline-block; width: 10px; height: 10px; margin-right: .4em }
.s0 { background: #0072b2 } .s1 { background: #e69f00 } .s2 { background: #009e73 }
.s3 { background: #cc79a7 } .s4 { background: #56b4e9 } .s5 { background: #d55e00 }
.s6 { background: #b8a800 } .s7 { background: #8a8f98 }
</style>
)";

std::string bars_html(const Bars& bars) {
  std::string text = "<p class=\"key\">";
  for (std::size_t i = 0; i < bars.series.size(); ++i) {
    text += fmt::format("<span><i class=\"s{}\"></i>{}</span>", i, markup_text(bars.series[i]));
  }
  text += "</p>\n";
  double longest = 0.0;
  for (const Bars::Bar& bar : bars.bars) {
    double sum = 0.0;
    for (const double value : bar.values) sum += value;
    longest = std::max(longest, sum);
  }
  for (const Bars::Bar& bar : bars.bars) {
    text += fmt::format(
        "<div class=\"row\"><span class=\"label\" title=\"{0}\">{0}</span><div class=\"bar\">",
        markup_text(bar.label));
    for (std::size_t i = 0; i < bar.values.size() && longest > 0.0; ++i) {
      const double percent = 100.0 * bar.values[i] / longest;
      if (percent < 0.005) continue;
      text += fmt::format("<div class=\"s{}\" style=\"width:{:.2f}%\"></div>", i, percent);
    }
    text += fmt::format("</div><span class=\"note\">{}</span></div>\n", markup_text(bar.note));
  }
  return text;
}

std::string table_html(const json& rows, const std::vector<Column>& columns) {
  std::vector<bool> words;
  std::string text = "<div class=\"wide\"><table><thead><tr>";
  for (const Column& column : columns) {
    bool any = false;
    for (const json& row : rows) {
      const auto found = row.find(column.key);
      any = any || (found != row.end() && found->is_string());
    }
    words.push_back(any);
    text += fmt::format("<th{}>{}</th>", any ? "" : " class=\"n\"", markup_text(column.title));
  }
  text += "</tr></thead><tbody>\n";
  for (const json& row : rows) {
    text += "<tr>";
    for (std::size_t i = 0; i < columns.size(); ++i) {
      text += fmt::format("<td{}>{}</td>", words[i] ? "" : " class=\"n\"",
                          markup_text(shown_value(row, columns[i])));
    }
    text += "</tr>\n";
  }
  return text + "</tbody></table></div>\n";
}

}  // namespace

std::string html_page(const std::string& title, const std::vector<std::string>& facts,
                      const std::vector<PageSection>& sections) {
  std::string text = kHead;
  text +=
      fmt::format("<title>{0}</title></head>\n<body>\n<h1>{0}</h1>\n<ul>\n", markup_text(title));
  for (const std::string& fact : facts) text += fmt::format("<li>{}</li>\n", markup_text(fact));
  text += "</ul>\n";
  for (const PageSection& section : sections) {
    if (!section.heading.empty()) {
      text += fmt::format("<h2>{}</h2>\n", markup_text(section.heading));
    }
    if (!section.bars.bars.empty()) text += bars_html(section.bars);
    if (!section.columns.empty()) text += table_html(section.table, section.columns);
  }
  return text + "</body></html>\n";
}

}  // namespace ds::profile
