#include "client/plot.h"

#include <algorithm>
#include <cmath>

#include "client/terminal.h"

namespace pared {
namespace {

constexpr double kLogRatio = 20;

// Values to places 0 to 1.
class Axis {
 public:
  Axis(std::vector<double> values, std::string name) : name_(std::move(name)) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    low_ = *low;
    high_ = *high;
    is_log_ = low_ > 0 && high_ / low_ > kLogRatio;
  }

  double Place(double value) const {
    const double low = Scaled(low_);
    const double range = Scaled(high_) - low;
    return range > 0 ? (Scaled(value) - low) / range : 0.5;
  }
  std::string low_text() const { return HumanText(name_, low_); }
  std::string high_text() const { return HumanText(name_, high_); }
  std::string title() const { return name_ + (is_log_ ? " (log)" : ""); }

 private:
  double Scaled(double value) const { return is_log_ ? std::log(value) : value; }

  std::string name_;
  double low_ = 0, high_ = 0;
  bool is_log_ = false;
};

std::string Glyph(Mark mark, bool has_unicode) {
  switch (mark) {
    case Mark::kDominated:
      return has_unicode ? "·" : ".";
    case Mark::kFront:
      return has_unicode ? "●" : "*";
    case Mark::kKnee:
      return has_unicode ? "◆" : "O";
  }
  return "?";
}

std::vector<double> Values(const std::vector<PlotPoint>& points, double PlotPoint::*member) {
  std::vector<double> values;
  for (const PlotPoint& point : points) values.push_back(point.*member);
  return values;
}

std::string Spaces(size_t count) { return std::string(count, ' '); }

std::string RightAligned(const std::string& text, size_t width) {
  return Spaces(width - std::min(width, WidthOf(text))) + text;
}

}  // namespace

std::string Plot(const std::vector<PlotPoint>& points, const PlotOptions& options) {
  if (points.empty()) return "";
  const Axis x(Values(points, &PlotPoint::x), options.x_name);
  const Axis y(Values(points, &PlotPoint::y), options.y_name);
  const size_t margin = std::max(WidthOf(y.low_text()), WidthOf(y.high_text()));
  const size_t width = static_cast<size_t>(std::max(options.width, 30)) - margin - 2;
  const auto height = static_cast<size_t>(std::max(options.height, 2));

  std::vector<std::vector<std::string>> area(height, std::vector<std::string>(width, " "));
  std::vector<PlotPoint> order = points;
  std::ranges::stable_sort(order, {}, &PlotPoint::mark);  // the last one drawn is seen
  for (const PlotPoint& point : order) {
    const auto column =
        static_cast<size_t>(std::lround(x.Place(point.x) * static_cast<double>(width - 1)));
    const auto row =
        static_cast<size_t>(std::lround((1 - y.Place(point.y)) * static_cast<double>(height - 1)));
    area[row][column] = Glyph(point.mark, options.has_unicode);
  }

  std::string text = y.title() + "\n";
  for (size_t row = 0; row < height; ++row) {
    const std::string label = row == 0 ? y.high_text() : row == height - 1 ? y.low_text() : "";
    std::string line = RightAligned(label, margin) + (options.has_unicode ? " │" : " |");
    for (const std::string& cell : area[row]) line += cell;
    text += line.erase(line.find_last_not_of(' ') + 1) + "\n";
  }
  text += Spaces(margin + 1) + (options.has_unicode ? "└" : "+");
  for (size_t i = 0; i < width; ++i) text += options.has_unicode ? "─" : "-";
  const std::string low = x.low_text();
  const size_t gap = width - std::min(width, WidthOf(low) + WidthOf(x.high_text()));
  text += "\n" + Spaces(margin + 2) + low + Spaces(std::max<size_t>(gap, 1)) + x.high_text() + "\n";
  const size_t title_gap = (width - std::min(width, WidthOf(x.title()))) / 2;
  return text + Spaces(margin + 2 + title_gap) + x.title() + "\n";
}

}  // namespace pared
