// A job's progress, from its server-sent events to a line that moves.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <thread>
#include <utility>

#include "client/commands.h"

namespace pared {
namespace {

// A stream that breaks off is opened anew; the daemon then begins with the present state.
constexpr int kTriesMax = 10;
constexpr auto kPauseStep = std::chrono::milliseconds(300);
constexpr int kBarColumns = 24;

bool HasEnded(const Json& job) {
  const std::string state = job.value("state", "");
  return state == "succeeded" || state == "failed" || state == "cancelled" ||
         state == "goal_not_met";
}

int ExitOf(const Json& job) {
  const std::string state = job.value("state", "");
  if (state == "succeeded") return kExitDone;
  if (state == "goal_not_met") return kExitGoalNotMet;
  return state == "cancelled" ? kExitJobCancelled : kExitJobFailed;
}

Colour ColourOf(const std::string& state) {
  if (state == "succeeded") return Colour::kGreen;
  if (state == "failed" || state == "goal_not_met") return Colour::kRed;
  return state == "running" ? Colour::kYellow : Colour::kNone;
}

// Cuts a byte stream into events and gives the data of each.
class EventReader {
 public:
  template <class Take>
  bool Add(std::string_view piece, const Take& take) {
    rest_ += piece;
    for (size_t end = 0; (end = rest_.find('\n')) != rest_.npos; rest_.erase(0, end + 1)) {
      const std::string line = rest_.substr(0, end);
      if (line.starts_with("data:")) {
        data_ += line.substr(line.starts_with("data: ") ? 6 : 5);
      } else if (line.empty() && !data_.empty()) {
        if (!take(std::exchange(data_, ""))) return false;
      }
    }
    return true;
  }

 private:
  std::string rest_, data_;
};

// 0 to 1: chains that have ended, and what is done of the step at hand as part of one of them.
double FractionOf(const Json& progress) {
  const double chains = progress.value("chains", 1.0);
  const double ended = progress.value("chains_ended", 0.0);
  if (progress.contains("percent")) return progress.value("percent", 0.0) / 100;
  const double step = ended < chains ? progress.value("fraction", 0.0) : 0;
  return chains > 0 ? std::min(1.0, (ended + step * 0.9) / chains) : 0;
}

// "1:05:09 left": by the daemon's estimate, and the clock here.
std::string LeftText(const Json& progress) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const int64_t now_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const int64_t left_ms = progress.value("estimated_end_ms", int64_t{0}) - now_ms;
  const int64_t left_s = std::max<int64_t>(0, (left_ms + 500) / 1000);
  const auto two_digits = [](int64_t value) {
    return (value < 10 ? "0" : "") + std::to_string(value);
  };
  const int64_t hours = left_s / 3600, minutes = left_s / 60 % 60;
  const std::string low = two_digits(left_s % 60) + " left";
  if (hours == 0) return std::to_string(minutes) + ":" + low;
  return std::to_string(hours) + ":" + two_digits(minutes) + ":" + low;
}

std::string BarOf(double fraction, bool has_unicode) {
  const auto filled = static_cast<int>(std::lround(fraction * kBarColumns));
  std::string bar = "[";
  for (int i = 0; i < kBarColumns; ++i) {
    bar += i < filled ? (has_unicode ? "█" : "#") : (has_unicode ? "░" : ".");
  }
  return bar + "]";
}

// "running  [#####...]  42 %  quantize_int8  chains 2/5", without the bar for a log.
std::string LineOf(const Json& job, double fraction, const Terminal& terminal) {
  const std::string state = job.value("state", "");
  std::string line = "job " + std::to_string(job.value("id", int64_t{0})) + "  " +
                     terminal.Paint(state, ColourOf(state));
  const Json progress = job.value("progress", Json());
  if (!progress.is_object() || state != "running") return line;
  if (terminal.is_terminal) line += "  " + BarOf(fraction, terminal.has_unicode);
  const Json search = job.value("search", Json());
  const char* counted = search.is_object() ? " %  candidates " : " %  chains ";
  line += "  " + std::to_string(std::lround(fraction * 100)) + counted +
          std::to_string(progress.value("chains_ended", 0)) + "/" +
          std::to_string(progress.value("chains", 0)) + "  " + progress.value("step", "");
  if (search.is_object() && search.at("best").is_object()) {
    line += "  best " + search.at("best").value("chain", "") +
            (search.value("goal_met", false) ? "" : ", which breaks a bound");
  }
  if (progress.contains("layer")) {
    line += "  " + progress.value("layer", "") + " (" +
            std::to_string(progress.value("layer_index", int64_t{0})) + "/" +
            std::to_string(progress.value("layer_count", int64_t{0})) + ")";
  }
  if (progress.contains("estimated_end_ms")) line += "  " + LeftText(progress);
  return Printable(line);
}

// A terminal's line is written over; a log gets a line for each new step.
class ProgressWriter {
 public:
  explicit ProgressWriter(const Terminal& terminal) : terminal_(terminal) {}

