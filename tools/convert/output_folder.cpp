#include "tools/convert/output_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/hash.h"
#include "libcore/base/system.h"
#include "tools/convert/file_maker.h"
#include "tools/convert/page_filler.h"
#include "tools/convert/partial_folder.h"

namespace ds::convert {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Everything that decides the bytes of the result.
std::string digest_of(const OutputPlan& plan) {
  Sha256 hash;
  hash.update(plan.identity);
  for (const OutputFile& file : plan.files) {
    hash.update(fmt::format("\n{} {} {}\n", file.name, file.bytes, file.jobs.size()));
    hash.update(file.start);
  }
  for (const auto& [name, text] : plan.texts) {
    hash.update(fmt::format("\n{} {}\n", name, text.size()));
    hash.update(text);
  }
  return hash.finish();
}

class Writer {
 public:
  Writer(const OutputSettings& settings, const OutputPlan& plan, cli::Run& run)
      : settings_(settings), plan_(plan), run_(run), output_(clean(settings.output)) {
    for (const OutputFile& file : plan.files) {
      file_bytes_ += file.bytes;
      tensors_ += file.tensors;
      for (const Job& job : file.jobs) input_bytes_ += job.recipe->input_bytes();
    }
    for (const auto& [name, text] : plan.texts) file_bytes_ += text.size();
  }

  void write(const std::function<void(nlohmann::json&, const Tally&)>& extra) {
    check_output();
    const std::uint64_t free = free_disk_bytes(output_);
    const std::string what = fmt::format("{} tensors in {} file{}, {} (reads {})", tensors_,
                                         plan_.files.size(), plan_.files.size() == 1 ? "" : "s",
                                         format_bytes(file_bytes_), format_bytes(input_bytes_));
    if (settings_.dry_run) {
      nlohmann::json json = summary(extra);
      json["bytes_to_write"] = file_bytes_;
      json["bytes_to_read"] = input_bytes_;
      json["free_disk_bytes"] = free;
      json["files"] = nlohmann::json::array();
      std::string text = fmt::format("would write {} to {}\n", what, output_.string());
      for (const OutputFile& file : plan_.files) {
        json["files"].push_back(
            {{"file", file.name}, {"bytes", file.bytes}, {"tensors", file.tensors}});
        text += fmt::format("  {:<40} {:>12} {:>8} tensors\n", file.name, format_bytes(file.bytes),
                            file.tensors);
      }
      text +=
          fmt::format("needs {} of disk, {} free\n", format_bytes(file_bytes_), format_bytes(free));
      run_.product(text, json);
      return;
    }
    PartialFolder folder(output_, digest_of(plan_), settings_.resume, run_);
    try {
      if (folder.resumed()) {
        for (const OutputFile& file : plan_.files) {
          if (folder.has(file)) kept_bytes_ += file.bytes;
        }
        run_.info(fmt::format("resumed: {} of {} are there", format_bytes(kept_bytes_),
                              format_bytes(file_bytes_)));
        recall(folder.notes());
      }
      check_disk(free);
      make_files(folder);
      for (const auto& [name, text] : plan_.texts) write_file(folder.path() / name, text);
      folder.commit(output_, plan_.single_file, plan_.files.front().name);
    } catch (const Error& error) {
      run_.progress_clear();
      give_up(folder, error);
    } catch (...) {
      folder.remove();
      throw;
    }
    run_.progress_clear();
    for (const std::string& note : tally_.notes) run_.warn(note);
    const nlohmann::json json = summary(extra);
    run_.event("deepseek/convert-summary/1", json);
    run_.product(
        fmt::format("{}: wrote {} in {}\n", output_.string(), what, format_duration(seconds())),
        json);
  }

 private:
  static fs::path clean(const std::string& name) {
    fs::path path = fs::path(name).lexically_normal();
    return path.has_filename() ? path : path.parent_path();
  }

  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  void check_output() const {
    if (fs::exists(fs::symlink_status(output_)) && !settings_.force) {
      throw Error(ExitCode::kUsage, output_.string() + ": exists, a new name is needed",
                  "choose another output, or --force to replace it");
    }
    const fs::path parent = fs::absolute(output_).parent_path();
    if (!fs::is_directory(parent)) {
      throw Error(ExitCode::kIo, parent.string() + ": no such folder", "make it first");
    }
  }

  void check_disk(std::uint64_t free) const {
    const std::uint64_t needed = file_bytes_ - kept_bytes_;
    if (needed <= free) return;
    throw Error(
        ExitCode::kIo,
        fmt::format("{}: {} are needed on its disk, {} are free ({} and {} bytes)",
                    output_.string(), format_bytes(needed), format_bytes(free), needed, free),
        "free some space or choose an output on another disk");
  }

