// Adapter files and parameters for the tests of adapter_io.
#pragma once

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/io/safetensors.h"
#include "libcore/model/adapter_io.h"
#include "tests/support/adapter_file.h"
#include "tests/support/paths.h"

namespace ds::test {

// Parameters with stable addresses.
struct Parameters {
  std::deque<Parameter> storage;
  std::vector<Parameter*> pointers;

  Parameter& add(const std::string& name, std::vector<std::int64_t> shape) {
    Parameter& parameter = storage.emplace_back();
    parameter.name = name;
    if (name.ends_with("lora_magnitude_vector")) {
      parameter.role = ParameterRole::kMagnitude;
    } else if (name.find("lora_embedding_") != std::string::npos) {
      parameter.role = ParameterRole::kLoraEmbedding;
    } else if (name.ends_with("lora_B.weight")) {
      parameter.role = ParameterRole::kLoraB;
    }
    parameter.value = Tensor(DType::kF32, std::move(shape));
    pointers.push_back(&parameter);
    return parameter;
  }
  // A and B of one linear module.
  void add_lora(const std::string& module, std::int64_t in, std::int64_t out, std::int64_t rank) {
    add(module + ".lora_A.weight", {rank, in});
    add(module + ".lora_B.weight", {out, rank});
  }
  Parameter& at(const std::string& name) {
    for (Parameter* parameter : pointers) {
      if (parameter->name == name) return *parameter;
    }
    throw std::runtime_error("no parameter " + name);
  }
};

inline std::vector<float> values(const Parameter& parameter) {
  const float* data = parameter.value.as<float>();
  return {data, data + parameter.value.size()};
}

inline std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

// A folder that goes away with the test.
struct TempFolder {
  std::filesystem::path path = make_temp_dir("adapter");
  TempFolder() = default;
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

// The message and hint of the error that `f` throws; checks its code.
template <class F>
std::string error_of(ExitCode code, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return std::string(error.what()) + " | " + error.hint();
  }
  FAIL_CHECK("no error was thrown");
  return "";
}

inline bool has(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE("'" << part << "' is not in: " << text);
  return found;
}

}  // namespace ds::test
