//! Bar charts as SVG, legible on a light and on a dark page.

use crate::promise::shown;
use crate::results::Unit;
use std::fmt::Write;

/// One group of bars.
#[derive(Clone, Debug)]
pub struct Group {
    pub label: String,
    /// Contestants and their medians.
    pub bars: Vec<(String, f64)>,
}

const WIDTH: u32 = 720;
/// Where bars begin: to the left are the names.
const LEFT: u32 = 150;
/// Room for the number beside the longest bar.
const RIGHT: u32 = 90;
const BAR: u32 = 18;
const GAP: u32 = 5;

/// Colours by contestant: of middle lightness, so that they stand out from white
/// and from black; wisp's is the strongest.
fn colour(contestant: &str) -> &'static str {
    match contestant {
        "wisp" => "#7c5cff",
        "wisp-layer" | "wisp-before" | "wisp-run" => "#b3a2f2",
        "runc" | "hyper" => "#2f8fd0",
        "crun" | "wasmtime" | "wasmtime-tuned" | "wasmtime-timeout" => "#2aa58a",
        _ => "#d98a2b",
    }
}

/// Draws groups of horizontal bars, all on one scale.
pub fn bars(title: &str, unit: Unit, groups: &[Group]) -> String {
    let most = groups
        .iter()
        .flat_map(|group| group.bars.iter().map(|(_, value)| *value))
        .fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH - LEFT - RIGHT);
    let mut body = String::new();
    let mut y = 48;
    for group in groups {
        if !group.label.is_empty() {
            y += 14;
            text(&mut body, "group", 0, y, &group.label);
            y += 8;
        }
        for (name, value) in &group.bars {
            let width = (value / most * room).max(1.0);
            let middle = y + BAR - 5;
            text(&mut body, "name", LEFT - 8, middle, name);
            // Writing to a string cannot fail.
            let _ = writeln!(
                body,
                r#"  <rect x="{LEFT}" y="{y}" width="{width:.1}" height="{BAR}" rx="2" fill="{}"/>"#,
                colour(name)
            );
            let end = LEFT + width as u32 + 6;
            text(&mut body, "value", end, middle, &shown(*value));
            y += BAR + GAP;
        }
        y += 6;
    }
    let better = if unit.more_is_better() {
        "more is better"
    } else {
        "less is better"
    };
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" aria-label="{title}">
  <style>
    text {{ font: 13px system-ui, sans-serif; fill: #3b3b45; }}
    .title {{ font-size: 16px; font-weight: 600; }}
    .unit {{ fill: #777783; }}
    .group {{ font-weight: 600; }}
    .name {{ text-anchor: end; }}
    @media (prefers-color-scheme: dark) {{
      text {{ fill: #dcdce4; }}
      .unit {{ fill: #9a9aa6; }}
    }}
  </style>
  <text class="title" x="0" y="18">{title}</text>
  <text class="unit" x="0" y="36">{unit}, median; {better}</text>
{body}</svg>
"##,
        title = escaped(title),
    )
}

fn text(body: &mut String, class: &str, x: u32, y: u32, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(
        body,
        r#"  <text class="{class}" x="{x}" y="{y}">{}</text>"#,
        escaped(content)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_to_scale_and_text_is_escaped() {
        let groups = [Group {
            label: "a <b>".to_owned(),
            bars: vec![("wisp".to_owned(), 50.0), ("runc".to_owned(), 100.0)],
        }];
        let svg = bars("\"title\"", Unit::Milliseconds, &groups);
        assert!(svg.contains(r#"width="240.0""#), "{svg}");
        assert!(svg.contains(r#"width="480.0""#), "{svg}");
        assert!(svg.contains("a &lt;b&gt;"), "{svg}");
        assert!(svg.contains("&quot;title&quot;"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark"), "{svg}");
    }
}
