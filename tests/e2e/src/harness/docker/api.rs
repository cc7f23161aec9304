//! What trials ask dockerd again and again, without starting a client for each question:
//! half of the suite's time went into those.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::super::failure::{During, Failure, Outcome};
use super::super::slot::Slot;
use super::super::wait::patient;
use super::LONGEST;

const SOCKET: &str = "/run/docker.sock";
/// Of the pieces that stdout and stderr come in, unless they are a terminal's.
const PIECES: &str = "application/vnd.docker.multiplexed-stream";
const PIECE_HEAD: usize = 8;

pub(super) struct Api<'s>(pub(super) &'s Slot);

impl Api<'_> {
    #[track_caller]
    pub(super) fn get(&self, path: &str) -> Outcome<Value> {
        let (_, body) = self.call("GET", path)?;
        Ok(serde_json::from_slice(&body)?)
    }

    #[track_caller]
    pub(super) fn post(&self, path: &str) -> Outcome {
        self.call("POST", path).map(drop)
    }

    #[track_caller]
    pub(super) fn delete(&self, path: &str) -> Outcome {
        self.call("DELETE", path).map(drop)
    }

    /// Stdout and stderr of a container.
    #[track_caller]
    pub(super) fn logs(&self, container: &str) -> Outcome<String> {
        let (head, body) =
            self.call("GET", &format!("/containers/{container}/logs?stdout=true&stderr=true"))?;
        let text = if head.contains(PIECES) { joined(&body) } else { body };
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) fn answers(&self) -> bool {
        self.call("GET", "/_ping").is_ok()
    }

    /// In HTTP 1.0 an answer comes in one piece, and ends with the connection.
    #[track_caller]
    fn call(&self, method: &str, path: &str) -> Outcome<(String, Vec<u8>)> {
        let what = || format!("{method} {path}");
        let mut stream = UnixStream::connect(self.0.outside(SOCKET)).during(what)?;
        stream.set_read_timeout(Some(patient(LONGEST)))?;
        write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").during(what)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).during(what)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.ok_or_else(|| Failure::new(format!("{method} {path}: no answer")))?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            let text = String::from_utf8_lossy(&body);
            return Err(Failure::new(format!("{method} {path}: {status}: {}", text.trim())));
        }
        Ok((head, body))
    }
}

/// Each piece follows its stream's number and its length.
fn joined(mut pieces: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some((head, rest)) = pieces.split_at_checked(PIECE_HEAD) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (piece, rest) = rest.split_at(length.min(rest.len()));
        text.extend(piece);
        pieces = rest;
    }
    text
}
