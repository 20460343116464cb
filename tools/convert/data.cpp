#include "tools/convert/data.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/system.h"
#include "libcore/base/utf8.h"
#include "tools/convert/data_report.h"
#include "tools/convert/data_stream.h"

namespace ds::convert {

namespace {

namespace fs = std::filesystem;

TargetFormat target_format(const std::string& name) {
  if (name == "alpaca") return TargetFormat::kAlpaca;
  if (name == "sharegpt") return TargetFormat::kShareGpt;
  if (name == "text") return TargetFormat::kText;
  if (name == "tokens") return TargetFormat::kTokens;
  return TargetFormat::kMessages;
}

EncodingPolicy encoding_policy(const std::string& name) {
  if (name == "error") return EncodingPolicy::kError;
  return name == "skip" ? EncodingPolicy::kSkip : EncodingPolicy::kReplace;
}

class Conversion {
 public:
  Conversion(const DataSettings& settings, cli::Run& run)
      : settings_(settings),
        run_(run),
        input_(settings.input == "-" ? "standard input" : utf8_replace(settings.input)),
        to_stdout_(settings.output == "-") {}

  void execute() {
    check_flags();
    if (!settings_.tokenizer.empty()) tokenizer_.emplace(Tokenizer::load(settings_.tokenizer));
    const Target target(target_options(), tokenizer_ ? &*tokenizer_ : nullptr);
    RowSource source = open_source(target);
    report_.emplace(input_, settings_.rejects, run_);
    if (!to_stdout_) file_.emplace(settings_.output);
    convert_rows(source, target, run_.threads(),
                 [&](ConvertedBlock& block) { take(source, block); });
    run_.progress_clear();
    say_format(source);
    if (rows_kept_ == 0) {
      report_->commit();
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: none of the {} rows can be used{}", input_, rows_read_,
                              report_->reasons_text()),
                  "mend the rows, or name their format with --from");
    }
    if (file_) file_->commit();
    report_->commit();
    finish(source);
  }

 private:
  void check_flags() const {
    const auto refuse = [](const std::string& what, const std::string& hint) {
      throw Error(ExitCode::kUsage, what, hint);
    };
    if (to_stdout_ && run_.json_output()) {
      refuse("--format json and an output of - both want standard output",
             "name a file for the rows, or read the counts from --report");
    }
    if (settings_.to == "tokens" && settings_.from != "tokens" && settings_.tokenizer.empty()) {
      refuse("--to tokens needs a --tokenizer", "give the folder of tokenizer.json");
    }
    if (settings_.from == "tokens" && settings_.to != "tokens" && settings_.tokenizer.empty()) {
      refuse("--from tokens needs a --tokenizer", "give the folder of tokenizer.json");
    }
    for (const std::string* path : {&settings_.output, &settings_.rejects}) {
      if (path->empty() || *path == "-") continue;
      if (fs::exists(fs::symlink_status(*path)) && !settings_.force) {
        refuse(utf8_replace(*path) + ": exists, a new name is needed",
               "choose another name, or --force to replace it");
      }
    }
    if (settings_.rejects == "-") refuse("--rejects needs the name of a file, not -", "");
    if (!settings_.rejects.empty() && settings_.rejects == settings_.output) {
      refuse("--rejects and the output are the same file", "give two names");
    }
  }

  TargetOptions target_options() {
    TargetOptions options;
    options.to = target_format(settings_.to);
    options.thinking = settings_.thinking;
    options.add_generation_prompt = settings_.add_generation_prompt;
    options.keep_reasoning = settings_.reasoning == "keep" ||
                             (settings_.reasoning == "auto" && settings_.to == "tokens");
    if (settings_.chat_template != "auto") {
      options.chat_template = *parse_chat_template(settings_.chat_template);
    } else if (tokenizer_) {
      const auto detected = detect_chat_template(tokenizer_->chat_template());
      options.chat_template = detected.value_or(ChatTemplate::kV31);
    }
    template_ = options.chat_template;
    const bool thinks = template_ == ChatTemplate::kV31 || template_ == ChatTemplate::kR1;
    if (settings_.to == "tokens" && settings_.from != "text" && thinks &&
        tokenizer_->id_of("</think>") < 0) {
      run_.warn(
          fmt::format("{}: the tokenizer has no token </think>, which the {} template prints: "
                      "it is another model's, and a token may reach over the begin of an "
                      "answer",
                      settings_.tokenizer, chat_template_name(template_)));
    }
    return options;
  }

