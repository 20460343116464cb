#include "libcore/text/jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libcore/text/jinja_unicode.h"
#include "libcore/text/python_json.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

constexpr int kValueDepth = 60;

// Code points that Python prints as they are; of others beyond ASCII it is not known here.
bool surely_printable(std::uint32_t c) {
  return (c >= 0x20 && c < 0x7f) || (c >= 0xa1 && c <= 0x17f && c != 0xad) ||
         (c >= 0x2010 && c <= 0x2027) || (c >= 0x2500 && c <= 0x25ff) ||
         (c >= 0x3001 && c <= 0x303f) || (c >= 0x3041 && c <= 0x3096) ||
         (c >= 0x30a0 && c <= 0x30ff) || (c >= 0x4e00 && c <= 0x9fa5) ||
         (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xff01 && c <= 0xff60) ||
         (c >= 0x1f300 && c <= 0x1f5ff);
}

std::string quoted(Machine& machine, std::string_view text) {
  const char quote =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"'
                                                                                            : '\'';
  std::string out(1, quote);
  for (std::size_t i = 0; i < text.size();) {
    const std::uint32_t c = code_point_at(text, i);
    const std::size_t length = length_at(text, i);
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      out += '\\';
      out += text[i];
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", c);
    } else if (surely_printable(c)) {
      out += text.substr(i, length);
    } else {
      machine.unsupported(fmt::format("the quoted form of a text with U+{:04X}", c));
    }
    i += length;
  }
  return out + quote;
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return python_json(nlohmann::ordered_json(value), false);
}

std::string repr(Machine& machine, const Value& value, int depth) {
  if (depth > kValueDepth) machine.limit("values nested too deeply");
  machine.step();
  switch (value.kind) {
    case Kind::kString:
      machine.charge(value.text->size());
      return quoted(machine, *value.text);
    case Kind::kList: {
      const List& list = *value.list;
      if (list.form != List::Form::kList && list.form != List::Form::kTuple) {
        machine.unsupported(fmt::format("a {} as text", type_name(value)));
      }
      const bool tuple = list.form == List::Form::kTuple;
      std::string out(1, tuple ? '(' : '[');
      for (std::size_t i = 0; i < list.items.size(); ++i) {
        if (i > 0) out += ", ";
        out += repr(machine, list.items[i], depth + 1);
      }
      machine.charge(out.size());
      if (tuple && list.items.size() == 1) out += ',';
      return out + (tuple ? ')' : ']');
    }
    case Kind::kDict: {
      std::string out = "{";
      for (const auto& [key, member] : value.dict->items) {
        if (out.size() > 1) out += ", ";
        out += repr(machine, key, depth + 1) + ": " + repr(machine, member, depth + 1);
      }
      machine.charge(out.size());
      return out + "}";
    }
    case Kind::kUndefined:
      return "Undefined";
    default:
      return to_text(machine, value);
  }
}

class JsonWriter {
 public:
  JsonWriter(Machine& machine, const JsonStyle& style) : machine_(machine), style_(style) {}

  std::string out;

  void write(const Value& value, int depth) {
    if (depth > kValueDepth) machine_.limit("values nested too deeply");
    machine_.step();
    switch (value.kind) {
      case Kind::kString:
        text(*value.text);
        return;
      case Kind::kList:
        if (value.list->form != List::Form::kList && value.list->form != List::Form::kTuple) {
          break;
        }
        list(value.list->items, depth);
        return;
      case Kind::kDict:
        dict(*value.dict, depth);
        return;
      case Kind::kNone:
        out += "null";
        return;
      case Kind::kBool:
        out += value.boolean ? "true" : "false";
        return;
      case Kind::kInteger:
        out += std::to_string(value.integer);
        return;
      case Kind::kFloat:
        out += python_json(nlohmann::ordered_json(value.real), false);
        return;
      default:
        break;
    }
    machine_.raise(fmt::format("a {} is no JSON", type_name(value)));
  }

 private:
  void text(const std::string& text) {
    machine_.charge(text.size());
    out += python_json(nlohmann::ordered_json(text), style_.ensure_ascii);
  }
  void line(int depth) {
    if (!style_.lines) return;
    out += '\n';
    for (int i = 0; i < depth; ++i) out += style_.indent;
    machine_.charge(static_cast<std::size_t>(depth) * style_.indent.size());
  }
  void list(const std::vector<Value>& items, int depth) {
    out += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line(depth + 1);
      write(items[i], depth + 1);
    }
    if (!items.empty()) line(depth);
    out += ']';
  }
  void dict(const Dict& dict, int depth) {
    auto items = dict.items;
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
        return less(machine_, a.first, b.first);
      });
    }
    out += '{';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      line(depth + 1);
      const Value& key = items[i].first;
      if (key.is(Kind::kString)) {
        text(*key.text);
      } else if (key.is_number() || key.is(Kind::kNone)) {
        out += '"';
        write(key, depth + 1);
        out += '"';
      } else {
        machine_.raise(fmt::format("a {} is no key of JSON", type_name(key)));
      }
      out += style_.key_separator;
      write(items[i].second, depth + 1);
    }
    if (!items.empty()) line(depth);
    out += '}';
  }

  Machine& machine_;
  const JsonStyle& style_;
};

}  // namespace

std::string_view type_name(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kCallable:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kList:
      break;
  }
  switch (value.list->form) {
    case List::Form::kTuple:
      return "tuple";
    case List::Form::kRange:
      return "range";
    case List::Form::kView:
      return "view of a dict";
    case List::Form::kIterator:
      return "generator";
    default:
      return "list";
  }
}

bool truth(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.boolean;
    case Kind::kInteger:
      return value.integer != 0;
    case Kind::kFloat:
      return value.real != 0.0;
    case Kind::kString:
      return !value.text->empty();
    case Kind::kList:
      return value.list->form == List::Form::kIterator || !value.list->items.empty();
    case Kind::kDict:
      return !value.dict->items.empty();
    default:
      return true;
  }
}

std::string to_text(Machine& machine, const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return "";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return value.boolean ? "True" : "False";
    case Kind::kInteger:
      return std::to_string(value.integer);
    case Kind::kFloat:
      return number_text(value.real);
    case Kind::kString:
      return *value.text;
    case Kind::kList:
    case Kind::kDict:
      return repr(machine, value, 0);
    default:
      machine.unsupported(fmt::format("a {} as text", type_name(value)));
  }
}

std::string representation(Machine& machine, const Value& value) { return repr(machine, value, 0); }

std::string to_json(Machine& machine, const Value& value, const JsonStyle& style) {
  JsonWriter writer(machine, style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace ds::jinja
