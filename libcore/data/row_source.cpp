#include "libcore/data/row_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/io/plain_rows.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

// How much of a file is looked at to tell what it is.
constexpr std::size_t kHead = 4096;

std::string_view skip_space(std::string_view text) {
  const std::size_t at = text.find_first_not_of(" \t\r\n");
  return at == std::string_view::npos ? std::string_view() : text.substr(at);
}

// Steps over the string at the front; empty when there is none.
std::string_view take_string(std::string_view& text) {
  text = skip_space(text);
  if (!text.starts_with('"')) return {};
  std::size_t end = 1;
  while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
  if (end >= text.size()) return {};
  const std::string_view result = text.substr(1, end - 1);
  text = skip_space(text.substr(end + 1));
  return result;
}

template <std::size_t N>
bool is_one_of(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// The files that are one object: {"id": {"QUESTION": ...}} and {"train": [["text", "intent"]]}.
std::optional<DataFormat> object_format(std::string_view head) {
  constexpr std::array<std::string_view, 6> kPubMedQa = {"QUESTION", "CONTEXTS", "LABELS",
                                                         "MESHES",   "YEAR",     "final_decision"};
  constexpr std::array<std::string_view, 6> kClinc150 = {"train",     "val",     "test",
                                                         "oos_train", "oos_val", "oos_test"};
  head = skip_space(head);
  if (!head.starts_with('{')) return std::nullopt;
  head.remove_prefix(1);
  const std::string_view key = take_string(head);
  if (!head.starts_with(':')) return std::nullopt;
  head = skip_space(head.substr(1));
  if (head.starts_with('[') && is_one_of(key, kClinc150)) return DataFormat::kClinc150;
  if (!head.starts_with('{')) return std::nullopt;
  head.remove_prefix(1);
  return is_one_of(take_string(head), kPubMedQa) ? std::optional(DataFormat::kPubMedQa)
                                                 : std::nullopt;
}

enum class Container { kJson, kCsv, kLines };

Container container_of(std::string_view head, const std::string& name,
                       const std::optional<DataFormat>& format) {
  if (head.starts_with("\xef\xbb\xbf")) head.remove_prefix(3);
  if (name.ends_with(".csv")) return Container::kCsv;
  const std::string_view words = skip_space(head);
  if (words.empty() || words.starts_with('{') || words.starts_with('[')) return Container::kJson;
  if (format == DataFormat::kText || (!format && name.ends_with(".txt"))) return Container::kLines;
  const std::string_view first = words.substr(0, words.find_first_of("\r\n"));
  const auto has = [first](std::string_view column) {
    return first.find(column) != std::string_view::npos;
  };
  const bool header = has(",") && (has("text") || has("instruction") || has("prompt"));
  return header ? Container::kCsv : Container::kJson;
}

// The data sets that come as CSV have the columns of a text and its class.
std::optional<DataFormat> csv_format(const std::vector<std::string>& header) {
  const auto has = [&header](const char* name) {
    return std::find(header.begin(), header.end(), name) != header.end();
  };
  if (!has("text")) return std::nullopt;
  if (has("category")) return DataFormat::kBanking77;
  if (has("intent")) return DataFormat::kClinc150;
  return std::nullopt;
}

}  // namespace

struct RowSource::Reader {
  std::variant<JsonRowReader, CsvRowReader, LineRowReader> rows;
  JsonLayout layout = JsonLayout::kLines;
};

RowSource::RowSource(const std::filesystem::path& path, EncodingPolicy policy)
    : RowSource(TextWindow(path), path.string(), {.encoding = policy}) {}

RowSource::RowSource(std::string_view text, const std::string& name, EncodingPolicy policy)
    : RowSource(TextWindow(text), name, {.encoding = policy}) {}

RowSource::RowSource(TextWindow window, const std::string& name, SourceOptions options)
    : name_(name), options_(std::move(options)), format_(options_.format) {
  open(std::move(window));
}

RowSource::~RowSource() = default;
RowSource::RowSource(RowSource&&) noexcept = default;

void RowSource::open(TextWindow window) {
  window.need(kHead);
  const std::string_view head = window.view();
  switch (container_of(head, name_, format_)) {
    case Container::kCsv: {
      CsvRowReader csv(std::move(window), name_);
      if (!format_) format_ = csv_format(csv.header());
      reader_ = std::make_unique<Reader>(Reader{std::move(csv)});
      return;
    }
    case Container::kLines:
      format_ = DataFormat::kText;
      reader_ = std::make_unique<Reader>(Reader{LineRowReader(std::move(window), name_)});
      return;
    case Container::kJson:
      break;
  }
  const auto object = object_format(head.starts_with("\xef\xbb\xbf") ? head.substr(3) : head);
  JsonRowReader json(std::move(window), name_, options_.encoding);
  JsonLayout layout = json.is_array() ? JsonLayout::kArray : JsonLayout::kLines;
  if (object && (!format_ || format_ == object)) {
    format_ = object;
    layout = object == DataFormat::kPubMedQa ? JsonLayout::kMembers : JsonLayout::kLists;
    json.set_layout(layout);
  }
  reader_ = std::make_unique<Reader>(Reader{std::move(json), layout});
}

