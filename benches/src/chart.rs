//! The ratios of a run as one SVG picture: a row for each case and peer, on a logarithmic scale.

use std::fmt::Write;
use std::path::Path;

use crate::BenchError;
use crate::report::{Metric, Outcome};

const ROW: f64 = 18.0;
const LEFT: f64 = 260.0;
const WIDTH: f64 = 900.0;
/// The scale's ends.
const FROM: f64 = 0.1;
const TO: f64 = 2.0;

/// Draws CPU of ours over CPU of each peer; shorter is better, the line is "the same".
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, outcomes: &[Outcome]) -> Result<(), BenchError> {
    let text = draw(outcomes);
    std::fs::write(path, text).map_err(|error| BenchError::Io {
        what: path.display().to_string(),
        error,
    })
}

fn x(ratio: f64) -> f64 {
    let share = (ratio.clamp(FROM, TO) / FROM).ln() / (TO / FROM).ln();
    LEFT + share * (WIDTH - LEFT - 60.0)
}

fn draw(outcomes: &[Outcome]) -> String {
    let mut rows = String::new();
    let mut y = 48.0;
    for outcome in outcomes {
        let Some(own) = outcome.series.first() else {
            continue;
        };
        let Some(ours) = own.median(Metric::Cpu) else {
            continue;
        };
        let mut label = outcome.case.name();
        for peer in outcome.series.iter().skip(1) {
            let Some(theirs) = peer.median(Metric::Cpu) else {
                continue;
            };
            if theirs <= 0.0 {
                continue;
            }
            let ratio = ours / theirs;
            let color = if ratio <= 1.0 { "#2a7f62" } else { "#b5532a" };
            let (from, to) = (x(FROM), x(ratio));
            let _ = writeln!(
                rows,
                "<text x=\"8\" y=\"{:.0}\">{label}</text>\
                 <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{from:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"12\" fill=\"{color}\"/>\
                 <text x=\"{:.0}\" y=\"{:.0}\">{ratio:.2}</text>",
                y + 11.0,
                LEFT - 8.0,
                y + 11.0,
                peer.name,
                y + 1.0,
                to - from,
                to + 4.0,
                y + 11.0
            );
            label.clear();
            y += ROW;
        }
        y += 6.0;
    }
    let height = y + 12.0;
    let mut grid = String::new();
    for tick in [0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0] {
        let at = x(tick);
        let color = if tick == 1.0 { "#444" } else { "#ddd" };
        let _ = writeln!(
            grid,
            "<line x1=\"{at:.0}\" x2=\"{at:.0}\" y1=\"40\" y2=\"{height:.0}\" stroke=\"{color}\"/>\
             <text x=\"{at:.0}\" y=\"36\" text-anchor=\"middle\">{tick}</text>"
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"14\">CPU of Anyam / CPU of the peer, same work, \
         medians of interleaved rounds (less is better)</text>\n{grid}{rows}</svg>\n"
    )
}
