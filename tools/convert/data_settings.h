// What the flags of deepseek-convert data say.
#pragma once

#include <string>
#include <vector>

namespace ds::convert {

struct DataSettings {
  std::string input;
  std::string output;
  std::string from = "auto";
  std::string to;
  std::string chat_template = "auto";
  std::string tokenizer;
  bool thinking = false;
  bool add_generation_prompt = false;
  std::string reasoning = "auto";
  std::string pair = "chosen";
  std::string pubmedqa_answer = "decision";
  std::vector<std::string> split;
  std::string encoding = "replace";
  std::string on_error = "skip";
  std::string rejects;
  bool force = false;
};

}  // namespace ds::convert
