//! Test vectors as several crates check them: [`entry`] reads one and remembers what was asked of it, [`plan`] holds which
//! check belongs to which. For tests only: whatever is not as it should be panics.

pub mod entry;
pub mod plan;