  void Write(const Json& job) {
    // Chains run side by side, each with a fraction of its own: the bar does not go back, unless
    // the job begins anew.
    const Json progress = job.value("progress", Json());
    const int64_t requeues = job.value("requeues", int64_t{0});
    if (std::exchange(requeues_, requeues) != requeues) fraction_ = 0;
    if (progress.is_object()) fraction_ = std::max(fraction_, FractionOf(progress));
    if (terminal_.is_terminal) {
      const std::string line =
          Shortened(LineOf(job, fraction_, Plain()), static_cast<size_t>(terminal_.width - 1),
                    terminal_.has_unicode);
      terminal_.out << "\r\x1b[K" << line << std::flush;
      is_open_ = true;
      return;
    }
    const std::string step = progress.is_object() ? progress.value("step", "") : "";
    const std::string now = job.value("state", "") + " " + step;
    if (now == last_) return;
    last_ = now;
    terminal_.out << LineOf(job, fraction_, terminal_) << "\n" << std::flush;
  }

  void End() {
    if (is_open_) terminal_.out << "\r\x1b[K";
  }

 private:
  // Cutting a line to the terminal's width must not cut through a colour's code.
  Terminal Plain() const {
    Terminal plain = terminal_;
    plain.has_colour = false;
    return plain;
  }

  const Terminal& terminal_;
  std::string last_;
  double fraction_ = 0;
  int64_t requeues_ = 0;
  bool is_open_ = false;
};

void WriteEnd(const Context& context, const Json& job) {
  const Terminal& terminal = context.terminal;
  const std::string state = job.at("state").get<std::string>();
  terminal.out << "job " << job.at("id") << " " << terminal.Paint(state, ColourOf(state));
  if (job.at("started_ms").is_number() && job.at("finished_ms").is_number()) {
    const int64_t took_ms =
        job.at("finished_ms").get<int64_t>() - job.at("started_ms").get<int64_t>();
    terminal.out << " after " << HumanText("s", static_cast<double>(took_ms) / 1000) << " s";
  }
  terminal.out << "\n";
  if (job.at("error").is_object()) {
    terminal.out << "  " << Printable(job.at("error").value("message", "")) << "\n";
  }
  if (job.at("search").is_object()) return WriteSearch(terminal, job.at("search"));
  if (!job.at("runs").empty()) WriteRuns(terminal, job.at("runs"));
}

// Calls `take` with each event of the job until it has ended.
template <class Take>
void Follow(const Context& context, int64_t id, const Take& take) {
  const std::string target = "/v1/jobs/" + std::to_string(id);
  context.daemon.Get(
      target,
      "`pare ls` lists jobs");  // what is wrong from the start will not come right by trying again
  bool has_ended = false;
  for (int tries = 0; !has_ended;) {
    EventReader reader;
    const BodySink sink = [&](const HttpReply&, std::string_view piece) {
      return reader.Add(piece, [&](const std::string& data) {
        tries = 0;
        const Json job = ParseJson(data);
        take(job);
        has_ended = HasEnded(job);
        return !has_ended;
      });
    };
    context.daemon.TryExchange({.target = target + "/events"}, sink);
    if (has_ended) return;
    if (++tries > kTriesMax) {
      throw Error(ErrorCode::kUnavailable, "the stream of events broke off again and again",
                  context.daemon.url());
    }
    std::this_thread::sleep_for(kPauseStep * tries);
  }
}

}  // namespace

Json WaitForEnd(const Context& context, int64_t id) {
  Follow(context, id, [](const Json&) {});
  return context.daemon.Get("/v1/jobs/" + std::to_string(id));
}

int Watch(const Context& context, int64_t id) {
  ProgressWriter writer(context.terminal);
  Follow(context, id, [&](const Json& job) {
    if (context.is_json) {
      context.terminal.out << DumpJson(job) << "\n" << std::flush;
    } else if (!HasEnded(job)) {
      writer.Write(job);
    }
  });
  const Json job = context.daemon.Get("/v1/jobs/" + std::to_string(id));
  if (context.is_json) return ExitOf(job);
  writer.End();
  WriteEnd(context, job);
  return ExitOf(job);
}

}  // namespace pared
