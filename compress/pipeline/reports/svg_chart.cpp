#include "compress/pipeline/reports/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "compress/core/printable.h"

namespace llmpress {
namespace {

constexpr double kWidth = 860, kHeight = 400;
constexpr double kLeft = 78, kRight = 20, kTop = 34, kBottom = 52;
// A palette that stays apart for the colour-blind (Okabe and Ito).
constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                   "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b"};

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

std::string at(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

// One axis: data to pixels, with ticks at round values.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;

  double operator()(double v) const {
    const double t =
        log ? (std::log(v) - std::log(low)) / (std::log(high) - std::log(low))
            : (v - low) / (high - low);
    return from + t * (to - from);
  }

  std::vector<double> ticks() const {
    std::vector<double> ticks;
    if (log && high / low > 20) {
      for (double t = std::pow(10, std::ceil(std::log10(low))); t <= high;
           t *= 10) {
        ticks.push_back(t);
      }
      if (ticks.size() >= 2) return ticks;
      ticks.clear();
    }
    const double raw = (high - low) / 6;
    const double power = std::pow(10, std::floor(std::log10(raw)));
    double step = power;
    for (const double m : {1.0, 2.0, 5.0, 10.0}) {
      step = m * power;
      if (step >= raw) break;
    }
    for (double t = std::ceil(low / step) * step; t <= high + step * 1e-9;
         t += step) {
      ticks.push_back(t + 0.0);  // not -0
    }
    return ticks;
  }
};

Axis make_axis(double low, double high, double from, double to, bool log) {
  if (log) {
    const double margin = std::pow(std::max(high / low, 1.02), 0.06);
    return {low / margin, high * margin, from, to, true};
  }
  const double margin =
      high > low ? 0.07 * (high - low) : std::max(std::abs(high) * 0.1, 0.1);
  return {low - margin, high + margin, from, to, false};
}

std::string text(double x, double y, const std::string& content,
                 const std::string& attributes) {
  return "<text x=\"" + at(x) + "\" y=\"" + at(y) + "\" " + attributes + ">" +
         escape_html(content) + "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2,
                 const std::string& stroke) {
  return "<line x1=\"" + at(x1) + "\" y1=\"" + at(y1) + "\" x2=\"" + at(x2) +
         "\" y2=\"" + at(y2) + "\" stroke=\"" + stroke + "\"/>\n";
}

std::string open_svg(const std::string& title, double height) {
  return "<svg viewBox=\"0 0 " + at(kWidth) + " " + at(height) +
         "\" role=\"img\" aria-label=\"" + escape_html(title) +
         "\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n" +
         text(kLeft, 18, title, "font-weight=\"600\" font-size=\"14\"");
}

std::string y_axis(const Axis& axis, const std::string& title) {
  std::string svg;
  for (const double tick : axis.ticks()) {
    svg += line(kLeft, axis(tick), kWidth - kRight, axis(tick), "#e3e3e3");
    svg += text(kLeft - 8, axis(tick) + 4, number(tick),
                "text-anchor=\"end\" fill=\"#555\"");
  }
  const double middle = (axis.from + axis.to) / 2;
  svg += "<g transform=\"rotate(-90 16 " + at(middle) + ")\">" +
         text(16, middle, title, "text-anchor=\"middle\" fill=\"#333\"") +
         "</g>\n";
  return svg;
}

// Points that no other point beats in both size and quality, by x.
std::vector<ChartPoint> front_of(std::vector<ChartPoint> points) {
  std::ranges::sort(points, {},
                    [](const ChartPoint& p) { return std::pair(p.x, p.y); });
  std::vector<ChartPoint> front;
  double best = std::numeric_limits<double>::infinity();
  for (const ChartPoint& p : points) {
    if (p.y < best) front.push_back(p);
    best = std::min(best, p.y);
  }
  return front;
}

// Places labels so that they do not cover each other: each goes to the first
// free row above its point.
class LabelPlacer {
 public:
  std::pair<double, double> place(double x, double y, std::size_t letters) {
    const double width = 6.6 * static_cast<double>(letters);
    double left = x + 8;
    if (left + width > kWidth - kRight) left = x - 8 - width;
    for (int step = 0; step < 24; ++step) {
      const int shift = step % 2 == 0 ? step / 2 : -(step + 1) / 2;
      const Box box{left, y - 10 + 13.0 * shift, left + width,
                    y + 3 + 13.0 * shift};
      if (box.top < kTop || overlaps(box)) continue;
      taken_.push_back(box);
      return {left, y + 13.0 * shift};
    }
    return {left, y};
  }

