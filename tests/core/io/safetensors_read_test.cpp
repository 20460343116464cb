#include <doctest/doctest.h>

#include <chrono>
#include <random>
#include <span>

#include "libcore/base/atomic_write.h"
#include "libcore/io/safetensors.h"
#include "libcore/io/safetensors_header.h"
#include "tests/core/io/io_fixtures.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;
using test::contains;
using test::safetensors_bytes;

namespace {

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "f");
}

std::string error_of(const std::string& bytes) {
  return test::bad_input([&] { parse(bytes); });
}

// Whether reading these bytes fails with a message that has `part` and the file's name.
void check_error(const std::string& bytes, const std::string& part) {
  const std::string found = error_of(bytes);
  CAPTURE(part);
  CAPTURE(found);
  CHECK(contains(found, part));
  CHECK(contains(found, "f: "));
}

const std::string kOne = R"({"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}})";
const std::string kSixteen(16, '\1');

}  // namespace

TEST_CASE("safetensors: the reference's own small file") {
  // {"test": I32 [2, 2]}, header of 60 bytes without padding.
  const std::string file = safetensors_bytes(kOne, kSixteen);
  const auto header = parse(file);
  REQUIRE(header.tensors.size() == 1);
  CHECK(header.tensors[0].name == "test");
  CHECK(header.tensors[0].dtype == DType::kI32);
  CHECK(header.tensors[0].shape == std::vector<std::int64_t>{2, 2});
  CHECK(header.tensors[0].begin == 8 + kOne.size());
  CHECK(header.tensors[0].end == 8 + kOne.size() + 16);
}

TEST_CASE("safetensors: legal oddities are accepted") {
  CHECK(parse(safetensors_bytes("{}")).tensors.empty());
  CHECK(parse(safetensors_bytes("{}      ")).tensors.empty());
  CHECK(parse(safetensors_bytes(" \t\r\n{ } ")).tensors.empty());
  CHECK(parse(safetensors_bytes(R"({"__metadata__":null})")).metadata.empty());
  CHECK(parse(safetensors_bytes(R"({"__metadata__":{}})")).metadata.empty());
  const auto meta = parse(safetensors_bytes(R"({"__metadata__":{"framework":"pt","a":"\u00e9"}})"));
  CHECK(meta.metadata.at("framework") == "pt");
  CHECK(meta.metadata.at("a") == "\xc3\xa9");
  // Scalar, zero-size dimensions, any key order, fields in any order, unknown fields of every type.
  const std::string odd_file = safetensors_bytes(
      "{ \"b\" : {\"data_offsets\":[ 4 , 4 ],\"x\":{\"y\":[1,-2.5e+3,true,false,null,\"\\n\",{}]},"
      "\"shape\":[0, 5],\"dtype\":\"F64\"},\n\"a\":{\"dtype\":\"F32\",\"shape\":[],"
      "\"data_offsets\":[0,4],\"note\":null},\"__metadata__\":{\"k\":\"v\"},"
      "\"c\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[4,5]}}",
      "12345");
  const auto odd = parse(odd_file);
  REQUIRE(odd.tensors.size() == 3);
  CHECK(odd.tensors[0].name == "a");
  CHECK(odd.tensors[0].shape.empty());
  CHECK(odd.tensors[1].name == "b");
  CHECK(odd.tensors[1].begin == odd.tensors[1].end);
  CHECK(odd.tensors[2].dtype == DType::kF4);
  // An empty name, escapes and a surrogate pair in names; rank above 8.
  const std::string names_file = safetensors_bytes(
      R"({"":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,2]},)"
      R"("\ud83d\ude00\/\"\\\b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
      "xy");
  const auto names = parse(names_file);
  CHECK(names.tensors[0].shape.size() == 9);
  CHECK(names.tensors[0].shape[8] == 2);
  CHECK(names.tensors[1].name == "\xf0\x9f\x98\x80/\"\\\b");
  // All dtypes that fill whole bytes.
  std::string all = "{";
  int at = 0;
  for (const char* dtype :
       {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}) {
    all += "\"" + std::string(dtype) + "\":{\"dtype\":\"" + dtype +
           "\",\"shape\":[1],\"data_offsets\":[" + std::to_string(at) + "," +
           std::to_string(at + 1) + "]},";
    ++at;
  }
  for (const char* dtype : {"I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64",
                            "U64", "F6_E2M3", "F6_E3M2"}) {
    const std::string name = dtype;
    const int count = name.starts_with("F6_") ? 4 : 1;
    const int size = name.starts_with("F6_") ? 3
                     : name.ends_with("16")  ? 2
                     : name.ends_with("32")  ? 4
                                             : 8;
    all += "\"" + name + "\":{\"dtype\":\"" + name + "\",\"shape\":[" + std::to_string(count) +
           "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + size) + "]},";
    at += size;
  }
  all.back() = '}';
  CHECK(parse(safetensors_bytes(all, std::string(static_cast<std::size_t>(at), '\xff')))
            .tensors.size() == 21);
}

