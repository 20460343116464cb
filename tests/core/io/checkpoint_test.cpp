#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "libcore/base/atomic_write.h"
#include "libcore/io/checkpoint_index.h"
#include "tests/core/io/io_fixtures.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;
using test::contains;
using Kind = CheckpointFindingKind;

namespace {

// A shard of one-byte tensors.
void put_shard(const fs::path& path, const std::vector<std::string>& names) {
  std::vector<TensorToWrite> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::kU8, {1}, "x"});
  write_safetensors(path, tensors, {{"format", "pt"}});
}

void put_index(const fs::path& dir, const std::string& map,
               const std::string& metadata = R"({"total_size": 4})") {
  write_file(dir / "model.safetensors.index.json",
             "{\n  \"metadata\": " + metadata + ",\n  \"weight_map\": {" + map + "}\n}\n");
}

std::string open_error(const fs::path& dir) {
  return test::bad_input([&] { Checkpoint::open(dir); });
}

std::vector<Kind> kinds(const fs::path& dir) {
  std::vector<Kind> all;
  for (const auto& finding : Checkpoint::inspect(dir)) all.push_back(finding.kind);
  return all;
}

struct Folder {
  fs::path dir = test::make_temp_dir("ckpt");
  ~Folder() { fs::remove_all(dir); }
};

const std::string kMap =
    R"("a":"1.safetensors","b":"1.safetensors","c":"2.safetensors","d":"2.safetensors")";

}  // namespace

TEST_CASE("checkpoint: one file") {
  const Folder f;
  put_shard(f.dir / "model.safetensors", {"b", "a", "c"});
  const auto checkpoint = Checkpoint::open(f.dir);
  CHECK(checkpoint.tensor_count() == 3);
  CHECK(checkpoint.total_bytes() == 3);
  CHECK(checkpoint.names() == std::vector<std::string_view>{"a", "b", "c"});
  CHECK(checkpoint.find("b").tensor->name == "b");
  CHECK(checkpoint.find("x").tensor == nullptr);
  CHECK(checkpoint.find("").tensor == nullptr);
  CHECK(checkpoint.warnings().empty());
}

TEST_CASE("checkpoint: shards through the index") {
  const Folder f;
  put_shard(f.dir / "1.safetensors", {"a", "b"});
  put_shard(f.dir / "2.safetensors", {"d", "c"});
  for (const char* metadata : {R"({"total_size": 4})", "{}", "null", R"({"total_size": 4.0})",
                               R"({"x":[{}],"total_size":4})", R"({"total_size":"4"})"}) {
    CAPTURE(metadata);
    put_index(f.dir, kMap, metadata);
    const auto checkpoint = Checkpoint::open(f.dir);
    CHECK(checkpoint.tensor_count() == 4);
    CHECK(checkpoint.find("c").file->path().filename() == "2.safetensors");
    CHECK(checkpoint.warnings().empty());
    // Moving keeps the entries valid.
    const auto moved = [&] { return Checkpoint::open(f.dir); }();
    const auto a = moved.find("a");
    CHECK(a.file->data(*a.tensor)[0] == std::byte{0x78});
  }
  write_file(f.dir / "model.safetensors.index.json", "{\"weight_map\":{" + kMap + "}}");
  CHECK(Checkpoint::open(f.dir).tensor_count() == 4);
  write_file(f.dir / "model.safetensors.index.json", "\xef\xbb\xbf{\"weight_map\":{" + kMap + "}}");
  CHECK(Checkpoint::open(f.dir).tensor_count() == 4);
}

TEST_CASE("checkpoint: warnings do not stop loading") {
  const Folder f;
  put_shard(f.dir / "1.safetensors", {"a", "b", "extra"});
  put_shard(f.dir / "2.safetensors", {"a", "c", "d"});
  put_shard(f.dir / "stray.safetensors", {"s"});
  put_index(f.dir, kMap, R"({"total_size": 99})");
  const auto checkpoint = Checkpoint::open(f.dir);
  CHECK(checkpoint.tensor_count() == 4);
  CHECK(checkpoint.find("a").file->path().filename() == "1.safetensors");
  CHECK(checkpoint.find("extra").tensor == nullptr);
  CHECK(checkpoint.find("s").tensor == nullptr);
  REQUIRE(checkpoint.warnings().size() == 4);
  CHECK(checkpoint.warnings()[0].kind == Kind::kTensorNotInIndex);
  CHECK(checkpoint.warnings()[0].tensors == std::vector<std::string>{"extra"});
  CHECK(checkpoint.warnings()[1].kind == Kind::kDuplicateTensor);
  CHECK(checkpoint.warnings()[1].file == "2.safetensors");
  CHECK(checkpoint.warnings()[1].tensors == std::vector<std::string>{"a"});
  CHECK(checkpoint.warnings()[2].kind == Kind::kWrongTotalSize);
  CHECK(contains(checkpoint.warnings()[2].message, "is 99, the tensors have 4 bytes"));
  CHECK(checkpoint.warnings()[3].kind == Kind::kFileNotInIndex);
  CHECK(checkpoint.warnings()[3].file == "stray.safetensors");
}

