//! Headers that anybody may have written.

use super::super::sample::header;
use super::*;
use std::io::Write;
use tar::Builder;

fn names(archive: impl Read) -> Result<Vec<(String, u64)>, Error> {
    let room = Room::new(1 << 40, 100);
    let mut members = Members::new(archive, &room);
    let mut names = Vec::new();
    while let Some(member) = members.next()? {
        names.push((member.name, member.size));
    }
    Ok(names)
}

#[test]
fn long_names_are_read_in_both_forms() {
    let long = format!("checkpoint/{}.img", "x".repeat(200));
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header("", EntryType::Regular, 0), &long, io::empty()).unwrap();
    builder.append_pax_extensions([("path", long.as_bytes()), ("mtime", b"1.5")]).unwrap();
    builder.append(&header("short", EntryType::Regular, 0), io::empty()).unwrap();
    let archive = builder.into_inner().unwrap();
    assert_eq!(names(&archive[..]).unwrap(), [(long.clone(), 0), (long, 0)]);
}

#[test]
fn a_size_in_a_pax_header_is_the_size() {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("size", &b"5"[..])]).unwrap();
    builder.append(&header("a", EntryType::Regular, 0), io::empty()).unwrap();
    builder.get_mut().write_all(&[b"12345", &[0; 507][..]].concat()).unwrap();
    builder.append(&header("b", EntryType::Regular, 0), io::empty()).unwrap();
    let archive = builder.into_inner().unwrap();
    assert_eq!(names(&archive[..]).unwrap(), [("a".to_owned(), 5), ("b".to_owned(), 0)]);
}

#[test]
fn headers_that_are_far_too_large_are_not_read() {
    for kind in [EntryType::GNULongName, EntryType::XHeader, EntryType::XGlobalHeader] {
        let bomb = header("bomb", kind, 1 << 30);
        let result = names(io::Cursor::new(bomb.as_bytes().to_vec()).chain(io::repeat(b'x')));
        assert!(matches!(result, Err(Error::NoTar(_))), "{result:?}");
    }
}

#[test]
fn headers_without_end_are_refused() {
    let name = [header("", EntryType::GNULongName, 1).as_bytes(), &[b'x'; 512][..]].concat();
    let result = names(&name.repeat(5)[..]);
    assert!(matches!(result, Err(Error::NoTar(_))), "{result:?}");
}

#[test]
fn sizes_that_are_no_numbers_are_refused() {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("size", &b"99999999999999999999"[..])]).unwrap();
    let pax = builder.into_inner().unwrap();
    let mut octal = header("a", EntryType::Regular, 0);
    octal.as_old_mut().size = *b"zzzzzzzzzzzz";
    octal.set_cksum();
    let mut binary = header("a", EntryType::Regular, 0);
    binary.as_old_mut().size = [0xff; 12];
    binary.set_cksum();
    for archive in [&pax[..], octal.as_bytes(), binary.as_bytes()] {
        assert!(names(archive).is_err());
    }
}

#[test]
fn sparse_files_in_pax_headers_are_refused() {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    builder.append(&header("a", EntryType::Regular, 0), io::empty()).unwrap();
    let result = names(&builder.into_inner().unwrap()[..]);
    assert!(matches!(result, Err(Error::Hostile { .. })), "{result:?}");
}

#[test]
fn names_are_made_plain() {
    assert_eq!(plain(b"./checkpoint//a.img").unwrap(), "checkpoint/a.img");
    assert_eq!(plain(b"./").unwrap(), "");
    for bad in [&b"/a"[..], b"a/../../b", b"\xff", b"a\nb", &[b'a'; 5000]] {
        assert!(plain(bad).is_err());
    }
}
