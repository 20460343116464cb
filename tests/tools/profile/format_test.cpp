// --format csv, md and html.
#include <doctest/doctest.h>

#include <regex>

#include "libcore/base/markup.h"
#include "tests/support/tiny_model.h"
#include "tests/support/variants.h"
#include "tests/tools/profile/program.h"
#include "tools/profile/page.h"
#include "tools/profile/roofline.h"
#include "tools/profile/table.h"

using namespace ds::test;
using ds::profile::Column;
using nlohmann::json;

namespace {

// RFC 4180, fields may hold line ends.
std::vector<std::vector<std::string>> read_csv(const std::string& text) {
  std::vector<std::vector<std::string>> lines;
  std::vector<std::string> line;
  std::string field;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += text[++i];
      } else {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',' || c == '\n') {
      line.push_back(field);
      field.clear();
      if (c == '\n') lines.push_back(std::exchange(line, {}));
    } else {
      field += c;
    }
  }
  CHECK(field.empty());
  CHECK(line.empty());
  return lines;
}

std::string printed(std::vector<std::string> arguments, const std::string& format) {
  arguments.insert(arguments.end(), {"--format", format, "--threads", "2"});
  const Outcome outcome = profile(arguments);
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
  return outcome.out;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Elements that are closed in the order they were opened; nothing that runs or is loaded.
void check_page(const std::string& html) {
  CHECK(html.rfind("<!DOCTYPE html>", 0) == 0);
  for (const char* never :
       {"<script", "<link", "<img", "src=", "href=", "url(", "@import", "http:", "https:"}) {
    CHECK_MESSAGE(!has(html, never), never);
  }
  CHECK(has(html, "prefers-color-scheme: dark"));
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9]+)[^<>]*>");
  for (std::sregex_iterator it(html.begin(), html.end(), tag), end; it != end; ++it) {
    const std::string name = (*it)[2];
    if (name == "meta") continue;
    if ((*it)[1].length() == 0) {
      open.push_back(name);
    } else {
      REQUIRE_MESSAGE(!open.empty(), name);
      CHECK(open.back() == name);
      open.pop_back();
    }
  }
  CHECK(open.empty());
}

const char* const kNasty = "a,\"b\" <b>&'|`*\nc";

}  // namespace

TEST_CASE("tables: quoting, nulls, units") {
  const json rows{{{"name", kNasty}, {"n", 1234567}, {"x", 0.123456789}, {"b", true}},
                  {{"name", ""}, {"n", nullptr}, {"x", 2}}};
  const std::vector<Column> columns{
      {"name", "the | name"}, {"n", "count"}, {"x", "x %", 0.01, 1}, {"b", "flag"}};
  const auto csv = read_csv(ds::profile::csv_table(rows, columns));
  CHECK(csv == std::vector<std::vector<std::string>>{{"name", "n", "x", "b"},
                                                     {kNasty, "1234567", "0.123456789", "true"},
                                                     {"", "", "2", ""}});
  CHECK(ds::profile::markdown_table(rows, columns) ==
        "| the \\| name | count | x % | flag |\n| --- | ---: | ---: | ---: |\n"
        "| a,\"b\" \\<b\\>\\&'\\|\\`\\* c | 1,234,567 | 12.3 | yes |\n| - | - | 200.0 | - |\n");
  const std::string html =
      ds::profile::html_page(kNasty, {kNasty},
                             {{.heading = kNasty,
                               .bars = {.series = {kNasty, "y"},
                                        .bars = {{kNasty, {1.0, 3.0}, kNasty}, {"z", {0, 2}, ""}}},
                               .table = rows,
                               .columns = columns}});
  check_page(html);
  CHECK(count(html, "a,&quot;b&quot; &lt;b&gt;&amp;&#39;|`*&#10;c") == 9);
  CHECK(has(html, "class=\"s0\" style=\"width:25.00%\""));
  CHECK(has(html, "class=\"s1\" style=\"width:75.00%\""));
  CHECK(has(html, "class=\"s1\" style=\"width:50.00%\""));
  CHECK(ds::markup_text("\xff\x01") == "??");
}

