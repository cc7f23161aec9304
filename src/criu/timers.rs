//! Periodic timers (timerfd) that went off while the container stood still.
//!
//! The kernel tells CRIU that such a timer has no time left, and CRIU sets it to that at
//! the restore, which turns it off: the program gets the one tick that it has coming and
//! never another. With a nanosecond left it goes on.

use std::io;
use std::path::Path;

use super::fields::{self, Field, Fields, entries};

const FILE_NAME: &str = "files.img";

/// Where a file entry keeps what it knows of a timer, and that its parts.
const TIMER: u64 = 12;
const TICKS: u64 = 5;
const LEFT: [u64; 2] = [7, 8];
const INTERVAL: [u64; 2] = [9, 10];

/// Winds up the timers of the image in `folder`.
pub fn wind_up(folder: &Path) -> io::Result<()> {
    fields::change(&folder.join(FILE_NAME), 1, run_down)
}

/// Where the nanoseconds left of each such timer are: one byte, zero.
fn run_down(image: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    for entry in entries(image) {
        let timers = entry.filter(|field| field.number == TIMER && field.is_message);
        found.extend(timers.filter_map(|timer| nanoseconds(image, timer.at, timer.end)));
    }
    found
}

fn nanoseconds(image: &[u8], at: usize, end: usize) -> Option<usize> {
    let fields: Vec<Field> = Fields::new(image, at, end).collect();
    let value = |number| fields.iter().find(|field| field.number == number).map_or(0, |field| field.value);
    let is_zero = |numbers: [u64; 2]| numbers.into_iter().all(|number| value(number) == 0);
    // One that was turned off has no tick coming.
    if value(TICKS) == 0 || !is_zero(LEFT) || is_zero(INTERVAL) {
        return None;
    }
    fields.iter().find(|field| field.number == LEFT[1] && field.end - field.at == 1).map(|field| field.at)
}

#[cfg(test)]
mod tests {
    use super::super::fields::HEAD;
    use super::*;

    /// An image of one open file: id 300, and a timer.
    fn image(ticks: u8, left: u8, interval: u8) -> Vec<u8> {
        let timer = [1 << 3, 5, 2 << 3, 2, 3 << 3 | 2, 2, 9, 9, 4 << 3, 1, 5 << 3, ticks, 6 << 3, 0];
        let times = [7 << 3, 0, 8 << 3, left, 9 << 3, interval, 10 << 3, 0];
        let mut entry = vec![1 << 3, 17, 2 << 3, 0xac, 2, 12 << 3 | 2, 22];
        entry.extend(timer.iter().chain(&times));
        let mut image = vec![0; HEAD];
        image.extend(u32::try_from(entry.len()).unwrap().to_ne_bytes());
        image.extend(entry);
        image
    }

    #[test]
    fn a_periodic_timer_that_has_run_down_gets_a_nanosecond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut twice = image(1, 0, 1);
        twice.extend(&image(2, 0, 3)[HEAD..]);
        std::fs::write(&path, &twice).unwrap();
        wind_up(folder.path()).unwrap();
        let mut expected = image(1, 1, 1);
        expected.extend(&image(2, 1, 3)[HEAD..]);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn others_stay_as_they_are() {
        for (ticks, left, interval) in [(0, 0, 1), (1, 9, 1), (1, 0, 0)] {
            assert!(run_down(&image(ticks, left, interval)).is_empty(), "{ticks} {left} {interval}");
        }
    }

    #[test]
    fn a_broken_image_is_left_to_criu() {
        let whole = image(1, 0, 1);
        for length in 0..whole.len() {
            assert!(run_down(&whole[..length]).is_empty(), "{length}");
        }
        let mut huge = whole.clone();
        huge[HEAD + 4 + 6] = 0xff;
        assert!(run_down(&huge).is_empty());
        assert!(wind_up(Path::new("/no/such/folder")).is_ok());
    }
}