TEST_CASE("safetensors: lengths") {
  check_error("", "empty");
  check_error("1234567", "truncated: a header length wants 8 bytes, file has 7");
  check_error(std::string(8, '\xff'), "the header length is 18446744073709551615");
  check_error(std::string(8, '\xff') + "{}", "at most 100000000 is allowed");
  const std::string just_over = {'\x01', '\xe1', '\xf5', '\x05', 0, 0, 0, 0};  // 100,000,001
  check_error(just_over, "the header length is 100000001");
  const std::string at_limit = {'\x00', '\xe1', '\xf5', '\x05', 0, 0, 0, 0};  // 100,000,000
  check_error(at_limit, "truncated: header wants 100000008 bytes, file has 8");
  // The reference's literals: a length of 0x3c with nothing behind it, a header of another length.
  check_error(std::string("\x3c\0\0\0\0\0\0\0", 8), "truncated: header wants 68 bytes, file has 8");
  check_error(std::string("\x3c\0\0\0\0\0\0\0", 8) + kOne.substr(0, 40),
              "truncated: header wants 68 bytes, file has 48");
  check_error(std::string(8, '\0'), "the header is not a JSON object");
  check_error(std::string(8, '\0') + "{}", "the header is not a JSON object");
  const std::string whole = safetensors_bytes(kOne, kSixteen);
  check_error(whole.substr(0, whole.size() - 2), "truncated: header wants 84 bytes, file has 82");
  check_error(whole + "abc", "3 trailing bytes: header wants 84 bytes, file has 87");
  check_error(safetensors_bytes("{}", "x"), "1 trailing bytes");
}

