// The GGUF container: what is read, what is refused, and the bytes that are written.
#include "libcore/io/gguf.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/core/io/gguf_fixtures.h"
#include "tests/core/io/io_fixtures.h"
#include "tests/support/paths.h"

namespace ds::test {

namespace {

namespace fs = std::filesystem;

GgufHeader parse(const std::string& bytes) {
  return parse_gguf_header(std::as_bytes(std::span(bytes)), "f.gguf");
}
std::string refusal(const std::string& bytes) {
  return bad_input([&] { parse(bytes); });
}
std::string refusal(const GgufBytes& bytes) { return refusal(bytes.bytes()); }
void save(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Two tensors and a key of every kind.
std::string example() {
  GgufBytes b;
  b.start(2, 9);
  b.text("general.architecture").u32(8).text("deepseek2");
  b.text("a.u8").u32(0).put<std::uint8_t>(200);
  b.text("a.i16").u32(3).put<std::int16_t>(-2);
  b.text("a.f32").u32(6).put(0.25F);
  b.text("a.bool").u32(7).put<std::uint8_t>(1);
  b.text("a.u64").u32(10).u64(~std::uint64_t{0});
  b.text("a.f64").u32(12).put(1e-300);
  b.text("a.texts").u32(9).u32(8).u64(2).text("x").text("yz");
  b.text("a.ints")
      .u32(9)
      .u32(5)
      .u64(3)
      .put<std::int32_t>(-1)
      .put<std::int32_t>(0)
      .put<std::int32_t>(7);
  b.tensor("w", {3, 2}, 0, 0);
  b.tensor("q", {64}, 8, 32);
  b.pad().raw(std::string(24, 'w')).pad().raw(std::string(68, 'q')).pad();
  return b.bytes();
}

}  // namespace

TEST_CASE("gguf: keys of every type and tensors are read as they stand") {
  const std::string bytes = example();
  const GgufHeader header = parse(bytes);
  REQUIRE(header.keys.size() == 9);
  CHECK(header.version == 3);
  CHECK(header.alignment == 32);
  CHECK(header.trailing_bytes == 0);
  const auto key = [&](std::size_t i) -> const GgufKey& { return header.keys[i]; };
  CHECK(key(0).text() == "deepseek2");
  CHECK(key(1).integer() == 200);
  CHECK(key(2).integer() == -2);
  CHECK(key(3).number() == 0.25);
  CHECK(key(4).boolean());
  CHECK(key(6).number() == 1e-300);
  CHECK(key(7).texts() == std::vector<std::string_view>{"x", "yz"});
  CHECK(key(8).integers() == std::vector<std::int64_t>{-1, 0, 7});
  CHECK(contains(bad_input([&] { key(5).integer(); }), "\"a.u64\" is 18446744073709551615"));
  CHECK(key(5).summary() == "18446744073709551615");
  CHECK(key(7).summary() == "2 x string: \"x\", \"yz\"");
  CHECK(contains(bad_input([&] { key(3).integer(); }),
                 "\"a.f32\" is of type f32, needed is an integer"));
  CHECK(contains(bad_input([&] { key(7).text(); }), "array of string, needed is string"));
  CHECK(contains(bad_input([&] { key(0).boolean(); }), "string, needed is bool"));

  REQUIRE(header.tensors.size() == 2);
  CHECK(header.tensors[0].shape == std::vector<std::int64_t>{2, 3});
  CHECK(bytes.substr(header.tensors[0].begin, header.tensors[0].bytes()) == std::string(24, 'w'));
  CHECK(header.tensors[1].type_name() == "Q8_0");
  CHECK(bytes.substr(header.tensors[1].begin, header.tensors[1].bytes()) == std::string(68, 'q'));
  // q before w by name.
  CHECK(header.tensor_order == std::vector<std::uint32_t>{1, 0});
}

TEST_CASE("gguf: a file cut anywhere is refused as truncated") {
  const std::string bytes = example();
  const std::size_t needed = bytes.size() - 28;  // the last tensor's padding may be missing
  CHECK_NOTHROW(parse(bytes.substr(0, needed)));
  for (std::size_t size = 0; size < needed; ++size) {
    const std::string message = refusal(bytes.substr(0, size));
    CHECK_MESSAGE((contains(message, "truncated") || contains(message, "is empty")), size, ": ",
                  message);
  }
  CHECK(parse(bytes + "more").trailing_bytes == 4);
}

TEST_CASE("gguf: every broken rule has its own message") {
  CHECK(
      contains(refusal("PK\x03\x04 zip"), "begins with \"GGUF\", this one with \"PK\\x03\\x04\""));
  CHECK(contains(refusal(GgufBytes().start(0, 0, 1)), "GGUF version 1, needed is 2 or 3"));
  CHECK(contains(refusal(GgufBytes().start(0, 0, 0x03000000)), "big-endian"));
  CHECK_NOTHROW(parse(GgufBytes().start(0, 0, 2).bytes()));
  CHECK(contains(refusal(GgufBytes().start(0, std::uint64_t{1} << 60)),
                 "the header counts 1152921504606846976 keys"));
  CHECK(contains(refusal(GgufBytes().start(std::uint64_t{1} << 40, 0)), "the header counts"));

  const auto key = [](const char* name = "k") { return GgufBytes().start(0, 1).text(name); };
  const auto roomy = [](GgufBytes b) { return b.raw(std::string(64, '\0')); };
  CHECK(contains(refusal(roomy(key().u32(13))), "key \"k\" has the unknown value type 13"));
  CHECK(contains(refusal(roomy(key().u32(7).put<std::uint8_t>(2))),
                 "is a bool and holds the byte 2"));
  CHECK(contains(refusal(roomy(key().u32(9).u32(9).u64(1))), "is an array of arrays"));
  CHECK(contains(refusal(roomy(key().u32(9).u32(4).u64(std::uint64_t{1} << 62))),
                 "counts 4611686018427387904 items"));
  CHECK(contains(refusal(roomy(key().u32(8).text("\xff\xfe"))), "not UTF-8"));
  CHECK(contains(refusal(roomy(key("\xff").u32(4).u32(1))), "not UTF-8"));
  CHECK(contains(refusal(roomy(key("").u32(4).u32(1))), "key 1 of 1 has no name"));
  CHECK(
      contains(refusal(roomy(key().u32(8).u64(~std::uint64_t{0}))), "truncated: the value of key"));
  CHECK(contains(refusal(GgufBytes().start(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1)),
                 "the key \"k\" is there twice"));
  for (const std::uint32_t alignment : {0U, 24U, 0x80000000U}) {
    CHECK(contains(refusal(GgufBytes().start(0, 1).text("general.alignment").u32(4).u32(alignment)),
                   "needed is a power of two"));
  }
  CHECK(contains(refusal(GgufBytes().start(0, 1).text("general.alignment").u32(10).u64(32)),
                 "general.alignment is of type u64"));

  const auto one = [](const std::string& name, const std::vector<std::uint64_t>& dims,
                      std::uint32_t type, std::uint64_t offset) {
    return refusal(
        GgufBytes().start(1, 0).tensor(name, dims, type, offset).raw(std::string(512, '\0')));
  };
  CHECK(one("t", {4}, 0, 0) == "no error");
  CHECK(contains(one(std::string(64, 'n'), {4}, 0, 0), "is 64, at most 63 is allowed"));
  CHECK(contains(one("", {4}, 0, 0), "tensor 1 of 1 has no name"));
  CHECK(contains(one("t", {1, 1, 1, 1, 1}, 0, 0), "has 5 dimensions"));
  CHECK(contains(one("t", {4, 0}, 0, 0), "dimension 2 of tensor \"t\" is 0"));
  CHECK(contains(one("t", {~std::uint64_t{0}}, 0, 0), "is 18446744073709551615"));
  CHECK(contains(one("t", {std::uint64_t{1} << 40, std::uint64_t{1} << 40}, 0, 0), "overflows"));
  CHECK(contains(one("t", {std::uint64_t{1} << 62}, 0, 0), "overflows"));
  CHECK(contains(one("t", {4}, 4, 0), "has the unknown type 4"));  // Q4_2, removed from ggml
  CHECK(contains(one("t", {48}, 8, 0), "is Q8_0 with rows of 48 values, a multiple of 32"));
  CHECK(contains(one("t", {4}, 0, 32), "begins at 32, needed is 0"));
  CHECK(contains(one("t", {4096}, 0, 0), "truncated: the data of tensor \"t\""));
  CHECK(contains(refusal(GgufBytes()
                             .start(2, 0)
                             .tensor("t", {4}, 0, 0)
                             .tensor("t", {4}, 0, 32)
                             .raw(std::string(128, '\0'))),
                 "the tensor \"t\" is there twice"));
  CHECK(contains(refusal(GgufBytes()
                             .start(2, 0)
                             .tensor("s", {16}, 0, 0)
                             .tensor("t", {4}, 0, 32)
                             .raw(std::string(256, '\0'))),
                 "the data of tensor \"t\" begins at 32, needed is 64"));
}

TEST_CASE("gguf: another alignment is kept") {
  GgufBytes b;
  b.start(2, 1).text("general.alignment").u32(4).u32(8);
  b.tensor("s", {3}, 0, 0).tensor("t", {1}, 0, 16);
  b.pad(8).raw(std::string(16, 's')).raw("tttt");
  const GgufHeader header = parse(b.bytes());
  CHECK(header.alignment == 8);
  CHECK(b.bytes().substr(header.tensors[1].begin, 4) == "tttt");
}

TEST_CASE("gguf: what is written has exactly these bytes") {
  GgufKeyWriter keys;
  keys.text("general.architecture", "deepseek2");
  keys.u32("a.u32", 7);
  keys.u16("a.u16", 3);
  keys.i32("a.i32", -4);
  keys.f32("a.f32", 0.5F);
  keys.boolean("a.bool", true);
  const std::vector<std::string> texts{"x", "yz"};
  keys.texts("a.texts", texts);
  const std::vector<std::int32_t> ints{1, -1};
  keys.i32s("a.ints", ints);
  const GgufLayout layout = layout_gguf(keys, {{"w", GgmlType::kF32, {2, 3}},
                                               {"q", GgmlType::kQ80, {2, 1, 32}},
                                               {"b", GgmlType::kBF16, {5}}});
  GgufBytes b;
  b.start(3, 8);
  b.text("general.architecture").u32(8).text("deepseek2");
  b.text("a.u32").u32(4).u32(7);
  b.text("a.u16").u32(2).put<std::uint16_t>(3);
  b.text("a.i32").u32(5).put<std::int32_t>(-4);
  b.text("a.f32").u32(6).put(0.5F);
  b.text("a.bool").u32(7).put<std::uint8_t>(1);
  b.text("a.texts").u32(9).u32(8).u64(2).text("x").text("yz");
  b.text("a.ints").u32(9).u32(5).u64(2).put<std::int32_t>(1).put<std::int32_t>(-1);
  b.tensor("w", {3, 2}, 0, 0).tensor("q", {32, 1, 2}, 8, 32).tensor("b", {5}, 30, 32 + 96);
  b.pad();
  CHECK(layout.start == b.bytes());
  const std::uint64_t data = b.bytes().size();
  CHECK(layout.offsets == std::vector<std::uint64_t>{data, data + 32, data + 128});
  CHECK(layout.bytes == data + 160);
  // And the reader takes it.
  const GgufHeader header = parse(layout.start + std::string(160, '\0'));
  CHECK(header.tensors[1].begin == layout.offsets[1]);
  CHECK(header.tensors[1].shape == std::vector<std::int64_t>{2, 1, 32});

  const auto defect = [&](const std::vector<GgufTensorToWrite>& tensors) {
    try {
      layout_gguf(keys, tensors);
    } catch (const Error& error) {
      return error.code() == ExitCode::kInternal;
    }
    return false;
  };
  CHECK(defect({{std::string(64, 'n'), GgmlType::kF32, {1}}}));
  CHECK(defect({{"t", GgmlType::kQ80, {33}}}));
  CHECK(defect({{"t", GgmlType::kF32, {1}}, {"t", GgmlType::kF32, {1}}}));
}

TEST_CASE("gguf: the parts of a split are opened together, or refused by name") {
  const fs::path folder = make_temp_dir("gguf");
  const auto part = [](std::uint16_t number, std::uint16_t count, std::int32_t total,
                       const std::string& tensor) {
    GgufBytes b;
    b.start(1, 3);
    b.text("split.no").u32(2).put(number);
    b.text("split.count").u32(2).put(count);
    b.text("split.tensors.count").u32(5).put(total);
    b.tensor(tensor, {8}, 0, 0).pad().raw(std::string(32, tensor[0]));
    return b.bytes();
  };
  const fs::path first = folder / "m-00001-of-00002.gguf",
                 second = folder / "m-00002-of-00002.gguf";
  save(first, part(0, 2, 2, "b"));
  CHECK_THROWS_AS(GgufModel::open(first), Error);  // the second is missing
  save(second, part(1, 2, 2, "a"));
  for (const fs::path& path : {first, second, folder}) {
    const GgufModel model = GgufModel::open(path);
    CHECK(model.files().size() == 2);
    REQUIRE(model.entries().size() == 2);
    CHECK(model.entries()[0].tensor->name == "a");
    CHECK(model.find("b").file->path() == first);
    CHECK(model.find("c").tensor == nullptr);
  }
  const auto broken = [&](const std::string& bytes) {
    save(second, bytes);
    return bad_input([&] { GgufModel::open(first); });
  };
  CHECK(
      contains(broken(part(0, 2, 2, "a")), "the keys say part 1 of 2, the name says part 2 of 2"));
  CHECK(contains(broken(part(1, 3, 2, "a")), "the keys say part 2 of 3"));
  CHECK(contains(broken(part(1, 2, 2, "b")), "tensor \"b\" is in"));
  CHECK(contains(broken(GgufBytes().start(0, 0).bytes()), "without the key split.count"));
  save(second, part(1, 2, 2, "a"));
  save(first, part(0, 2, 5, "b"));
  CHECK(
      contains(bad_input([&] { GgufModel::open(first); }), "counts 5 tensors, its 2 parts hold 2"));
  save(folder / "lonely.gguf", part(0, 2, 2, "b"));
  CHECK(contains(bad_input([&] { GgufModel::open(folder / "lonely.gguf"); }),
                 "its name must end in -00001-of-00002.gguf"));
  CHECK(contains(bad_input([&] { GgufModel::open(folder); }), "2 GGUF models in this folder"));
  fs::remove_all(folder);
}

}  // namespace ds::test