std::string_view RowSource::container() const {
  if (std::holds_alternative<CsvRowReader>(reader_->rows)) return "CSV";
  if (std::holds_alternative<LineRowReader>(reader_->rows)) return "plain lines";
  switch (reader_->layout) {
    case JsonLayout::kArray:
      return "a JSON array";
    case JsonLayout::kMembers:
      return "a JSON object of rows";
    case JsonLayout::kLists:
      return "a JSON object of lists";
    case JsonLayout::kLines:
      break;
  }
  return "JSON lines";
}

std::size_t RowSource::position() const {
  return std::visit([](const auto& rows) { return rows.position(); }, reader_->rows);
}

std::size_t RowSource::size() const {
  return std::visit([](const auto& rows) { return rows.size(); }, reader_->rows);
}

bool RowSource::next_text(JsonRow& text) {
  const auto wanted = [&] {
    return options_.splits.empty() || reader_->layout != JsonLayout::kLists ||
           std::find(options_.splits.begin(), options_.splits.end(), text.key) !=
               options_.splits.end();
  };
  while (std::visit([&text](auto& rows) { return rows.next_text(text); }, reader_->rows)) {
    if (wanted() || !text.good()) return true;
  }
  return false;
}

void RowSource::convert(JsonRow& text, SourceRow& result, Json& value) const {
  result = SourceRow();
  if (!text.good()) {
    // There is nothing to parse.
  } else if (const auto* csv = std::get_if<CsvRowReader>(&reader_->rows)) {
    csv->parse(text, options_.encoding, value);
  } else if (std::holds_alternative<LineRowReader>(reader_->rows)) {
    LineRowReader::parse(text, options_.encoding, value);
  } else {
    parse_json_row(text, options_.encoding, value);
  }
  result.line = text.line;
  result.column = text.column;
  if (!text.good()) {
    if (text.encoding && options_.encoding == EncodingPolicy::kError) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: line {}, column {}: {}", name_, text.line, text.column, text.reason),
          "repair the file, or choose another policy for such bytes: replace or skip");
    }
    const bool surrogate = text.encoding && text.reason.starts_with("lone surrogate");
    const bool csv = std::holds_alternative<CsvRowReader>(reader_->rows);
    result.row.problem = {!text.encoding ? (csv ? "invalid_csv" : "invalid_json")
                          : surrogate    ? "lone_surrogate"
                                         : "invalid_utf8",
                          "", text.reason};
    return;
  }
  const bool shaped = value.is_object() || value.is_array();
  const auto format = format_ ? format_ : detect_format(value, options_.pairs);
  if (!format) {
    result.row.problem = {shaped ? "unknown_format" : "bad_type", "",
                          describe_keys(value) +
                              ": no format has these (messages | conversations | instruction, "
                              "output | prompt, completion | text | input_ids is needed)"};
    return;
  }
  if (format_ && !has_format(value, *format_)) {
    const auto other = detect_format(value, options_.pairs);
    result.row.problem = {
        shaped ? "other_format" : "bad_type", "",
        fmt::format("{}{}, but the file's rows are of format {}", describe_keys(value),
                    other ? fmt::format(" (format {})", data_format_name(*other)) : "",
                    data_format_name(*format_))};
    return;
  }
  result.row = take_row(value, *format, options_.rules);
  if (!result.row.content) {
    result.column = 0;
    return;
  }
  if (text.twice) {
    result.row.repairs.insert(
        result.row.repairs.begin(),
        {"duplicate_key", *text.twice,
         fmt::format("the key {} is there twice, need once; the last one counts",
                     quote_text(*text.twice))});
  }
  if (text.repaired) {
    result.row.repairs.insert(result.row.repairs.begin(), {"replaced_bytes", "", text.reason});
  }
}

bool RowSource::next(SourceRow& result) {
  JsonRow text;
  return next(result, text);
}

bool RowSource::next(SourceRow& result, JsonRow& text) {
  if (!next_text(text)) {
    result = SourceRow();
    return false;
  }
  Json value;
  convert(text, result, value);
  if (!format_ && result.row.content) format_ = result.row.format;
  return true;
}

}  // namespace ds
