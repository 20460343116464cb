#include "libcore/check/fix.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libcore/base/error.h"
#include "libcore/base/mapped_file.h"
#include "libcore/base/stop.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kCopyPiece = std::size_t{4} << 20;

bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

void copy_whole(const fs::path& from, const fs::path& to) {
  const MappedFile file(from);
  AtomicFile out(to);
  out.reserve(file.size());
  for (std::size_t at = 0; at < file.size(); at += kCopyPiece) {
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "interrupted while copying");
    const std::size_t size = std::min(kCopyPiece, file.size() - at);
    out.write(file.data() + at, size);
    file.dont_need(at, size);
  }
  out.commit();
}

// `to` becomes another name of the file that `from` leads to, or a copy of it.
void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code code;
  const fs::path real = fs::canonical(from, code);
  if (!code) fs::create_hard_link(real, to, code);
  if (code) copy_whole(from, to);
}

fs::path backup_of(const fs::path& path) { return path.string() + ".orig"; }

// Whether `backup` is `path` itself: a run was killed between the two steps of replace().
bool same_file(const fs::path& path, const fs::path& backup) {
  std::error_code code;
  return fs::equivalent(path, backup, code) && !code;
}

void replace(const FileRepair& repair) {
  AtomicFile out(repair.path);
  out.reserve(repair.bytes);
  repair.write(out);
  if (repair.fresh) return out.commit();
  const fs::path backup = backup_of(repair.path);
  bool made = false;
  if (!there(backup)) {
    // Another name of the old file: when the new one takes its place, the old one is kept. Links
    // stay links, so that a cache they lead into is not touched.
    made = ::linkat(AT_FDCWD, repair.path.c_str(), AT_FDCWD, backup.c_str(), 0) == 0;
    if (!made) {
      copy_whole(repair.path, backup);
      made = true;
    }
  }
  try {
    out.commit();
  } catch (...) {
    if (made) ::unlink(backup.c_str());
    throw;
  }
}

// Removes a half-made folder.
class Scaffold {
 public:
  explicit Scaffold(fs::path path) : path_(std::move(path)) {}
  ~Scaffold() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  Scaffold(const Scaffold&) = delete;
  Scaffold& operator=(const Scaffold&) = delete;
  void keep() { path_.clear(); }

 private:
  fs::path path_;
};

void link_tree(const fs::path& source, const fs::path& to, const std::vector<fs::path>& without) {
  std::error_code code;
  for (fs::recursive_directory_iterator it(source, code), end; !code && it != end;
       it.increment(code)) {
    const fs::path target = to / it->path().lexically_relative(source);
    if (it->is_directory()) {
      fs::create_directory(target, code);
    } else if (it->is_regular_file() &&
               std::find(without.begin(), without.end(), it->path()) == without.end()) {
      link_or_copy(it->path(), target);
    }
  }
  if (code) throw Error(ExitCode::kIo, source.string() + ": cannot be copied: " + code.message());
}

}  // namespace

void FixPlan::add(Repair repair) {
  if (repairs.size() < kKeptRepairs) {
    repairs.push_back(std::move(repair));
  } else {
    ++more_repairs;
  }
}

void FixPlan::leave(NotRepaired reason) {
  if (left.size() < kKeptRepairs) {
    left.push_back(std::move(reason));
  } else {
    ++more_left;
  }
}

void fix_in_place(const FixPlan& plan) {
  for (const FileRepair& repair : plan.files) {
    const fs::path backup = backup_of(repair.path);
    if (repair.fresh || !there(backup) || same_file(repair.path, backup)) continue;
    throw Error(ExitCode::kUsage,
                fmt::format("--fix: {} is there already: it would be lost", backup.string()),
                "move it away, or write the result elsewhere with --fix_output");
  }
  std::string done;
  for (const FileRepair& repair : plan.files) {
    try {
      replace(repair);
    } catch (const Error& error) {
      if (done.empty()) throw;
      throw Error(error.code(), error.what(),
                  fmt::format("repaired before it, and kept: {}; --fix does the rest", done));
    }
    done += (done.empty() ? "" : ", ") + repair.path.filename().string();
  }
}

void fix_into(const FixPlan& plan, const fs::path& source, const fs::path& output) {
  if (there(output)) {
    throw Error(ExitCode::kUsage, fmt::format("--fix_output {}: is there already", output.string()),
                "name a file or folder that is not there yet");
  }
  const auto write = [](const FileRepair& repair, const fs::path& to) {
    AtomicFile out(to);
    out.reserve(repair.bytes);
    repair.write(out);
    out.commit();
  };
  if (!fs::is_directory(source)) {
    for (const FileRepair& repair : plan.files) write(repair, output);
    return;
  }
  const fs::path named = output.has_filename() ? output : output.parent_path();
  const fs::path parent = named.parent_path().empty() ? fs::path(".") : named.parent_path();
  const fs::path made = parent / fmt::format(".{}.tmp-{}", named.filename().string(), ::getpid());
  std::error_code code;
  if (!fs::create_directory(made, code)) {
    throw Error(ExitCode::kIo, fmt::format("{}: cannot be created: {}", made.string(),
                                           code ? code.message() : "it is there already"));
  }
  Scaffold scaffold(made);
  std::vector<fs::path> anew;
  for (const FileRepair& repair : plan.files) anew.push_back(repair.path);
  link_tree(source, made, anew);
  for (const FileRepair& repair : plan.files) {
    write(repair, made / repair.path.lexically_relative(source));
  }
  sync_folder(made);
  if (::rename(made.c_str(), named.c_str()) != 0) {
    throw Error(ExitCode::kIo, fmt::format("{}: cannot be renamed into place: {}", named.string(),
                                           std::strerror(errno)));
  }
  scaffold.keep();
  sync_folder(parent);
}

}  // namespace ds::check
