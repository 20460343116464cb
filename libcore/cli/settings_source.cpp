#include "libcore/cli/settings_source.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <set>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"

namespace ds::cli {

namespace {

constexpr std::size_t kLargestConfig = std::size_t{1} << 20;

std::string underscored(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

CLI::Option* find_option(CLI::App& app, const std::string& name) {
  return app.get_option_no_throw("--" + name);
}

// What joins the values of an option that takes several.
char separator_of(const CLI::Option& option) {
  return option.get_delimiter() == '\0' ? ',' : option.get_delimiter();
}

// Options that may be given by place as well, in the order of their declaration.
std::vector<const CLI::Option*> places_of(const CLI::App& app) {
  std::vector<const CLI::Option*> places;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional() && !option->get_lnames().empty()) places.push_back(option);
  }
  return places;
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

// A scalar, or a sequence joined by `separator`.
std::string node_text(const YAML::Node& node, const std::string& where, char separator) {
  if (node.IsScalar()) return node.Scalar();
  if (node.IsNull()) return "";
  if (node.IsSequence()) {
    std::string text;
    for (const auto& item : node) {
      if (!item.IsScalar()) {
        throw Error(ExitCode::kUsage, where + " holds a nested list, needed are values");
      }
      if (!text.empty()) text += separator;
      text += item.Scalar();
    }
    return text;
  }
  throw Error(ExitCode::kUsage, where + " is a block, needed is a value");
}

// Switches that end the program at once; a file or a variable has no business setting them.
bool is_setting(const std::string& name) {
  return name != "help" && name != "version" && name != "version_only";
}

// A block as JSON text, for flags that take a JSON object (--rank_pattern).
nlohmann::ordered_json node_json(const YAML::Node& node) {
  if (node.IsMap()) {
    nlohmann::ordered_json out = nlohmann::ordered_json::object();
    for (const auto& entry : node) out[entry.first.as<std::string>()] = node_json(entry.second);
    return out;
  }
  if (!node.IsScalar()) {
    throw Error(ExitCode::kUsage, "a block of settings may hold values and blocks only");
  }
  const bool was_quoted = node.Tag() == "!";
  nlohmann::ordered_json value = nlohmann::ordered_json::parse(node.Scalar(), nullptr, false);
  return was_quoted || !value.is_primitive() ? nlohmann::ordered_json(node.Scalar()) : value;
}

std::string dump_block(const YAML::Node& node) {
  // YAML scalars may hold bytes that are not UTF-8.
  return node_json(node).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The settings of one file. Nesting deeper than 500 levels is refused by yaml-cpp itself.
class FileSettings {
 public:
  FileSettings(const std::string& path, const std::string& program, CLI::App& app,
               GivenSettings& settings)
      : path_(path), program_(underscored(program)), app_(app), settings_(settings) {}

  // Keys may be nested or dotted: "training: {learning_rate: 1}", "training.learning_rate: 1".
  void block(const YAML::Node& node, const std::string& prefix) {
    if (!node.IsMap()) {
      throw Error(ExitCode::kBadInput, prefix.empty()
                                           ? path_ + ": not a block of keys and values"
                                           : path_ + ": key '" + prefix + "' needs a block");
    }
    for (const auto& entry : node) {
      const std::string key = underscored(entry.first.as<std::string>());
      const std::string whole = prefix.empty() ? key : prefix + "." + key;
      if (!is_group(whole)) {
        set(whole, entry.second);
      } else if (!entry.second.IsNull()) {
        block(entry.second, whole);
      }
    }
  }

 private:
  std::string without_program(const std::string& whole) const {
    const std::string start = program_ + ".";
    return whole.rfind(start, 0) == 0 ? whole.substr(start.size()) : whole;
  }

  bool is_group(const std::string& whole) const {
    const std::string name = without_program(whole);
    return whole == program_ || name == "training" || name == "training.memory_optimization" ||
           name == "training.memory_optimization.selective_computation";
  }

  // The flag a key means: itself, or the developer guide's spelling of it.
  std::string flag_of(const std::string& whole) const {
    const std::string name = without_program(whole);
    const std::string guide = "training.memory_optimization.";
    if (name == guide + "activation_checkpointing") return "activation_checkpointing";
    const std::string selective = guide + "selective_computation.";
    if (name.rfind(selective, 0) == 0) {
      return "selective_computation_" + name.substr(selective.size());
    }
    const std::string training = "training.";
    return name.rfind(training, 0) == 0 ? name.substr(training.size()) : name;
  }

  void set(const std::string& whole, const YAML::Node& node) {
    const std::string flag = flag_of(whole);
    if (!is_setting(flag) || flag == "config" || find_option(app_, flag) == nullptr) {
      unknown(path_ + ": key", flag, app_);
    }
    if (!seen_.insert(flag).second) {
      throw Error(ExitCode::kUsage, fmt::format("{}: key '{}' is there twice", path_, flag));
    }
    if (node.IsNull()) return;  // "key:" leaves the default
    std::string value = node.IsMap() ? dump_block(node)
                                     : node_text(node, fmt::format("{}: key '{}'", path_, whole),
                                                 separator_of(*find_option(app_, flag)));
    if (flag == "activation_checkpointing" && is_truth_word(value)) {
      value = value == "true" || value == "yes" || value == "on" || value == "1" ? "full" : "none";
    }
    settings_.try_emplace(flag, Given{value, "file"});
  }

  const std::string& path_;
  std::string program_;
  CLI::App& app_;
  GivenSettings& settings_;
  std::set<std::string> seen_;
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
  const std::vector<const CLI::Option*> places = places_of(app);
  std::size_t place = 0;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const bool is_place = word == "-" || (!word.empty() && word[0] != '-');
    const auto takes_more = [&] { return places[place]->get_items_expected_max() > 1; };
    while (is_place && place < places.size() && !takes_more() &&
           settings.count(places[place]->get_lnames().front()) > 0) {
      ++place;
    }
    if (is_place && place < places.size()) {
      const auto [at, fresh] =
          settings.try_emplace(places[place]->get_lnames().front(), Given{word, "flag"});
      if (!fresh) at->second.value += separator_of(*places[place]) + word;
      continue;
    }
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
    // Values that may hold commas are given one by one; for others the last flag counts, so that a
    // wrapper's flags can be overridden.
    const bool gathers = option->get_delimiter() == '\n';
    while (gathers && places.empty() && i + 1 < arguments.size() && !arguments[i + 1].empty() &&
           arguments[i + 1][0] != '-') {
      value += separator_of(*option) + arguments[++i];
    }
    const auto before = settings.find(name);
    if (gathers && before != settings.end()) {
      value = before->second.value + separator_of(*option) + value;
    }
    settings[name] = {value, "flag"};
  }
  return settings;
}

void read_config_file(const std::string& path, const std::string& program, CLI::App& app,
                      GivenSettings& settings) {
  read_config_text(read_file(path), path, program, app, settings);
}

void read_config_text(const std::string& text, const std::string& path, const std::string& program,
                      CLI::App& app, GivenSettings& settings) {
  if (text.size() > kLargestConfig) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: {} bytes, a configuration has at most {}",
                                                 path, text.size(), kLargestConfig));
  }
  try {
    const YAML::Node root = YAML::Load(text);
    // An empty file, or one of comments, sets nothing.
    if (!root.IsNull()) FileSettings(path, program, app, settings).block(root, "");
  } catch (const YAML::Exception& error) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg));
  }
}

void read_environment(CLI::App& app, GivenSettings& settings) {
  for (const std::string& name : option_names(app)) {
    std::string variable = "DEEPSEEK_" + name;
    for (char& c : variable) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    const char* value = is_setting(name) ? std::getenv(variable.c_str()) : nullptr;
    const auto found = settings.find(name);
    const bool by_flag = found != settings.end() && found->second.source == "flag";
    if (value != nullptr && !by_flag) settings[name] = {value, "env"};
  }
}

}  // namespace ds::cli