 private:
  struct Box {
    double left = 0, top = 0, right = 0, bottom = 0;
  };
  bool overlaps(const Box& a) const {
    return std::ranges::any_of(taken_, [&](const Box& b) {
      return a.left < b.right && b.left < a.right && a.top < b.bottom &&
             b.top < a.bottom;
    });
  }
  std::vector<Box> taken_;
};

std::string draw_point(const ChartPoint& p, const Axis& x, const Axis& y,
                       const char* color, LabelPlacer& labels) {
  std::string svg;
  if (p.y_error > 0 && (!y.log || p.y - p.y_error > 0)) {
    svg += line(x(p.x), y(std::max(p.y - p.y_error, y.low)), x(p.x),
                y(std::min(p.y + p.y_error, y.high)), "#9bbfd6");
  }
  svg += "<circle cx=\"" + at(x(p.x)) + "\" cy=\"" + at(y(p.y)) +
         "\" r=\"4.5\" fill=\"" + (p.reference ? "#ffffff" : color) +
         "\" stroke=\"" + color + "\" stroke-width=\"2\"/>\n";
  if (p.label.empty()) return svg;
  const auto [left, baseline] =
      labels.place(x(p.x), y(p.y) + 4, p.label.size());
  return svg + text(left, baseline, p.label, "fill=\"#222\"");
}

std::string polyline(const std::vector<std::pair<double, double>>& points,
                     const std::string& color, const std::string& extra) {
  std::string list;
  for (const auto& [px, py] : points) list += at(px) + "," + at(py) + " ";
  return "<polyline points=\"" + list + "\" fill=\"none\" stroke=\"" + color +
         "\" " + extra + "/>\n";
}

// Series of a chart in the order of their first points.
std::vector<std::string> series_of(const std::vector<ChartPoint>& points) {
  std::vector<std::string> series;
  for (const ChartPoint& p : points) {
    if (p.series.empty()) continue;
    if (std::ranges::find(series, p.series) == series.end()) {
      series.push_back(p.series);
    }
  }
  return series;
}

const char* color_of(const ChartPoint& p,
                     const std::vector<std::string>& series) {
  if (p.reference) return "#333333";
  const auto at = std::ranges::find(series, p.series) - series.begin();
  return kColors[p.series.empty()
                     ? 0
                     : static_cast<std::size_t>(at) % std::size(kColors)];
}

std::string series_lines(const std::vector<ChartPoint>& points,
                         const std::vector<std::string>& series, const Axis& x,
                         const Axis& y) {
  std::string svg;
  for (std::size_t s = 0; s < series.size(); ++s) {
    std::vector<std::pair<double, double>> line;
    for (const ChartPoint& p : points) {
      if (p.reference || p.series == series[s])
        line.push_back({x(p.x), y(p.y)});
    }
    svg +=
        polyline(line, kColors[s % std::size(kColors)], "stroke-width=\"1.6\"");
  }
  return svg;
}

}  // namespace

std::string escape_html(const std::string& raw) {
  std::string out;
  for (const char c : printable(raw, "\n\t")) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string to_svg(const ScatterChart& chart) {
  std::vector<ChartPoint> points = chart.points;
  std::erase_if(points, [&](const ChartPoint& p) {
    return !std::isfinite(p.x) || !std::isfinite(p.y) ||
           (chart.log_y && p.y <= 0);
  });
  if (points.empty()) return "";
  const auto [x_low, x_high] = std::ranges::minmax(points, {}, &ChartPoint::x);
  const auto [y_low, y_high] = std::ranges::minmax(points, {}, &ChartPoint::y);
  const Axis x =
      make_axis(x_low.x, x_high.x, kLeft, kWidth - kRight, /*log=*/false);
  const Axis y =
      make_axis(y_low.y, y_high.y, kHeight - kBottom, kTop, chart.log_y);
  std::string svg = open_svg(chart.title, kHeight) + y_axis(y, chart.y_title);
  for (const double tick : x.ticks()) {
    svg += line(x(tick), kHeight - kBottom, x(tick), kHeight - kBottom + 5,
                "#999");
    svg += text(x(tick), kHeight - kBottom + 20, number(tick),
                "text-anchor=\"middle\" fill=\"#555\"");
  }
  svg += text((kLeft + kWidth - kRight) / 2, kHeight - 10, chart.x_title,
              "text-anchor=\"middle\" fill=\"#333\"");
  if (chart.connect_front) {
    std::vector<std::pair<double, double>> front;
    for (const ChartPoint& p : front_of(points)) {
      front.push_back({x(p.x), y(p.y)});
    }
    svg += polyline(front, "#b8cfdd", "stroke-dasharray=\"5 4\"");
  }
  LabelPlacer labels;
  const std::vector<std::string> series =
      chart.connect_series ? series_of(points) : std::vector<std::string>();
  svg += series_lines(points, series, x, y);
  for (const ChartPoint& p : points) {
    svg += draw_point(p, x, y, color_of(p, series), labels);
  }
  return svg + "</svg>\n";
}

std::string to_svg(const LineChart& chart) {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  for (const ChartSeries& s : chart.series) {
    for (const double v : s.values) {
      if (!(v > 0) || !std::isfinite(v)) continue;
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
  if (high == 0 || chart.positions.empty()) return "";
  const auto count = static_cast<double>(chart.positions.size());
  const double legend =
      16.0 * std::ceil(static_cast<double>(chart.series.size()) / 4.0);
  const double height = kHeight + legend;
  const Axis x{-0.5, count - 0.5, kLeft, kWidth - kRight, false};
  const Axis y = make_axis(low, high, kHeight - kBottom, kTop, /*log=*/true);
  std::string svg = open_svg(chart.title, height) + y_axis(y, chart.y_title);
  const std::size_t every = chart.positions.size() / 16 + 1;
  for (std::size_t i = 0; i < chart.positions.size(); i += every) {
    svg += text(x(static_cast<double>(i)), kHeight - kBottom + 18,
                chart.positions[i],
                "text-anchor=\"middle\" fill=\"#555\" "
                "font-size=\"10\"");
  }
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    const char* color = kColors[s % std::size(kColors)];
    std::vector<std::pair<double, double>> points;
    for (std::size_t i = 0; i < chart.series[s].values.size(); ++i) {
      const double v = chart.series[s].values[i];
      if (v > 0 && std::isfinite(v)) {
        points.push_back({x(static_cast<double>(i)), y(v)});
      }
    }
    svg += polyline(points, color, "stroke-width=\"1.6\"");
    const double lx = kLeft + 195 * static_cast<double>(s % 4);
    const double ly =
        kHeight - 14 + 16 * std::floor(static_cast<double>(s) / 4);
    svg += line(lx, ly - 4, lx + 18, ly - 4, color);
    svg += text(lx + 24, ly, chart.series[s].label, "fill=\"#222\"");
  }
  return svg + "</svg>\n";
}

}  // namespace llmpress
