#include "libcore/train/checkpoint_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/train/checkpoint_state.h"

namespace ds {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kName = "checkpoint-";

[[noreturn]] void fail(const fs::path& path, const char* action, const std::error_code& error) {
  std::string hint;
  if (error == std::errc::no_space_on_device) hint = "free space on that disk";
  if (error == std::errc::permission_denied) hint = "choose a folder in which you may write";
  throw Error(ExitCode::kIo,
              fmt::format("{}: cannot be {}: {}", path.string(), action, error.message()), hint);
}

std::error_code last_error() { return {errno, std::generic_category()}; }

std::optional<std::int64_t> parse_count(std::string_view digits) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool plain = !digits.empty() && digits.front() >= '0' && digits.front() <= '9' &&
                     (digits.size() == 1 || digits.front() != '0');
  if (error != std::errc() || end != digits.data() + digits.size() || !plain) return std::nullopt;
  return value;
}

// The parts of ".checkpoint-STEP.KIND-PID".
struct HiddenName {
  std::int64_t step = 0;
  std::string kind;  // "tmp", "old", "del"
  std::int64_t pid = 0;
};
std::optional<HiddenName> parse_hidden(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  if (dot == 0 || dot == std::string::npos || name[0] != '.') return std::nullopt;
  const auto step = checkpoint_step(name.substr(1, dot - 1));
  const std::string kind = name.substr(dot + 1, 3);
  if (!step || name.size() < dot + 6 || name[dot + 4] != '-') return std::nullopt;
  if (kind != "tmp" && kind != "old" && kind != "del") return std::nullopt;
  const auto pid = parse_count(std::string_view(name).substr(dot + 5));
  if (!pid) return std::nullopt;
  return HiddenName{*step, kind, *pid};
}

fs::path hidden_path(const fs::path& output, std::int64_t step, const char* kind) {
  return output / fmt::format(".checkpoint-{}.{}-{}", step, kind, ::getpid());
}

void flush(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(path, "opened", last_error());
  const int result = ::fsync(fd);
  const std::error_code error = last_error();
  ::close(fd);
  // EINVAL: the file system has no such operation; everything else means lost data.
  if (result != 0 && error.value() != EINVAL) fail(path, "flushed to disk", error);
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail(path, "removed", error);
}

}  // namespace

std::optional<std::int64_t> checkpoint_step(const std::string& name) {
  if (!name.starts_with(kName)) return std::nullopt;
  return parse_count(std::string_view(name).substr(kName.size()));
}

std::vector<CheckpointFolder> list_checkpoints(const fs::path& output) {
  std::vector<CheckpointFolder> found;
  std::error_code error;
  if (!fs::exists(output, error)) return found;
  fs::directory_iterator it(output, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const auto step = checkpoint_step(it->path().filename().string());
    std::error_code ignored;
    if (step && it->is_directory(ignored)) found.push_back({it->path(), *step});
  }
  if (error) fail(output, "read", error);
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

std::vector<std::string> list_files(const fs::path& folder) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const fs::file_status status = it->symlink_status(error);
    if (error) break;
    if (status.type() == fs::file_type::directory) continue;
    if (status.type() != fs::file_type::regular) {
      throw Error(ExitCode::kIo,
                  fmt::format("{}: is no regular file, as a checkpoint needs", it->path().string()),
                  "write plain files into the checkpoint");
    }
    files.push_back(it->path().lexically_relative(folder).generic_string());
  }
  if (error) fail(folder, "read", error);
  std::sort(files.begin(), files.end());
  return files;
}

CheckpointWriter::CheckpointWriter(const fs::path& output, std::int64_t step, bool can_exchange)
    : output_(output),
      temporary_(hidden_path(output, step, "tmp")),
      step_(step),
      can_exchange_(can_exchange) {
  std::error_code error;
  fs::create_directories(output_, error);
  if (error) fail(output_, "created", error);
  remove_tree(temporary_);
  fs::create_directory(temporary_, error);
  if (error) fail(temporary_, "created", error);
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

fs::path CheckpointWriter::commit() {
  for (const std::string& file : list_files(temporary_)) flush(temporary_ / file);
  std::error_code error;
  fs::recursive_directory_iterator it(temporary_, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (it->is_directory()) sync_folder(it->path());
  }
  if (error) fail(temporary_, "read", error);
  sync_folder(temporary_);

  const fs::path target = output_ / fmt::format("{}{}", kName, step_);
  if (!fs::exists(fs::symlink_status(target, error))) {
    if (::rename(temporary_.c_str(), target.c_str()) != 0) fail(target, "written", last_error());
    temporary_.clear();
  } else if (can_exchange_ && ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target.c_str(),
                                          RENAME_EXCHANGE) == 0) {
    // The old checkpoint now has the temporary name.
    sync_folder(output_);
    remove_tree(temporary_);
    temporary_.clear();
  } else {
    // No atomic exchange here: a kill between the two renames leaves the old one under a name that
    // remove_stale_checkpoints() puts back.
    const fs::path old = hidden_path(output_, step_, "old");
    remove_tree(old);
    if (::rename(target.c_str(), old.c_str()) != 0) fail(target, "replaced", last_error());
    if (::rename(temporary_.c_str(), target.c_str()) != 0) {
      const std::error_code reason = last_error();
      (void)::rename(old.c_str(), target.c_str());
      fail(target, "written", reason);
    }
    temporary_.clear();
    sync_folder(output_);
    remove_tree(old);
  }
  sync_folder(output_);
  return target;
}

void delete_checkpoint(const CheckpointFolder& checkpoint) {
  const fs::path output = checkpoint.path.parent_path();
  const fs::path away = hidden_path(output, checkpoint.step, "del");
  remove_tree(away);
  if (::rename(checkpoint.path.c_str(), away.c_str()) != 0) {
    fail(checkpoint.path, "removed", last_error());
  }
  // The rename must reach the disk before the files go.
  sync_folder(output);
  remove_tree(away);
}

std::vector<std::string> remove_stale_checkpoints(const fs::path& output) {
  std::vector<std::string> removed;
  std::error_code error;
  if (!fs::exists(output, error)) return removed;
  std::vector<fs::path> hidden;
  fs::directory_iterator it(output, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const auto name = parse_hidden(it->path().filename().string());
    std::error_code ignored;
    if (!name || !it->is_directory(ignored)) continue;
    // A number that lives belongs to another run into this folder, except our own: nothing of ours
    // exists yet.
    const bool alive = name->pid != ::getpid() &&
                       (::kill(static_cast<pid_t>(name->pid), 0) == 0 || errno == EPERM);
    if (!alive) hidden.push_back(it->path());
  }
  if (error) fail(output, "read", error);
  std::sort(hidden.begin(), hidden.end());
  for (const fs::path& path : hidden) {
    const auto name = parse_hidden(path.filename().string());
    const fs::path target = output / fmt::format("{}{}", kName, name->step);
    if (name->kind == "old" && !fs::exists(target, error)) {
      if (::rename(path.c_str(), target.c_str()) != 0) fail(target, "put back", last_error());
      sync_folder(output);
      continue;
    }
    remove_tree(path);
    removed.push_back(path.filename().string());
  }
  return removed;
}

}  // namespace ds
