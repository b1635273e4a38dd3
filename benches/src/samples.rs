//! What was measured, and what can be said of it.

/// Samples of one quantity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// In the order of measurement.
    pub fn all(&self) -> &[f64] {
        &self.0
    }

    /// The middle one, or the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// What 19 of 20 do not exceed.
    pub fn p95(&self) -> Option<f64> {
        self.quantile(0.95)
    }

    /// The distance between the quartiles, as a part of the median.
    pub fn spread(&self) -> Option<f64> {
        let median = self.median().filter(|median| *median != 0.0)?;
        Some((self.quantile(0.75)? - self.quantile(0.25)?) / median)
    }

    /// What that part of the samples does not exceed: interpolated between neighbours, so that few samples do not jump.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let place = part * last as f64;
        let (below, above) = (place.floor(), place.ceil());
        let (low, high) = (sorted[below as usize], sorted[above as usize]);
        Some(low + (high - low) * (place - below))
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(samples: T) -> Self {
        Self(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Samples::default().median(), None);
        assert_eq!(Samples::default().spread(), None);
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(Samples::from_iter([9.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Samples::from_iter([4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
    }

    #[test]
    fn p95_lies_between_the_last_two_of_twenty() {
        let samples: Samples = (1..=20).map(f64::from).collect();
        let p95 = samples.p95().expect("samples");
        assert!((p95 - 19.05).abs() < 1e-9, "{p95}");
    }

    #[test]
    fn the_spread_is_relative_to_the_median() {
        let spread = Samples::from_iter([10.0, 20.0, 30.0, 40.0, 50.0]).spread();
        assert_eq!(spread, Some(20.0 / 30.0));
    }
}