TEST_CASE("safetensors: other files are named") {
  const auto hint_of = [](const std::string& bytes) {
    try {
      parse(bytes);
    } catch (const Error& error) {
      return error.hint();
    }
    return std::string();
  };
  CHECK(contains(hint_of("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"));
  CHECK(contains(hint_of("<!DOCTYPE html><html>"), "web page"));
  CHECK(contains(hint_of(std::string("PK\x03\x04\x00\x00\x08\x08", 8) + "...."), "zip archive"));
  CHECK(contains(hint_of(std::string("GGUF\x03\0\0\0", 8)), "GGUF"));
}

TEST_CASE("safetensors: headers that are not UTF-8 or not JSON of the right shape") {
  check_error(safetensors_bytes("\xff"), "not UTF-8 at byte 8");
  check_error(safetensors_bytes("{\"a\xc0\x80\":1}"), "not UTF-8 at byte 11");
  const auto entry = [](const std::string& fields) {
    return safetensors_bytes("{\"t\":{" + fields + "}}", std::string(16, 'x'));
  };
  struct Case {
    std::string bytes;
    const char* part;
  };
  const Case cases[] = {
      {safetensors_bytes("[]"), "not a JSON object"},
      {safetensors_bytes("null"), "not a JSON object"},
      {safetensors_bytes("    "), "not a JSON object"},
      {safetensors_bytes("{"), "the end of the text"},
      {safetensors_bytes("{\"a\""), "':' is needed"},
      {safetensors_bytes("{\"a\":"), "an object is needed"},
      {safetensors_bytes("{a:1}"), "is needed"},
      {safetensors_bytes("{} {}"), "text after the end"},
      {safetensors_bytes(std::string("{}\0\0", 4)), "text after the end"},
      {safetensors_bytes("{\"a\":{},}"), "is missing"},
      {safetensors_bytes("{\"a\":1}"), "found a number, an object is needed"},
      {safetensors_bytes("{\"a\":[]}"), "found an array, an object is needed"},
      {safetensors_bytes("{\"a\tb\":1}"), "control character"},
      {safetensors_bytes("{\"a\\x\":1}"), "unknown escape"},
      {safetensors_bytes("{\"\\ud800\":1}"), "lone surrogate"},
      {safetensors_bytes("{\"\\udc00\":1}"), "lone surrogate"},
      {safetensors_bytes("{\"\\ud800\\u0041\":1}"), "lone surrogate"},
      {safetensors_bytes("{\"\\u12\":1}"), "hexadecimal"},
      {safetensors_bytes("{\"__metadata__\":1}"), "must be an object of strings"},
      {safetensors_bytes("{\"__metadata__\":{\"a\":1}}"), "its value must be a string"},
      {safetensors_bytes("{\"__metadata__\":{\"a\":null}}"), "its value must be a string"},
      {entry(R"("dtype":"F33","shape":[],"data_offsets":[0,4])"), "unknown dtype \"F33\""},
      {entry(R"("dtype":"f32","shape":[],"data_offsets":[0,4])"), "unknown dtype \"f32\""},
      {entry(R"("dtype":3,"shape":[],"data_offsets":[0,4])"), "dtype must be a string"},
      {entry(R"("shape":[],"data_offsets":[0,4])"), "dtype is missing"},
      {entry(R"("dtype":"F32","data_offsets":[0,4])"), "shape is missing"},
      {entry(R"("dtype":"F32","shape":[])"), "data_offsets is missing"},
      {entry(R"("dtype":"F32","shape":4,"data_offsets":[0,16])"), "'[' is needed"},
      {entry(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"), "negative"},
      {entry(R"("dtype":"F32","shape":[-0],"data_offsets":[0,16])"), "negative"},
      {entry(R"("dtype":"F32","shape":[4.0],"data_offsets":[0,16])"), "fraction"},
      {entry(R"("dtype":"F32","shape":[4e0],"data_offsets":[0,16])"), "fraction"},
      {entry(R"("dtype":"F32","shape":[04],"data_offsets":[0,16])"), "leading zero"},
      {entry(R"("dtype":"F32","shape":["4"],"data_offsets":[0,16])"), "found a string"},
      {entry(R"("dtype":"F32","shape":[4,],"data_offsets":[0,16])"), "whole number"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0])"), "',' is needed"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,16,32])"), "']' is needed"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[-1,16])"), "negative"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,18446744073709551616])"), "64 bits"},
      {entry(R"("dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16])"), "twice"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,16],"x":tru)"), "no JSON value"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,16],"x":01)"), "leading zero"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,16],"x":1.)"), "without digits"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,16],"x":)" + std::string(200, '[') +
             std::string(200, ']')),
       "nested too deep"},
      {entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,16],"x":)" + std::string(4000000, '[')),
       "nested too deep"},
  };
  for (const Case& item : cases) check_error(item.bytes, item.part);
}

TEST_CASE("safetensors: duplicate keys are named") {
  check_error(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                "xy"),
              "the header has the key \"a\" twice");
  // The same key spelled with an escape, with offsets that alone would be InvalidOffset.
  check_error(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                R"("\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                                "x"),
              "the key \"a\" twice");
  check_error(safetensors_bytes(R"({"__metadata__":{"a":"1","a":"2"}})"), "key \"a\" twice");
  check_error(safetensors_bytes(R"({"__metadata__":{},"__metadata__":{}})"), "twice");
}

