// Values that --deep reads.
#include <fmt/format.h>

#include "tests/core/check/mutation.h"

namespace ds::test {
namespace {

std::string f32(float value) { return std::string(reinterpret_cast<const char*>(&value), 4); }
std::string bf16(float value) {
  const kernels::bf16 narrow(value);
  return std::string(reinterpret_cast<const char*>(&narrow), 2);
}

}  // namespace

MutationGroup data_mutations() {
  const auto sound = std::make_shared<Model>(sound_model());
  const auto folder = model_folder(*sound, true);
  MutationGroup group{
      "data", "values of each kind of tensor and scale, read by `--deep`", folder->sound(), {}, {},
      {}};
  for (const std::string& name : one_of_each_kind(*sound)) {
    const ModelTensor& tensor = sound->tensors.at(name);
    const bool scale = name.ends_with("_scale_inv");
    const std::string subject = tensor.dtype + " " + without_layer(name);
    const auto add = [&](const std::string& change,
                         const std::function<void(ModelTensor&, Model&)>& spoil) {
      group.mutations.push_back({subject, change, {tensor.shard, name, ""}, [=] {
                                   Model model = *sound;
                                   spoil(model.at(name), model);
                                   return check_model(*folder, model, true);
                                 }});
    };
    const std::size_t width = tensor.dtype == "F32" ? 4 : tensor.dtype == "BF16" ? 2 : 1;
    const std::size_t count = tensor.data.size() / width;
    const auto element = [&](const std::string& change, const std::string& bytes) {
      std::set<std::size_t> places{0, count / 2, count - 1};
      for (const std::size_t at : places) {
        add(change, [=](ModelTensor& t, Model&) { t.data.replace(at * width, width, bytes); });
      }
    };
    const auto everywhere = [&](const std::string& change, const std::string& bytes) {
      add(change, [=](ModelTensor& t, Model&) {
        for (std::size_t i = 0; i < count; ++i) t.data.replace(i * width, width, bytes);
      });
    };
    if (width == 1) {
      element("one code NaN", "\x7f");
      element("one code -NaN", "\xff");
      everywhere("all codes 448", "\x7e");
      everywhere("all codes -448", "\xfe");
      everywhere("all codes NaN", "\x7f");
    } else {
      const auto value = [&](float v) { return width == 4 ? f32(v) : bf16(v); };
      for (const auto& [what, v] : std::map<std::string, float>{{"NaN", NAN},
                                                                {"-NaN", -NAN},
                                                                {"infinity", HUGE_VALF},
                                                                {"minus infinity", -HUGE_VALF}}) {
        element("one value " + what, value(v));
        everywhere("all values " + what, value(v));
      }
      if (scale) {
        element("zero", value(0.0F));
        element("minus zero", value(-0.0F));
        element("negative", value(-1e-4F));
        element("denormal", value(1e-40F));
        element("largest", value(3e38F));
      } else {
        everywhere("all values 1", value(1.0F));
      }
    }
    if (!scale) everywhere("all zero", std::string(width, '\0'));
    if (scale) {
      for (const int k : {1, 2, 3, 5, 6, 8, 12, 20}) {
        for (const int sign : {1, -1}) {
          add(fmt::format("scale times 2^{}", sign * k), [=](ModelTensor& t, Model&) {
            for (std::size_t i = 0; i < count; ++i) {
              float v = 0;
              std::memcpy(&v, t.data.data() + 4 * i, 4);
              t.data.replace(4 * i, 4, f32(std::ldexp(v, sign * k)));
            }
          });
        }
      }
      add("one over the scale", [=](ModelTensor& t, Model&) {
        for (std::size_t i = 0; i < count; ++i) {
          float v = 0;
          std::memcpy(&v, t.data.data() + 4 * i, 4);
          t.data.replace(4 * i, 4, f32(1 / v));
        }
      });
    }
    if (width > 1 && !scale) {
      add("bytes exchanged", [=](ModelTensor& t, Model&) {
        for (std::size_t i = 0; i < count; ++i) {
          std::reverse(t.data.begin() + static_cast<std::ptrdiff_t>(i * width),
                       t.data.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
        }
      });
    }
    if (!scale) {
      add("first half zero", [=](ModelTensor& t, Model&) {
        t.data.replace(0, t.data.size() / 2, std::string(t.data.size() / 2, '\0'));
      });
      add("one byte later",
          [=](ModelTensor& t, Model&) { t.data = t.data.substr(1) + t.data.substr(0, 1); });
      add("noise", [=](ModelTensor& t, Model&) {
        const Rng rng(5, 9);
        for (std::size_t i = 0; i < t.data.size(); ++i) {
          t.data[i] = static_cast<char>(rng.bits(i) & 0xff);
        }
      });
    }
    // The same matrix of another layer or expert, and the data of both exchanged.
    for (const auto& [other, twin] : sound->tensors) {
      if (other == name || twin.shape != tensor.shape || twin.dtype != tensor.dtype) continue;
      add("data of a tensor of this shape",
          [=, from = other](ModelTensor& t, Model& m) { t.data = m.tensors.at(from).data; });
      add("exchanged with a tensor of this shape", [=, from = other](ModelTensor& t, Model& m) {
        std::swap(t.data, m.tensors.at(from).data);
      });
      break;
    }
  }
  constexpr const char* kOne = "BF16 *norm.weight|F32 mlp.gate.e_score_correction_bias";
  group.caught = {
      {"F32 *_scale_inv", "one value *|all values *", "scale-not-finite"},
      {"F32 *_scale_inv", "zero|minus zero|negative", "scale-not-positive"},
      {"F32 *_scale_inv", "denormal|largest|one over the scale|scale times 2^20|scale times 2^-20",
       "scale-range unlike-siblings"},
      {"F32 *_scale_inv", "scale times 2^*8|scale times 2^*12", "unlike-siblings", {.tensor = "*"}},
      {"F32 mlp.experts.*_scale_inv|F32 self_attn.*_scale_inv",
       "scale times 2^*5|scale times 2^*6",
       "unlike-siblings",
       {.tensor = "*"}},
      {"*", "one value *", "weight-not-finite"},
      {kOne, "all values *N|all values *y", "weight-not-finite"},
      {"*", "all values *N|all values *y", "weight-not-finite constant-tensor"},
      {"BF16 *norm.weight", "all zero", "zero-tensor"},
      {kOne, "bytes exchanged|one byte later|noise", "weight-range"},
      {"BF16 mlp.gate.weight", "bytes exchanged|one byte later|noise",
       "weight-not-finite weight-range unlike-siblings"},
      {"BF16 *", "bytes exchanged|one byte later|noise", "weight-not-finite weight-range"},
      {"F8_E4M3 *", "one code *|noise", "fp8-nan"},
      {"F8_E4M3 *", "all codes NaN", "fp8-nan constant-tensor"},
      {"F8_E4M3 *", "all codes *", "constant-tensor"},
      {"BF16 lm_head.weight|BF16 model.embed_tokens.weight|BF16 eh_proj.weight|"
       "BF16 mlp.gate.weight",
       "all values 1", "constant-tensor"},
      {"BF16 lm_head.weight|BF16 model.embed_tokens.weight|BF16 eh_proj.weight|"
       "BF16 mlp.gate.weight|F8_E4M3 *",
       "all zero", "zero-tensor"},
      {"BF16 lm_head.weight|BF16 model.embed_tokens.weight|BF16 eh_proj.weight|"
       "BF16 mlp.gate.weight|F8_E4M3 *",
       "first half zero", "many-zeros"},
      {"BF16 lm_head.weight|BF16 model.embed_tokens.weight|BF16 mlp.gate.weight|F8_E4M3 *",
       "data of a tensor of this shape",
       "identical-tensors",
       {"*", "*", ""}},
  };
  return group;
}

}  // namespace ds::test