  RowSource open_source(const Target& target) const {
    SourceOptions options;
    options.encoding = encoding_policy(settings_.encoding);
    options.format = parse_data_format(settings_.from);
    options.pairs = true;
    options.rules = target.rules();
    options.rules.chosen = settings_.pair == "chosen";
    options.rules.long_answer = settings_.pubmedqa_answer == "long";
    options.splits = settings_.split;
    TextWindow window = settings_.input == "-" ? TextWindow(STDIN_FILENO, input_)
                                               : TextWindow(fs::path(settings_.input));
    return {std::move(window), input_, std::move(options)};
  }

  void take(const RowSource& source, ConvertedBlock& block) {
    say_format(source);
    const bool strict = settings_.on_error == "fail";
    for (const RowNote& note : block.notes) {
      if (strict && note.dropped) fail(note);
      report_->add(note);
    }
    if (file_) {
      file_->write(block.text);
    } else {
      run_.write_stdout(block.text);
    }
    rows_read_ += block.rows_read;
    rows_kept_ += block.rows_kept;
    bytes_read_ = block.position;
    bytes_written_ += block.text.size();
    const double share =
        source.size() > 0 ? static_cast<double>(block.position) / static_cast<double>(source.size())
                          : 0.0;
    run_.progress(fmt::format("{} rows, {}", format_count(rows_read_), format_bytes(bytes_read_)),
                  share);
  }

  [[noreturn]] void fail(const RowNote& note) const {
    const std::string column =
        note.column > 0 ? fmt::format(", column {}", note.column) : std::string();
    throw Error(
        ExitCode::kBadInput,
        fmt::format("{}: line {}{}: {}", input_, note.line, column, note.remarks.front().reason),
        "mend the row, or --on_error skip to leave such rows out");
  }

  void say_format(const RowSource& source) {
    if (said_format_ || !source.format()) return;
    said_format_ = true;
    const bool rendered =
        settings_.to == "text" || settings_.to == "tokens" || source.format() == DataFormat::kText;
    run_.info(fmt::format(
        "{}: {}, rows of format {}{}{}", input_, source.container(),
        data_format_name(*source.format()), settings_.from == "auto" ? " (detected)" : "",
        rendered ? fmt::format(", template {}", chat_template_name(template_)) : std::string()));
  }

  void finish(const RowSource& source) {
    const std::int64_t dropped = rows_read_ - rows_kept_;
    const double seconds = elapsed();
    nlohmann::json summary = {
        {"bytes_read", bytes_read_}, {"bytes_written", bytes_written_},
        {"seconds", seconds},        {"peak_rss_bytes", peak_resident_bytes()},
        {"rows_read", rows_read_},   {"rows_kept", rows_kept_},
        {"rows_dropped", dropped}};
    summary["rows_repaired"] = report_->repaired_rows();
    summary["dropped"] = counts(report_->dropped());
    summary["repaired"] = counts(report_->repaired());
    summary["from"] = data_format_name(*source.format());
    summary["to"] = settings_.to;
    run_.event("deepseek/convert-summary/1", summary);
    const std::string text = fmt::format(
        "read      {} rows of {} ({})\nkept      {}\ndropped   {}\nrepaired  {}\n"
        "wrote     {} in {}\n",
        format_count(rows_read_), data_format_name(*source.format()), format_bytes(bytes_read_),
        format_count(rows_kept_), DataReport::counts_text(dropped, report_->dropped()),
        DataReport::counts_text(report_->repaired_rows(), report_->repaired()),
        format_bytes(bytes_written_), format_duration(seconds));
    if (to_stdout_) {
      run_.info(text.substr(0, text.size() - 1));
    } else {
      run_.product(text, summary);
    }
  }

  static nlohmann::json counts(const std::map<std::string, std::int64_t>& kinds) {
    nlohmann::json json = nlohmann::json::object();
    for (const auto& [kind, count] : kinds) json[kind] = count;
    return json;
  }

  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  const DataSettings& settings_;
  cli::Run& run_;
  std::string input_;
  bool to_stdout_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::optional<Tokenizer> tokenizer_;
  ChatTemplate template_ = ChatTemplate::kV31;
  std::optional<DataReport> report_;
  std::optional<AtomicFile> file_;
  bool said_format_ = false;
  std::int64_t rows_read_ = 0;
  std::int64_t rows_kept_ = 0;
  std::size_t bytes_read_ = 0;
  std::size_t bytes_written_ = 0;
};

}  // namespace

void run_data(const DataSettings& settings, cli::Run& run) { Conversion(settings, run).execute(); }

}  // namespace ds::convert
