#include "tests/core/check/mutation.h"

#include <fnmatch.h>

#include <map>
#include <regex>

namespace ds::test {

namespace fs = std::filesystem;
using nlohmann::json;

bool matches(const char* patterns, const std::string& text) {
  const std::string list = patterns;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find('|', begin), list.size());
    if (fnmatch(list.substr(begin, end - begin).c_str(), text.c_str(), FNM_NOESCAPE) == 0) {
      return true;
    }
    begin = end + 1;
  }
  return false;
}

// A sound file is moved aside and back, never overwritten: some file systems flush a file that is
// cut to nothing and written again, which takes longer than all checks.
std::vector<check::Finding> SpoiltFolder::with(const std::string& name,
                                               const std::string& bytes) const {
  const fs::path path = root() / name;
  const fs::path aside = root().string() + ".aside";
  const bool there = fs::exists(path);
  if (there) fs::rename(path, aside);
  write_text(path, bytes);
  auto findings = check_(root());
  fs::remove(path);
  if (there) fs::rename(aside, path);
  return findings;
}

std::vector<check::Finding> SpoiltFolder::without(const std::string& name) const {
  const fs::path aside = root().string() + ".aside";
  fs::rename(root() / name, aside);
  auto findings = check_(root());
  fs::rename(aside, root() / name);
  return findings;
}

std::shared_ptr<SpoiltFolder> model_folder(const Model& model, bool deep) {
  auto folder = std::make_shared<SpoiltFolder>(
      [deep](const fs::path& root) { return check_folder(root, deep); });
  model.write(folder->root());
  return folder;
}

std::vector<check::Finding> check_model(const SpoiltFolder& folder, const Model& model, bool deep) {
  for (const auto& entry : fs::directory_iterator(folder.root())) fs::remove(entry.path());
  model.write(folder.root());
  return check_folder(folder.root(), deep);
}

std::vector<std::string> one_of_each_kind(const Model& model, bool layers_apart) {
  std::map<std::string, std::string> kinds;
  const std::regex layer("layers\\.([0-9]+)\\."), expert("experts\\.[0-9]+\\.");
  for (const auto& [name, tensor] : model.tensors) {
    std::smatch at;
    std::string kind = std::regex_replace(name, expert, "experts.*.");
    if (std::regex_search(name, at, layer)) {
      const std::string form = !layers_apart  ? "*"
                               : at[1] == "0" ? "dense"
                               : at[1] == "3" ? "mtp"
                                              : "moe";
      kind = std::regex_replace(kind, layer, "layers." + form + ".");
    }
    kinds.emplace(kind, name);
  }
  std::vector<std::string> names;
  for (const auto& [kind, name] : kinds) names.push_back(name);
  return names;
}

std::string without_layer(const std::string& name) {
  const std::size_t at = name.find("layers.");
  return at == std::string::npos ? name : name.substr(name.find('.', at + 7) + 1);
}

std::vector<JsonChange> json_changes(const json& value) {
  std::vector<JsonChange> changes{{"removed", nullptr}};
  const auto add = [&](const char* change, json changed) {
    if (changed != value) changes.push_back({change, std::move(changed)});
  };
  add("null", nullptr);
  if (!value.is_string()) add("text", "x");
  if (!value.is_number()) add("number", 7);
  if (!value.is_boolean()) add("boolean", true);
  if (!value.is_array()) add("list", json::array({value}));
  if (!value.is_object()) add("object", json::object());
  if (value.is_boolean()) add("flipped", !value.get<bool>());
  if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    add("one more", number + 1);
    add("one less", number - 1);
    add("zero", 0);
    add("negative", -number - 1);
    add("twice", 2 * number);
    add("with a fraction", static_cast<double>(number) + 0.5);
    add("huge", std::int64_t{1} << 60);
  } else if (value.is_number()) {
    const auto number = value.get<double>();
    add("a quarter more", number * 1.25);
    add("half", number / 2);
    add("zero", 0.0);
    add("negative", -number - 0.5);
    add("huge", 1e300);
  } else if (value.is_string()) {
    add("changed", value.get<std::string>() + "x");
    add("empty", "");
  } else if (value.is_array()) {
    add("empty", json::array());
    json more = value;
    if (!value.empty()) more.push_back(value.front());
    add("first element twice", more);
  } else if (value.is_object()) {
    add("empty", json::object());
  }
  return changes;
}

void each_json_change(
    const json& document, const std::function<bool(const std::string&)>& skip,
    const std::function<void(const std::string&, const std::string&, const json&)>& f) {
  std::function<void(const json&, const std::string&, const std::string&)> walk =
      [&](const json& value, const std::string& path, const std::string& pointer) {
        const auto member = [&](const std::string& key, const json& inner) {
          const std::string name = path.empty() ? key : path + "." + key;
          std::string escaped;
          for (const char c : key) escaped += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
          const std::string at = pointer + "/" + escaped;
          if (skip && skip(name)) return;
          for (const JsonChange& change : json_changes(inner)) {
            json changed = document;
            const json::json_pointer here(at);
            if (change.change == "removed") {
              json& parent = changed[here.parent_pointer()];
              if (parent.is_array()) {
                parent.erase(static_cast<std::size_t>(std::stoul(key)));
              } else {
                parent.erase(key);
              }
            } else {
              changed[here] = change.value;
            }
            f(name, change.change, changed);
          }
          if (inner.is_structured()) walk(inner, name, at);
        };
        if (value.is_object()) {
          for (const auto& [key, inner] : value.items()) member(key, inner);
        } else if (value.is_array()) {
          for (std::size_t i = 0; i < value.size(); ++i) member(std::to_string(i), value[i]);
        }
      };
  walk(document, "", "");
}

void each_key_change(
    const json& object,
    const std::function<void(const std::string&, const std::string&, const std::string&)>& f) {
  for (const auto& [key, value] : object.items()) {
    json misspelt = object;
    misspelt.erase(key);
    std::string wrong = key;
    if (wrong.size() > 1) std::swap(wrong[wrong.size() - 1], wrong[wrong.size() - 2]);
    if (wrong == key) wrong += "s";
    misspelt[wrong] = value;
    f(key, "key misspelt", misspelt.dump());
    f(key, "written twice",
      "{" + json(key).dump() + ":" + value.dump() + "," + object.dump().substr(1));
  }
}

}  // namespace ds::test