TEST_CASE("layers in every format: the same rows") {
  const Folder f;
  write_tiny_model(f.root() / "m<i>|,\"odel", {});
  const std::vector<std::vector<std::string>> modes{
      {"--analytical"}, {"--mode", "train"}, {"--mode", "infer"}, {"--mode", "decode"}};
  for (const auto& mode : modes) {
    std::vector<std::string> base{"layers",    "--model", f.path("m<i>|,\"odel"),
                                  "--seq_len", "16",      "--batch",
                                  "2",         "--steps", "1"};
    base.insert(base.end(), mode.begin(), mode.end());
    CAPTURE(mode.back());
    const json layers = json::parse(printed(base, "json"))["layers"];
    const auto csv = read_csv(printed(base, "csv"));
    REQUIRE(csv.size() == layers.size() + 1);
    CHECK(csv[0][0] == "name");
    const auto parameters = std::find(csv[0].begin(), csv[0].end(), "parameters") - csv[0].begin();
    for (std::size_t i = 0; i < layers.size(); ++i) {
      REQUIRE(csv[i + 1].size() == csv[0].size());
      CHECK(csv[i + 1][0] == layers[i]["name"]);
      CHECK(std::stoll(csv[i + 1][static_cast<std::size_t>(parameters)]) ==
            layers[i]["parameters"]);
    }
    const std::string md = printed(base, "md");
    CHECK(has(md, "m\\<i\\>\\|,\"odel"));
    CHECK(count(md, "\n|") == layers.size() + 2);
    const std::string html = printed(base, "html");
    check_page(html);
    CHECK(has(html, "m&lt;i&gt;|,&quot;odel"));
    for (const json& row : layers) {
      CHECK(has(html, "<td>" + row["name"].get<std::string>() + "</td>"));
    }
  }
  CHECK(profile({"layers", "--model", "x", "--format", "xml"}).exit_code == 2);
}

TEST_CASE("the peaks are told with the way that bf16 products run") {
  using ds::kernels::Isa;
  const auto text = [](Isa isa, double bf16) {
    const ds::Device device = ds::Device::cpu(1, isa);
    return ds::profile::peaks_text(
        {.matrix_flops = 2e9, .f32_flops = 1e9, .bf16_flops = bf16, .memory_bytes = 3e9}, device);
  };
  CHECK(text(Isa::kBaseline, 2e9) ==
        "peak of this machine, 1 threads: 1.0 GFLOP/s (f32 matrix product), 2.0 GFLOP/s (bf16, "
        "widened to f32: no bf16 instructions), 3.0 GB/s (memory, read and written)\n");
  CHECK_FALSE(has(text(Isa::kBaseline, 0.0), "bf16"));
  if (ds::kernels::detect_isa() == Isa::kAvx512Bf16) {
    CHECK(has(text(Isa::kAvx512Bf16, 2e9), "in the CPU's own bf16 instructions"));
  }
}

TEST_CASE("bench in every format, with both matrix peaks") {
  const Folder f;
  f.write("model/config.json", tiny_v3_json().dump());
  const std::vector<std::string> base{"bench",   "--model", f.path("model"), "--seq_len", "16",
                                      "--batch", "1",       "--repeats",     "3"};
  const json d = json::parse(printed(base, "json"));
  const json& peaks = d["peaks"];
  CHECK(peaks["f32_flops_per_second"] > 1e8);
  CHECK(peaks["bf16_flops_per_second"] > 1e8);
  // In f32 nothing is judged by the bf16 peak.
  CHECK(peaks["matrix_flops_per_second"] == peaks["f32_flops_per_second"]);
  const bool native = peaks["bf16_products"] == "native";
  CHECK((native || peaks["bf16_products"] == "widened"));
  const auto csv = read_csv(printed(base, "csv"));
  CHECK(csv.size() == d["results"].size() + 1);
  CHECK(csv[1][0] == d["results"][0]["name"]);
  check_page(printed(base, "html"));
}
