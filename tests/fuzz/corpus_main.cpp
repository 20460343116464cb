// Runs a fuzz target over the files of a folder and over mutations of them that are the same in
// every run.
//   fuzz_NAME_corpus FOLDER [MUTATIONS]           of all files together
//   fuzz_NAME_corpus FOLDER --show FILE NUMBER    writes mutation NUMBER of FILE (0: the file
//   itself)
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

// Seconds, however many files there are; large files get fewer mutations.
constexpr std::size_t kDefaultMutations = 100'000;
constexpr std::size_t kBytes = std::size_t{30} << 20;

char current[512];  // what runs now, for the message when it crashes

void say_current() {
  const char text[] = "while running: ";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  (void)!write(STDERR_FILENO, current, std::strlen(current));
  (void)!write(STDERR_FILENO, "\n", 1);
}

extern "C" void on_abort(int number) {
  say_current();
  std::signal(number, SIG_DFL);
  std::raise(number);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {  // splitmix64
    std::uint64_t x = (state_ += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(next() % limit); }

 private:
  std::uint64_t state_;
};

const char* const kTokens[] = {"{",
                               "}",
                               "[",
                               "]",
                               "\"",
                               "\\",
                               ",",
                               ":",
                               "null",
                               "true",
                               "-1",
                               "0",
                               "1e999",
                               "0.5",
                               "\\ud800",
                               "\xff",
                               "\xe4",
                               "\n",
                               "\r",
                               "[[[[[[[[",
                               "{\"a\":",
                               "\\u0000",
                               "4294967296",
                               "9223372036854775807",
                               "18446744073709551616",
                               "\xef\xbb\xbf"};

void mutate(Bytes& bytes, const std::vector<Bytes>& all, Random& random) {
  for (std::size_t edits = 1 + random.below(4); edits > 0; --edits) {
    const std::size_t at = random.below(bytes.size() + 1);
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (random.below(8)) {
      case 0:
        if (at < bytes.size())
          bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1u << random.below(8)));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<std::uint8_t>(random.next());
        break;
      case 2: {
        const std::size_t count = std::min(bytes.size() - at, 1 + random.below(16));
        bytes.erase(place, place + static_cast<std::ptrdiff_t>(count));
        break;
      }
      case 3: {
        const char* token = kTokens[random.below(std::size(kTokens))];
        bytes.insert(place, token, token + std::strlen(token));
        break;
      }
      case 4: {  // a piece of itself or of another file
        const Bytes& other = all[random.below(all.size())];
        const std::size_t from = random.below(other.size() + 1);
        const std::size_t count = std::min(other.size() - from, 1 + random.below(64));
        const auto first = other.begin() + static_cast<std::ptrdiff_t>(from);
        bytes.insert(place, first, first + static_cast<std::ptrdiff_t>(count));
        break;
      }
      case 5:
        if (random.below(4) == 0) bytes.resize(at);
        break;
      case 6: {  // a run of digits becomes another number
        std::size_t i = at;
        while (i < bytes.size() && (bytes[i] < '0' || bytes[i] > '9')) ++i;
        if (i < bytes.size()) bytes[i] = static_cast<std::uint8_t>('0' + random.below(10));
        break;
      }
      default:
        if (at + 1 < bytes.size()) std::swap(bytes[at], bytes[at + 1]);
    }
  }
}

Bytes read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

// Mutation `number` of file `index`; the same in every run and build.
Bytes input(const std::vector<Bytes>& files, std::size_t index, std::size_t number) {
  Bytes bytes = files[index];
  if (number == 0) return bytes;
  Random random(index * 1000003 + number);
  mutate(bytes, files, random);
  bytes.shrink_to_fit();  // so that reading past the end is seen
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: " << argv[0] << " FOLDER [MUTATIONS | --show FILE NUMBER]\n";
    return 2;
  }
  std::vector<std::string> names;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(argv[1], code)) {
    if (entry.is_regular_file()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  if (names.empty()) {
    std::cerr << argv[1] << ": no corpus files\n";
    return 1;
  }
  std::vector<Bytes> files;
  for (const std::string& name : names) files.push_back(read(fs::path(argv[1]) / name));
  if (argc == 5 && std::string(argv[2]) == "--show") {
    const auto at = std::find(names.begin(), names.end(), argv[3]);
    if (at == names.end()) return 2;
    const Bytes bytes = input(files, static_cast<std::size_t>(at - names.begin()),
                              std::strtoull(argv[4], nullptr, 10));
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    return 0;
  }
  const std::size_t wanted =
      (argc > 2 ? std::strtoull(argv[2], nullptr, 10) : kDefaultMutations) / files.size();
  std::signal(SIGABRT, on_abort);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(say_current);
  } else {
    std::signal(SIGSEGV, on_abort);
    std::signal(SIGBUS, on_abort);
    std::signal(SIGFPE, on_abort);
  }
  std::size_t runs = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const std::size_t count =
        std::max(std::min(wanted, kBytes / files.size() / (files[i].size() + 1)), std::size_t{5});
    for (std::size_t number = 0; number <= count; ++number) {
      std::snprintf(current, sizeof current, "%s --show %s %zu", argv[1], names[i].c_str(), number);
      const Bytes bytes = input(files, i, number);
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
      ++runs;
    }
  }
  std::cout << files.size() << " files, " << runs << " inputs: no crash\n";
  return 0;
}
