//! A registry of images, as little as containerd needs to push and to pull: everything in
//! memory, on a port of a slot's loopback device, which containerd asks without TLS.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::net::{Shutdown, shutdown};
use serde_json::Value;

use super::super::failure::{During, Failure, Outcome};
use super::super::image::digest;
use super::super::slot::{BASE, Slot};

/// Where it is found, in every slot that it serves.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";

/// The guest's image, as it is called there.
pub(crate) const PUBLISHED: &str = "127.0.0.1:5000/guest:1";

#[derive(Default)]
pub(crate) struct Registry {
    content: Shelf,
    doors: Mutex<Vec<TcpListener>>,
}

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    /// The digest of what a name and a tag stand for.
    tags: HashMap<String, String>,
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
}

struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn plain(status: &'static str) -> Self {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }
}

impl Registry {
    /// One that has the guest's image, for a slot.
    pub(crate) fn serve(slot: &Slot) -> Outcome<Self> {
        let registry = Registry::default();
        registry.content.publish_guest()?;
        registry.serve_also(slot)?;
        Ok(registry)
    }

    /// The same one, for another slot.
    pub(crate) fn serve_also(&self, slot: &Slot) -> Outcome {
        let listener = slot.in_network(|| Ok(TcpListener::bind(REGISTRY)?)).during(|| REGISTRY.into())?;
        let door = listener.try_clone()?;
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).push(door);
        let content = self.content.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let content = content.clone();
                thread::spawn(move || content.converse(stream));
            }
        });
        Ok(())
    }
}

/// The next scenario may want the port.
impl Drop for Registry {
    fn drop(&mut self) {
        for door in self.doors.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Ends the wait for the next one who comes.
            let _ = shutdown(&door, Shutdown::Both);
        }
    }
}

impl Shelf {
    fn publish_guest(&self) -> Outcome {
        let mut archive = tar::Archive::new(File::open(format!("{BASE}/image.tar"))?);
        let mut content = self.lock();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if entry.path()?.ends_with("index.json") {
                let index: Value = serde_json::from_slice(&bytes)?;
                let manifest = index["manifests"][0]["digest"].as_str().unwrap_or_default();
                content.tags.insert("guest:1".into(), manifest.into());
            } else {
                content.blobs.insert(digest(&bytes), bytes);
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers until the client is gone.
    fn converse(&self, stream: TcpStream) -> Outcome {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let request = match read_request(&mut reader) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                // Whoever tries TLS first learns by this that there is none.
                Err(_) => return Ok((&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?),
            };
            let answer = self.answer(&request).unwrap_or(Answer::plain("404 Not Found"));
            let mut head = format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
            for (name, value) in &answer.headers {
                head += &format!("{name}: {value}\r\n");
            }
            let body = if request.method == "HEAD" { &[][..] } else { &answer.body };
            (&stream).write_all(&[format!("{head}\r\n").as_bytes(), body].concat())?;
        }
    }

    fn answer(&self, request: &Request) -> Option<Answer> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let path = path.strip_prefix("/v2/")?;
        if path.is_empty() {
            return Some(Answer::plain("200 OK"));
        }
        let (name, what) = path.split_once("/blobs/").or_else(|| path.split_once("/manifests/"))?;
        let is_manifest = path.contains("/manifests/");
        match request.method.as_str() {
            "GET" | "HEAD" => self.found(name, what),
            "POST" => Some(Answer {
                status: "202 Accepted",
                headers: vec![("Location", format!("/v2/{name}/blobs/uploads/one"))],
                body: Vec::new(),
            }),
            "PUT" => {
                let stored = digest(&request.body);
                if !is_manifest && query.replace("%3A", ":") != format!("digest={stored}") {
                    return Some(Answer::plain("400 Bad Request"));
                }
                let mut content = self.lock();
                content.blobs.insert(stored.clone(), request.body.clone());
                if is_manifest {
                    content.tags.insert(format!("{name}:{what}"), stored.clone());
                }
                let headers = vec![("Docker-Content-Digest", stored)];
                Some(Answer { status: "201 Created", headers, body: Vec::new() })
            }
            _ => None,
        }
    }

    fn found(&self, name: &str, what: &str) -> Option<Answer> {
        let content = self.lock();
        let digest = content.tags.get(&format!("{name}:{what}")).cloned().unwrap_or_else(|| what.into());
        let body = content.blobs.get(&digest)?.clone();
        let parsed: Option<Value> = serde_json::from_slice(&body).ok();
        let kind = parsed.as_ref().and_then(|value| value["mediaType"].as_str());
        let kind = kind.unwrap_or("application/octet-stream").to_owned();
        let headers = vec![("Content-Type", kind), ("Docker-Content-Digest", digest)];
        Some(Answer { status: "200 OK", headers, body })
    }
}

/// None at the end.
fn read_request(reader: &mut impl BufRead) -> Outcome<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(Failure::new(format!("no request: {line:?}")));
    };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path, body }))
}
