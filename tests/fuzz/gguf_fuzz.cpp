// Bytes as a GGUF file: refused with Error(kBadInput), or what comes out keeps its promises; its
// keys as the settings of a model likewise.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <span>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/config/gguf_names.h"
#include "libcore/io/gguf.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// Runs an accessor that may refuse the key's type.
template <class F>
void attempt(F&& f) {
  try {
    f();
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
  }
}

class HeaderSettings final : public ds::GgufSettings {
 public:
  explicit HeaderSettings(const ds::GgufHeader& header) : header_(header) {}
  std::optional<ds::GgufSetting> find(const std::string& wanted) const override {
    for (const ds::GgufKey& key : header_.keys) {
      if (key.name != wanted) continue;
      if (key.is_integer()) return key.integer();
      if (key.is_number()) return key.number();
      if (key.type == ds::GgufValueType::kBool) return key.boolean();
      if (key.type == ds::GgufValueType::kString) return std::string(key.text());
    }
    return std::nullopt;
  }

 private:
  const ds::GgufHeader& header_;
};

void check_header(std::span<const std::byte> file, const ds::GgufHeader& header) {
  require(header.key_order.size() == header.keys.size());
  require(header.tensor_order.size() == header.tensors.size());
  for (const ds::GgufKey& key : header.keys) {
    require(ds::utf8_error(key.name) == ds::kUtf8Valid);
    require(key.bytes.empty() ||
            (key.bytes.data() >= file.data() &&
             key.bytes.data() + key.bytes.size() <= file.data() + file.size()));
    attempt([&] { key.summary(); });
    attempt([&] { key.integer(); });
    attempt([&] { key.number(); });
    attempt([&] { key.boolean(); });
    attempt([&] { key.integers(); });
    attempt([&] {
      for (const std::string_view text : key.texts())
        require(ds::utf8_error(text) == ds::kUtf8Valid);
    });
  }
  std::uint64_t end = header.data_begin;
  for (const ds::GgufTensor& tensor : header.tensors) {
    require(tensor.begin >= end && tensor.begin <= tensor.end && tensor.end <= file.size());
    require(tensor.begin % header.alignment == 0);
    require(ds::ggml_type_info(tensor.type) != nullptr && tensor.shape.size() <= 4);
    for (const std::int64_t extent : tensor.shape) require(extent > 0);
    end = tensor.end;
  }
  for (std::size_t i = 1; i < header.tensor_order.size(); ++i) {
    require(header.tensors[header.tensor_order[i - 1]].name <
            header.tensors[header.tensor_order[i]].name);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt([&] {
    const auto file = std::as_bytes(std::span(data, size));
    const ds::GgufHeader header = ds::parse_gguf_header(file, "fuzz");
    check_header(file, header);
    for (const ds::GgufMla mla : {ds::GgufMla::kSplit, ds::GgufMla::kUnsplit}) {
      attempt([&] {
        std::vector<std::string> guesses;
        const ds::GgufFacts facts{mla, false, true, 64, 16};
        const auto config = ds::config_from_gguf(HeaderSettings(header), facts, "fuzz", guesses);
        // Whatever size it claims, a plan is refused or made before anything of that size is.
        ds::parse_model_config(nlohmann::json(config), "fuzz");
      });
    }
  });
  return 0;
}
