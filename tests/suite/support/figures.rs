//! How many takeovers and withdrawals a test has tried under a trouble, how many were right, and how long the worst took:
//! one line, also of a test that fails, which `tests/queue` and `tests/run` show at their ends.
//!
//! Owns the count and the line; leaves what is right to the tests. Used by `held_up` and `races`.

use std::time::Duration;

/// How many takeovers and withdrawals a test tries: what `tests/run --all` asks for, or else this.
pub fn rounds(usual: usize) -> usize {
    std::env::var("LVS_NOTIFY_ROUNDS")
        .map_or(usual, |rounds| rounds.parse().expect("LVS_NOTIFY_ROUNDS: a number"))
}

/// The count for one trouble; the line is printed as it ends.
pub struct Figures {
    trouble: &'static str,
    takeovers: usize,
    withdrawals: usize,
    right: usize,
    worst: Duration,
}

impl Figures {
    pub fn of(trouble: &'static str) -> Self {
        Self { trouble, takeovers: 0, withdrawals: 0, right: 0, worst: Duration::ZERO }
    }

    /// One role command: `judge` panics unless it is right, and gives how long it took until the role was carried out.
    pub fn one(&mut self, role: &str, judge: impl FnOnce() -> Duration) {
        *(if role == "master" { &mut self.takeovers } else { &mut self.withdrawals }) += 1;
        self.worst = self.worst.max(judge());
        self.right += 1;
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        let Self { trouble, takeovers, withdrawals, right, worst } = self;
        let ms = worst.as_millis();
        println!(
            "figures: {takeovers} takeovers and {withdrawals} withdrawals, {right} right, held up at most {ms} ms: {trouble}"
        );
    }
}
