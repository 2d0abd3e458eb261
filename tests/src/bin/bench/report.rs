//! Figures by dotted name, their raw values, and how they are printed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

/// One figure.
struct Figure {
    value: f64,
    unit: &'static str,
    reach: Option<(&'static str, f64)>,
    raw: Vec<f64>,
}

/// Everything measured.
#[derive(Default)]
pub struct Report {
    figures: BTreeMap<String, Figure>,
}

impl Report {
    /// Keep the median of `raw` under `name`.
    pub fn add(&mut self, name: &str, unit: &'static str, raw: Vec<f64>) {
        let value = median(&raw);
        println!("  {name}: {value:.3} {unit}");
        self.figures.insert(name.to_owned(), Figure { value, unit, reach: None, raw });
    }

    /// The same, with what it ought to reach: `("<", 100.0)` or `(">=", 0.95)`.
    pub fn add_with_reach(&mut self, name: &str, unit: &'static str, raw: Vec<f64>, reach: (&'static str, f64)) {
        self.add(name, unit, raw);
        if let Some(figure) = self.figures.get_mut(name) {
            figure.reach = Some(reach);
        }
    }

    /// Write `report.json` (flat) and `raw.json`.
    pub fn write(&self, dir: &Path, machine: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let flat: BTreeMap<&str, f64> = self.figures.iter().map(|(name, f)| (name.as_str(), f.value)).collect();
        let raw: BTreeMap<&str, &[f64]> =
            self.figures.iter().map(|(name, f)| (name.as_str(), f.raw.as_slice())).collect();
        std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(&flat)? + "\n")?;
        let raw = serde_json::json!({ "machine": machine, "raw": raw });
        std::fs::write(dir.join("raw.json"), serde_json::to_string_pretty(&raw)? + "\n")?;
        Ok(())
    }

    /// For people.
    pub fn table(&self) -> String {
        let width = self.figures.keys().map(String::len).max().unwrap_or(0);
        let mut out =
            format!("{:width$}  {:>12}  {:>7}  {:>9}  {}\n", "figure", "median", "unit", "reach", "of n (min..max)");
        for (name, f) in &self.figures {
            let (min, max) = f.raw.iter().fold((f64::MAX, f64::MIN), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
            let reach = f.reach.map_or_else(String::new, |(sign, value)| {
                let met = if sign == "<" { f.value < value } else { f.value >= value };
                format!("{sign} {value}{}", if met { "" } else { " MISSED" })
            });
            // Writing into a String cannot fail.
            let _ = writeln!(
                out,
                "{name:width$}  {:>12.3}  {:>7}  {reach:>9}  {} ({min:.3}..{max:.3})",
                f.value,
                f.unit,
                f.raw.len()
            );
        }
        out
    }
}

/// The middle value; zero for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        n => sorted[n / 2],
    }
}

/// The machine in one line.
pub fn machine() -> String {
    let kernel = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("kernel {kernel}, {cpus} cores, bedplate {}", env!("CARGO_PKG_VERSION"))
}
