//! What was measured, as a picture: lines over numbers, in SVG.

use std::{env, fmt::Write, fs, path::PathBuf};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700"];

/// Lines over the same numbers. Both axes begin at 0.
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
}

impl Plot {
    /// Writes the picture into the folder that `PLOTS` names, if it names one.
    pub fn write(&self, name: &str) {
        let Some(folder) = env::var_os("PLOTS").map(PathBuf::from) else { return };
        let path = folder.join(name);
        fs::write(&path, self.to_svg()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn to_svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let (x_max, y_max) = (round_up(points().map(|p| p.0)), round_up(points().map(|p| p.1)));
        let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / y_max * (HEIGHT - TOP - BOTTOM);
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
        for tick in 0..=5 {
            let (of_x, of_y) = (x_max * f64::from(tick) / 5.0, y_max * f64::from(tick) / 5.0);
            text((x(of_x), HEIGHT - BOTTOM + 18.0), "middle", "", &short(of_x));
            text((LEFT - 6.0, y(of_y) + 4.0), "end", "", &short(of_y));
        }
        for (index, (name, _)) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let at = (LEFT + 10.0, TOP + 12.0 + 16.0 * index as f64);
            text(at, "start", &format!(" fill=\"{colour}\""), name);
        }
        for tick in 0..=5 {
            let at = y(y_max * f64::from(tick) / 5.0);
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
    fn points_are_where_their_numbers_are() {
        let plot = Plot { lines: vec![("a < b".to_string(), vec![(0.0, 0.0), (10.0, 5.0)])], ..Plot::default() };
        let svg = plot.to_svg();
        assert!(svg.contains("points=\"70.0,310.0 700.0,40.0\"") && svg.contains("a &lt; b"), "{svg}");
    }
}