TEST_CASE("safetensors: offsets") {
  const auto two = [](const std::string& a, const std::string& b, std::size_t data) {
    return safetensors_bytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
                                 R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                             std::string(data, 'x'));
  };
  CHECK(parse(two("[4,8]", "[0,4]", 8)).tensors[0].name == "b");
  check_error(two("[0,4]", "[0,4]", 4),
              "tensor \"b\" at data offsets [0, 4] overlaps tensor \"a\"");
  check_error(two("[0,4]", "[2,6]", 6), "overlaps tensor \"a\" at [0, 4]");
  check_error(two("[0,4]", "[5,9]", 9), "leaves a hole of 1 bytes after tensor \"a\"");
  check_error(two("[2,6]", "[6,10]", 10), "leaves a hole of 2 bytes after the header");
  check_error(two("[0,4]", "[4,2]", 8), "ends before it begins");
  check_error(two("[0,4]", "[4,18446744073709551615]", 8), "has 18446744073709551611 bytes");
  check_error(two("[0,4]", "[4,9]", 9), "has 5 bytes, U8 [4] needs 4");
  // A shape four times the range (the size is checked against the range, then against the file).
  check_error(
      safetensors_bytes(R"({"t":{"dtype":"F32","shape":[16],"data_offsets":[0,16]}})", kSixteen),
      "has 16 bytes, F32 [16] needs 64");
  check_error(
      safetensors_bytes(R"({"t":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}})", kSixteen),
      "truncated");
}

TEST_CASE("safetensors: sizes that overflow or do not fill bytes") {
  const auto shape = [](const char* dtype, const std::string& dims) {
    return safetensors_bytes("{\"t\":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":[" + dims +
                                 "],\"data_offsets\":[0,16]}}",
                             std::string(16, 'x'));
  };
  check_error(shape("F32", "4294967296,4294967296"), "overflows 64 bits");
  check_error(shape("I32", "9223372036854775807,2,2"), "overflows 64 bits");
  check_error(shape("F32", "4611686018427387904"), "overflows 64 bits");
  check_error(shape("F32", "9223372036854775807,9223372036854775807,0"), "overflows 64 bits");
  check_error(shape("U8", "18446744073709551615"), "above 2^63 - 1");
  check_error(shape("F4", "31"), "does not fill whole bytes");
  check_error(shape("F6_E2M3", "21"), "does not fill whole bytes");
  check_error(shape("F6_E3M2", "3"), "does not fill whole bytes");
  CHECK(parse(shape("F4", "32")).tensors.size() == 1);
}

TEST_CASE("safetensors: the reference's abuse attempts") {
  // 1: the length says 1000 while the file is small.
  std::string first = safetensors_bytes(
      R"({"weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})", kSixteen);
  first[0] = '\xe8';
  first[1] = '\x03';
  check_error(first, "truncated: header wants 1008 bytes");
  // 2 and 3: very many tensors over the same bytes; 2's header is over the limit.
  std::string text = "{";
  for (int i = 0; i < 100000; ++i) {
    text += "\"weight_" + std::to_string(i) +
            "\": {\"dtype\": \"F32\", \"shape\": [200, 200], \"data_offsets\": [0, 160000]}, ";
  }
  text.resize(text.size() - 2);
  text += "}";
  const std::string third = safetensors_bytes(text, std::string(text.size(), '\0'));
  const auto start = std::chrono::steady_clock::now();
  check_error(third, "overlaps tensor");
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  MESSAGE("100,000 overlapping tensors refused in " << seconds << " s");
  std::string second(8, '\0');
  const std::uint64_t length = 800'000'000;
  for (std::size_t i = 0; i < 8; ++i) second[i] = static_cast<char>((length >> (8 * i)) & 255);
  check_error(second + "{", "the header length is 800000000");
}

