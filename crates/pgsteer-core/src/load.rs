//! Load: how full a server is, in steps. With steps the weights in HAProxy do not change at every
//! session that begins or ends.

/// The sessions of a server and their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Server processes that are connected to a database: clients, and PostgreSQL's own helpers,
    /// such as parallel workers.
    pub backends: u32,
    /// How many clients without special rights may connect.
    pub backends_max: u32,
}

/// The size of a step, in percent.
const STEP: u8 = 10;

/// How far the load may move from the shown step before another one is shown, in percent. It is a
/// little more than half of a step, so that a load between two steps does not flap.
const STEP_HOLDS: u8 = 7;

impl Load {
    /// Returns the load in percent, 0 to 100. A server that allows no sessions is full.
    pub fn percent(&self) -> u8 {
        let used = u64::from(self.backends.min(self.backends_max)) * 100;
        used.checked_div(u64::from(self.backends_max))
            .and_then(|percent| u8::try_from(percent).ok())
            .unwrap_or(100)
    }

    /// Returns the step to show after `shown`, in percent.
    pub fn step(&self, shown: Option<u8>) -> u8 {
        let percent = self.percent();
        match shown.filter(|shown| shown.abs_diff(percent) <= STEP_HOLDS) {
            Some(shown) => shown,
            None => (percent + STEP / 2) / STEP * STEP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(backends: u32) -> Load {
        Load { backends, backends_max: 100 }
    }

    /// The steps that are shown while the load goes through these values.
    fn shown(backends: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let mut last = None;
        let mut all = Vec::new();
        for backends in backends {
            let step = load(backends).step(last);
            if last.replace(step) != Some(step) {
                all.push(step);
            }
        }
        all
    }

    #[test]
    fn it_goes_from_idle_to_full_and_back_in_steps() {
        let up: Vec<u8> = (0..=10).map(|step| step * 10).collect();
        let down: Vec<u8> = up.iter().rev().copied().collect();
        assert_eq!(shown(0..=100), up);
        assert_eq!(shown((0..=100).rev()), down);
    }

    #[test]
    fn between_two_steps_it_stays_where_it_is() {
        assert_eq!(shown([14, 16, 13, 17, 15, 14]), [10]);
        assert_eq!(shown([14, 18, 13, 17, 15, 14]), [10, 20]);
    }

    #[test]
    fn above_the_limit_a_server_is_full_and_so_is_one_with_limit_zero() {
        assert_eq!(load(300).percent(), 100);
        assert_eq!(Load { backends: 0, backends_max: 0 }.percent(), 100);
        assert_eq!(Load { backends: u32::MAX, backends_max: u32::MAX }.step(None), 100);
    }
}
