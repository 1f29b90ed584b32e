//! What was measured, as a picture: lines over numbers, in SVG.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700"];

/// Lines over the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// What is shown.
    pub title: String,
    /// What the lines are over, with its unit.
    pub x: String,
    /// What the lines tell, with its unit.
    pub y: String,
    /// The lines by name.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Points by name that no line joins.
    pub dots: Vec<(String, Vec<(f64, f64)>)>,
    /// Whether both axes are logarithmic: then all numbers must be above 0. Otherwise both begin at 0.
    pub logarithmic: bool,
}

/// An axis from its first tick to its last.
struct Axis {
    ticks: Vec<f64>,
    logarithmic: bool,
}

impl Axis {
    /// One that has room for all of these.
    fn of(values: impl Iterator<Item = f64>, logarithmic: bool) -> Self {
        let ticks = if logarithmic {
            let exponents: Vec<_> = values.map(f64::log10).collect();
            let least = exponents.iter().copied().fold(f64::INFINITY, f64::min).floor().min(0.0) as i32;
            let most = exponents.into_iter().fold(f64::NEG_INFINITY, f64::max).ceil() as i32;
            (least..=most.max(least + 1)).map(|exponent| 10f64.powi(exponent)).collect()
        } else {
            let end = round_up(values);
            (0..=5).map(|tick| end * f64::from(tick) / 5.0).collect()
        };
        Self { ticks, logarithmic }
    }

    /// Where a number lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let at = |value: f64| if self.logarithmic { value.log10() } else { value };
        let (first, last) = (at(self.ticks[0]), at(self.ticks[self.ticks.len() - 1]));
        (at(value) - first) / (last - first)
    }
}

impl Plot {
    /// Writes the picture into the folder that `PLOTS` names, if it names one.
    pub fn write(&self, name: &str) {
        let Some(folder) = env::var_os("PLOTS").map(PathBuf::from) else { return };
        // Tests run in the folders of their crates: a relative path is one of the repository.
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(folder).join(name);
        fs::write(&path, self.to_svg()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The picture.
    pub fn to_svg(&self) -> String {
        let points = || self.lines.iter().chain(&self.dots).flat_map(|(_, points)| points);
        let x_axis = Axis::of(points().map(|point| point.0), self.logarithmic);
        let y_axis = Axis::of(points().map(|point| point.1), self.logarithmic);
        let x = |value: f64| LEFT + x_axis.share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - y_axis.share(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let mut text = |at: (f64, f64), anchor: &str, more: &str, text: &str| {
            let (x, y, text) = (at.0, at.1, escaped(text));
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{text}</text>");
        };
        text((WIDTH / 2.0, 20.0), "middle", " font-size=\"14\"", &self.title);
        text((WIDTH / 2.0, HEIGHT - 12.0), "middle", "", &self.x);
        text((16.0, HEIGHT / 2.0), "middle", &format!(" transform=\"rotate(-90 16 {})\"", HEIGHT / 2.0), &self.y);
        for tick in &x_axis.ticks {
            text((x(*tick), HEIGHT - BOTTOM + 18.0), "middle", "", &short(*tick));
        }
        for tick in &y_axis.ticks {
            text((LEFT - 6.0, y(*tick) + 4.0), "end", "", &short(*tick));
        }
        for (index, (name, _)) in self.lines.iter().chain(&self.dots).enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let at = (LEFT + 10.0, TOP + 12.0 + 16.0 * index as f64);
            text(at, "start", &format!(" fill=\"{colour}\""), name);
        }
        for tick in &y_axis.ticks {
            let at = y(*tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#d0d7de\"/>",
                WIDTH - RIGHT
            );
        }
        for (index, (_, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let path: Vec<_> = points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
            let path = path.join(" ");
            let _ =
                writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
        }
        for (index, (_, points)) in self.dots.iter().enumerate() {
            let colour = COLOURS[(self.lines.len() + index) % COLOURS.len()];
            for point in points {
                let (x, y) = (x(point.0), y(point.1));
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
        svg + "</svg>\n"
    }
}

/// The end of an axis: a round number that is not below any of these.
fn round_up(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.fold(0.0, f64::max);
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(most.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * power).find(|end| *end >= most).unwrap_or(most)
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, end) in [(0.0, 1.0), (0.7, 1.0), (1.1, 2.0), (2.2, 2.5), (134.0, 200.0), (1000.0, 1000.0)] {
            assert_eq!(round_up([0.0, most].into_iter()), end, "{most}");
        }
    }

    #[test]
    fn logarithmic_axes_go_from_one_power_of_ten_to_another() {
        let axis = Axis::of([3.0, 900.0].into_iter(), true);
        assert_eq!(axis.ticks, [1.0, 10.0, 100.0, 1000.0]);
        assert!((axis.share(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(Axis::of([].into_iter(), true).ticks, [1.0, 10.0]);
    }

    #[test]
    fn points_are_where_their_numbers_are() {
        let plot = Plot { lines: vec![("a < b".to_string(), vec![(0.0, 0.0), (10.0, 5.0)])], ..Plot::default() };
        let svg = plot.to_svg();
        assert!(svg.contains("points=\"70.0,310.0 700.0,40.0\"") && svg.contains("a &lt; b"), "{svg}");
        let svg = Plot { dots: vec![("c".to_string(), vec![(5.0, 10.0)])], ..plot }.to_svg();
        assert!(svg.contains("points=\"70.0,310.0 700.0,175.0\"") && svg.contains("cx=\"385.0\" cy=\"40.0\""), "{svg}");
    }
}
