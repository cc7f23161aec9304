//! Memory that must come back as it was, and memory that asks for too much.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};

use nix::sys::signal::Signal;

use crate::signals::{Awaited, check_on_demand};

const WORDS_PER_MIB: usize = 1024 * 1024 / 8;

pub(crate) fn heap(mib: usize) -> io::Result<u8> {
    let mut seed = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let mut word = u64::from_ne_bytes(seed) | 1;
    let heap: Vec<u64> = (0..mib * WORDS_PER_MIB)
        .map(|_| {
            // xorshift: as good as random for a page that must not be compressible.
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word
        })
        .collect();
    let sum = checksum(&heap);
    check_on_demand(|| Ok(if checksum(black_box(&heap)) == sum { "same".into() } else { "differs".into() }))
}

/// Depends on the order of the words, so that two swapped pages show.
fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum: u64, word| sum.rotate_left(5) ^ word)
}

pub(crate) fn oom() -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGUSR1])?;
    println!("ready");
    awaited.next()?;
    let mut taken: Vec<Vec<u64>> = Vec::new();
    loop {
        taken.push(vec![1; WORDS_PER_MIB]);
        black_box(&taken);
    }
}
