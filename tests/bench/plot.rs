//! The figures as pictures: SVG, white behind, so that they can be read on any page.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;

const SIZE: (u32, u32) = (760, 420);
const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
    RGBColor(188, 189, 34),
];

/// Draws what was measured into a directory.
pub(crate) fn draw(document: &Value, directory: &Path) {
    let to = |name: &str| directory.join(name);
    if let Some(rows) =
        points(&document["curve"]["rows"], |one| Some(one["rows"].as_f64()? / one["seconds"].as_f64()?))
    {
        curve(&to("rows.svg"), "Rows per second, by the size of one table", "rows", "rows a second", &rows);
    }
    if let Some(tables) = points(&document["curve"]["tables"], |one| one["seconds"].as_f64()) {
        curve(&to("tables.svg"), "Seconds, by the number of tables of 3 rows", "tables", "seconds", &tables);
    }
    let stages = &document["stages"];
    if stages.is_object() {
        let ways = [("hand pipeline", &stages["cpu_hand"]), ("gpferry", &stages["cpu_gpferry"])];
        stacks(&to("cpu.svg"), &format!("CPU seconds of {} rows, by program", stages["rows"]), &ways);
    }
}

/// Size and figure of each point.
fn points(of: &Value, figure: impl Fn(&Value) -> Option<f64>) -> Option<Vec<(f64, f64)>> {
    let all: Vec<(f64, f64)> =
        of.as_array()?.iter().filter_map(|one| Some((one["size"].as_f64()?, figure(one)?))).collect();
    (all.len() > 1).then_some(all)
}

fn curve(path: &Path, title: &str, x: &str, y: &str, points: &[(f64, f64)]) {
    let low = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(f64::INFINITY, f64::min);
    let high = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(0.0, f64::max);
    let decade = |value: f64| 10f64.powf(value.log10().floor());
    let (left, right) = (low(|one| one.0) / 1.3, high(|one| one.0) * 1.3);
    let (bottom, top) = (decade(low(|one| one.1)), high(|one| one.1) * 1.8);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 18))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .label_style((FONT, 13))
        .draw()
        .unwrap();
    let line = COLOURS[0].stroke_width(2);
    chart.draw_series(LineSeries::new(points.iter().copied(), line)).unwrap();
    let label = (FONT, 13).into_font().into_text_style(&root).pos(Pos::new(HPos::Center, VPos::Bottom));
    let dot = |&(x, y): &(f64, f64)| {
        EmptyElement::at((x, y))
            + Circle::new((0, 0), 4, COLOURS[0].filled())
            + Text::new(short(y), (0, -8), label.clone())
    };
    chart.draw_series(points.iter().map(dot)).unwrap();
    root.present().unwrap();
}

/// One bar for each way, with what it consists of from left to right.
fn stacks(path: &Path, title: &str, ways: &[(&str, &Value)]) {
    let parts = |way: &Value| -> Vec<(String, f64)> {
        let all = way.as_object().into_iter().flatten();
        all.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
    };
    let mut names: Vec<String> = ways.iter().flat_map(|(_, way)| parts(way)).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let sum = |way: &Value| parts(way).iter().map(|(_, value)| value).sum::<f64>();
    let most = ways.iter().map(|(_, way)| sum(way)).fold(0.1, f64::max);
    let root =
        SVGBackend::new(path, (SIZE.0, 120 + 62 * u32::try_from(ways.len()).unwrap())).into_drawing_area();
    root.fill(&WHITE).unwrap();
    root.draw(&Text::new(title, (16, 12), (FONT, 18))).unwrap();
    let scale = |value: f64| (value / most * 540.0) as i32;
    for (n, (way, parts_of)) in (0..).zip(ways) {
        let top = 48 + 62 * n;
        root.draw(&Text::new(*way, (16, top + 14), (FONT, 14))).unwrap();
        let mut at = 120;
        for (name, value) in parts(parts_of) {
            let colour = COLOURS[names.iter().position(|one| *one == name).unwrap_or(0) % COLOURS.len()];
            let end = at + scale(value);
            root.draw(&Rectangle::new([(at, top), (end, top + 40)], colour.filled())).unwrap();
            at = end;
        }
        root.draw(&Text::new(format!("{:.1} s", sum(parts_of)), (at + 8, top + 14), (FONT, 14))).unwrap();
    }
    let below = 48 + 62 * i32::try_from(ways.len()).unwrap();
    for (n, name) in (0..).zip(&names) {
        let (x, y) = (16 + (n % 4) * 180, below + 8 + (n / 4) * 22);
        let colour = COLOURS[usize::try_from(n).unwrap() % COLOURS.len()];
        root.draw(&Rectangle::new([(x, y), (x + 12, y + 12)], colour.filled())).unwrap();
        root.draw(&Text::new(name.as_str(), (x + 18, y), (FONT, 13))).unwrap();
    }
    root.present().unwrap();
}

/// `1000`, `10k`, `1.5M`, `0.31`.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", trimmed(value / 1e6)),
        1e4.. => format!("{}k", trimmed(value / 1e3)),
        100.0.. => format!("{value:.0}"),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
