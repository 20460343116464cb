#include "libcore/cli/settings_source.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"

namespace ds::cli {

namespace {

constexpr std::size_t kLargestConfig = std::size_t{1} << 20;
constexpr int kDeepestConfig = 32;

std::string underscored(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

CLI::Option* find_option(CLI::App& app, const std::string& name) {
  return app.get_option_no_throw("--" + name);
}

bool is_switch(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

bool is_truth_word(const std::string& word) {
  for (const char* known : {"true", "false", "yes", "no", "on", "off", "1", "0"}) {
    if (word == known) return true;
  }
  return false;
}

[[noreturn]] void unknown(const std::string& what, const std::string& name, CLI::App& app) {
  const std::string bare = name.rfind("--", 0) == 0 ? name.substr(2) : name;
  const std::string nearest = nearest_name(bare, option_names(app));
  throw Error(
      ExitCode::kUsage, fmt::format("{} {} is unknown", what, quote_text(name)),
      nearest.empty() ? "--help lists every flag" : fmt::format("did you mean --{}?", nearest));
}

// A scalar, or a sequence joined by commas.
std::string node_text(const YAML::Node& node, const std::string& where) {
  if (node.IsScalar()) return node.Scalar();
  if (node.IsNull()) return "";
  if (node.IsSequence()) {
    std::string text;
    for (const auto& item : node) {
      if (!item.IsScalar()) break;
      text += (text.empty() ? "" : ",") + item.Scalar();
    }
    return text;
  }
  throw Error(ExitCode::kUsage, where + " is a block, needed is a value");
}

// yaml-cpp recurses over nested flow collections; refuse depth before it parses.
void check_depth(const std::string& text, const std::string& path) {
  int depth = 0;
  for (const char c : text) {
    depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
    if (depth > kDeepestConfig) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: nested deeper than {} levels", path, kDeepestConfig));
    }
  }
  std::size_t line_begin = 0;
  while (line_begin < text.size()) {
    std::size_t indent = line_begin;
    while (indent < text.size() && (text[indent] == ' ' || text[indent] == '-')) ++indent;
    if (indent - line_begin > 4 * kDeepestConfig) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: nested deeper than {} levels", path, kDeepestConfig));
    }
    const std::size_t end = text.find('\n', line_begin);
    if (end == std::string::npos) break;
    line_begin = end + 1;
  }
}

class FileSettings {
 public:
  FileSettings(const std::string& path, CLI::App& app, GivenSettings& settings)
      : path_(path), app_(app), settings_(settings) {}

  void block(const YAML::Node& node, const std::string& program, int level) {
    if (!node.IsMap()) {
      throw Error(ExitCode::kBadInput, path_ + ": not a block of keys and values");
    }
    for (const auto& entry : node) {
      const std::string key = underscored(entry.first.as<std::string>());
      if (level == 0 && key == underscored(program)) {
        block(entry.second, program, 1);
      } else if (level == 0 && key == "training" && entry.second.IsMap()) {
        training(entry.second);
      } else {
        set(key, node_text(entry.second, fmt::format("{}: key '{}'", path_, key)));
      }
    }
  }

 private:
  void set(const std::string& key, const std::string& value) {
    if (find_option(app_, key) == nullptr) unknown(path_ + ": key", key, app_);
    settings_.try_emplace(key, Given{value, "file"});
  }

  // The developer guide's spelling; other keys under training are flags.
  void training(const YAML::Node& node) {
    for (const auto& entry : node) {
      const std::string key = underscored(entry.first.as<std::string>());
      if (key != "memory_optimization") {
        set(key, node_text(entry.second, fmt::format("{}: key 'training.{}'", path_, key)));
        continue;
      }
      for (const auto& option : entry.second) {
        const std::string name = underscored(option.first.as<std::string>());
        if (name == "activation_checkpointing") {
          const std::string value = node_text(option.second, path_ + ": activation_checkpointing");
          set(name, value == "true" ? "full" : value == "false" ? "none" : value);
        } else if (name == "selective_computation" && option.second.IsMap()) {
          for (const auto& item : option.second) {
            const std::string inner = underscored(item.first.as<std::string>());
            if (inner != "threshold") {
              unknown(path_ + ": key", "selective_computation." + inner, app_);
            }
            set("selective_computation_threshold", node_text(item.second, path_ + ": threshold"));
          }
        } else {
          unknown(path_ + ": key", "training.memory_optimization." + name, app_);
        }
      }
    }
  }

  const std::string& path_;
  CLI::App& app_;
  GivenSettings& settings_;
};

}  // namespace

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  }
  return names;
}

GivenSettings read_arguments(const std::vector<std::string>& arguments, CLI::App& app) {
  GivenSettings settings;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word.rfind("--", 0) != 0 || word.size() == 2) {
      throw Error(ExitCode::kUsage, fmt::format("{} is not a flag", quote_text(word)),
                  "every setting is given as --name value");
    }
    const std::size_t equals = word.find('=');
    const std::string name =
        underscored(word.substr(2, equals == std::string::npos ? equals : equals - 2));
    const CLI::Option* option = find_option(app, name);
    if (option == nullptr) unknown("flag", "--" + name, app);
    std::string value;
    if (equals != std::string::npos) {
      value = word.substr(equals + 1);
    } else if (is_switch(*option)) {
      const bool follows = i + 1 < arguments.size() && is_truth_word(arguments[i + 1]);
      value = follows ? arguments[++i] : "true";
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      throw Error(ExitCode::kUsage, fmt::format("--{} needs a value", name));
    }
    settings[name] = {value, "flag"};
  }
  return settings;
}

void read_config_file(const std::string& path, const std::string& program, CLI::App& app,
                      GivenSettings& settings) {
  const std::string text = read_file(path);
  if (text.size() > kLargestConfig) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: {} bytes, a configuration has at most {}",
                                                 path, text.size(), kLargestConfig));
  }
  check_depth(text, path);
  try {
    FileSettings(path, app, settings).block(YAML::Load(text), program, 0);
  } catch (const YAML::Exception& error) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg));
  }
}

void read_environment(CLI::App& app, GivenSettings& settings) {
  for (const std::string& name : option_names(app)) {
    std::string variable = "DEEPSEEK_" + name;
    for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const char* value = std::getenv(variable.c_str());
    const auto found = settings.find(name);
    const bool by_flag = found != settings.end() && found->second.source == "flag";
    if (value != nullptr && !by_flag) settings[name] = {value, "env"};
  }
}

}  // namespace ds::cli