TEST_CASE("checkpoint: absent shard, with its tensors") {
  const Folder f;
  put_shard(f.dir / "1.safetensors", {"a", "b"});
  put_index(f.dir, kMap);
  const std::string error = open_error(f.dir);
  CAPTURE(error);
  CHECK(contains(error, "2.safetensors: the shard is named by the index but absent"));
  CHECK(contains(error, "2 tensors (\"c\", \"d\")"));
  const auto findings = Checkpoint::inspect(f.dir);
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].kind == Kind::kMissingShard);
  CHECK(findings[0].tensors == std::vector<std::string>{"c", "d"});
  // Two absent shards: the count of further errors is said.
  fs::remove(f.dir / "1.safetensors");
  CHECK(contains(open_error(f.dir), "(and 1 more error"));
}

TEST_CASE("checkpoint: a stale index is another finding") {
  const Folder f;
  put_shard(f.dir / "model-00001-of-00001.safetensors", {"a", "b", "c", "d"});
  put_index(f.dir, kMap);
  const std::string error = open_error(f.dir);
  CAPTURE(error);
  CHECK(contains(error, "stale index: 2 of the 2 shards it names are absent (1.safetensors, ...)"));
  CHECK(kinds(f.dir) == std::vector<Kind>{Kind::kStaleIndex, Kind::kFileNotInIndex});
  // Half of the shards are there, as in a folder sharded anew under the same first name.
  put_shard(f.dir / "1.safetensors", {"a", "b", "c", "d"});
  fs::remove(f.dir / "model-00001-of-00001.safetensors");
  CHECK(kinds(f.dir)[0] == Kind::kStaleIndex);
  // One tensor is nowhere: then it is a missing shard.
  put_shard(f.dir / "1.safetensors", {"a", "b", "c"});
  CHECK(kinds(f.dir)[0] == Kind::kMissingShard);
}

TEST_CASE("checkpoint: a tensor that its shard does not hold") {
  const Folder f;
  put_shard(f.dir / "1.safetensors", {"a", "b", "c"});
  put_shard(f.dir / "2.safetensors", {"d"});
  put_index(f.dir, kMap);
  const auto findings = Checkpoint::inspect(f.dir);
  REQUIRE(!findings.empty());
  CHECK(findings[0].kind == Kind::kTensorNotInShard);
  CHECK(findings[0].file == "2.safetensors");
  CHECK(findings[0].tensors == std::vector<std::string>{"c"});
  CHECK(contains(findings[0].hint, "\"c\" is in 1.safetensors"));
  CHECK(contains(open_error(f.dir), "does not hold 1 tensor (\"c\")"));
}

TEST_CASE("checkpoint: broken shards and indices") {
  const Folder f;
  put_shard(f.dir / "1.safetensors", {"a", "b"});
  put_shard(f.dir / "2.safetensors", {"c", "d"});
  put_index(f.dir, kMap);
  const std::string whole = read_file(f.dir / "2.safetensors");
  write_file(f.dir / "2.safetensors", whole.substr(0, whole.size() - 1));
  CHECK(contains(open_error(f.dir), "2.safetensors: truncated: header wants"));
  CHECK(kinds(f.dir) == std::vector<Kind>{Kind::kBadShard});
  write_file(f.dir / "2.safetensors", whole);
  struct Case {
    std::string text;
    const char* part;
  };
  const Case cases[] = {
      {"", "empty"},
      {"[]", "not a JSON object"},
      {"{}", "\"weight_map\" is missing"},
      {"{\"weight_map\":[]}", "weight_map must be an object"},
      {"{\"weight_map\":{\"a\":1}}", "line 1, column 20: the shard of tensor \"a\""},
      {"{\"weight_map\":{\"a\":\"1.safetensors\",\n\"a\":\"1.safetensors\"}}", "\"a\" twice"},
      {"{\"weight_map\":{},\"weight_map\":{}}", "twice"},
      {"{\"weight_map\":{\"a\":\"1.safetensors\"}", "line 1, column 36"},
      {"{\"weight_map\":{\"a\":\"1.safetensors\"}} x", "text after the end"},
      {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "\"/etc/passwd\" of tensor \"a\" is unsafe"},
      {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "is unsafe"},
      {"{\"weight_map\":{\"a\":\"x/1.safetensors\"}}", "is unsafe"},
      {"{\"weight_map\":{\"a\":\"x\\\\1.safetensors\"}}", "is unsafe"},
      {"{\"weight_map\":{\"a\":\"..\"}}", "is unsafe"},
      {"{\"weight_map\":{\"a\":\".\"}}", "is unsafe"},
      {"{\"weight_map\":{\"a\":\"\"}}", "is unsafe"},
      {"{\"weight_map\":{\"a\":\"1\\u0000\"}}", "is unsafe"},
      {"{\"weight_map\":{\"\xff\":\"1.safetensors\"}}", "not UTF-8"},
      {"{\"metadata\":{\"total_size\":1x},\"weight_map\":{}}", "is needed"},
  };
  for (const Case& item : cases) {
    write_file(f.dir / "model.safetensors.index.json", item.text);
    const std::string error = open_error(f.dir);
    CAPTURE(item.text);
    CAPTURE(error);
    CHECK(contains(error, item.part));
    CHECK(contains(error, "model.safetensors.index.json"));
    CHECK(kinds(f.dir).front() == Kind::kBadIndex);
  }
  // A name longer than any file can have is an absent shard, a folder in a shard's place an error.
  put_index(f.dir, "\"zzz\":\"" + std::string(400, 'x') + "\"");
  CHECK(kinds(f.dir).front() == Kind::kMissingShard);
  fs::create_directory(f.dir / "sub");
  put_index(f.dir, "\"a\":\"sub\"");
  CHECK_THROWS_AS(Checkpoint::open(f.dir), Error);
}

