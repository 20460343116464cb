#include "tools/convert/data_options.h"

namespace ds::convert {

namespace {

CLI::Option* words(CLI::Option* option, std::vector<std::string> known) {
  return option->check(CLI::IsMember(std::move(known)))->capture_default_str();
}

}  // namespace

void declare_data(CLI::App& app, DataSettings& s) {
  const char* group = "Data";
  app.add_option("--input,input", s.input, "file of rows; - is standard input")
      ->required()
      ->group(group);
  app.add_option("--output,output", s.output, "file to make; - is standard output")
      ->required()
      ->group(group);
  words(app.add_option("--from", s.from, "format of the input's rows"),
        {"auto", "alpaca", "sharegpt", "messages", "text", "tokens", "pubmedqa", "clinc150",
         "banking77", "prompt_completion", "dpo"})
      ->group(group);
  words(app.add_option("--to", s.to, "format of the output's rows"),
        {"messages", "alpaca", "sharegpt", "text", "tokens"})
      ->required()
      ->group(group);
  app.add_flag("--force", s.force, "replace an existing output")->group(group);
  const char* text = "Rendering";
  words(app.add_option("--template", s.chat_template,
                       "chat template of the rendered side; auto: the tokenizer's, else v3.1"),
        {"auto", "v2", "v3", "v3.1", "r1"})
      ->group(text);
  app.add_option("--tokenizer", s.tokenizer, "folder of tokenizer.json")->group(text);
  app.add_flag("--thinking", s.thinking, "thinking mode, for rows that do not say it")->group(text);
  app.add_flag("--add_generation_prompt", s.add_generation_prompt,
               "end with the assistant's marker, for rows that do not say it")
      ->group(text);
  words(app.add_option("--reasoning", s.reasoning,
                       "reasoning of the last answer; auto: kept in tokens, as a template leaves "
                       "it in text"),
        {"auto", "keep", "drop"})
      ->group(text);
  const char* choice = "Choice of rows";
  words(app.add_option("--pair", s.pair, "the answer taken from rows of format dpo"),
        {"chosen", "rejected"})
      ->group(choice);
  words(app.add_option("--pubmedqa_answer", s.pubmedqa_answer,
                       "decision: yes, no or maybe; long: the conclusion"),
        {"decision", "long"})
      ->group(choice);
  app.add_option("--split", s.split, "of a file of several lists (CLINC150) only these, by name")
      ->delimiter(',')
      ->group(choice);
  const char* bad = "Bad rows";
  words(app.add_option("--encoding_errors", s.encoding, "rows that are not UTF-8"),
        {"replace", "skip", "error"})
      ->group(bad);
  words(app.add_option("--on_error", s.on_error, "a row that cannot be converted"),
        {"skip", "fail"})
      ->group(bad);
  app.add_option("--rejects", s.rejects,
                 "JSON lines: each dropped or repaired row with line, column and reason")
      ->group(bad);
}

}  // namespace ds::convert