  void make_files(PartialFolder& folder) {
    std::vector<Workbench> benches(workers(lies_in_memory(folder.path())));
    std::size_t index = 0;
    for (const OutputFile& file : plan_.files) {
      ++index;
      if (folder.resumed() && folder.has(file)) continue;
      const double begun = seconds();
      FileInWork output(folder.path(), file);
      FileMaker maker(file, output, benches, written_);
      maker.run([&] { show(file, index); });
      const std::size_t notes = tally_.notes.size();
      for (const Job& job : file.jobs) {
        job.recipe->close(tally_);
        read_ += job.recipe->input_bytes();
      }
      output.commit();
      written_bytes_ += file.bytes;
      folder.note({{"overflowed", tally_.overflowed},
                   {"non_finite", tally_.non_finite},
                   {"max_abs_error", tally_.max_abs_error},
                   {"notes", tally_.notes},
                   {"counts", plan_.save ? plan_.save() : nlohmann::json()}});
      nlohmann::json event{{"file", file.name},           {"index", index},
                           {"files", plan_.files.size()}, {"bytes", file.bytes},
                           {"tensors", file.tensors},     {"seconds", seconds() - begun}};
      if (tally_.notes.size() > notes) {
        event["notes"] = std::vector<std::string>(
            tally_.notes.begin() + static_cast<std::ptrdiff_t>(notes), tally_.notes.end());
      }
      run_.event("deepseek/convert-shard/1", event);
    }
    sync_folder(folder.path());
  }

  // What the files of an earlier run met.
  void recall(const nlohmann::json& notes) {
    if (!notes.is_object()) return;
    try {
      tally_.overflowed = notes.value("overflowed", std::uint64_t{0});
      tally_.non_finite = notes.value("non_finite", std::uint64_t{0});
      tally_.max_abs_error = notes.value("max_abs_error", 0.0);
      tally_.notes = notes.value("notes", std::vector<std::string>());
      if (plan_.recall) plan_.recall(notes.at("counts"));
    } catch (const nlohmann::json::exception&) {
      // Only figures of the summary are lost.
    }
  }

  // One more than threads: while one waits for the disk the others work.
  std::size_t workers(bool in_memory) const {
    const auto limit = parse_size(settings_.memory_limit);
    if (!limit || *limit == 0) {
      throw Error(ExitCode::kUsage, fmt::format("--memory_limit {} is no size, such as 1GiB is",
                                                quote_text(settings_.memory_limit)));
    }
    // Input, f32 values and result of a piece and the pages of both files; the widest weights
    // merged into FP8 take 21 MiB.
    constexpr std::uint64_t kWorker = 24U << 20U;
    const std::uint64_t base = resident_bytes();
    const std::uint64_t left = *limit > base ? *limit - base : 0;
    const std::uint64_t most = left / kWorker;
    if (most == 0) {
      throw Error(ExitCode::kResources,
                  fmt::format("--memory_limit {} is too small: {} are in use and a worker needs {}",
                              format_bytes(*limit), format_bytes(base), format_bytes(kWorker)),
                  fmt::format("use --memory_limit {}MiB or more", ((base + kWorker) >> 20U) + 1));
    }
    return static_cast<std::size_t>(
        std::min(most, static_cast<std::uint64_t>(run_.threads()) + (in_memory ? 0 : 1)));
  }

  void show(const OutputFile& file, std::size_t index) {
    const auto done = static_cast<double>(written_.load());
    const auto all = static_cast<double>(file_bytes_ - kept_bytes_);
    const double rate = seconds() > 0.0 ? done / seconds() : 0.0;
    run_.progress(fmt::format("{} ({} of {}), {}/s, {} left", file.name, index, plan_.files.size(),
                              format_bytes(static_cast<std::uint64_t>(rate)),
                              format_duration(rate > 0.0 ? (all - done) / rate : -1.0)),
                  all > 0.0 ? done / all : 1.0);
  }

  [[noreturn]] void give_up(PartialFolder& folder, const Error& error) {
    const bool keeps = error.code() == ExitCode::kInterrupted || error.code() == ExitCode::kIo;
    std::size_t whole = 0;
    for (const OutputFile& file : plan_.files) whole += folder.has(file) ? 1U : 0U;
    std::string hint = error.hint();
    if (keeps && whole > 0) {
      hint +=
          fmt::format("{}{} of {} files are whole in {}: the same command with --resume goes on",
                      hint.empty() ? "" : "; ", whole, plan_.files.size(), folder.path().string());
    } else {
      folder.remove();
      hint += hint.empty() ? "nothing was left behind" : "; nothing was left behind";
    }
    throw Error(error.code(), error.what(), hint);
  }

  nlohmann::json summary(const std::function<void(nlohmann::json&, const Tally&)>& extra) const {
    nlohmann::json json{{"bytes_read", read_},
                        {"bytes_written", written_bytes_},
                        {"seconds", seconds()},
                        {"peak_rss_bytes", peak_resident_bytes()},
                        {"tensors", tensors_},
                        {"max_abs_error", tally_.max_abs_error},
                        {"overflowed", tally_.overflowed},
                        {"non_finite", tally_.non_finite}};
    if (extra) extra(json, tally_);
    return json;
  }

  const OutputSettings& settings_;
  const OutputPlan& plan_;
  cli::Run& run_;
  fs::path output_;
  Clock::time_point start_ = Clock::now();
  std::uint64_t file_bytes_ = 0, input_bytes_ = 0;  // of the whole plan
  std::uint64_t kept_bytes_ = 0;                    // of an earlier run
  std::size_t tensors_ = 0;
  std::uint64_t read_ = 0, written_bytes_ = 0;
  std::atomic<std::uint64_t> written_{0};
  Tally tally_;
};

}  // namespace

void write_output(const OutputSettings& settings, const OutputPlan& plan, cli::Run& run,
                  const std::function<void(nlohmann::json&, const Tally&)>& extra) {
  Writer(settings, plan, run).write(extra);
}

}  // namespace ds::convert
