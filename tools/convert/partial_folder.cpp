#include "tools/convert/partial_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"

namespace ds::convert {

namespace {

namespace fs = std::filesystem;

const char* const kStateFile = ".deepseek-convert.json";

[[noreturn]] void io_error(const fs::path& path, const char* action, int code) {
  throw Error(ExitCode::kIo, fmt::format("{}: {}: {}", path.string(), action, std::strerror(code)));
}

}  // namespace

PartialFolder::PartialFolder(const fs::path& output, const std::string& digest, bool resume,
                             cli::Run& run)
    : path_(output.string() + ".partial"), digest_(digest) {
  if (fs::exists(fs::symlink_status(path_))) {
    lock();
    if (resume) read_state(digest);
    if (resumed_) {
      clear([](const std::string& name) { return name[0] == '.' && name != kStateFile; });
    } else {
      run.info(path_.string() +
               (resume ? ": made from other files or settings, begun anew"
                       : ": left by an interrupted run, begun anew (--resume continues it)"));
      clear([](const std::string&) { return true; });
    }
  } else {
    if (resume) run.info("nothing to resume, begun anew");
    std::error_code error;
    fs::create_directory(path_, error);
    if (error) io_error(path_, "cannot be made", error.value());
    lock();
  }
  if (!resumed_) note(nullptr);
}

PartialFolder::~PartialFolder() {
  if (lock_ >= 0) ::close(lock_);
}

bool PartialFolder::has(const OutputFile& file) const {
  std::error_code error;
  const auto size = fs::file_size(path_ / file.name, error);
  return !error && size == file.bytes;
}

void PartialFolder::note(const nlohmann::json& notes) {
  write_file(path_ / kStateFile,
             nlohmann::json{{"digest", digest_}, {"notes", notes}}.dump() + "\n");
}

void PartialFolder::remove() noexcept {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void PartialFolder::commit(const fs::path& output, bool single_file, const std::string& name) {
  std::error_code error;
  fs::remove(path_ / kStateFile, error);
  sync_folder(path_);
  const fs::path source = single_file ? path_ / name : path_;
  const bool swap = !single_file && fs::exists(fs::symlink_status(output));
  const fs::path old = output.string() + ".replaced";
  if (swap) {
    fs::remove_all(old, error);
    fs::rename(output, old, error);
    if (error) io_error(output, "cannot be moved out of the way", error.value());
  }
  fs::rename(source, output, error);
  if (error) io_error(output, "cannot be put in place", error.value());
  sync_folder(fs::absolute(output).parent_path());
  if (swap) fs::remove_all(old, error);
  if (single_file) remove();
}

void PartialFolder::lock() {
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) io_error(path_, "cannot be opened", errno);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    throw Error(ExitCode::kIo, path_.string() + ": another run is writing it",
                "wait for that run, or choose another output");
  }
}

void PartialFolder::read_state(const std::string& digest) {
  std::error_code error;
  if (!fs::exists(path_ / kStateFile, error)) return;
  const auto state = nlohmann::json::parse(read_file(path_ / kStateFile), nullptr, false);
  resumed_ = state.is_object() && state.value("digest", nlohmann::json()) == digest;
  if (resumed_) notes_ = state.value("notes", nlohmann::json());
}

void PartialFolder::clear(const std::function<bool(const std::string&)>& goes) {
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(path_)) entries.push_back(entry.path());
  for (const fs::path& entry : entries) {
    if (!goes(entry.filename().string())) continue;
    std::error_code error;
    fs::remove_all(entry, error);
    if (error) io_error(entry, "cannot be removed", error.value());
  }
}

}  // namespace ds::convert
