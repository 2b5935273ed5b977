//! Curves of ten minutes.

use super::view::Curve;

/// The size of the box of a curve.
const WIDTH: f32 = 120.0;
const HEIGHT: f32 = 20.0;

/// The fewest samples that make a curve.
const SAMPLES_MIN: usize = 3;

/// The most points of a curve. More samples are joined; a point is the highest of its samples.
const POINTS_MAX: usize = 50;

/// The curve of `samples`, oldest first, which cover `full` samples if the history is complete. `name` says
/// what they are; `show` writes a value. NaN is a gap. None with too few samples.
pub fn curve(
    name: &str,
    samples: &[f32],
    full: usize,
    show: impl Fn(f32) -> String,
) -> Option<Curve> {
    if samples.iter().filter(|value| value.is_finite()).count() < SAMPLES_MIN {
        return None;
    }
    let full = full.max(samples.len());
    let top = samples.iter().copied().filter(|value| value.is_finite()).fold(0.0, f32::max);
    let scale = if top > 0.0 { (HEIGHT - 2.0) / top } else { 0.0 };
    let step = full.div_ceil(POINTS_MAX).max(1);
    let missing = full - samples.len();
    let mut points = String::new();
    for (number, group) in samples.chunks(step).enumerate() {
        let Some(value) = group.iter().copied().filter(|value| value.is_finite()).reduce(f32::max)
        else {
            continue;
        };
        let x = as_f32(missing + number * step) / as_f32(full.saturating_sub(step).max(1)) * WIDTH;
        let y = HEIGHT - 1.0 - value * scale;
        points.push_str(&format!("{:.1},{y:.1} ", x.min(WIDTH)));
    }
    points.pop();
    Some(Curve { points, label: format!("{name} in the last ten minutes, at most {}", show(top)) })
}

fn as_f32(number: usize) -> f32 {
    u16::try_from(number).map_or(f32::from(u16::MAX), f32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_at_the_right_edge_and_its_highest_value_at_the_top() {
        let show = |value: f32| value.to_string();
        let curve = curve("sessions", &[0.0, 5.0, 10.0], 3, show).unwrap();
        assert_eq!(curve.points, "0.0,19.0 60.0,10.0 120.0,1.0");
        assert_eq!(curve.label, "sessions in the last ten minutes, at most 10");
    }

    #[test]
    fn few_samples_of_a_young_process_stand_at_the_right() {
        let curve = curve("x", &[1.0; 3], 5, |value| value.to_string()).unwrap();
        assert_eq!(curve.points, "60.0,1.0 90.0,1.0 120.0,1.0");
    }

    #[test]
    fn a_curve_has_a_bounded_number_of_points_and_survives_odd_values() {
        let mut samples = [f32::NAN; 6_000];
        samples[3_000..].fill(2.0);
        let curve = curve("x", &samples, 6_000, |value| value.to_string()).unwrap();
        assert_eq!(curve.points.split(' ').count(), POINTS_MAX / 2, "nothing was recorded before");
        assert!(!curve.points.contains("NaN"));
        assert!(super::curve("x", &[1.0, 2.0], 600, |value| value.to_string()).is_none());
    }
}
