// Small charts as SVG text, for the HTML report.
#pragma once

#include <string>
#include <vector>

namespace llmpress {

struct ChartPoint {
  double x = 0, y = 0;
  double y_error = 0;  // half the length of the error bar; 0: none
  std::string label{};
  bool reference = false;  // drawn hollow: the base
  std::string series{};    // with connect_series: the line that it is on
};

struct ScatterChart {
  std::string title{}, x_title{}, y_title{};
  bool log_y = false;
  bool connect_front = false;  // line through points that no other one beats
  // A line and a color for each series, in the order of the points, from the
  // reference on.
  bool connect_series = false;
  std::vector<ChartPoint> points{};
};
std::string to_svg(const ScatterChart& chart);

struct ChartSeries {
  std::string label{};
  std::vector<double> values{};  // at x = 0, 1, ...; not above 0: left out
};

// Lines over the same named positions, logarithmic y.
struct LineChart {
  std::string title{}, y_title{};
  std::vector<std::string> positions{};
  std::vector<ChartSeries> series{};
};
std::string to_svg(const LineChart& chart);

// &, <, > and quotes as entities.
std::string escape_html(const std::string& text);

}  // namespace llmpress
