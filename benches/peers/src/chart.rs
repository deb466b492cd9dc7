//! Small charts as SVG: panels with axes, lines and bars. Colours are of middle brightness and the ground is
//! left open, so that they can be read on white and on dark pages.

use std::fmt::Write as _;
use std::path::Path;

/// For text and axes.
const INK: &str = "#7b828c";
const COLOURS: [&str; 8] =
    ["#2f81f7", "#e0792b", "#2ea36a", "#d6455d", "#a266d9", "#14a3b0", "#b08a1e", "#8a6d5b"];

pub fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

/// A drawing under construction.
pub struct Chart {
    width: f64,
    height: f64,
    body: String,
}

/// How values go to places along an axis.
#[derive(Clone, Copy)]
pub struct Axis {
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    pub fn linear(from: f64, to: f64) -> Self {
        // An axis of no length would divide by 0.
        Self { from, to: if to > from { to } else { from + 1.0 }, log: false }
    }

    pub fn log(from: f64, to: f64) -> Self {
        Self { from: from.ln(), to: if to > from { to.ln() } else { from.ln() + 1.0 }, log: true }
    }

    /// 0 at its beginning, 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.ln() } else { value };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// A rectangle of a chart with two axes.
pub struct Panel<'a> {
    chart: &'a mut Chart,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    x: Axis,
    y: Axis,
}

impl Chart {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub fn text(&mut self, x: f64, y: f64, anchor: &str, size: u32, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">{text}</text>"#
        );
    }

    /// Names with the colours of their lines, in a row.
    pub fn legend(&mut self, x: f64, y: f64, entries: &[(&str, &str)]) {
        let mut at = x;
        for (name, colour) in entries {
            let _ = writeln!(
                self.body,
                r#"<rect x="{at:.1}" y="{:.1}" width="14" height="4" rx="2" fill="{colour}"/>"#,
                y - 6.0
            );
            self.text(at + 18.0, y, "start", 11, name);
            at += 34.0 + 6.8 * name.len() as f64;
        }
    }

    pub fn panel(&mut self, rect: [f64; 4], x: Axis, y: Axis) -> Panel<'_> {
        let [left, top, width, height] = rect;
        let _ = writeln!(
            self.body,
            r#"<path d="M{left:.1} {top:.1}v{height:.1}h{width:.1}" fill="none" stroke="{INK}"/>"#
        );
        Panel { chart: self, left, top, width, height, x, y }
    }

    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let (w, h) = (self.width, self.height);
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             font-family=\"system-ui, sans-serif\">\n{}</svg>\n",
            self.body
        );
        std::fs::write(path, svg)
    }
}

impl Panel<'_> {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + self.x.place(x) * self.width, self.top + (1.0 - self.y.place(y)) * self.height)
    }

    pub fn title(&mut self, text: &str) {
        let (x, y) = (self.left + self.width / 2.0, self.top - 6.0);
        self.chart.text(x, y, "middle", 12, text);
    }

    pub fn x_ticks(&mut self, ticks: &[(f64, &str)]) {
        for (value, label) in ticks {
            let (x, _) = self.at(*value, 0.0);
            let y = self.top + self.height;
            let _ = writeln!(self.chart.body, r#"<path d="M{x:.1} {y:.1}v3" stroke="{INK}"/>"#);
            self.chart.text(x, y + 14.0, "middle", 10, label);
        }
    }

    /// With a faint line across at each.
    pub fn y_ticks(&mut self, ticks: &[(f64, &str)]) {
        for (value, label) in ticks {
            let (_, y) = self.at(1.0, *value);
            let _ = writeln!(
                self.chart.body,
                r#"<path d="M{:.1} {y:.1}h{:.1}" stroke="{INK}" stroke-opacity="0.25"/>"#,
                self.left, self.width
            );
            self.chart.text(self.left - 4.0, y + 3.5, "end", 10, label);
        }
    }

    pub fn line(&mut self, points: &[(f64, f64)], colour: &str, width: f64, opacity: f64) {
        let mut path = String::new();
        for (x, y) in points {
            let (x, y) = self.at(*x, *y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
        }
        let _ = writeln!(
            self.chart.body,
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}" stroke-linejoin="round"/>"#
        );
    }

    /// Bars of equal width over the whole panel.
    pub fn bars(&mut self, heights: &[f64], colour: &str) {
        let step = self.width / heights.len() as f64;
        let mut path = String::new();
        for (i, height) in heights.iter().enumerate().filter(|(_, height)| **height > 0.0) {
            let x = self.left + step * i as f64 + 1.0;
            // What is there at all shall be seen.
            let h = (self.y.place(*height) * self.height).max(1.0);
            let _ = write!(
                path,
                "M{x:.1} {:.1}v-{h:.1}h{:.1}v{h:.1}z",
                self.top + self.height,
                step - 2.0
            );
        }
        let _ = writeln!(self.chart.body, r#"<path d="{path}" fill="{colour}"/>"#);
    }
}