TEST_CASE("safetensors: cut at every byte, a small file is always bad input") {
  const std::string whole = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]}} )",
      "12345678abcdef");
  CHECK(parse(whole).tensors.size() == 2);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string found = error_of(whole.substr(0, size));
    CAPTURE(size);
    CAPTURE(found);
    CHECK((contains(found, "truncated") || size == 0));
  }
  // And with the length field following the cut header.
  for (std::size_t size = 0; size < 131; ++size) {
    const std::string found = error_of(safetensors_bytes(whole.substr(8, size), "12345678abcdef"));
    CHECK_FALSE(contains(found, "no error"));
  }
}

TEST_CASE("safetensors: random mutations are accepted or bad input, and what is accepted fits") {
  const std::string whole = safetensors_bytes(
      R"({"__metadata__":{"f":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b\u00e9":{"dtype":"BF16","x":[1,{}],"shape":[1,3],"data_offsets":[8,14]}} )",
      "12345678abcdef");
  std::mt19937_64 random(20240501);
  const std::string alphabet = "{}[]\",:0123456789eE.-+\\utrfnaFB \n\x00\xff\x80";
  int accepted = 0;
  for (int round = 0; round < 300000; ++round) {
    std::string bytes = whole;
    const int edits = 1 + static_cast<int>(random() % 3);
    for (int edit = 0; edit < edits && !bytes.empty(); ++edit) {
      const std::size_t at = random() % bytes.size();
      const char c = random() % 4 == 0 ? static_cast<char>(random() & 255)
                                       : alphabet[random() % alphabet.size()];
      switch (random() % 5) {
        case 0:
          bytes.erase(at, 1 + random() % 4);
          break;
        case 1:
          bytes.insert(at, 1, c);
          break;
        case 2:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
          break;
        default:
          bytes[at] = c;
      }
    }
    try {
      const auto header = parse(bytes);
      ++accepted;
      std::uint64_t end = 0;
      for (const TensorInfo& tensor : header.tensors) {
        if (tensor.begin > tensor.end || tensor.end > bytes.size()) FAIL("out of the file");
        end = tensor.end;
      }
      if (!header.tensors.empty() && end != bytes.size()) FAIL("does not fill the file");
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) FAIL(error.what());
    }
  }
  MESSAGE("300,000 mutations, " << accepted << " accepted");
  CHECK(accepted > 0);
  CHECK(accepted < 300000);
}

TEST_CASE("safetensors: opening files, finding, viewing") {
  const fs::path dir = test::make_temp_dir("st");
  // "b" starts at an odd byte of the file.
  std::string header = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                       R"("b":{"dtype":"F32","shape":[1,2],"data_offsets":[3,11]},)"
                       R"("c":{"dtype":"U8","shape":[1,1,1,1,1],"data_offsets":[11,12]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  write_file(dir / "m.safetensors", safetensors_bytes(header, "abc12345678z"));
  const auto file = SafetensorsFile::open(dir / "m.safetensors");
  REQUIRE(file.find("b") != nullptr);
  CHECK(file.find("") == nullptr);
  CHECK(file.find("bb") == nullptr);
  CHECK(file.find("zz") == nullptr);
  const TensorInfo& a = *file.find("a");
  const TensorInfo& b = *file.find("b");
  CHECK(std::string(reinterpret_cast<const char*>(file.data(b)), 8) == "12345678");
  CHECK(file.aligned(a));
  CHECK_FALSE(file.aligned(b));
  const ConstView view = file.view(a);
  CHECK(view.rank() == 1);
  CHECK(view.extent(0) == 3);
  CHECK(view.as<std::uint8_t>()[2] == 'c');
  CHECK(contains(test::bad_input([&] { file.view(b); }), "misaligned for F32"));
  CHECK(contains(test::bad_input([&] { file.view(*file.find("c")); }), "has rank 5"));
  CHECK_THROWS_AS(SafetensorsFile::open(dir / "absent"), Error);
  write_file(dir / "cut.safetensors", safetensors_bytes(header, "abc"));
  const std::string cut = test::bad_input([&] { SafetensorsFile::open(dir / "cut.safetensors"); });
  CHECK(contains(cut, "cut.safetensors: truncated: header wants"));
  fs::remove_all(dir);
}
