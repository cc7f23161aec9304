//! Compressed memory, which a checkpoint's folder from anywhere may have.
#![no_main]

use std::collections::BTreeMap;
use std::fs;

use cryo::pages::Expected;
use cryo::pages::memory::{self, Memory};

/// A table as it has to be, so that more than that is looked at.
fn table(lengths: &[(u32, u32)]) -> Vec<u8> {
    let count = lengths.len() as u32;
    let mut bytes = 0x184d_2a5e_u32.to_le_bytes().to_vec();
    bytes.extend((count * 8 + 9).to_le_bytes());
    lengths.iter().for_each(|(compressed, content)| {
        bytes.extend(compressed.to_le_bytes());
        bytes.extend(content.to_le_bytes());
    });
    bytes.extend(count.to_le_bytes());
    bytes.push(0);
    bytes.extend(0x8f92_eab1_u32.to_le_bytes());
    bytes
}

libfuzzer_sys::fuzz_target!(|input: (Vec<u8>, Vec<u8>, u8, u32)| {
    let (frame, rest, kind, size) = input;
    let folder = tempfile::tempdir().expect("a folder");
    let length = frame.len() as u32;
    let bytes = match kind % 4 {
        0 => [frame, rest].concat(),
        // One frame that is as long as it says.
        1 => [frame, table(&[(length, size % (1 << 20))])].concat(),
        // One before it that is as long as all but the last have to be.
        2 => [&frame[..], &rest, &table(&[(length, 1 << 20), (rest.len() as u32, size)])].concat(),
        // What zstd has really made, and a table that may lie.
        _ => {
            let real = zstd(&rest);
            [&real[..], &table(&[(real.len() as u32, size % 9000)])].concat()
        }
    };
    fs::write(folder.path().join("pages-1.img.zst"), &bytes).expect("a file");
    let mut left = 16 << 20;
    if let Ok(memory) = Memory::open(folder.path(), "pages-1.img", folder.path()) {
        left = memory.size();
        for offset in [0, 4097, memory.size().saturating_sub(9000)] {
            let _ = memory.read_exact_at(&mut [0; 9000], offset);
        }
    }
    let into = tempfile::tempdir().expect("a folder");
    for size in [size.into(), left] {
        let digest = format!("blake3:{:064}", 0);
        let expected = BTreeMap::from([("pages-1.img".to_owned(), Expected { size, digest })]);
        assert!(memory::put_together(folder.path(), folder.path(), into.path(), &expected).is_err());
        assert_eq!(fs::read_dir(into.path()).expect("the folder").count(), 0);
    }
});

/// A frame in one piece that is only copied, as RFC 8878 has it.
fn zstd(content: &[u8]) -> Vec<u8> {
    let content = &content[..content.len().min(4096)];
    let mut frame = 0xfd2f_b528_u32.to_le_bytes().to_vec();
    frame.push(0b1010_0000);
    frame.extend((content.len() as u32).to_le_bytes());
    let head = (content.len() as u32) << 3 | 1;
    frame.extend_from_slice(&head.to_le_bytes()[..3]);
    frame.extend_from_slice(content);
    frame
}