TEST_CASE("checkpoint: no checkpoint, with what is there instead") {
  const Folder f;
  CHECK(contains(open_error(f.dir), "neither model.safetensors.index.json nor model.safetensors"));
  CHECK_THROWS_AS(Checkpoint::open(f.dir / "absent"), Error);
  put_shard(f.dir / "model-00001-of-00002.safetensors", {"a"});
  CHECK(contains(open_error(f.dir), "1 other *.safetensors file (model-00001-of-00002"));
  CHECK(contains(Checkpoint::inspect(f.dir)[0].hint, "index file"));
  fs::remove(f.dir / "model-00001-of-00002.safetensors");
  write_file(f.dir / "pytorch_model.bin", "x");
  CHECK(contains(Checkpoint::inspect(f.dir)[0].hint, ".bin"));
  try {
    Checkpoint::open(f.dir / "absent");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kIo);
  }
}

TEST_CASE("checkpoint: a folder like DeepSeek-V3's opens fast") {
  // 163 shards, 91,991 tensors, header bytes only: the data is a hole in the file.
  const Folder f;
  constexpr int kShards = 163;
  constexpr int kTensors = 91991;
  std::vector<std::vector<std::string>> shards(kShards);
  for (int i = 0; i < kTensors; ++i) {
    const int shard = static_cast<int>(static_cast<std::int64_t>(i) * kShards / kTensors);
    shards[static_cast<std::size_t>(shard)].push_back(
        "model.layers." + std::to_string(i / 1550) + ".mlp.experts." + std::to_string(i % 256) +
        (i % 2 == 0 ? ".gate_proj.weight." : ".down_proj.weight_scale_inv.") + std::to_string(i));
  }
  std::vector<std::string> map;
  for (int s = 0; s < kShards; ++s) {
    std::string number = std::to_string(s + 1);
    number.insert(0, 5 - number.size(), '0');
    const std::string file = "model-" + number + "-of-000163.safetensors";
    std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
    std::uint64_t offset = 0;
    for (const std::string& name : shards[static_cast<std::size_t>(s)]) {
      constexpr std::uint64_t kSize = 7168 * 2048 / 2;
      header += ",\"" + name +
                "\":{\"dtype\":\"F8_E4M3\",\"shape\":[1024,7168],\"data_offsets\":[" +
                std::to_string(offset) + "," + std::to_string(offset + kSize) + "]}";
      offset += kSize;
      map.push_back("    \"" + name + "\": \"" + file + "\"");
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const std::string bytes = test::safetensors_bytes(header);
    const int fd = open((f.dir / file).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    REQUIRE(ftruncate(fd, static_cast<off_t>(bytes.size() + offset)) == 0);
    close(fd);
  }
  std::sort(map.begin(), map.end());
  std::string text = "{\n  \"metadata\": {},\n  \"weight_map\": {\n";
  for (const std::string& line : map) text += line + ",\n";
  text.resize(text.size() - 2);
  write_file(f.dir / "model.safetensors.index.json", text + "\n  }\n}\n");
  double best = 1e9;
  std::size_t count = 0;
  std::uint64_t total = 0;
  for (int round = 0; round < 3; ++round) {
    const auto start = std::chrono::steady_clock::now();
    const auto checkpoint = Checkpoint::open(f.dir);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    count = checkpoint.tensor_count();
    total = checkpoint.total_bytes();
    CHECK(checkpoint.warnings().empty());
  }
  CHECK(count == kTensors);
  CHECK(total == std::uint64_t{kTensors} * 7168 * 1024);
  MESSAGE("163 shards, 91,991 tensors opened in " << best * 1000 << " ms");
}
